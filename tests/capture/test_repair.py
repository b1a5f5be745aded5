"""Packets that were captured on their sender before its network card completed them."""

import socket
import struct
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import threepipe
from tests.support.captures import ETHERNET, MACS, PACKETS, RAW, ether_type, pcap, reader
from tests.support.frames import (
    ACK,
    ADDRESSES,
    CWR,
    EACH_IPV4,
    EACH_KIND,
    EACH_TCP,
    FIN,
    MORE_FRAGMENTS,
    PSH,
    SYN,
    TCP4,
    TCP6,
    UDP4,
    UDP6,
    Kind,
    completed,
    frame,
    icmp,
    ip,
    naive_split,
    network_size,
    opened,
    superpacket,
    tcp,
    with_field,
)
from tests.support.kernel import Network
from tests.support.rfc1071 import naive_checksum
from tests.support.superpackets import assert_right
from threepipe.capture.reader import CaptureReader
from threepipe.capture.repair import Repairs
from threepipe.core.packet import is_packet
from threepipe.endpoints import open_endpoint


def repaired(*frames: bytes, link: int = RAW) -> tuple[list[bytes], Repairs]:
    found = reader(pcap("<", frames, link), repair=True)
    packets = [bytes(captured.packet) for captured in found]
    return packets, found.repairs


def in_ethernet(packet: bytes) -> bytes:
    return MACS + ether_type(packet) + packet


def without_length(packet: bytes) -> bytes:
    return with_field(packet, 2 if packet[0] >> 4 == 4 else 4, 0)


def segments(kind: Kind, packet: bytes, size: int) -> list[bytes]:
    return naive_split(bytes(superpacket(kind, packet, size)))


def test_complete_packets_are_left_as_they_are() -> None:
    packets = [*PACKETS, frame(UDP4), frame(TCP6), icmp(4), icmp(6), frame(TCP4, b"", flags=SYN)]
    assert repaired(*packets) == (packets, Repairs())


@EACH_KIND
@pytest.mark.parametrize("payload", [b"", b"odd", bytes(range(250)) * 4])
def test_a_checksum_with_the_sum_of_the_pseudo_header_is_completed(kind: Kind, payload: bytes) -> None:
    right = frame(kind, payload)
    assert repaired(opened(right, network_size(kind), kind)) == ([right], Repairs(checksums=1))


@EACH_KIND
def test_a_checksum_with_that_sum_without_the_length_is_completed(kind: Kind) -> None:
    right = frame(kind)
    start = network_size(kind)
    addresses = right[12:20] if kind.version == 4 else right[8:40]
    unsized = naive_checksum(addresses + kind.protocol.to_bytes(2, "big")) ^ 0xFFFF
    assert repaired(with_field(right, start + kind.field, unsized)) == ([right], Repairs(checksums=1))


@pytest.mark.parametrize("kind", [TCP4, TCP6, UDP6])
def test_a_checksum_of_zero_is_completed(kind: Kind) -> None:
    right = frame(kind)
    assert repaired(with_field(right, network_size(kind) + kind.field, 0)) == ([right], Repairs(checksums=1))


def test_a_udp_checksum_of_zero_over_ipv4_says_that_there_is_none_and_stays() -> None:
    packet = with_field(frame(UDP4), 26, 0)
    assert repaired(packet) == ([packet], Repairs())


def test_a_udp_checksum_that_would_be_zero_is_written_as_all_ones() -> None:
    start = network_size(UDP4)
    blank = with_field(frame(UDP4, b"ab"), len(frame(UDP4, b"ab")) - 2, 0)
    blank = completed(blank, start, UDP4)
    right = with_field(blank, len(blank) - 2, int.from_bytes(blank[start + 6 : start + 8], "big"))
    found, repairs = repaired(opened(right, start, UDP4))
    assert found == [with_field(right, start + 6, 0xFFFF)]
    assert repairs.checksums == 1


@EACH_IPV4
def test_an_ipv4_header_checksum_of_zero_is_completed(kind: Kind) -> None:
    right = frame(kind)
    assert repaired(with_field(right, 10, 0)) == ([right], Repairs(checksums=1))
    both = with_field(opened(right, 20, kind), 10, 0)
    assert repaired(both) == ([right], Repairs(checksums=1))


@EACH_KIND
@pytest.mark.parametrize("link", [RAW, ETHERNET])
def test_a_length_of_zero_is_filled_in(kind: Kind, link: int) -> None:
    right = frame(kind, bytes(100))
    start = network_size(kind)
    sent = without_length(opened(right, start, kind))
    packets, repairs = repaired(in_ethernet(sent) if link == ETHERNET else sent, link=link)
    assert packets == [right]
    assert repairs == Repairs(checksums=1, lengths=1)


def test_an_ipv6_header_alone_has_the_length_zero() -> None:
    packet = ip(TCP6, b"", protocol=59)
    following = ip(TCP6, b"", protocol=6)
    assert repaired(packet, packet + bytes(6), following) == ([packet, packet + bytes(6), following], Repairs())


@EACH_KIND
def test_another_wrong_checksum_is_counted_and_left(kind: Kind) -> None:
    packet = with_field(frame(kind), network_size(kind) + kind.field, 0x1234)
    assert repaired(packet) == ([packet], Repairs(wrong=1))
    if kind.version == 4:
        packet = with_field(frame(kind), 10, 0x1234)
        assert repaired(packet) == ([packet], Repairs(wrong=1))


def test_fragments_and_packets_that_are_cut_off_are_left() -> None:
    first = frame(UDP4, fragment=MORE_FRAGMENTS)
    opened_fragment = opened(first, 20, UDP4)
    later = ip(TCP4, bytes(64), fragment=5)
    shorter = ip(TCP4, tcp(b"")[:12])
    longer = with_field(ip(TCP4, tcp(b"")), 2, 400)
    packets = [opened_fragment, later, shorter, longer, b"\x41".ljust(20, b"."), b"\x60" + bytes(5) + bytes(40)]
    assert repaired(*packets) == (packets, Repairs())


def test_bytes_behind_a_packet_count_neither_for_it_nor_its_checksum() -> None:
    right = frame(TCP4)
    assert repaired(right + b"more") == ([right + b"more"], Repairs())
    assert repaired(opened(right, 20, TCP4) + b"more") == ([right + b"more"], Repairs(checksums=1))
    shorter = ip(UDP4, frame(UDP4)[20:] + b"more")
    assert repaired(opened(shorter, 20, UDP4))[1].wrong == 1
    assert repaired(shorter) == ([shorter], Repairs())


# Superpackets.


@EACH_TCP
def test_a_superpacket_is_split_into_packets_of_the_usual_mtu(kind: Kind) -> None:
    packet = frame(kind, bytes(range(250)) * 20, flags=ACK | PSH | FIN | CWR, options=bytes([1, 1, 8, 10, *range(8)]))
    size = 1500 - network_size(kind) - 32
    expected = segments(kind, packet, size)
    assert max(map(len, expected)) == 1500
    repairs = Repairs(superpackets=1, segments=len(expected))
    for sent in (packet, opened(packet, network_size(kind), kind)):
        assert repaired(sent) == (expected, repairs)
    repairs.lengths = 1
    assert repaired(in_ethernet(without_length(packet)), link=ETHERNET) == (expected, repairs)


@EACH_TCP
def test_a_long_packet_whose_header_has_no_right_size_stays_whole(kind: Kind) -> None:
    packet = bytearray(frame(kind, bytes(5000)))
    packet[network_size(kind) + 12] = 0x10  # 4 bytes.
    odd = completed(bytes(packet), network_size(kind), kind)
    assert repaired(odd) == ([odd], Repairs())


def test_a_superpacket_is_not_split_if_the_packets_would_be_mostly_headers() -> None:
    headers = b"".join([bytes([60, 255]).ljust(2048, b"\0") for _ in range(7)]) + bytes([6, 0]).ljust(8, b"\0")
    packet = ip(TCP6, tcp(bytes(5000)), middle=headers, protocol=60)
    packet = completed(packet, 40 + len(headers), TCP6)
    assert repaired(packet) == ([packet], Repairs())
    longer = without_length(packet) + bytes(90_000)
    assert repaired(longer) == ([], Repairs())


@EACH_TCP
def test_a_superpacket_is_split_by_the_mss_of_its_connection(kind: Kind) -> None:
    there, others = (1, 2), (1, 3)
    ends = ADDRESSES[kind.version]
    handshake = [
        frame(kind, b"", flags=SYN, ports=there, options=struct.pack("!BBH", 2, 4, 8960)),
        frame(kind, b"", flags=SYN | ACK, ports=(2, 1), addresses=ends[::-1], options=struct.pack("!BBH", 2, 4, 1000)),
        frame(kind, b"", flags=SYN, ports=others, options=struct.pack("!BBH", 2, 4, 8960)),
    ]
    packet, other = frame(kind, bytes(5000), ports=there), frame(kind, bytes(5000), ports=others)
    packets, repairs = repaired(*handshake, packet, other)
    assert packets == [*handshake, *segments(kind, packet, 1000), other]
    assert (repairs.superpackets, repairs.segments) == (1, 5)


def test_a_tiny_mss_does_not_make_millions_of_packets() -> None:
    syn = frame(TCP4, b"", flags=SYN, options=b"\2\4\0\1")
    packets, _ = repaired(syn, frame(TCP4, bytes(60_000), options=bytes(40)))
    assert len(packets) == 1 + 1250


def test_only_the_mss_of_the_last_4096_connections_is_kept() -> None:
    syns = [frame(TCP4, b"", flags=SYN, ports=(1, number), options=b"\2\4\x20\x00") for number in range(1, 4098)]
    packets, repairs = repaired(*syns, frame(TCP4, bytes(5000), ports=(1, 2)), frame(TCP4, bytes(5000), ports=(1, 1)))
    assert len(packets) == len(syns) + 1 + 4
    assert repairs.superpackets == 1


@EACH_TCP
def test_a_superpacket_of_a_connection_without_a_limit_is_split_into_the_longest_packets(kind: Kind) -> None:
    syn = frame(kind, b"", flags=SYN, options=b"\2\4\xff\xff")
    packets, _ = repaired(syn, without_length(frame(kind, b"") + bytes(100_000)))
    assert [len(packet) for packet in packets[1:]] == [65535, 100_000 - 65535 + 2 * (network_size(kind) + 20)]


@pytest.mark.parametrize("jumbo", [False, True])
@EACH_TCP
def test_a_superpacket_longer_than_an_ip_packet_is_split(kind: Kind, jumbo: bool) -> None:
    data = bytes(range(250)) * 600
    size = 1460 if kind.version == 4 else 1440
    pieces = [data[start : start + size] for start in range(0, len(data), size)]
    flags = [ACK | CWR, *[ACK] * (len(pieces) - 2), ACK | FIN]
    expected = [
        frame(kind, piece, sequence=(2**32 - 70_000 + index * size) % 2**32, identification=0xFFF0 + index & 0xFFFF,
              flags=bits)
        for index, (piece, bits) in enumerate(zip(pieces, flags, strict=True))
    ]  # fmt: skip
    first = frame(kind, b"", sequence=2**32 - 70_000, identification=0xFFF0, flags=ACK | CWR | FIN)
    packet = without_length(first + data)
    if jumbo and kind.version == 6:  # RFC 2675.
        option = bytes([packet[6], 0, 0xC2, 4]) + (len(packet) - 32).to_bytes(4, "big")
        packet = packet[:6] + b"\0" + packet[7:40] + option + packet[40:]
    packets, repairs = repaired(in_ethernet(packet), link=ETHERNET)
    assert packets == expected
    assert repairs == Repairs(lengths=1, superpackets=1, segments=len(expected))


def test_other_packets_longer_than_an_ip_packet_are_skipped() -> None:
    packet = without_length(frame(UDP4)) + bytes(70_000)
    jumbo = without_length(ip(UDP6, bytes([17, 0, 0xC2, 4]) + bytes(4), protocol=0)) + bytes(70_000)
    esp = b"\x41" + bytes(70_000)
    found = reader(pcap("<", [packet, jumbo, esp, PACKETS[0]]), repair=True)
    assert [bytes(captured.packet) for captured in found] == [PACKETS[0]]
    assert (found.not_ip, found.repairs) == (3, Repairs())


@pytest.mark.parametrize("kind", [UDP4, UDP6])
def test_a_long_datagram_stays_whole(kind: Kind) -> None:
    right = frame(kind, bytes(5000))
    assert repaired(opened(right, network_size(kind), kind)) == ([right], Repairs(checksums=1))


def test_without_repair_packets_are_read_as_they_are() -> None:
    packets = [opened(frame(TCP4), 20, TCP4), without_length(frame(TCP6, bytes(5000)))]
    found = reader(pcap("<", packets))
    assert [bytes(captured.packet) for captured in found] == packets
    assert found.repairs == Repairs()


@given(st.lists(st.binary(max_size=80) | st.sampled_from([*PACKETS, frame(TCP4, bytes(3000))]), max_size=4), st.data())
def test_any_bytes_give_ip_packets(contents: list[bytes], data: st.DataObject) -> None:
    mutated = []
    for content in contents:
        changed = bytearray(content)
        for _ in range(3 if changed else 0):
            changed[data.draw(st.integers(0, min(len(changed), 80) - 1))] = data.draw(st.integers(0, 255))
        mutated.append(bytes(changed))
    packets, _ = repaired(*mutated)
    assert all(map(is_packet, packets))


# A kernel as sender and receiver.


def captured(stack: ExitStack, send: Callable[[], None]) -> list[bytes]:
    """Return the frames that `send`, called in a host with the address 10.88.0.1, leaves to its card."""
    networks = [Network(), Network()]
    for network in networks:
        stack.callback(network.namespace.close)
    networks[0].run("ip", "link", "add", "v0", "type", "veth", "peer", "v0", "netns", networks[1].path)
    for host, network in enumerate(networks, 1):
        network.run("ip", "address", "add", f"10.88.0.{host}/24", "dev", "v0")
        network.run("ip", "link", "set", "v0", "up")
    sniffer = networks[0].namespace.run(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)))
    with sniffer:
        sniffer.bind(("v0", 3))
        sniffer.settimeout(10)
        listener = networks[1].namespace.run(lambda: socket.create_server(("10.88.0.2", 5000)))
        with listener:
            networks[0].namespace.run(send)
            with listener.accept()[0] as connection:
                while connection.recv(1 << 20):
                    pass
        frames: list[bytes] = []
        while not frames or not frames[-1].endswith(b"the last"):
            data, (_, _, direction, *_) = sniffer.recvfrom(1 << 17)
            frames += [data] if direction == socket.PACKET_OUTGOING else []
    return frames


def send_all() -> None:
    with socket.create_connection(("10.88.0.2", 5000)) as connection:
        connection.sendall(bytes(100_000))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for data in (b"hello", b"the last"):
            sender.sendto(data, ("10.88.0.2", 7000))


def replay_into(session: threepipe.Session, replay: threepipe.Session) -> None:
    try:
        for bundle in replay:
            session.send(bundle)
    except threepipe.EndpointEnded:
        pass


@pytest.mark.kernel
def test_what_was_captured_on_its_sender_is_delivered(network: Network, tmp_path: Path) -> None:
    path = tmp_path / "sent.pcap"
    with ExitStack() as stack:
        path.write_bytes(pcap("<", captured(stack, send_all), ETHERNET))
    with path.open("rb") as file:
        found = CaptureReader(file, "sent.pcap", repair=True)
        packets = [bytes(packet) for _, packet, _ in found]
    assert found.repairs.superpackets
    for packet in packets:
        if packet[0] >> 4 == 4:
            assert len(packet) <= 1500
            assert_right(packet, (packet[0] & 0x0F) * 4, packet[9])

    with (
        threepipe.Adapter.create("tp0", addresses=["10.88.0.2/24"], netns=network.path) as adapter,
        adapter.start_session() as session,
        network.namespace.run(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as receiver,
    ):
        receiver.bind(("10.88.0.2", 7000))
        receiver.settimeout(10)
        for repair in ("off", "on"):
            with open_endpoint(f"pcap:{path},speed=1000000,repair={repair}") as replay:
                replay_into(session, replay)
        received = [receiver.recv(100) for _ in range(2)]
        receiver.setblocking(False)
        with pytest.raises(BlockingIOError):
            receiver.recv(100)
    assert received == [b"hello", b"the last"]
