"""Impairments and clamping between two networks of the kernel, measured by ping, TCP and UDP."""

import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from tests.support.offload_pair import FAMILIES, Pair, transfer
from tests.support.timing import SATURATED, Idleness, assert_late_by
from tests.support.wires import ETH_P_ALL
from threepipe import Bundle
from threepipe.endpoint import Endpoint, Filter
from threepipe.filters.clamp import Clamp
from threepipe.filters.impair import Impair
from threepipe.filters.impairment import parse_impairment
from threepipe.piping import pipe

pytestmark = pytest.mark.kernel

MTU = 1300
HEADERS = {FAMILIES[0]: 40, FAMILIES[1]: 60}
TIMESTAMPS = 12  # Bytes of the TCP option, by which every segment is shorter.


@contextmanager
def piped(left: Endpoint, right: Endpoint) -> Iterator[None]:
    thread = threading.Thread(target=pipe, args=(left, right))
    thread.start()
    try:
        yield
    finally:
        left.close()
        thread.join()


def impaired(pair: Pair, towards_right: str, towards_left: str) -> tuple[Impair, Impair]:
    left, right = pair.sessions
    return (
        Impair(left, parse_impairment(towards_right), towards="right"),
        Impair(right, parse_impairment(towards_left), towards="left"),
    )


@pytest.mark.soak
@pytest.mark.parametrize("prefix", FAMILIES)
def test_ping_takes_longer_by_both_delays(prefix: str) -> None:
    """The tolerance is a millisecond for each of the two delays."""
    with ExitStack() as stack:
        pair = Pair(stack)
        with piped(*impaired(pair, "delay=20ms", "delay=10ms")):

            def round_trips() -> list[float]:
                printed = pair.networks[0].run("ping", "-n", "-c", "40", "-i", "0.02", "-w", "20", f"{prefix}2")
                times = [float(found) / 1000 for found in re.findall(r"time=([\d.]+) ms", printed)]
                assert len(times) >= 40
                return times

            assert_late_by(0.03, 0.002, round_trips)


def test_ping_counts_the_lost_and_duplicated_packets() -> None:
    with ExitStack() as stack:
        pair = Pair(stack)
        ends = impaired(pair, "loss=20%,seed=3", "duplicate=20%,delay=5ms,jitter=2ms")
        with piped(*ends):
            before = ends[0].counts.lost, ends[1].counts.duplicated
            printed = pair.networks[0].run("ping", "-n", "-c", "200", "-i", "0.005", "-W", "1", "10.77.0.2")
            found = re.search(r"(\d+) packets transmitted, (\d+) received,(?: \+(\d+) duplicates,)?", printed)
            assert found is not None, printed
            sent, received, duplicates = map(int, found.groups())
            # Packets that the kernels send on their own, to routers and multicast groups, are impaired as well.
            assert 0 <= ends[0].counts.lost - before[0] - (sent - received) <= 10
            assert 0 <= ends[1].counts.duplicated - before[1] - duplicates <= 10
    assert 15 <= sent - received <= 65  # 4.5 standard deviations.
    assert duplicates >= 12


@pytest.mark.parametrize("prefix", FAMILIES)
def test_tcp_arrives_intact_through_a_bad_network(prefix: str) -> None:
    with ExitStack() as stack:
        pair = Pair(stack)
        bad = "delay=2ms,jitter=1ms,loss=0.2%,duplicate=0.3%,reorder=0.3%,corrupt=0.3%"
        ends = impaired(pair, bad, bad)
        with piped(*ends):
            transfer(pair, prefix)
        counts = ends[0].counts
        assert min(counts[:4]) > 0
        assert counts.overflowed == 0
        # The kernel's TCP counts some of the corrupted packets, and no others.
        assert 0 < sum(pair.faults().values()) <= counts.corrupted + ends[1].counts.corrupted


@pytest.mark.soak
def test_udp_gets_the_set_rate() -> None:
    size, rate = 1250, 20e6
    with ExitStack() as stack:
        pair = Pair(stack)
        sender, receiver = [
            stack.enter_context(network.namespace.run(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)))
            for network in pair.networks
        ]
        receiver.settimeout(10)
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        receiver.bind(("10.77.0.2", 0))
        ends = impaired(pair, "rate=20mbit", "rate=20mbit")
        with piped(*ends):
            sender.connect(receiver.getsockname())
            ended = threading.Event()

            def flood() -> None:
                while not ended.wait(0.002):  # Ten times the rate.
                    for _ in range(40):
                        sender.send(bytes(size - 28))

            thread = threading.Thread(target=flood)
            thread.start()
            try:
                receiver.recv(2000)
                idleness = Idleness()
                for _ in range(4):
                    start, count = time.monotonic(), 0
                    while (now := time.monotonic()) < start + 1.5:
                        assert len(receiver.recv(2000)) == size - 28
                        count += 1
                    ratio = count * size * 8 / (now - start) / rate
                    assert ratio <= 1.03 or idleness.share() <= SATURATED  # Packets that are late may come all at once.
                    if ratio >= 0.97:
                        break
                assert ratio >= 0.97 or idleness.share() <= SATURATED
            finally:
                ended.set()
                thread.join()
        assert ends[0].counts.overflowed > count


class Longest(Filter):
    """A filter that notes the longest packet and record, and passes bundles on whole."""

    def __init__(self, inner: Endpoint) -> None:
        super().__init__(inner)
        self.packet = self.record = 0

    def receive(self, timeout: float | None = None) -> Bundle:
        bundle = self.inner.receive(timeout)
        if bundle.records:
            self.record = max([self.record, *map(len, bundle.records)])
            copies = Bundle.of_records([memoryview(bytearray(record)) for record in bundle.records])
            self.packet = max([self.packet, *map(len, copies)])
        return bundle


def sniffer(pair: Pair, side: int) -> socket.socket:
    """Return a packet socket on the adapter of that side."""
    sock = pair.networks[side].namespace.run(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM))
    sock.settimeout(10)
    sock.bind(("tp0", ETH_P_ALL))
    return sock


def told(sniffing: socket.socket) -> int:
    """Return the MSS of the first SYN from outside."""
    while True:
        packet, address = sniffing.recvfrom(65536)
        if address[2] != socket.PACKET_HOST:
            continue
        protocol, start = (packet[9], 20) if packet[0] >> 4 == 4 else (packet[6], 40)
        if protocol == socket.IPPROTO_TCP and packet[start + 13] & 2:
            assert packet[start + 20 : start + 22] == b"\2\4"
            return int.from_bytes(packet[start + 22 : start + 24], "big")


@pytest.mark.parametrize("offload", [(True, True), (False, False)], ids=str)
@pytest.mark.parametrize("prefix", FAMILIES)
def test_both_ends_of_a_connection_use_the_clamped_mss(prefix: str, offload: tuple[bool, bool]) -> None:
    family = socket.AF_INET6 if ":" in prefix else socket.AF_INET
    expected = MTU - HEADERS[prefix]
    with ExitStack() as stack:
        pair = Pair(stack, offload)
        left, right = [Clamp(session, MTU) for session in pair.sessions]
        sniffing = [stack.enter_context(sniffer(pair, side)) for side in (0, 1)]
        with piped(left, right):
            listener = pair.networks[1].namespace.run(lambda: socket.create_server((f"{prefix}2", 0), family=family))
            sender = pair.networks[0].namespace.run(lambda: socket.socket(family))
            with listener, sender:
                sender.settimeout(10)
                listener.settimeout(10)
                sender.connect(listener.getsockname()[:2])
                receiver, _ = listener.accept()
                with receiver:
                    assert [told(sock) for sock in sniffing] == [expected, expected]
                    for end in (sender, receiver):
                        segment = end.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG)
                        assert segment in (expected, expected - TIMESTAMPS)
            assert pair.faults() == {}


@pytest.mark.parametrize("prefix", FAMILIES)
def test_superpackets_through_a_clamp_stay_whole_with_shorter_segments(prefix: str) -> None:
    with ExitStack() as stack:
        pair = Pair(stack)
        left, right = [Longest(Clamp(session, MTU)) for session in pair.sessions]
        with piped(left, right):
            transfer(pair, prefix)
        assert left.record > 30_000
        assert 0 < left.packet <= MTU
        assert pair.faults() == {}


def test_segments_without_a_clamp_are_longer() -> None:
    with ExitStack() as stack:
        pair = Pair(stack)
        left, right = map(Longest, pair.sessions)
        with piped(left, right):
            transfer(pair, FAMILIES[0])
        assert left.packet > MTU
