"""Packets sent and received one at a time: the same promises as for bundles."""

import asyncio
import errno
import threading
from contextlib import closing

import pytest

from tests.support.sessions import (
    FITTING,
    SIZE,
    Pair,
    Sessions,
    drain,
    in_thread,
    numbers,
    packet,
    packets,
    readable,
    until_waiting,
)
from threepipe import AdapterGone, Bundle, InvalidPacket, LinkDown, Session, SessionClosed
from threepipe.core.packet import Packet
from threepipe.net.doorbell import Doorbell
from threepipe.session import SessionStatistics


def test_packets_and_bundles_mixed_keep_the_order(sessions: Sessions) -> None:
    left, right = sessions
    left.send(packets(600))
    found = numbers([right.receive_packet(), right.receive_packet()])
    with right.receive() as rest:
        found += numbers(rest)
    found += numbers([right.receive_packet()])
    found += drain(right, 600 - len(found))
    assert found == list(range(600))
    assert right.receive_packet(0) == b""


def test_packets_that_waited_are_writable_in_a_bundle(sessions: Sessions) -> None:
    left, right = sessions
    left.send(packets(3))
    right.receive_packet()
    bundle = right.receive()
    bundle[0][0] = 0x46
    assert bytes(bundle[0]) == b"\x46" + packet(1)[1:]


def test_statistics_count_packets_when_they_are_handed_out(sessions: Sessions) -> None:
    left, right = sessions
    left.send(packets(5))
    right.receive_packet()
    assert right.statistics == SessionStatistics(1, SIZE, 1)
    right.receive_packet()
    assert right.statistics == SessionStatistics(2, 2 * SIZE, 2)
    right.receive()
    assert right.statistics == SessionStatistics(5, 5 * SIZE, 3)


def test_packets_that_wait_are_lost_and_not_counted_at_close(sessions: Sessions) -> None:
    left, right = sessions
    left.send(packets(5))
    right.receive_packet()
    right.close()
    assert right.statistics == SessionStatistics(1, SIZE, 1)
    with pytest.raises(SessionClosed):
        right.receive_packet(0)


def test_several_threads_receive_each_packet_once(sessions: Sessions) -> None:
    left, right = sessions
    count, threads = 2000, 4

    def receive() -> list[bytes]:
        found = []
        while packet := right.receive_packet(timeout=10):
            if len(packet) != SIZE:
                break
            found.append(packet)
        return found

    receivers = [in_thread(receive) for _ in range(threads)]
    assert left.send(packets(count), timeout=10) == count
    assert left.send([packet(0, SIZE + 1)] * threads, timeout=10) == threads  # One for each thread to end by.
    found = [receiver.result(timeout=20) for receiver in receivers]
    assert sorted(numbers(packet for part in found for packet in part)) == list(range(count))
    assert all(numbers(part) == sorted(numbers(part)) for part in found)
    assert right.statistics.received_packets == count + threads


def test_a_waiting_thread_gets_a_packet_that_another_one_fetched(sessions: Sessions) -> None:
    left, right = sessions
    waiting = [in_thread(right.receive_packet) for _ in range(3)]
    until_waiting(right, 3)
    left.send(packets(3))
    assert sorted(numbers(future.result(timeout=10) for future in waiting)) == [0, 1, 2]


def test_a_thread_that_begins_to_wait_sees_packets_fetched_before(sessions: Sessions) -> None:
    left, right = sessions
    left.send(packets(2))
    right.receive_packet()
    assert right._wait(right._port.readable, None, right._ready)  # With packets ready it returns at once.
    assert numbers([right.receive_packet()]) == [1]


def test_close_while_a_thread_waits_for_one_packet_raises(sessions: Sessions) -> None:
    left, _ = sessions
    waiting = in_thread(left.receive_packet)
    until_waiting(left, 1)
    left.close()
    assert isinstance(waiting.exception(timeout=10), SessionClosed)


@pytest.mark.parametrize("early", [True, False])
def test_the_descriptor_is_readable_while_packets_wait(adapters: Pair, early: bool) -> None:
    left, right = (adapter.start_session() for adapter in adapters)
    if early:
        right.fileno()
    left.send(packets(3))
    for _ in range(2):
        right.receive_packet()
        assert readable(right)
    right.receive_packet()
    right.receive_packet(0)
    assert not readable(right)
    left.close()
    right.close()


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_send_packet_takes_any_kind_of_buffer(sessions: Sessions, kind: type[Packet]) -> None:
    left, right = sessions
    assert left.send_packet(kind(packet(1)))
    assert left.send_packet(memoryview(packet(2)).cast("I"))
    assert numbers(right.receive()) == [1, 2]
    assert left.statistics == SessionStatistics(sent_packets=2, sent_bytes=2 * SIZE, sent_bundles=2)


@pytest.mark.parametrize("wrong", [b"", b"\x45", b"\0" * 60, b"\x60" * 39, b"\x45" * 65536])
def test_an_invalid_packet_raises_and_is_not_counted(sessions: Sessions, wrong: bytes) -> None:
    left, _ = sessions
    with pytest.raises(InvalidPacket):
        left.send_packet(wrong)
    with pytest.raises(InvalidPacket):
        asyncio.run(left.send_packet_async(wrong))
    assert left.statistics == SessionStatistics()


def test_a_packet_without_room_is_refused_and_counted(sessions: Sessions) -> None:
    left, right = sessions
    assert left.send(packets(FITTING)) == FITTING
    assert not left.send_packet(packet(0))
    assert left.statistics.sent_dropped == 1
    sending = in_thread(left.send_packet, packet(FITTING), None)
    until_waiting(left, 1)
    assert drain(right, FITTING + 1) == list(range(FITTING + 1))
    assert sending.result(timeout=10)
    assert left.statistics.sent_packets == FITTING + 1


class ShortWay:
    """A port with a short way; `fault` is raised by every call."""

    def __init__(self) -> None:
        self.fault: Exception | None = None
        self.sent: list[bytes] = []
        self.waiting: list[bytes] = []
        self.readable = self.writable = Doorbell()
        self.readable.ring()

    def _check(self) -> None:
        if self.fault is not None:
            raise self.fault

    def receive(self) -> Bundle:
        self._check()
        return Bundle(self.receive_packets())

    def receive_packets(self) -> list[bytes]:
        self._check()
        found, self.waiting = self.waiting, []
        return found

    def send(self, bundle: Bundle) -> Bundle:
        self._check()
        return bundle

    def send_packet(self, packet: bytes) -> bool:
        self._check()
        self.sent.append(packet)
        return len(self.sent) < 3

    def lend(self) -> None: ...
    def wake(self) -> None: ...
    def stop(self) -> None: ...
    def dispose(self) -> None:
        self.readable.close()


def test_a_port_with_a_short_way_gets_packets_without_bundles() -> None:
    with closing(Session(port := ShortWay())) as session:
        assert [session.send_packet(packet(number)) for number in range(3)] == [True, True, False]
        assert numbers(port.sent) == [0, 1, 2]
        port.waiting = packets(2)
        assert numbers([session.receive_packet(), session.receive_packet()]) == [0, 1]
        assert session.statistics == SessionStatistics(2, 2 * SIZE, 2, 2, 2 * SIZE, 2, 1)


def test_an_error_of_the_short_way_is_raised_and_the_packet_counted_as_dropped() -> None:
    with closing(Session(port := ShortWay())) as session:
        port.fault = LinkDown(errno.EIO, "down")
        with pytest.raises(LinkDown):
            session.send_packet(packet(0))
        assert session.statistics == SessionStatistics(sent_dropped=1)
        port.fault = AdapterGone(errno.ENODEV, "gone")
        with pytest.raises(AdapterGone):
            session.receive_packet()


def test_packets_are_received_and_sent_in_an_event_loop(sessions: Sessions) -> None:
    left, right = sessions

    async def scenario() -> None:
        waiting = asyncio.create_task(right.receive_packet_async())
        await asyncio.to_thread(until_waiting, right, 1)
        for number in range(300):
            await left.send_packet_async(packet(number))
        found = [await waiting]
        while len(found) < 300:
            found.append(await right.receive_packet_async())
        assert numbers(found) == list(range(300))
        waiting = asyncio.create_task(right.receive_packet_async())
        await asyncio.to_thread(until_waiting, right, 1)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await left.send_packet_async(packet(300))
        assert numbers([await right.receive_packet_async()]) == [300]

    asyncio.run(scenario())


def test_every_task_that_waits_for_a_packet_gets_one(sessions: Sessions) -> None:
    left, right = sessions

    async def scenario() -> None:
        tasks = [asyncio.create_task(right.receive_packet_async()) for _ in range(3)]
        await asyncio.to_thread(until_waiting, right, 3)
        left.send(packets(3))
        assert sorted(numbers(await asyncio.gather(*tasks))) == [0, 1, 2]

    asyncio.run(asyncio.wait_for(scenario(), 20))


def test_a_task_that_begins_to_wait_sees_packets_fetched_before(sessions: Sessions) -> None:
    left, right = sessions
    left.send(packets(2))
    right.receive_packet()
    asyncio.run(right._wait_async(right._port.readable, right._ready))
    assert numbers([right.receive_packet()]) == [1]


def test_tasks_receive_packets_while_a_selector_may_wait(adapters: Pair) -> None:
    left, right = (adapter.start_session() for adapter in adapters)
    right.fileno()
    left.send(packets(3))

    async def scenario() -> list[bytes]:
        return [await right.receive_packet_async() for _ in range(3)]

    assert numbers(asyncio.run(scenario())) == [0, 1, 2]
    assert not readable(right)
    left.close()
    right.close()


def test_send_packet_async_waits_for_room(sessions: Sessions) -> None:
    left, right = sessions
    assert left.send(packets(FITTING)) == FITTING

    async def scenario() -> None:
        sending = asyncio.create_task(left.send_packet_async(packet(FITTING)))
        await asyncio.to_thread(until_waiting, left, 1)
        assert (await asyncio.to_thread(drain, right, FITTING + 1))[-1] == FITTING
        await sending

    asyncio.run(asyncio.wait_for(scenario(), 20))


def test_statistics_never_lose_a_packet_while_others_receive(sessions: Sessions) -> None:
    left, right = sessions
    done = threading.Event()

    def watch() -> bool:
        while not done.is_set():
            counts = right.statistics
            if not 0 <= counts.received_packets <= 500:
                return False
        return True

    watching = in_thread(watch)
    left.send(packets(500))
    for _ in range(500):
        right.receive_packet(10)
    done.set()
    assert watching.result(timeout=10)
    assert right.statistics.received_packets == 500
