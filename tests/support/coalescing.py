"""Packets and records for `coalesce`, and their expected results."""

from collections.abc import Iterable, Sequence

import pytest
from hypothesis import HealthCheck, settings

from tests.support.frames import Kind, completed, kind_of, naive_merge, network_size, partial
from threepipe.core.fast import coalesce
from threepipe.core.superpacket import HEADER_SIZE, PLAIN_HEADER

AS_RECORDS = pytest.mark.parametrize("as_records", [False, True], ids=["packets", "records"])


def property_of(examples: int) -> settings:
    quiet = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example]
    return settings(derandomize=True, deadline=None, max_examples=examples, suppress_health_check=quiet)


def views(pieces: Iterable[bytes | memoryview]) -> list[memoryview]:
    return [memoryview(bytes(piece)) for piece in pieces]


def contents(pieces: Iterable[memoryview]) -> list[bytes]:
    return [bytes(piece) for piece in pieces]


def plain(packet: bytes) -> bytes:
    return PLAIN_HEADER + packet


def as_left_open(packet: bytes) -> bytes:
    """Return a record of the packet, with an open checksum if the packet's is right."""
    kind = kind_of(packet)
    if kind and len(packet) >= network_size(kind) + kind.field + 2 and completed_again(kind, packet) == packet:
        return bytes(partial(kind, packet))
    return plain(packet)


def completed_again(kind: Kind, packet: bytes) -> bytes:
    return completed(packet, network_size(kind), kind)


def of_packets(packets: Sequence[bytes], udp: bool = True) -> list[bytes]:
    """Coalesce complete packets, and check that records of them, also with open checksums, give the same."""
    found = contents(coalesce(views(packets), False, udp))
    assert contents(coalesce(views(map(plain, packets)), True, udp)) == found
    left_open = contents(coalesce(views(map(as_left_open, packets)), True, udp))
    assert left_open == [view if any(view[:HEADER_SIZE]) else as_left_open(view[HEADER_SIZE:]) for view in found]
    return found


def of_records(records: Iterable[bytes | memoryview], udp: bool = True) -> list[bytes]:
    return contents(coalesce(views(records), True, udp))


def grouped(packets: Sequence[bytes], *sizes: int) -> list[bytes]:
    """Return the records of the packets; each of `sizes` is the number of packets in one record."""
    found, rest = [], list(packets)
    for size in sizes:
        group, rest = rest[:size], rest[size:]
        kind = kind_of(group[0])
        found.append(naive_merge(kind, group) if kind and size > 1 else plain(group[0]))
    assert not rest
    return found
