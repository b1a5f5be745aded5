"""Runs of mixed packets: trains of one flow, which may be coalesced, and single packets of every sort among them."""

import random
import struct
from collections.abc import Iterator
from typing import NamedTuple

from tests.support.frames import (
    ACK,
    CWR,
    DONT_FRAGMENT,
    ECE,
    FIN,
    KINDS,
    MORE_FRAGMENTS,
    PSH,
    RST,
    SYN,
    TCP4,
    UDP4,
    URG,
    Kind,
    frame,
    frames,
    ip,
    network_size,
    with_bits,
)

__all__ = ["Run", "runs"]

_TIMESTAMPS = b"\1\1\x08\x0a" + bytes(range(8))
_OTHER_PROTOCOLS = (1, 2, 41, 47, 50, 58, 89, 132, 253)
"""ICMP, IGMP, IPv6 in IP, GRE, ESP, ICMPv6, OSPF, SCTP, and one for experiments."""
_FLAGS = (FIN, SYN, RST, PSH, URG, ECE, CWR)
_PAD = b"\1\4" + bytes(4)  # PadN (RFC 8200, section 4.2).


class Run(NamedTuple):
    """Packets to send at once, and the same by flow."""

    packets: list[bytes]
    flows: list[list[bytes]]


def runs(seed: int, count: int, mtu: int) -> Iterator[Run]:
    """Yield runs of packets of 20 to `mtu` bytes, the same for the same seed; in half of them the flows take turns."""
    chance = random.Random(seed)
    for _ in range(count):
        kinds = chance.choices((_train, _single, _other, _fragment), (2, 1, 1, 1), k=chance.randrange(1, 13))
        flows = [kind(chance, mtu) for kind in kinds]
        turns = [index for index, flow in enumerate(flows) for _ in flow]
        if chance.random() < 0.5:
            chance.shuffle(turns)
        rest = [iter(flow) for flow in flows]
        yield Run([next(rest[index]) for index in turns], flows)


def _train(chance: random.Random, mtu: int) -> list[bytes]:
    """Return packets of one flow in a row; all but the last have one size, in most trains."""
    kind = chance.choice(KINDS)
    room = mtu - network_size(kind) - 32
    size = chance.choice((chance.randrange(1, room + 1), room, 1))
    sizes = [size] * chance.randrange(1, 20) + [chance.randrange(size + 1)]
    if chance.random() < 0.2:
        sizes[chance.randrange(len(sizes))] = chance.randrange(room + 1)
    fields: dict[str, int | bytes | tuple[int, int]] = {
        "sequence": chance.randrange(1 << 32),
        "identification": chance.randrange(1 << 16),
        "fragment": chance.choice((0, DONT_FRAGMENT)),
        "ports": (chance.randrange(1 << 16), chance.randrange(1 << 16)),
        "options": chance.choice((b"", _TIMESTAMPS)),
        "tos": chance.randrange(256),
    }
    return frames(kind, [chance.randbytes(size) for size in sizes], **fields)


def _single(chance: random.Random, mtu: int) -> list[bytes]:
    """Return one packet of TCP or UDP with fields that stand in the way of coalescing, perhaps with a fault."""
    kind = chance.choice(KINDS)
    middle = b""
    if chance.random() < 0.4:
        middle = b"\1" * 4 if kind.version == 4 else bytes([kind.protocol, 0]) + _PAD  # An option, or an extension.
    payload = chance.randbytes(chance.randrange(mtu - network_size(kind, middle) - 20 + 1))
    flags = ACK | (chance.choice(_FLAGS) if chance.random() < 0.7 else 0)
    ports = chance.randrange(1 << 16), chance.randrange(1 << 16)
    more = {"ttl": chance.randrange(1, 256), "urgent": chance.randrange(9), "tos": chance.randrange(256)}
    packet = frame(kind, payload, middle=middle, flags=flags, ports=ports, **more)
    if chance.random() < 0.2:  # A wrong checksum, or damage that a checksum shows.
        packet = with_bits(packet, chance.randrange(network_size(kind, middle), len(packet)), 1 << chance.randrange(8))
    return [packet]


def _other(chance: random.Random, mtu: int) -> list[bytes]:
    """Return one packet of another protocol, perhaps behind extension headers."""
    kind = chance.choice(KINDS)
    protocol = chance.choice(_OTHER_PROTOCOLS)
    middle = b""
    if kind.version == 6 and chance.random() < 0.5:  # Hop-by-hop options, then options for the destination.
        middle = bytes([60, 0]) + _PAD + bytes([protocol, 0]) + _PAD
        protocol = 0
    payload = chance.randbytes(chance.randrange(mtu - network_size(kind, middle) + 1))
    return [ip(kind, payload, chance.randrange(1 << 16), middle, protocol=protocol)]


def _fragment(chance: random.Random, mtu: int) -> list[bytes]:
    """Return the fragments of one datagram or segment, not always in order."""
    kind = chance.choice(KINDS)
    identification = chance.randrange(1 << 16)
    size = chance.randrange(8, mtu - network_size(kind) - 8, 8)
    pieces = [chance.randbytes(size), chance.randbytes(chance.randrange(1, size + 1))]
    packets = [_piece(kind, piece, identification, index * size, not index) for index, piece in enumerate(pieces)]
    if chance.random() < 0.5:
        packets.reverse()
    return packets


def _piece(kind: Kind, piece: bytes, identification: int, offset: int, more: bool) -> bytes:
    if kind in (TCP4, UDP4):
        return ip(kind, piece, identification, fragment=offset // 8 | MORE_FRAGMENTS * more)
    header = struct.pack("!BBHI", kind.protocol, 0, offset | more, identification)  # RFC 8200, section 4.5.
    return ip(kind, piece, middle=header, protocol=44)
