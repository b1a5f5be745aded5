"""Packets that a session keeps: those that the forwarding loop leaves in it, and those that wait in it for the loop."""

import sys
import threading
import time
from contextlib import ExitStack

import pytest

if sys.platform != "linux":
    pytest.skip("only Linux' ports have descriptors to lend", allow_module_level=True)

from tests.support.coalescing import plain
from tests.support.frames import TCP4, UDP4, frame, frames
from tests.support.pump_bench import SECONDS, Bench, fill, native
from tests.support.sessions import readable
from tests.support.waiting import come_true
from threepipe import pump
from threepipe.bundle import Bundle
from threepipe.core import fast
from threepipe.core.pump import PAUSE
from threepipe.platforms.linux.port import LinuxPort
from threepipe.platforms.linux.tun import Offload
from threepipe.pump import interrupt
from threepipe.session import Session


@native
@pytest.mark.parametrize("vnet_header", [True, False])
def test_an_interruption_of_the_native_loop_leaves_packets_that_wait_for_room_in_the_session(
    stack: ExitStack, vnet_header: bool
) -> None:
    bench = Bench(stack, vnet_header)
    fill(bench.files[1])
    segments = frames(TCP4, [b"1234"] * 5)
    packets = [*segments, *frames(UDP4, [b"56"] * 3)]
    bench.put(*map(plain if vnet_header else bytes, packets))
    bench.start()
    assert come_true(lambda: bench.received == len(packets))
    interrupt(bench.sessions[1])
    bench.join()
    assert (bench.failure, bench.received, bench.sent, bench.dropped) == (None, 0, 0, 0)
    assert readable(bench.sessions[0])
    assert bench.sessions[0].receive_packet(0) == packets[0]
    assert list(map(bytes, bench.sessions[0].receive(0))) == packets[1:]
    assert bench.sessions[0].statistics[:2] == (len(packets), sum(map(len, packets)))


@native
@pytest.mark.parametrize("which", [0, 1])
def test_closing_a_session_drops_and_counts_packets_that_wait_for_room_in_the_native_loop(
    stack: ExitStack, which: int
) -> None:
    bench = Bench(stack, vnet_header=False)
    fill(bench.files[1])
    bench.put(*[frame(UDP4, bytes([number])) for number in range(3)])
    bench.start()
    assert come_true(lambda: bench.received == 3)
    bench.sessions[which].close()
    bench.join()
    assert (bench.failure, bench.received, bench.sent, bench.dropped) == (None, 3, 0, 3)


@native
def test_packets_kept_by_the_native_loop_are_lost_and_not_counted_at_close(stack: ExitStack) -> None:
    bench = Bench(stack, vnet_header=False)
    fill(bench.files[1])
    bench.put(*[frame(UDP4, bytes([number])) for number in range(3)])
    bench.start()
    assert come_true(lambda: bench.received == 3)
    interrupt(bench.sessions[0])
    bench.join()
    bench.stop()
    assert bench.sessions[0].statistics[:3] == (0, 0, 0)


def test_an_interruption_leaves_packets_that_wait_for_room_in_the_session(
    stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fast, "pump", None)
    bench = Bench(stack, vnet_header=False)
    fill(bench.files[1])
    packets = [frame(UDP4, bytes([number])) for number in range(3)]
    bench.put(*packets)
    bench.start()
    assert come_true(lambda: bench.received == 3)
    interrupt(bench.sessions[1])
    bench.join()
    assert (bench.failure, bench.received, bench.dropped) == (None, 0, 0)
    assert readable(bench.sessions[0])
    assert list(map(bytes, bench.sessions[0].receive(0))) == packets


def test_packets_kept_by_the_session_are_forwarded_first(stack: ExitStack) -> None:
    bench = Bench(stack)
    packets = [frame(TCP4, bytes([number]), sequence=number * 1000) for number in range(3)]
    bench.put(*map(plain, packets))
    left = Session(LinuxPort(bench.sources[0], bench.files[0], "tp0", Offload.TCP, lambda: None))
    right = Session(LinuxPort(bench.sources[1], bench.files[1], "tp1", Offload.TCP, lambda: None))
    bench.sessions = [left, right]
    assert left.receive_packet(SECONDS) == packets[0]
    bench._thread.start()
    assert [bench.take(), bench.take()] == list(map(plain, packets[1:]))


def crowded(stack: ExitStack) -> tuple[Bench, list[bytes]]:
    """Return a bench whose loop waits for room, and the packets that its first session had kept; one was received."""
    bench = Bench(stack, vnet_header=False)
    packets = [frame(UDP4, bytes([number])) for number in range(3)]
    bench.put(*packets)
    bench.start_sessions()
    assert bench.sessions[0].receive_packet(SECONDS)
    fill(bench.files[1])
    bench.start_loop()
    assert come_true(lambda: bench.received == 3)
    return bench, packets[1:]


def test_kept_packets_are_forwarded_once_there_is_room(stack: ExitStack) -> None:
    bench, packets = crowded(stack)
    found = [bench.take()]
    while found[-1] != packets[-1]:
        found.append(bench.take())
    assert found[-2:] == packets


def test_an_interruption_leaves_kept_packets_that_wait_for_room_in_the_session(
    stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    if fast.pump is None:
        monkeypatch.setattr(fast, "pump", lambda left, right, bells: (0, None))
    bench, packets = crowded(stack)
    interrupt(bench.sessions[0])
    bench.join()
    assert (bench.received, bench.dropped) == (1, 0)
    assert list(map(bytes, bench.sessions[0].receive(0))) == packets


def test_kept_packets_for_a_writable_target_without_memory_are_tried_after_pauses(
    stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    if fast.pump is None:
        monkeypatch.setattr(fast, "pump", lambda left, right, bells: (0, None))
    bench = Bench(stack, vnet_header=False)
    packets = [frame(UDP4, bytes([number])) for number in range(2)]
    bench.put(*packets)
    bench.start_sessions()
    assert bench.sessions[0].receive_packet(SECONDS)
    port, refusals = bench.sessions[1]._port, [True] * 50
    send = port.send

    def send_once_there_is_memory(bundle: Bundle) -> Bundle:
        return bundle if refusals and refusals.pop() else send(bundle)

    monkeypatch.setattr(port, "send", send_once_there_is_memory)
    before = time.monotonic()
    bench.start_loop()
    assert bench.take() == packets[1]
    assert time.monotonic() - before >= PAUSE * 48
    bench.stop()


def test_a_loop_passes_nothing_of_a_session_that_was_paused_while_it_waited_for_the_other(
    stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(stack, vnet_header=False)
    bench.put(frame(UDP4, b"1"))
    bench.start_sessions()
    wait = Session._wait_until_resumed

    def wait_while_the_first_is_paused(session: Session) -> None:
        wait(session)
        if session is bench.sessions[1]:
            pump.pause(bench.sessions[0])

    monkeypatch.setattr(Session, "_wait_until_resumed", wait_while_the_first_is_paused)
    assert pump.pump(*bench.sessions)
    assert bench.received == 0
    pump.resume(bench.sessions[0])
    assert bench.sessions[0].receive_packet(SECONDS) == frame(UDP4, b"1")


@pytest.mark.parametrize("which", [0, 1])
def test_close_while_kept_packets_wait_for_room_ends_the_loop(
    stack: ExitStack, monkeypatch: pytest.MonkeyPatch, which: int
) -> None:
    if fast.pump is None:
        monkeypatch.setattr(fast, "pump", lambda left, right, bells: (0, None))
    bench = Bench(stack, vnet_header=False)
    bench.put(*[frame(UDP4, bytes([number])) for number in range(3)])
    bench.start_sessions()
    assert bench.sessions[0].receive_packet(SECONDS)
    fill(bench.files[1])
    bench.start_loop()
    assert come_true(lambda: bench.received == 3)
    closing = threading.Thread(target=bench.sessions[which].close)
    closing.start()
    closing.join(SECONDS)
    assert not closing.is_alive()
    bench.join()
    assert (bench.sent, bench.dropped) == (0, 2)
