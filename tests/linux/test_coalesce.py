"""Coalesced packets, judged by the kernel, which processes superpackets as the packets that they stand for."""

import json
import os
import re
import shutil
import socket
import struct
import subprocess
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from threading import Thread
from typing import Any

import pytest

import threepipe
from tests.support.frames import EACH_KIND, TCP4, TCP6, UDP4, UDP6, Kind, frame, frames, with_bits, with_field
from tests.support.kernel import Network, needs_root, udp_socket
from tests.support.offload_pair import FAMILIES, SIZE, Pair, joined, look_at_every_packet, pass_on, transfer
from tests.support.rfc1071 import naive_checksum
from tests.support.waiting import come_true
from threepipe import Adapter, Bundle, Session
from threepipe.core import fast

pytestmark = pytest.mark.kernel

UDP_GRO = 104  # <linux/udp.h>
PACKET_HOST = 0  # <linux/if_packet.h>
MTU = 1500
KERNEL = tuple(map(int, re.findall(r"\d+", os.uname().release)[:2]))
TAKES_UDP = pytest.mark.skipif(KERNEL < (6, 2), reason="takes Linux 6.2, the first that takes superpackets of UDP")
EACH_FAMILY = pytest.mark.parametrize("prefix", FAMILIES)
UDP_OF = {"10.77.0.": UDP4, "fd77::": UDP6}
TCP_OF = {"10.77.0.": TCP4, "fd77::": TCP6}


def counted(network: Network) -> dict[str, int]:
    """Return the kernel's counts of bad checksums and headers that are not 0, by protocol and name."""
    found: dict[str, int] = {}
    lines = network.run("cat", "/proc/net/snmp", "/proc/net/netstat").splitlines()
    for names, values in zip(lines[::2], lines[1::2], strict=True):
        protocol, *words = names.split()
        for name, value in zip(words, values.split()[1:], strict=True):
            found[protocol.rstrip(":") + name] = int(value)
    for line in network.run("cat", "/proc/net/snmp6").splitlines():
        name, value = line.split()
        found[name] = int(value)
    faults = {name: value for name, value in found.items() if re.search(r"CsumErr|HdrErr", name)}
    assert {"TcpInCsumErrors", "UdpInCsumErrors", "Udp6InCsumErrors", "IpInHdrErrors", "Ip6InHdrErrors"} <= set(faults)
    return {name: value for name, value in faults.items() if value}


def received_packets(network: Network) -> int:
    """Return how many packets the interface has got from its program; a superpacket counts as one."""
    (link,) = json.loads(network.run("ip", "-j", "-s", "link", "show", "tp0"))
    packets: int = link["stats64"]["rx"]["packets"]
    return packets


@contextmanager
def sniffer(network: Network) -> Iterator[socket.socket]:
    """Return a packet socket on the interface; it gets superpackets whole."""
    with network.namespace.run(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW)) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 24)  # As large as the kernel allows.
        sock.bind(("tp0", 3))
        sock.setblocking(False)
        yield sock


def sizes_seen(sock: socket.socket) -> list[int]:
    """Return the sizes of all packets that came from the program."""
    sizes: list[int] = []
    while True:
        try:
            data, address = sock.recvfrom(1 << 17)
        except BlockingIOError:
            return sizes
        if address[2] == PACKET_HOST:
            sizes.append(len(data))


class Host:
    """A network with an adapter, and a session that plays all other hosts: 10.77.0.1 and fd77::1."""

    def __init__(self, stack: ExitStack, prefix: str) -> None:
        self.network = Network()
        stack.callback(self.network.namespace.close)
        adapter = stack.enter_context(
            Adapter.create("tp0", netns=self.network.path, addresses=["10.77.0.2/24", "fd77::2/64"])
        )
        self.session = stack.enter_context(adapter.start_session())
        self.addresses = f"{prefix}1", f"{prefix}2"
        self.socket = stack.enter_context(udp_socket(self.network, f"{prefix}2"))
        self.ports = 7777, int(self.socket.getsockname()[1])
        self.kind = UDP_OF[prefix]
        assert come_true(lambda: adapter.link_up)

    def datagrams(self, payloads: Sequence[bytes]) -> list[bytes]:
        """Return packets with these payloads for the socket of this host."""
        return frames(self.kind, payloads, addresses=self.addresses, ports=self.ports)

    def heard(self, number: int) -> list[bytes]:
        return [self.socket.recv(1 << 16) for _ in range(number)]


@pytest.fixture(params=FAMILIES)
def host(request: pytest.FixtureRequest) -> Iterator[Host]:
    with ExitStack() as stack:
        yield Host(stack, request.param)


# TCP: the kernel segments a stream as it likes, we split its superpackets, and they are coalesced again.


@EACH_FAMILY
def test_a_stream_of_split_packets_arrives_intact_in_superpackets(prefix: str) -> None:
    with ExitStack() as stack:
        pair = Pair(stack)
        sock = stack.enter_context(sniffer(pair.networks[1]))
        with joined(*pair.sessions, look_at_every_packet):
            transfer(pair, prefix)
            sent = pair.sessions[1].statistics.sent_packets
        assert sent > SIZE / MTU
        assert max(sizes_seen(sock)) > 10 * MTU
        assert received_packets(pair.networks[1]) < sent / 4
        assert counted(pair.networks[0]) == counted(pair.networks[1]) == {}


@EACH_FAMILY
def test_many_streams_at_once_arrive_intact(prefix: str) -> None:
    """The packets of these flows are interleaved, in both directions."""
    with ExitStack() as stack:
        pair = Pair(stack)
        faults: list[BaseException] = []

        def run() -> None:
            try:
                transfer(pair, prefix)
            except BaseException as error:
                faults.append(error)

        with joined(*pair.sessions, look_at_every_packet):
            threads = [Thread(target=run) for _ in range(3)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert faults == []
        assert counted(pair.networks[0]) == counted(pair.networks[1]) == {}


@EACH_FAMILY
@pytest.mark.parametrize("move", [pass_on, look_at_every_packet])
def test_a_stream_of_short_writes_arrives_intact(prefix: str, move: Callable[[Session, Session], None]) -> None:
    """Short writes give PSH and segments of all sizes; none is held back or merged wrongly."""
    family = socket.AF_INET6 if ":" in prefix else socket.AF_INET
    pieces = [bytes([index % 251]) * (index * 37 % 3000 + 1) for index in range(300)]
    with ExitStack() as stack:
        pair = Pair(stack)
        listener = stack.enter_context(
            pair.networks[1].namespace.run(lambda: socket.create_server((f"{prefix}2", 0), family=family))
        )
        sender = stack.enter_context(pair.networks[0].namespace.run(lambda: socket.socket(family)))
        listener.settimeout(30)
        sender.settimeout(30)
        sender.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with joined(*pair.sessions, move):
            sender.connect(listener.getsockname()[:2])
            receiver, _ = listener.accept()
            receiver.settimeout(30)
            with receiver, ThreadPoolExecutor(1) as executor:
                received = executor.submit(receive_all, receiver)  # Buffers do not hold it all for a slow machine.
                for piece in pieces:
                    sender.sendall(piece)
                sender.shutdown(socket.SHUT_WR)
                assert received.result() == b"".join(pieces)
        assert counted(pair.networks[0]) == counted(pair.networks[1]) == {}


def receive_all(sock: socket.socket) -> bytes:
    """Return everything up to the end of a stream."""
    return b"".join(iter(lambda: sock.recv(1 << 16), b""))


# UDP: datagrams of these tests.


@pytest.mark.parametrize(("size", "number"), [(1, 100), (100, 100), (1000, 60), (1400, 60)])
def test_a_burst_arrives_as_its_datagrams(host: Host, size: int, number: int) -> None:
    payloads = [struct.pack("!H", index)[-size:].ljust(size, b"\xa5") for index in range(number)]
    payloads[-1] = payloads[-1][: size // 2 + 1]
    before = received_packets(host.network)
    assert host.session.send(host.datagrams(payloads)) == number
    assert host.heard(number) == payloads
    assert counted(host.network) == {}
    if KERNEL >= (6, 2):
        # A superpacket has 64 datagrams and 64 KiB at most.
        assert received_packets(host.network) - before <= 2 + number // 64 + size * number // 60_000


@TAKES_UDP
@pytest.mark.parametrize(("size", "number"), [(1, 64), (100, 64), (1000, 60), (1400, 46)])
def test_a_socket_with_udp_gro_receives_a_superpacket(host: Host, size: int, number: int) -> None:
    payloads = [os.urandom(size) for _ in range(number - 1)] + [os.urandom(size // 2 + 1)]
    host.socket.setsockopt(socket.SOL_UDP, UDP_GRO, 1)
    with sniffer(host.network) as sock:
        assert host.session.send(host.datagrams(payloads)) == number
        data, ancillary, _, _ = host.socket.recvmsg(1 << 17, 100)
        headers = 28 if host.kind == UDP4 else 48
        assert headers + len(data) in sizes_seen(sock)
    assert data == b"".join(payloads)
    (told,) = [value for level, kind, value in ancillary if (level, kind) == (socket.SOL_UDP, UDP_GRO)]
    assert struct.unpack("i", told) == (size,)
    assert counted(host.network) == {}


def test_alternating_flows_arrive_each_in_order(host: Host) -> None:
    payloads = [index.to_bytes(2, "big") * 50 for index in range(60)]
    with udp_socket(host.network, host.addresses[1]) as other:
        ours = host.datagrams(payloads)
        others = frames(host.kind, payloads, addresses=host.addresses, ports=(7777, other.getsockname()[1]))
        mixed = [packet for pair in zip(ours, others, strict=True) for packet in pair]
        assert host.session.send(mixed) == 120
        assert host.heard(60) == payloads
        assert [other.recv(1 << 16) for _ in range(60)] == payloads
    assert counted(host.network) == {}


def test_datagrams_with_bad_checksums_are_dropped_and_counted_by_the_kernel(host: Host) -> None:
    payloads = [index.to_bytes(2, "big") * 50 for index in range(40)]
    packets = host.datagrams(payloads)
    bad = {0, 7, 8, 20, 38}
    for index in bad:
        packets[index] = with_bits(packets[index], len(packets[index]) - 1 - index, 0x20)
    assert host.session.send(packets) == 40
    assert host.heard(35) == [payload for index, payload in enumerate(payloads) if index not in bad]
    assert counted(host.network) == {
        key: value
        for key, value in {
            "UdpInCsumErrors": len(bad) if host.kind == UDP4 else 0,
            "Udp6InCsumErrors": len(bad) if host.kind == UDP6 else 0,
        }.items()
        if value
    }


def test_segments_with_bad_checksums_are_dropped_and_counted_by_the_kernel(host: Host) -> None:
    kind = TCP4 if host.kind == UDP4 else TCP6
    packets = frames(kind, [b"0123456789"] * 30, addresses=host.addresses, ports=(7777, 7))
    bad = {0, 3, 4, 15, 29}
    for index in bad:
        packets[index] = with_bits(packets[index], len(packets[index]) - 1, 0x01)
    assert host.session.send([*packets, *host.datagrams([b"the last"])]) == 31
    assert host.heard(1) == [b"the last"]  # So the kernel has processed all packets before.
    assert counted(host.network) == {"TcpInCsumErrors": len(bad)}


def test_ipv4_headers_with_bad_checksums_are_dropped_and_counted_by_the_kernel() -> None:
    with ExitStack() as stack:
        host = Host(stack, "10.77.0.")
        payloads = [index.to_bytes(2, "big") * 50 for index in range(40)]
        packets = host.datagrams(payloads)
        bad = {0, 7, 8, 20, 38}
        for index in bad:
            packets[index] = with_bits(packets[index], 10, 0x20)
        assert host.session.send(packets) == 40
        assert host.heard(35) == [payload for index, payload in enumerate(payloads) if index not in bad]
        assert counted(host.network) == {"IpInHdrErrors": len(bad), "IpExtInCsumErrors": len(bad)}


def test_datagrams_without_a_checksum_arrive_among_others() -> None:
    with ExitStack() as stack:
        host = Host(stack, "10.77.0.")
        payloads = [index.to_bytes(2, "big") * 50 for index in range(40)]
        packets = [
            with_field(packet, 26, 0) if index % 5 == 3 else packet
            for index, packet in enumerate(host.datagrams(payloads))
        ]
        assert host.session.send(packets) == 40
        assert host.heard(40) == payloads
        assert counted(host.network) == {}


def test_fragments_among_datagrams_are_reassembled() -> None:
    """The fragments are of the same flow as the datagrams; the second one does not show it."""
    with ExitStack() as stack:
        host = Host(stack, "10.77.0.")
        payloads = [index.to_bytes(2, "big") * 52 for index in range(9)]
        packets = host.datagrams(payloads)
        whole = packets[4]
        halves = []
        for fragment, part in [(0x2000, whole[20:76]), (56 // 8, whole[76:])]:
            head = frame(UDP4, fragment=fragment, addresses=host.addresses)[:20]
            head = with_field(with_field(head, 2, 20 + len(part)), 10, 0)
            halves.append(with_field(head, 10, naive_checksum(head)) + part)
        assert host.session.send([*packets[:4], *halves, *packets[5:]]) == 10
        assert host.heard(9) == payloads
        assert counted(host.network) == {}


# UDP: datagrams of the kernel, with open checksums.


def look(bundle: Bundle) -> Bundle:
    list(bundle)
    return bundle


@EACH_FAMILY
@pytest.mark.parametrize("see", [look, lambda bundle: bundle], ids=["looked at", "whole"])
@pytest.mark.parametrize("merged", [False, pytest.param(True, marks=TAKES_UDP)], ids=["datagrams", "superpackets"])
def test_datagrams_of_the_kernel_arrive_unchanged(prefix: str, see: Callable[[Bundle], Bundle], merged: bool) -> None:
    payloads = [index.to_bytes(2, "big") * 250 for index in range(60)]
    with ExitStack() as stack:
        pair = Pair(stack)
        source, target = pair.sessions
        sender = stack.enter_context(udp_socket(pair.networks[0], f"{prefix}1"))
        receiver = stack.enter_context(udp_socket(pair.networks[1], f"{prefix}2"))
        if merged:
            receiver.setsockopt(socket.SOL_UDP, UDP_GRO, 1)
        for payload in payloads:
            sender.sendto(payload, receiver.getsockname()[:2])
        while bundle := source.receive(0):
            with bundle:
                target.send(see(bundle), None, drop_invalid=True)
        if merged and (fast.NATIVE or see is not look):  # Python does not coalesce packets that it has split.
            data, _, _, _ = receiver.recvmsg(1 << 16, 100)
            assert data == b"".join(payloads)
        else:
            assert [receiver.recv(1 << 16) for _ in payloads] == payloads
        assert counted(pair.networks[0]) == counted(pair.networks[1]) == {}


# Forwarding: a kernel segments superpackets for an interface that takes single packets only.


@EACH_KIND
@pytest.mark.parametrize(("size", "number"), [(1, 200), (1000, 100)])
def test_a_forwarding_kernel_segments_superpackets_into_the_original_packets(
    kind: Kind, size: int, number: int
) -> None:
    """The kernel derives all lengths, sequence numbers, identifications and checksums from our record."""
    far = ("10.77.0.1", "10.78.0.9") if kind.version == 4 else ("fd77::1", "fd78::9")
    payloads = [os.urandom(size) for _ in range(number - 1)] + [os.urandom(size // 2 + 1)]
    flows: list[dict[str, Any]] = [{"ports": (1, 7), "fragment": 0}, {"ports": (2, 7)}, {"ports": (3, 7), "ttl": 7}]
    with ExitStack() as stack:
        network = Network()
        stack.callback(network.namespace.close)
        near, out = [
            stack.enter_context(Adapter.create(name, netns=network.path, addresses=addresses, offload=offload))
            for name, addresses, offload in [
                ("tp0", ["10.77.0.2/24", "fd77::2/64"], True),
                ("tp1", ["10.78.0.2/24", "fd78::2/64"], False),
            ]
        ]
        source, target = stack.enter_context(near.start_session()), stack.enter_context(out.start_session())
        for name in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
            network.run("sh", "-c", f"echo 1 > /proc/sys/net/{name}")
        for flow in flows:
            packets = frames(kind, payloads, addresses=far, **flow)
            assert source.send(packets) == number
            seen: list[bytes] = []
            while len(seen) < number:
                bundle = target.receive(10)
                assert bundle, f"{len(seen)} of {number} came"
                seen += [bytes(packet) for packet in bundle if is_of(packet, far[1])]
            assert seen == frames(kind, payloads, addresses=far, **flow | {"ttl": flow.get("ttl", 64) - 1})
        assert received_packets(network) < 3 * (2 + number // 64 + size * number // 60_000) + 20
        assert counted(network) == {}


def is_of(packet: memoryview, address: str) -> bool:
    """Return True if the packet goes to that port."""
    if ":" in address:
        return bytes(packet[24:40]) == socket.inet_pton(socket.AF_INET6, address)
    return bytes(packet[16:20]) == socket.inet_pton(socket.AF_INET, address)


# Single packets, checked by tcpdump.


def judged(packets: Sequence[bytes]) -> list[str]:
    """Return the description by tcpdump of each IP packet, a line for each."""
    header = struct.pack("=IHHIIII", 0xA1B2C3D4, 2, 4, 0, 0, 1 << 16, 101)  # LINKTYPE_RAW
    capture = [struct.pack("=IIII", 0, 0, len(packet), len(packet)) + packet for packet in packets]
    command = ["tcpdump", "-r", "-", "-nn", "-vv"]
    done = subprocess.run(command, input=b"".join([header, *capture]), capture_output=True, check=True, timeout=50)
    lines = re.sub(r"\n\s+", " ", done.stdout.decode(errors="replace")).splitlines()
    assert len(lines) == len(packets), done.stderr
    return lines


def faulty(lines: Sequence[str]) -> list[str]:
    return [line for line in lines if re.search(r"incorrect|\bbad |truncated|invalid", line)]


TCPDUMP = pytest.mark.skipif(not shutil.which("tcpdump"), reason="tcpdump is not installed")


@needs_root  # As root, tcpdump changes to another user first.
@TCPDUMP
@EACH_FAMILY
def test_split_tcp_segments_are_valid_for_tcpdump(prefix: str) -> None:
    packets: list[bytes] = []

    def collect(source: Session, target: Session) -> None:
        try:
            for bundle in source:
                packets.extend([bytes(packet) for packet in bundle] if len(packets) < 1000 else [])
                target.send(bundle, timeout=None)
        except threepipe.SessionClosed:
            pass

    with ExitStack() as stack:
        pair = Pair(stack)
        with joined(*pair.sessions, collect):
            transfer(pair, prefix)
    lines = judged(packets)
    assert faulty(lines) == []
    assert len([line for line in lines if "(correct)" in line and "length 14" in line]) > 100
    assert faulty(judged([with_bits(packet, len(packet) - 1, 1) for packet in packets if len(packet) > 1000]))


@needs_root  # As root, tcpdump changes to another user first.
@TCPDUMP
@EACH_FAMILY
def test_split_datagrams_are_valid_for_tcpdump(prefix: str) -> None:
    """The datagrams are from a superpacket of the kernel, and from one of ours."""
    ours = frames(UDP_OF[prefix], [os.urandom(1000)] * 30, addresses=(f"{prefix}1", f"{prefix}2"))
    with ExitStack() as stack:
        pair = Pair(stack)
        sender = stack.enter_context(udp_socket(pair.networks[0], f"{prefix}1"))
        option = (socket.SOL_UDP, 103, struct.pack("H", 1000))  # UDP_SEGMENT
        sender.sendmsg([os.urandom(10_100)], [option], 0, (f"{prefix}2", 9))
        packets = [bytes(packet) for packet in pair.sessions[0].receive(10)]
        while len(packets) < 11:
            packets += [bytes(packet) for packet in pair.sessions[0].receive(10)]
    merged = Bundle.of_records(fast.coalesce([memoryview(packet) for packet in ours], False, True))
    packets += [bytes(packet) for packet in merged]
    lines = judged(packets)
    assert faulty(lines) == []
    assert len([line for line in lines if "udp sum ok" in line]) >= 41
    assert len(faulty(judged([with_bits(packet, len(packet) - 1, 1) for packet in packets if len(packet) > 100]))) >= 41
