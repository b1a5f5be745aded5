"""Pipes between datagram sockets: the native loop does what Python's does, with the same counts and messages."""

import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

import threepipe
from tests.support.datagram_pipes import listening, piped, program, through
from tests.support.endpoints import SECONDS, here, opened, packet, posix, received
from tests.support.waiting import come_true
from threepipe.endpoints.datagram_port import DatagramPort

pytestmark = pytest.mark.usefixtures("loop")


def test_packets_of_all_sizes_pass_in_order_both_ways_and_are_counted(stack: ExitStack) -> None:
    caller, left, right, listener = through(stack)
    sizes = [20, 1400, 1400, 1400, 600, 21, 1400, 1400, 60000, 100, 100, 9000, 9000, 9000, 8999, 40]
    packets = [packet(number, size) for number, size in enumerate(sizes)]
    with piped(left, right):
        for source, target in ((caller, listener), (listener, caller)):
            for _ in range(4):
                assert source.send(packets, SECONDS) == len(packets)
                assert received(target, len(packets)) == packets
    counts = 4 * len(packets), 4 * sum(sizes)
    for end in (left, right):  # The pipe has ended.
        assert end.statistics[:2] == end.statistics[3:5] == counts
        assert end.statistics.sent_dropped == 0


def test_runs_of_one_size_pass_as_single_packets(stack: ExitStack) -> None:
    caller, left, right, listener = through(stack)
    packets = [packet(number, 1400) for number in range(300)]
    with piped(left, right):
        for start in range(0, 300, 60):
            assert caller.send(packets[start : start + 60], SECONDS) == 60
            assert received(listener, 60) == packets[start : start + 60]
    assert right.statistics[3:5] == (300, 300 * 1400)


def test_datagrams_that_are_not_packets_are_dropped_with_a_warning(
    stack: ExitStack, caplog: pytest.LogCaptureFixture
) -> None:
    place = here()
    _, left, right, listener = through(stack)
    left.close()
    left = opened(stack, f"udp-listen:{place}")
    sender = program(stack, place)
    with piped(left, right):
        for number in range(10):
            for data in (b"\x30" * 100, b"", packet(number)):  # An empty one is a probe.
                sender.send(data)
            assert received(listener, 1) == [packet(number)]
    assert left.statistics[:2] == (10, 1000)
    warnings = [line.getMessage() for line in caplog.records if "not an IP packet" in line.getMessage()]
    assert len(warnings) == 1
    assert "sent a datagram of 100 bytes" in warnings[0]


def test_only_the_packets_of_a_run_are_taken(stack: ExitStack) -> None:
    place = here()
    _, _, right, listener = through(stack)
    left = opened(stack, f"udp-listen:{place}")
    sender = opened(stack, f"udp:{place}")
    with piped(left, right):
        run = [memoryview(data) for data in (packet(1), b"\x30" * 100, packet(2))]
        sent, _ = sender._port._datagrams.send(run, sender._port.way.peer)  # type: ignore[attr-defined]
        assert sent == 3
        assert received(listener, 2) == [packet(1), packet(2)]


def test_datagrams_of_strangers_are_refused(stack: ExitStack) -> None:
    places = here(), here()
    peer = listening(stack, places[0])
    caller, right = opened(stack, f"udp:{places[0]}"), opened(stack, f"udp:{places[1]}")
    listener = opened(stack, f"udp-listen:{places[1]}")
    assert caller.send([packet(0)]) == 1
    _, address = peer.recvfrom(1 << 16)
    stranger = stack.enter_context(socket.socket(type=socket.SOCK_DGRAM))
    with piped(caller, right):
        for number in range(1, 11):
            stranger.sendto(packet(100), address)
            peer.sendto(packet(number), address)
            assert received(listener, 1) == [packet(number)]
    assert caller.statistics.received_packets == 10


def test_a_listener_answers_the_last_sender(stack: ExitStack, caplog: pytest.LogCaptureFixture) -> None:
    place = here()
    _, _, right, listener = through(stack)
    left = opened(stack, f"udp-listen:{place}")
    with piped(left, right), caplog.at_level("INFO"):
        for number in range(3):
            sender = program(stack, place)
            sender.send(packet(number))
            assert received(listener, 1) == [packet(number)]
            assert listener.send([packet(10 + number)]) == 1
            assert sender.recv(1 << 16) == packet(10 + number)
    assert sum("is the peer now" in line.getMessage() for line in caplog.records) == 4  # And the listener's.


def test_packets_for_a_listener_that_nobody_called_are_dropped(stack: ExitStack) -> None:
    places = here(), here()
    left, right = opened(stack, f"udp-listen:{places[0]}"), opened(stack, f"udp-listen:{places[1]}")
    sender, other = program(stack, places[0]), program(stack, places[1])
    with piped(left, right):
        sender.send(packet(0))
        assert come_true(lambda: right.statistics.sent_dropped > 0)
        other.send(packet(1))
        assert sender.recv(1 << 16) == packet(1)
        sender.send(packet(2))
        assert other.recv(1 << 16) == packet(2)
    assert right.statistics[3:] == (1, 100, 1, 1)


def test_packets_pass_once_somebody_listens(stack: ExitStack, caplog: pytest.LogCaptureFixture) -> None:
    places = here(), here()
    left, right = opened(stack, f"udp-listen:{places[0]}"), opened(stack, f"udp:{places[1]}")
    sender = program(stack, places[0])
    with piped(left, right):
        for number in range(20):
            sender.send(packet(number))
            assert come_true(lambda number=number: left.statistics.received_packets > number)  # type: ignore[misc]
        listener = listening(stack, places[1])
        sender.send(packet(100))
        while listener.recv(1 << 16) != packet(100):
            pass
    assert left.statistics.received_packets == 21
    assert right.statistics.sent_packets + right.statistics.sent_dropped == 21
    if sys.platform == "linux":  # Others do not report such errors to a socket that is not connected.
        assert [line for line in caplog.records if "nothing listens there" in line.getMessage()]


def test_own_datagrams_that_a_route_sends_back_are_dropped(stack: ExitStack, caplog: pytest.LogCaptureFixture) -> None:
    places = here(), here()
    left, right = opened(stack, f"udp-listen:{places[0]}"), opened(stack, f"udp:{places[1]}")
    sender, listener = program(stack, places[0]), listening(stack, places[1])
    host, port = listener.getsockname()
    own_port = right._port._datagrams.socket.getsockname()[1]  # type: ignore[attr-defined]
    own = bytes.fromhex("4500 0064 0000 4000 4011 0000 7f000001") + socket.inet_aton(host)
    own += own_port.to_bytes(2, "big") + port.to_bytes(2, "big") + bytes(76)
    with piped(left, right):
        for number in range(3):
            sender.send(own)
            sender.send(packet(number))
            assert listener.recv(1 << 16) == packet(number)
    warnings = [line for line in caplog.records if "come back to be sent again" in line.getMessage()]
    assert len(warnings) == 1


@posix
def test_a_program_that_does_not_read_holds_up_only_its_direction(stack: ExitStack) -> None:
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    stack.enter_context(its)
    its.settimeout(SECONDS)
    place = here()
    left, right = opened(stack, f"udp-listen:{place}"), opened(stack, f"fd:{ours.detach()}")
    sender = program(stack, place)
    with piped(left, right):
        for number in range(2000):
            sender.send(packet(number, 1400))
        assert its.recv(1 << 16) == packet(0, 1400)  # So the listener knows where to send replies.
        for number in range(100):
            its.send(packet(number))
            assert sender.recv(1 << 16) == packet(number)
        for number in range(1, 10):
            assert its.recv(1 << 16) == packet(number, 1400)
    counts = right.statistics
    assert counts.sent_packets >= 10
    assert counts.received_packets == 100


@posix
def test_packets_pass_between_connected_unix_sockets(stack: ExitStack) -> None:
    programs, ends = [], []
    for _ in "ab":
        ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        stack.enter_context(its).settimeout(SECONDS)
        programs.append(its)
        ends.append(opened(stack, f"fd:{ours.detach()}"))
    with piped(*ends):
        for source, target in (programs, programs[::-1]):
            for number in range(500):
                source.send(packet(number, 20 + number))
                assert target.recv(1 << 16) == packet(number, 20 + number)
    for end in ends:
        assert end.statistics[:2] == end.statistics[3:5] == (500, sum(range(20, 520)))


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such descriptors")
def test_interrupting_and_closing_end_a_wait_for_room(stack: ExitStack) -> None:
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    stack.enter_context(its)
    place = here()
    left, right = opened(stack, f"udp-listen:{place}"), opened(stack, f"fd:{ours.detach()}")
    sender = program(stack, place)
    with piped(left, right):
        for number in range(2000):
            sender.send(packet(number, 1400))
        assert come_true(lambda: left.statistics.received_packets > 0)
    counts = left.statistics, right.statistics
    assert counts[0].received_packets >= counts[1].sent_packets + counts[1].sent_dropped


def test_a_defect_of_the_port_reaches_the_caller(stack: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
    place = here()
    _, _, right, _ = through(stack)
    left = opened(stack, f"udp-listen:{place}")

    def fail(*_: object) -> None:
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr(DatagramPort, "valid", fail)
    with ThreadPoolExecutor(1) as executor:
        ended = executor.submit(threepipe.pipe, left, right)
        program(stack, place).send(packet(0))
        with pytest.raises(ZeroDivisionError, match="a defect"):
            ended.result(SECONDS)
    assert left.closed
    assert right.closed


def keeping(stack: ExitStack) -> tuple[threepipe.Session, threepipe.Session, threepipe.Session, socket.socket]:
    """Return a sender, the two ends of a pipe between them, and a receiver; the left end keeps packets 1 to 4."""
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    stack.enter_context(its)
    its.settimeout(SECONDS)
    place = here()
    left, right = opened(stack, f"udp-listen:{place}"), opened(stack, f"fd:{ours.detach()}")
    sender = opened(stack, f"udp:{place}")
    assert sender.send([packet(number) for number in range(5)]) == 5  # A run, which arrives at once.
    assert left.receive_packet(SECONDS) == packet(0)
    return sender, left, right, its


@posix
def test_packets_that_a_session_keeps_pass_first(stack: ExitStack) -> None:
    sender, left, right, its = keeping(stack)
    with piped(left, right):
        for number in range(1, 5):
            assert its.recv(1 << 16) == packet(number)
        assert sender.send([packet(5)]) == 1
        assert its.recv(1 << 16) == packet(5)


@posix
def test_kept_packets_without_room_hold_up_only_their_direction(stack: ExitStack) -> None:
    sender, left, right, its = keeping(stack)
    filled = 0
    while sent := right.send([packet(100)] * 1000):
        filled += sent
    with piped(left, right):
        for number in range(50):
            its.send(packet(number))
            assert received(sender, 1) == [packet(number)]
        for _ in range(filled):
            assert its.recv(1 << 16) == packet(100)
        for number in range(1, 5):
            assert its.recv(1 << 16) == packet(number)
    assert right.statistics.sent_packets == filled + 4
