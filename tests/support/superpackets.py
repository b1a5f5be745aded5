"""Superpackets for property tests, and records that contradict themselves."""

import random
from collections.abc import Iterable

from hypothesis import settings
from hypothesis import strategies as st

from tests.support.frames import KINDS, NEEDS_CSUM, Kind, ip, network_size, pseudo_header, record, tcp, udp
from tests.support.rfc1071 import naive_checksum
from threepipe.core.packet import is_packet

WORDS = st.integers(0, 0xFFFF)


def property_of(examples: int) -> settings:
    return settings(derandomize=True, deadline=None, max_examples=examples)


def transport_of(kind: Kind, payload: bytes, sequence: int = 1000) -> bytes:
    return tcp(payload, sequence) if kind.protocol == 6 else udp(payload)


def contents(packets: Iterable[memoryview]) -> list[bytes]:
    return [bytes(packet) for packet in packets]


def assert_right(packet: bytes, start: int, protocol: int) -> None:
    """Check that every length and checksum of the packet is right."""
    assert is_packet(packet)
    if packet[0] >> 4 == 4:
        assert naive_checksum(packet[:start]) == 0
        assert int.from_bytes(packet[2:4], "big") == len(packet)
    else:
        assert int.from_bytes(packet[4:6], "big") == len(packet) - 40
    if protocol == 17:
        assert int.from_bytes(packet[start + 4 : start + 6], "big") == len(packet) - start
        assert packet[start + 6 : start + 8] != bytes(2)
    assert naive_checksum(pseudo_header(packet, start, protocol) + packet[start:]) == 0


# Random superpackets against the naive splitter.


@st.composite
def superpackets(draw: st.DrawFn) -> memoryview:
    """Draw a right vnet header, and a packet with random bytes in all fields that do not affect splitting."""
    kind = draw(st.sampled_from(KINDS))
    start = draw(st.sampled_from([20, 24, 60] if kind.version == 4 else [40, 48, 88]))
    words = draw(st.integers(5, 15)) if kind.protocol == 6 else 2
    size = draw(st.integers(1, 20) | st.integers(1, 1500))
    payload = size * draw(st.integers(0, 8)) + draw(st.integers(1, size))
    packet = bytearray(random.Random(draw(WORDS)).randbytes(start + 4 * words + payload))
    packet[0] = 0x40 + start // 4 if kind.version == 4 else packet[0] & 0x0F | 0x60
    if kind.protocol == 6:
        packet[start + 12] = packet[start + 12] & 0x0F | words << 4
    hdr_len = draw(WORDS)
    flags = draw(st.sampled_from([NEEDS_CSUM, NEEDS_CSUM | 2, 0xFF]))
    return record(
        packet, flags=flags, gso_type=kind.gso_type, hdr_len=hdr_len, size=size, start=start, field=kind.field
    )


# Records that contradict themselves, and records that only seem to.

BASE = {kind: ip(kind, transport_of(kind, b"abcdef")) for kind in KINDS}


def changed(kind: Kind, packet: bytes | None = None, /, **fields: int) -> memoryview:
    """Return a valid superpacket with one change."""
    right = {
        "flags": NEEDS_CSUM,
        "gso_type": kind.gso_type,
        "size": 2,
        "start": network_size(kind),
        "field": kind.field,
    }
    return record(BASE[kind] if packet is None else packet, **right | fields)


def with_byte(kind: Kind, offset: int, value: int) -> bytes:
    return BASE[kind][:offset] + bytes([value]) + BASE[kind][offset + 1 :]


HOSTILE = st.builds(
    lambda first, rest, **fields: record(first + rest, **fields),
    st.sampled_from([b"", b"\x45", b"\x46", b"\x60", b"\x4f", b"\x40"]),
    st.binary(max_size=100) | st.sampled_from([bytes(100), b"\x50" * 120, b"\xff" * 120]),
    flags=st.sampled_from([NEEDS_CSUM, 0]) | st.integers(0, 255),
    gso_type=st.sampled_from([1, 4, 5, 0, 0x81]) | st.integers(0, 255),
    hdr_len=WORDS,
    size=st.sampled_from([1, 0, 7, 0xFFFF]) | WORDS,
    start=st.sampled_from([20, 40, 24, 0, 60]) | st.integers(0, 130) | WORDS,
    field=st.sampled_from([6, 16]) | st.integers(0, 130) | WORDS,
)
