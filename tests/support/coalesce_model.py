"""A naive model of `coalesce`: its rules for merging, and the naive splitter as a check."""

import struct
from collections.abc import Iterable, Sequence

from tests.support.coalescing import contents, plain, views
from tests.support.frames import (
    ACK,
    NEEDS_CSUM,
    PSH,
    Kind,
    completed,
    header_size,
    kind_of,
    naive_merge,
    naive_split,
    network_size,
    opened,
    with_field,
)
from tests.support.rfc1071 import naive_checksum
from threepipe.core.fast import coalesce, measure, split
from threepipe.core.packet import MAX_PACKET
from threepipe.core.superpacket import HEADER_SIZE, MAX_RECORD

# The naive model: packets are merged if the naive splitter gives them back, and by a handful of rules.


def flow_of(packet: bytes) -> tuple[Kind, bytes] | None:
    kind = kind_of(packet)
    if kind is None:
        return None
    start = network_size(kind)
    return kind, packet[12 if kind.version == 4 else 8 : start + 4]


def is_of_no_flow(packet: bytes) -> bool:
    """Return True if the packet certainly has neither TCP nor UDP inside."""
    if len(packet) >= 20 and packet[0] == 0x45 and not int.from_bytes(packet[6:8], "big") & 0x3FFF:
        return packet[9] not in (6, 17)
    return len(packet) >= 40 and packet[0] >> 4 == 6 and packet[6] in (50, 58, 59)


def may_be_merged(piece: bytes, kind: Kind, udp: bool) -> bool:
    """Return True by the rules about one record; the result of merging is tried separately."""
    flags, gso_type, _, _, start, field = struct.unpack_from("=BBHHHH", piece)
    packet = piece[HEADER_SIZE:]
    at = network_size(kind)
    if gso_type or (kind.protocol == 17 and not udp):
        return False
    if flags & NEEDS_CSUM and (start, field) == (at, kind.field):
        if opened(packet, at, kind) != packet:
            return False
    elif flags & NEEDS_CSUM:  # That of a packet in a datagram.
        in_place = start >= at + 8 and (start - at) % 2 == 0 and start + field + 2 <= len(packet)
        return kind.protocol == 17 and in_place and may_be_merged(plain(naive_split(piece)[0]), kind, udp)
    if kind.version == 4 and with_field(packet, 10, naive_checksum(with_field(packet, 10, 0)[:20])) != packet:
        return False
    if kind.protocol == 6:
        return len(packet) >= at + 20 and packet[at + 12] % 16 == 0 and packet[at + 13] in (ACK, ACK | PSH)
    return True


def has_no_checksum(packet: bytes) -> bool:
    """Return True for a datagram over IPv4 that has no checksum."""
    return len(packet) >= 28 and packet[0] == 0x45 and packet[9] == 17 and not any(packet[26:28])


def meaningful(packet: bytes) -> bytes:
    """Return the packet with a checksum, and without identification and header checksum if it may not be fragmented."""
    if has_no_checksum(packet) and (kind := kind_of(packet)):
        packet = completed(packet, 20, kind)
    if len(packet) >= 20 and packet[0] >> 4 == 4 and packet[6] & 0x40:
        return packet[:4] + packet[6:10] + packet[12:]
    return packet


def is_same_when_split(pieces: Sequence[bytes], kind: Kind) -> bool:
    packets = [packet for piece in pieces for packet in naive_split(piece)]
    if not all(len(packet) > header_size(kind, packet) for packet in packets):
        return False
    if header_size(kind, packets[0]) + sum(len(packet) - header_size(kind, packet) for packet in packets) > MAX_PACKET:
        return False
    if kind.protocol == 17 and (len(packets) > 64 or len(set(map(has_no_checksum, packets))) > 1):
        return False
    whole = naive_merge(kind, packets)
    single = [packet for piece in pieces for packet in naive_split(piece)]
    return list(map(meaningful, naive_split(whole))) == list(map(meaningful, single))


def naive_coalesce(pieces: Iterable[bytes], udp: bool) -> list[bytes]:
    """Coalesce records: try to append every packet to the last record of its flow."""
    runs: list[tuple[Kind | None, list[bytes]]] = []
    last: dict[tuple[Kind, bytes], list[bytes]] = {}
    for piece in pieces:
        flow = flow_of(piece[HEADER_SIZE:])
        if flow is None:
            if not is_of_no_flow(piece[HEADER_SIZE:]):
                last.clear()
            runs.append((None, [piece]))
            continue
        kind, run = flow[0], [*last.get(flow, []), piece]
        if len(run) > 1 and all(may_be_merged(part, kind, udp) for part in run) and is_same_when_split(run, kind):
            last[flow].append(piece)
        else:
            last[flow] = [piece]
            runs.append((kind, last[flow]))
    return [
        naive_merge(kind, [packet for piece in run for packet in naive_split(piece)])
        if kind and len(run) > 1
        else run[0]
        for kind, run in runs
    ]


def by_flow(packets: Iterable[bytes]) -> dict[object, list[bytes]]:
    """Return the packets of each flow in order; packets with an unknown flow are by themselves."""
    found: dict[object, list[bytes]] = {}
    for packet in packets:
        found.setdefault(flow_of(packet), []).append(meaningful(packet))
    return found


def assert_as_the_model(pieces: list[bytes], as_records: bool, udp: bool) -> list[memoryview]:
    """Return the records, after a check of every property against the model."""
    given_pieces = [memoryview(bytearray(piece)) for piece in pieces]
    found = coalesce(given_pieces, as_records, udp)
    assert contents(given_pieces) == pieces
    records = pieces if as_records else [plain(piece) for piece in pieces]
    assert contents(found) == naive_coalesce(records, udp)
    assert len(found) <= len(pieces)
    assert max(map(len, found), default=0) <= max(MAX_RECORD, *map(len, records), 0)
    single = [packet for piece in records for packet in naive_split(piece)]
    assert by_flow(packet for view in found for packet in naive_split(bytes(view))) == by_flow(single)
    assert measure(found)[:2] == measure(views(records))[:2] == (len(single), sum(map(len, single)))
    assert by_flow(contents(split(found))) == by_flow(single)
    return found
