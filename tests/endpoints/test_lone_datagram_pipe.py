"""Datagrams that come alone pass a pipe as those of bursts do, and with the same counts and messages."""

import socket
import sys
from contextlib import ExitStack

import pytest

import threepipe
from tests.support.datagram_pipes import listening, piped, program, through
from tests.support.endpoints import SECONDS, here, opened, packet, received
from tests.support.waiting import come_true

pytestmark = pytest.mark.usefixtures("loop")


def answered(caller: threepipe.Session, listener: threepipe.Session) -> None:
    """Have packets pass alone, in turns, as questions and their answers do."""
    for number in range(10):
        for source, target in ((caller, listener), (listener, caller)):
            assert source.send([packet(number)], SECONDS) == 1
            assert received(target, 1) == [packet(number)]


def test_packets_that_come_alone_pass_and_are_counted(stack: ExitStack) -> None:
    caller, left, right, listener = through(stack)
    with piped(left, right):
        answered(caller, listener)
    for end in (left, right):  # The pipe has ended.
        assert end.statistics == (10, 1000, 10, 10, 1000, 10, 0)


def test_a_run_of_datagrams_after_packets_that_came_alone_passes_in_order(stack: ExitStack) -> None:
    caller, left, right, listener = through(stack)
    packets = [packet(number, 1400) for number in range(40)]
    with piped(left, right):
        for _ in range(3):
            answered(caller, listener)
            assert caller.send(packets, SECONDS) == 40
            assert received(listener, 40) == packets
    assert left.statistics[:2] == (150, 3000 + 120 * 1400)
    assert right.statistics.sent_dropped == 0


def test_junk_and_strangers_after_packets_that_came_alone_are_dropped(
    stack: ExitStack, caplog: pytest.LogCaptureFixture
) -> None:
    places = here(), here()
    far = listening(stack, places[1])
    left, right = opened(stack, f"udp-listen:{places[0]}"), opened(stack, f"udp:{places[1]}")
    sender = program(stack, places[0])
    with piped(left, right):
        for number in range(10):
            sender.send(packet(number))
            data, source = far.recvfrom(2000)
            assert data == packet(number)
            far.sendto(packet(number), source)
            assert sender.recv(2000) == packet(number)
        sender.send(b"\x30" * 100)
        sender.send(packet(6))
        assert far.recv(2000) == packet(6)
        stranger = listening(stack, here())
        stranger.sendto(packet(5), source)
        far.sendto(packet(6), source)
        assert sender.recv(2000) == packet(6)
    assert right.statistics.received_packets == left.statistics.received_packets == 11
    assert [line for line in caplog.messages if "a datagram of 100 bytes that is not an IP packet" in line]


def test_a_new_peer_gets_the_answers_after_packets_that_came_alone(stack: ExitStack) -> None:
    place = here()
    _, left, right, listener = through(stack)
    left.close()
    left = opened(stack, f"udp-listen:{place}")
    before, after = program(stack, place), program(stack, place)
    with piped(left, right):
        for sender in (before, after, before):
            for number in range(10):
                sender.send(packet(number))
                assert received(listener, 1) == [packet(number)]
                assert listener.send([packet(number)], SECONDS) == 1
                assert sender.recv(2000) == packet(number)


def test_a_refusal_of_packets_that_come_alone_is_told_and_later_ones_pass(
    stack: ExitStack, caplog: pytest.LogCaptureFixture
) -> None:
    places = here(), here()
    left, right = opened(stack, f"udp-listen:{places[0]}"), opened(stack, f"udp:{places[1]}")
    far, sender = listening(stack, places[1]), program(stack, places[0])

    def ask(far: socket.socket, number: int) -> None:
        sender.send(packet(number))
        data, source = far.recvfrom(2000)
        assert data == packet(number)
        far.sendto(data, source)
        assert sender.recv(2000) == data

    with piped(left, right):
        for number in range(10):
            ask(far, number)
        far.close()
        for number in range(10, 13):
            sender.send(packet(number))
            assert come_true(lambda number=number: left.statistics.received_packets == number + 1)  # type: ignore[misc]
        if sys.platform == "linux":  # Wine, unlike Windows, reports no ICMP errors to a socket that is not connected.
            assert come_true(lambda: "nothing listens there (yet)" in caplog.text)
        far = listening(stack, places[1])
        for number in range(13, 20):
            ask(far, number)
