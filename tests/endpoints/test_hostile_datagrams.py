"""Hostile senders of datagrams: they get no answers, cost bounded memory, and disturb nobody."""

import random
import socket
import sys
import threading
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from tests.support.endpoints import (
    SECONDS,
    at_work,
    here,
    opened,
    packet,
    received,
)
from threepipe.echo import echo_reply, echo_request

if sys.platform == "win32":
    pytest.skip("Windows has neither all these kinds nor limits of descriptors", allow_module_level=True)


DATAGRAMS = {
    "empty": b"",
    "a byte": b"\x45",
    "no version": bytes(1000),
    "the longest": b"\xff" * 65507,
    "IPv6 of 39 bytes": b"\x60" * 39,
}


@pytest.mark.parametrize("what", DATAGRAMS)
@pytest.mark.parametrize("known", [False, True])
def test_datagrams_without_a_packet_are_dropped(
    stack: ExitStack, what: str, known: bool, caplog: pytest.LogCaptureFixture
) -> None:
    place = here()
    listener = opened(stack, f"udp-listen:{place}")
    honest, hostile = (stack.enter_context(datagrams_to(place)) for _ in "ab")
    if known:
        hostile.send(packet(0))
        assert received(listener, 1) == [packet(0)]
    for _ in range(20):
        hostile.send(DATAGRAMS[what])
    honest.send(packet(1))
    assert received(listener, 1) == [packet(1)]
    assert listener.send([packet(2)]) == 1
    assert honest.recv(1 << 16) == packet(2)
    assert listener.statistics.received_packets == 1 + known
    lines = [line.getMessage() for line in caplog.records]
    assert len(lines) == (what != "empty"), lines  # An empty one is a probe.
    for line in lines:
        assert f"sent a datagram of {len(DATAGRAMS[what])} bytes that is not an IP packet" in line


def datagrams_to(place: str) -> socket.socket:
    connected = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    connected.settimeout(SECONDS)
    host, _, port = place.partition(":")
    connected.connect((host, int(port)))
    return connected


def test_a_sender_of_datagrams_without_packets_gets_no_answer(stack: ExitStack) -> None:
    place = here()
    with at_work(opened(stack, f"udp-listen:{place}")):
        honest, hostile = (stack.enter_context(datagrams_to(place)) for _ in "ab")
        for number in range(50):
            request = echo_request("10.1.1.1", "10.1.1.2", 1, number)
            hostile.send(b"\x30" * 100)
            honest.send(request)
            hostile.send(b"")
            assert honest.recv(1 << 16) == echo_reply(request)
        hostile.setblocking(False)
        with pytest.raises(BlockingIOError):
            hostile.recv(1)


def test_a_flood_of_datagrams_costs_bounded_memory_and_allows_close(stack: ExitStack) -> None:
    place = here()
    listener = opened(stack, f"udp-listen:{place}")
    stop = threading.Event()

    def send(program: socket.socket, data: Callable[[], bytes]) -> None:
        while not stop.is_set():
            try:
                program.send(data())
            except OSError:
                pass  # The listener is closed.

    choose = random.Random(1)
    with ThreadPoolExecutor(2) as executor:
        for data in (lambda: choose.randbytes(choose.randrange(2000)), lambda: packet(1, 1400)):
            executor.submit(send, stack.enter_context(datagrams_to(place)), data)
        tracemalloc.start()
        try:
            for _ in range(60):
                with listener.receive(SECONDS) as bundle:
                    listener.send(bundle, 0, drop_invalid=True)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
            stop.set()
    assert peak < 16 << 20
