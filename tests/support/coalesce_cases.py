"""Packets that hide their flow, and assertions about packets that must stay single."""

from typing import Any

from tests.support.coalescing import contents, grouped, of_packets, of_records, plain
from tests.support.frames import (
    DONT_FRAGMENT,
    MORE_FRAGMENTS,
    TCP4,
    TCP6,
    UDP4,
    UDP6,
    Kind,
    frame,
    frames,
    icmp,
    naive_merge,
    partial,
    with_bits,
    with_field,
)


def third(kind: Kind, payload: bytes = b"abcd", **fields: Any) -> bytes:
    """Return the third of a train of packets."""
    return frame(kind, payload, sequence=1008, identification=0x1236, **fields)


def around_the_third(kind: Kind, **fields: Any) -> list[bytes]:
    """Return a train with 12 packets before and after that one: so many may be processed at once."""
    return frames(kind, [b"abcd"] * 25, sequence=1008 - 4 * 12, identification=0x1236 - 12, **fields)


# Packets with an unknown flow end all runs; packets of no flow end none.


def barriers() -> dict[str, bytes]:
    far: dict[str, Any] = {"addresses": ("192.0.2.1", "192.0.2.2")}
    far6: dict[str, Any] = {"addresses": ("2001:db8::1", "2001:db8::2")}
    found = {
        "more fragments": frame(UDP4, fragment=MORE_FRAGMENTS, **far),
        "more fragments, of tcp": frame(TCP4, fragment=MORE_FRAGMENTS | DONT_FRAGMENT, **far),
        "more fragments, of icmp": with_field(icmp(4), 6, MORE_FRAGMENTS),
        "the shortest offset": frame(UDP4, fragment=1, **far),
        "the longest offset": frame(UDP4, fragment=0x1FFF, **far),
        "an offset of 256 units": frame(TCP4, fragment=DONT_FRAGMENT | 0x100, **far),
        "options": frame(TCP4, middle=bytes([0x94, 4, 0, 0]), **far),
        "all options": frame(UDP4, middle=bytes(40), **far),
        "no options, but too short a header": with_bits(frame(UDP4, **far), 0, 1),
        "7 bytes of udp": frame(UDP4, **far)[:27],
        "7 bytes of tcp": frame(TCP4, **far)[:27],
        "an IPv4 header alone": frame(TCP4, **far)[:20],
        "half an IPv4 header": icmp(4)[:19],
        "7 bytes of udp, of IPv6": frame(UDP6, **far6)[:47],
        "an IPv6 header alone": frame(TCP6, **far6)[:40],
        "half an IPv6 header": icmp(6)[:39],
        "another version": b"\x55" + frame(TCP4)[1:],
        "an empty packet": b"",
        "noise": b"\xff" * 60,
    }
    for protocol in (0, 43, 44, 51, 60, 135, 41, 4, 132, 255):
        found[f"IPv6 with next header {protocol}"] = frame(TCP6, protocol=protocol, **far6)
    return found


BARRIERS = barriers()


NO_BARRIERS = {
    "icmp": icmp(4),
    "icmpv6": icmp(6),
    "icmp, cut short": icmp(4)[:20],
    "icmpv6, cut short": icmp(6)[:40],
    **{f"IPv4 with protocol {protocol}": frame(TCP4, protocol=protocol) for protocol in (0, 4, 41, 47, 50, 51, 132)},
    **{f"IPv6 with next header {protocol}": frame(TCP6, protocol=protocol) for protocol in (50, 58, 59)},
}


# Packets with wrong checksums and lengths stay as they are.


def assert_alone(wrong: bytes, kind: Kind) -> None:
    """Check that a packet in third place of a train stays unchanged and single, and that order is kept."""
    packets = frames(kind, [b"abcd"] * 5)
    packets[2] = wrong
    assert of_packets(packets) == grouped(packets, 2, 1, 2)
    assert of_packets(packets[2:]) == grouped(packets[2:], 1, 2)
    assert of_packets([packets[1], wrong]) == grouped([packets[1], wrong], 1, 1)
    assert of_packets([wrong, wrong]) == grouped([wrong, wrong], 1, 1)
    train = around_the_third(kind)
    train[12] = wrong
    assert of_packets(train) == grouped(train, 12, 1, 12)
    train[:12] = [wrong] * 12
    assert of_packets(train) == grouped(train, *[1] * 13, 12)
    assert of_packets([wrong] * 20) == grouped([wrong] * 20, *[1] * 20)


def assert_record_alone(wrong: memoryview, kind: Kind) -> None:
    packets = frames(kind, [b"abcd"] * 5)
    for others in ([bytes(partial(kind, packet)) for packet in packets], [plain(packet) for packet in packets]):
        records = [*others[:2], bytes(wrong), *others[3:]]
        merged = [naive_merge(kind, packets[:2]), bytes(wrong), naive_merge(kind, packets[3:])]
        assert of_records(records) == merged
        assert of_records(records[2:]) == merged[1:]
        assert of_records([wrong, wrong]) == contents([wrong, wrong])
    train = around_the_third(kind)
    records = [bytes(partial(kind, packet)) for packet in train]
    records[12] = bytes(wrong)
    merged = [naive_merge(kind, train[:12]), bytes(wrong), naive_merge(kind, train[13:])]
    assert of_records(records) == merged
    records[:12] = [bytes(wrong)] * 12
    assert of_records(records) == [bytes(wrong)] * 13 + merged[2:]
    assert of_records([wrong] * 20) == [bytes(wrong)] * 20
