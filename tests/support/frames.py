"""IP packets, records and traffic of TCP and UDP, made and split by plain steps without threepipe."""

import random
import socket
import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

import pytest

from tests.support.rfc1071 import naive_checksum


class Kind(NamedTuple):
    gso_type: int
    version: int
    protocol: int
    field: int
    """The offset of the checksum in the transport header."""


TCP4, TCP6 = Kind(1, 4, 6, 16), Kind(4, 6, 6, 16)
UDP4, UDP6 = Kind(5, 4, 17, 6), Kind(5, 6, 17, 6)
KINDS = [TCP4, TCP6, UDP4, UDP6]
EACH_KIND = pytest.mark.parametrize("kind", KINDS, ids=["tcp4", "tcp6", "udp4", "udp6"])
EACH_TCP = pytest.mark.parametrize("kind", [TCP4, TCP6], ids=["tcp4", "tcp6"])
EACH_UDP = pytest.mark.parametrize("kind", [UDP4, UDP6], ids=["udp4", "udp6"])
EACH_IPV4 = pytest.mark.parametrize("kind", [TCP4, UDP4], ids=["tcp4", "udp4"])
EACH_IPV6 = pytest.mark.parametrize("kind", [TCP6, UDP6], ids=["tcp6", "udp6"])

NEEDS_CSUM = 1
FIN, SYN, RST, PSH, ACK, URG, ECE, CWR = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20, 0x40, 0x80
MORE_FRAGMENTS, DONT_FRAGMENT, RESERVED = 0x2000, 0x4000, 0x8000
"""Bits of the fragment field in the IPv4 header."""

ADDRESSES = {4: ("10.0.0.1", "10.0.0.2"), 6: ("fd00::1", "fd00::2")}


# Packets.


def pseudo_header(packet: bytes, start: int, protocol: int) -> bytes:
    if packet[0] >> 4 == 4:
        return packet[12:20] + struct.pack("!BBH", 0, protocol, len(packet) - start)
    return packet[8:40] + struct.pack("!IHBB", len(packet) - start, 0, 0, protocol)


def with_field(packet: bytes, offset: int, value: int) -> bytes:
    return packet[:offset] + value.to_bytes(2, "big") + packet[offset + 2 :]


def with_bits(packet: bytes, offset: int, bits: int) -> bytes:
    """Return the packet with these bits of one byte flipped."""
    return packet[:offset] + bytes([packet[offset] ^ bits]) + packet[offset + 1 :]


def completed(packet: bytes, start: int, kind: Kind) -> bytes:
    """Return the packet with the right transport checksum, which is never 0 for UDP."""
    blank = with_field(packet, start + kind.field, 0)
    checksum = naive_checksum(pseudo_header(blank, start, kind.protocol) + blank[start:])
    return with_field(blank, start + kind.field, checksum or (0xFFFF if kind.protocol == 17 else 0))


def opened(packet: bytes, start: int, kind: Kind) -> bytes:
    """Return the packet with an open checksum: the field holds the sum of the pseudo-header."""
    return with_field(packet, start + kind.field, naive_checksum(pseudo_header(packet, start, kind.protocol)) ^ 0xFFFF)


def summing_to_zero(packet: bytes, start: int, kind: Kind) -> bytes:
    """Return the packet with other data whose right transport checksum is 0; it needs 2 bytes of data.

    The field then holds 0, which UDP does not use: both 0 and 0xFFFF are right to a receiver that sums.
    """
    packet = with_field(packet, len(packet) - 2 - len(packet) % 2, 0)
    packet = completed(packet, start, kind)
    checksum = int.from_bytes(packet[start + kind.field : start + kind.field + 2], "big")
    packet = with_field(packet, len(packet) - 2 - len(packet) % 2, checksum % 0xFFFF)
    return with_field(packet, start + kind.field, 0)


def header_summing_to_zero(packet: bytes) -> bytes:
    """Return the IPv4 packet with another identification, whose right header checksum is 0."""
    packet = with_field(with_field(packet, 4, 0), 10, 0)
    return with_field(packet, 4, naive_checksum(packet[:20]))


def network_size(kind: Kind, middle: bytes = b"") -> int:
    return (20 if kind.version == 4 else 40) + len(middle)


def ip(
    kind: Kind,
    transport: bytes,
    identification: int = 0x1234,
    middle: bytes = b"",
    *,
    tos: int = 2,
    fragment: int = DONT_FRAGMENT,
    ttl: int = 64,
    label: int = 0x12345,
    addresses: tuple[str, str] | None = None,
    protocol: int | None = None,
) -> bytes:
    """Return an IP packet; `middle` is IPv4 options or an IPv6 extension header."""
    if protocol is None:
        protocol = 0 if middle and kind.version == 6 else kind.protocol
    family = socket.AF_INET if kind.version == 4 else socket.AF_INET6
    ends = b"".join([socket.inet_pton(family, address) for address in addresses or ADDRESSES[kind.version]])
    if kind.version == 4:
        size = 20 + len(middle)
        header = struct.pack(
            *("!BBHHHBBH", 0x40 + size // 4, tos, size + len(transport), identification, fragment, ttl, protocol, 0),
        )
        header += ends + middle
        return with_field(header, 10, naive_checksum(header)) + transport
    first = 6 << 28 | tos << 20 | label
    return struct.pack("!IHBB", first, len(middle) + len(transport), protocol, ttl) + ends + middle + transport


def tcp(
    payload: bytes,
    sequence: int = 1000,
    flags: int = ACK,
    options: bytes = b"",
    *,
    acknowledgment: int = 77,
    window: int = 512,
    urgent: int = 0,
    reserved: int = 0,
    ports: tuple[int, int] = (443, 50000),
) -> bytes:
    size = (20 + len(options)) // 4 << 4 | reserved
    fields = (*ports, sequence, acknowledgment, size, flags, window, 0, urgent)
    return struct.pack("!HHIIBBHHH", *fields) + options + payload


def udp(payload: bytes, ports: tuple[int, int] = (443, 50000)) -> bytes:
    return struct.pack("!HHHH", *ports, 8 + len(payload), 0) + payload


OF_IP = frozenset({"tos", "fragment", "ttl", "label", "addresses", "protocol", "identification", "middle"})


def frame(kind: Kind, payload: bytes = b"abcd", **fields: Any) -> bytes:
    """Return a packet with right checksums; `fields` are keywords of `ip` and `tcp`; UDP takes `ports` only."""
    network = {name: value for name, value in fields.items() if name in OF_IP}
    others = {name: value for name, value in fields.items() if name not in OF_IP}
    if kind.protocol == 6:
        transport = tcp(payload, **others)
    else:
        transport = udp(payload, **{name: value for name, value in others.items() if name == "ports"})
    packet = ip(kind, transport, **network)
    return completed(packet, len(packet) - len(transport), kind)


def frames(kind: Kind, payloads: Sequence[bytes], **fields: Any) -> list[bytes]:
    """Return packets of one flow with consecutive sequence numbers and identifications."""
    sequence, identification = fields.pop("sequence", 1000), fields.pop("identification", 0x1234)
    packets = []
    for index, payload in enumerate(payloads):
        number = (identification + index) % 0x10000
        packets.append(frame(kind, payload, sequence=sequence, identification=number, **fields))
        sequence = (sequence + len(payload)) % 2**32
    return packets


def icmp(version: int, payload: bytes = b"a word about something") -> bytes:
    """Return an echo request without a checksum, which no code under test should check."""
    kind = TCP4 if version == 4 else TCP6
    return ip(kind, bytes([8 if version == 4 else 128, 0]) + bytes(6) + payload, protocol=1 if version == 4 else 58)


# Records.


def record(
    packet: bytes | bytearray,
    *,
    flags: int = 0,
    gso_type: int = 0,
    hdr_len: int = 0,
    size: int = 0,
    start: int = 0,
    field: int = 0,
) -> memoryview:
    return memoryview(bytearray(struct.pack("=BBHHHH", flags, gso_type, hdr_len, size, start, field) + packet))


def superpacket(kind: Kind, packet: bytes, size: int, *, start: int = 0, hdr_len: int = 0) -> memoryview:
    start = start or network_size(kind)
    fields = {"gso_type": kind.gso_type, "hdr_len": hdr_len, "size": size, "start": start, "field": kind.field}
    return record(opened(packet, start, kind), flags=NEEDS_CSUM, **fields)


def partial(kind: Kind, packet: bytes) -> memoryview:
    """Return a record with an open checksum, as a kernel gives it."""
    start = network_size(kind)
    return record(opened(packet, start, kind), flags=NEEDS_CSUM, start=start, field=kind.field)


def naive_split(data: bytes) -> list[bytes]:
    """Return the packets of a record, made on copies by plain steps."""
    flags, gso_type, _, size, start, field = struct.unpack("=BBHHHH", data[:10])
    packet = data[10:]
    if gso_type == 0:
        if not flags & NEEDS_CSUM:
            return [packet]
        if start < 20 or start + field + 2 > len(packet):
            return []
        checksum = naive_checksum(packet[start:])
        return [with_field(packet, start + field, 0xFFFF if checksum == 0 and field == 6 else checksum)]
    found = [kind for kind in KINDS if packet and (kind.gso_type, kind.version) == (gso_type, packet[0] >> 4)]
    if not found or found[0].field != field or not flags & NEEDS_CSUM or size == 0:
        return []
    kind = found[0]
    if kind.version == 4 and (start < 20 or start != packet[0] % 16 * 4):
        return []
    if kind.version == 6 and start < 40:
        return []
    rest = packet[start:]
    if len(rest) < (20 if kind.protocol == 6 else 8):
        return []
    length = rest[12] // 16 * 4 if kind.protocol == 6 else 8
    if kind.protocol == 6 and length < 20:
        return []
    header, payload = rest[:length], rest[length:]
    segments: list[bytes] = []
    sequence = int.from_bytes(header[4:8], "big")
    while payload:
        data, payload = payload[:size], payload[size:]
        network, front = packet[:start], header
        if kind.version == 4:
            network = with_field(network, 2, start + length + len(data))
            network = with_field(network, 4, (int.from_bytes(packet[4:6], "big") + len(segments)) % 0x10000)
            network = with_field(network, 10, 0)
            network = with_field(network, 10, naive_checksum(network))
        else:
            network = with_field(network, 4, start + length + len(data) - 40)
        if kind.protocol == 6:
            bits = header[13]
            if payload:
                bits &= 0b11110110
            if segments:
                bits &= 0b01111111
            front = header[:4] + sequence.to_bytes(4, "big") + header[8:13] + bytes([bits]) + header[14:]
            sequence = (sequence + len(data)) % 0x1_0000_0000
        else:
            front = with_field(header, 4, 8 + len(data))
        segments.append(completed(network + front + data, start, kind))
    return segments


def kind_of(packet: bytes) -> Kind | None:
    """Return the kind of the packet if TCP or UDP follows an IP header without options and fragments, else None."""
    version = packet[0] >> 4 if packet else 0
    if version == 4 and len(packet) >= 20 and packet[0] % 16 == 5 and not int.from_bytes(packet[6:8], "big") % 0x4000:
        protocol = packet[9]
    elif version == 6 and len(packet) >= 40:
        protocol = packet[6]
    else:
        return None
    found = [kind for kind in KINDS if (kind.version, kind.protocol) == (version, protocol)]
    return found[0] if found and len(packet) >= network_size(found[0]) + 8 else None


def header_size(kind: Kind, packet: bytes) -> int:
    """Return the size of all headers, in bytes."""
    start = network_size(kind)
    return start + (packet[start + 12] // 16 * 4 if kind.protocol == 6 else 8)


def naive_merge(kind: Kind, packets: Sequence[bytes]) -> bytes:
    """Return one record of these packets: headers of the first, payload of all, TCP flags of the last."""
    start = network_size(kind)
    ends = [header_size(kind, packet) for packet in packets]
    whole = packets[0][: ends[0]] + b"".join([packet[end:] for packet, end in zip(packets, ends, strict=True)])
    if kind.version == 4:
        whole = with_field(with_field(whole, 2, len(whole)), 10, 0)
        whole = with_field(whole, 10, naive_checksum(whole[:20]))
    else:
        whole = with_field(whole, 4, len(whole) - 40)
    if kind.protocol == 17:
        whole = with_field(whole, start + 4, len(whole) - start)
    else:
        whole = whole[: start + 13] + packets[-1][start + 13 : start + 14] + whole[start + 14 :]
    return bytes(superpacket(kind, whole, len(packets[0]) - ends[0], hdr_len=ends[0]))


# Traffic.

OPTIONS = [b"", bytes.fromhex("0101080a 11223344 55667788"), bytes.fromhex("0101080a 11223345 55667788"), bytes(40)]
EXTENSIONS = {4: [bytes([0x94, 4, 0, 0]), bytes(40)], 6: [bytes([6, 0, 1, 4, 0, 0, 0, 0])]}


class _Flow:
    """A sender of packets, most of which can be merged."""

    def __init__(self, choose: random.Random, sizes: Sequence[int]) -> None:
        self.kind = choose.choice(KINDS)
        self.size = choose.choice(sizes)
        self.options = choose.choice(OPTIONS[:2])
        self.fragment = choose.choice([0, DONT_FRAGMENT])
        self.ports = choose.choice([(443, 50000), (443, 50001)])
        self.sequence = choose.choice([1000, 2**32 - 20])
        self.identification = choose.choice([1, 0xFFFD])
        self.acknowledgment = 77
        self.calm = choose.choice([128, 128, 2048])

    def next(self, choose: random.Random) -> bytes:
        """Return its next packet; about one in five has something special, or very few if the flow is calm."""
        size = self.size
        fields: dict[str, Any] = {}
        match choose.randrange(self.calm):
            case 0:
                size += choose.choice([1, 2, 4])
            case 1:
                size = 0
            case 2 | 3 | 4:
                size = max(0, size - choose.choice([1, 2, 4]))
            case 5 | 6:
                fields["flags"] = ACK | PSH
            case 7:
                fields["flags"] = choose.randrange(256)
            case 8:
                fields["reserved"] = choose.randrange(16)
            case 9:
                self.acknowledgment += 1
            case 10:
                fields["window"] = 511
            case 11:
                fields["urgent"] = 5
            case 12:
                self.options = choose.choice(OPTIONS)
            case 13:
                self.sequence = (self.sequence + choose.choice([-self.size, 1, 2**31])) % 2**32
            case 14:
                self.identification = (self.identification + choose.choice([-1, 1, 256])) % 0x10000
            case 15:
                fields["fragment"] = self.fragment ^ choose.choice([DONT_FRAGMENT, RESERVED, MORE_FRAGMENTS, 1, 0x1000])
            case 16:
                fields["ttl"] = choose.choice([63, 0, 255])
            case 17:
                fields["tos"] = choose.choice([0, 3, 0x82])
            case 18:
                fields["label"] = choose.choice([0x12344, 0x92345])
            case 19:
                fields["middle"] = choose.choice(EXTENSIONS[self.kind.version])
                fields["protocol"] = choose.choice([self.kind.protocol, 0, 44, 60])
            case 20:
                fields["protocol"] = choose.choice([1, 6, 17, 50, 58, 59])
            case 21:
                self.kind = choose.choice(KINDS)
        payload = bytes(choose.getrandbits(8) for _ in range(min(size, 4))).ljust(size, b"\xa5")
        packet = frame(
            self.kind,
            payload,
            **{
                "sequence": self.sequence,
                "acknowledgment": self.acknowledgment,
                "options": self.options,
                "ports": self.ports,
                "identification": self.identification,
                "fragment": self.fragment,
            }
            | fields,
        )
        self.sequence = (self.sequence + size) % 2**32
        self.identification = (self.identification + 1) % 0x10000
        start = network_size(self.kind)
        match choose.randrange(self.calm):
            case 0:
                place = choose.randrange(len(packet))
                packet = with_bits(packet, place, 1 << choose.randrange(8))
            case 1:
                packet = packet[: choose.randrange(len(packet))]
            case 2:
                packet += bytes(choose.randrange(1, 3))
            case 3:
                packet = with_field(packet, start + self.kind.field, choose.choice([0, 0xFFFF]))
            case 7 if size > 2 and kind_of(packet):
                packet = summing_to_zero(packet, start, self.kind)
                packet = with_field(packet, start + self.kind.field, choose.choice([0, 0xFFFF]))
            case 9 if self.kind.version == 4:
                checksum = int.from_bytes(packet[10:12], "big") + choose.choice([1, -1])
                packet = with_field(packet, 10, checksum % 0x10000)
            case 8 if self.kind.version == 4 and kind_of(packet):
                packet = with_field(header_summing_to_zero(packet), 10, choose.choice([0, 0xFFFF]))
            case 4:
                packet = icmp(self.kind.version)
            case 5:
                packet = choose.choice([b"", b"\x45", b"\x60" + bytes(39), b"\x50" + bytes(60), b"\xff" * 50])
            case 6:
                packet = with_bits(packet, start + 5, 1)  # The length of UDP or the sequence number of TCP.
        return packet


def traffic(choose: random.Random, count: int, sizes: Sequence[int] = (1, 2, 7, 8, 40)) -> list[bytes]:
    """Return `count` packets of up to three flows, in turns or in trains, and other packets among them.

    Each flow chooses one of `sizes` for the payload of most of its packets.
    """
    flows = [_Flow(choose, sizes) for _ in range(choose.choice([1, 1, 2, 3]))]
    flow = flows[0]
    packets = []
    for _ in range(count):
        if choose.randrange(4) == 0:
            flow = choose.choice(flows)
        packets.append(flow.next(choose))
    return packets


def records_of(choose: random.Random, packets: Sequence[bytes]) -> list[bytes]:
    """Return records of the packets; in one case out of three with open checksums, as a kernel's own packets."""
    if choose.randrange(3):
        return [_record_of(choose, packet) for packet in packets]
    return [
        bytes(partial(kind, packet))
        if choose.randrange(32) and (kind := kind_of(packet))
        else _record_of(choose, packet)
        for packet in packets
    ]


def _record_of(choose: random.Random, packet: bytes) -> bytes:
    """Return a record of the packet: mostly complete, at times open, a superpacket, or with a strange vnet header."""
    kind = kind_of(packet)
    match choose.randrange(16):
        case 0 | 1 | 2 if kind:
            return bytes(partial(kind, packet))
        case 3 if kind:
            return bytes(superpacket(kind, packet, choose.choice([1, 2, 8] if len(packet) < 200 else [536, 1448])))
        case 4 if kind:
            return bytes(with_bits(bytes(partial(kind, packet)), choose.randrange(10), 1 << choose.randrange(8)))
        case 5 if kind:
            return with_bits(bytes(superpacket(kind, packet, 64)), choose.randrange(10), 1 << choose.randrange(8))
        case 6:
            fields = {"hdr_len": 9, "size": 9, "start": 20, "field": choose.choice([6, 16])}
            return bytes(record(packet, flags=choose.choice([0, 1, 2, 3]), **fields))
    return bytes(record(packet))


def mss(value: int) -> bytes:
    return struct.pack("!BBH", 2, 4, value)


def syn(kind: Kind, options: bytes, flags: int = SYN, payload: bytes = b"", middle: bytes = b"") -> bytes:
    return frame(
        kind, payload, flags=flags, options=options.ljust(-len(options) % 4 + len(options), b"\0"), middle=middle
    )
