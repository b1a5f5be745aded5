"""Tunnel superpackets: the records that Linux hands over, and their datagrams, made by plain steps."""

import io
import socket
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from tests.support.frames import (
    KINDS,
    UDP4,
    UDP6,
    Kind,
    completed,
    frame,
    naive_split,
    network_size,
    opened,
    record,
    superpacket,
    with_field,
)
from threepipe.core.superpacket import HEADER_SIZE

VXLAN = bytes.fromhex("08000000 00000700 020000000002 020000000001 0800")
"""The headers of VXLAN and Ethernet."""
_TUNNEL_TYPES = {4: 0x20, 6: 0x40}
_TUNNEL_CSUM = 8

Shape = tuple[Kind, Kind, bool]
SHAPES: list[Shape] = [
    (outer, inner, checked) for outer in (UDP4, UDP6) for inner in KINDS for checked in (True, False)
]
"""The kind outside, the kind inside, and True for datagrams with a checksum."""


class Tunnelled(NamedTuple):
    record: bytes
    """With a wide header."""
    datagrams: list[bytes]


@contextmanager
def wire(*records: bytes | bytearray) -> Iterator[tuple[io.FileIO, socket.socket]]:
    """Yield a file that stands for an adapter with wide headers and hands over `records`, and the network behind it."""
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    near.setblocking(False)
    with io.FileIO(near.detach(), "r+") as file, far:
        for data in records:
            far.send(data)
        yield file, far


def wide(data: bytes | memoryview, transport: int = 0, inner: int = 0) -> bytes:
    """Return a record with a virtio header as one with a wide header and these two offsets."""
    return bytes(data[:HEADER_SIZE]) + struct.pack("<10xHH", transport, inner) + bytes(data[HEADER_SIZE:])


def tunnelled(shape: Shape, payload: bytes, size: int, prefix: bytes = VXLAN, **fields: Any) -> Tunnelled:
    """Return a superpacket in a datagram, as Linux makes it of a stream in a VXLAN."""
    outer, inner, checked = shape
    inside = frame(inner, payload, **fields)
    whole = bytes(superpacket(inner, inside, size))
    front = network_size(outer)
    datagram = frame(outer, prefix + whole[HEADER_SIZE:], fragment=0)
    datagram = opened(datagram, front, outer) if checked else with_field(datagram, front + 6, 0)
    flags, gso_type, _, _, start, field = struct.unpack("=BBHHHH", whole[:HEADER_SIZE])
    inner_place = front + 8 + len(prefix)
    head = record(
        datagram,
        flags=flags | (_TUNNEL_CSUM if checked else 0),
        gso_type=gso_type | _TUNNEL_TYPES[outer.version],
        hdr_len=inner_place + start,
        size=size,
        start=inner_place + start,
        field=field,
    )
    packets = naive_split(whole)
    return Tunnelled(
        wide(head, front, inner_place), datagrams_of(outer, [prefix + packet for packet in packets], checked)
    )


def datagrams_of(outer: Kind, payloads: Sequence[bytes], checked: bool) -> list[bytes]:
    """Return the datagrams of a tunnel, with counted identifications."""
    datagrams = [
        frame(outer, payload, fragment=0, identification=(0x1234 + number) & 0xFFFF)
        for number, payload in enumerate(payloads)
    ]
    front = network_size(outer)
    # Over IPv4 all get a checksum, as the segments of a superpacket have one.
    if checked or outer.version == 4:
        return [completed(datagram, front, outer) for datagram in datagrams]
    return [with_field(datagram, front + 6, 0) for datagram in datagrams]
