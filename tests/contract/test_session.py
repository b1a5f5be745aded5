"""Tests of sessions, over memory adapters: waiting, refusing, closing, threads and event loops."""

import asyncio
import errno
import gc
import os
import random
import select
import selectors
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing
from functools import partial
from typing import Any, TypeVar

import pytest

from threepipe import AdapterGone, Bundle, InvalidPacket, LinkDown, MemoryAdapter, Session, SessionClosed
from threepipe.backend import Waitable
from threepipe.core.packet import Packet
from threepipe.net.doorbell import Doorbell
from threepipe.session import SessionStatistics

CAPACITY = 0x20000
SIZE = 28
FITTING = (CAPACITY - 4) // (4 + SIZE)
"""Packets of `SIZE` bytes that a session has room for."""

Result = TypeVar("Result")
Pair = tuple[MemoryAdapter, MemoryAdapter]
Sessions = tuple[Session, Session]


@pytest.fixture
def adapters() -> Iterator[Pair]:
    left, right = MemoryAdapter.pair()
    with left, right:
        yield left, right


@pytest.fixture
def sessions(adapters: Pair) -> Sessions:
    return adapters[0].start_session(CAPACITY), adapters[1].start_session(CAPACITY)


def packet(number: int, size: int = SIZE) -> bytes:
    """A packet that says its number, and whose other bytes follow from that."""
    return b"\x45" + number.to_bytes(4, "big") + bytes([number % 251]) * (size - 5)


def packets(*numbers: int) -> list[bytes]:
    """The packets from the first number to before the second, as `range` has it."""
    return [packet(number) for number in range(*numbers)]


def numbers(received: Iterable[Packet]) -> list[int]:
    """The numbers of packets, every one of which is seen to be intact."""
    found = []
    for view in received:
        number = int.from_bytes(view[1:5], "big")
        assert view == packet(number, len(view))
        found.append(number)
    return found


def in_thread(function: Callable[..., Result], *arguments: object) -> Future[Result]:
    """Run `function` in a thread that cannot hold up the end of a test that failed."""
    future: Future[Result] = Future()

    def run() -> None:
        try:
            future.set_result(function(*arguments))
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


def until(condition: Callable[[], bool]) -> None:
    """Return once `condition` holds; the one place that polls, for what announces itself to nobody."""
    tick = threading.Event()
    for _ in range(10_000):
        if condition():
            return
        tick.wait(0.001)
    pytest.fail("what was waited for did not happen")


def until_waiting(session: Session, waiters: int) -> None:
    """Return once as many threads and tasks wait in `session`."""
    until(lambda: session._present == 1 + waiters)


def readable(waitable: Waitable | Session | int) -> bool:
    return bool(select.select([waitable], [], [], 0)[0])


def drain(session: Session, count: int) -> list[int]:
    """Receive until `count` packets came."""
    found: list[int] = []
    while len(found) < count:
        bundle = session.receive(timeout=10)
        assert bundle, f"{len(found)} of {count} packets came"
        found += numbers(bundle)
    return found


def test_packets_arrive_in_order_and_at_most_256_at_once(sessions: Sessions) -> None:
    left, right = sessions
    assert left.send(packets(300)) == 300
    assert left.send(packets(300, 600)) == 300
    bundles = [right.receive() for _ in range(3)]
    assert [len(bundle) for bundle in bundles] == [256, 256, 88]
    assert [number for bundle in bundles for number in numbers(bundle)] == list(range(600))
    assert not right.receive(timeout=0)


def test_both_directions_are_apart(sessions: Sessions) -> None:
    left, right = sessions
    left.send(packets(3))
    right.send(packets(10, 12))
    assert numbers(left.receive()) == [10, 11]
    assert numbers(right.receive()) == [0, 1, 2]


def test_an_empty_bundle_says_that_time_is_over(sessions: Sessions) -> None:
    left, _ = sessions
    start = time.monotonic()
    assert len(left.receive(timeout=0)) == 0
    assert len(left.receive(timeout=-1)) == 0
    assert time.monotonic() - start < 1
    start = time.monotonic()
    assert len(left.receive(timeout=0.02)) == 0
    assert time.monotonic() - start >= 0.019


def test_waiting_ends_when_a_packet_arrives(sessions: Sessions) -> None:
    left, right = sessions
    waiting = [in_thread(right.receive), in_thread(right.receive, 30)]
    until_waiting(right, 2)
    left.send(packets(1))
    until(lambda: any(future.done() for future in waiting))
    left.send(packets(1, 2))
    found = sorted([numbers(future.result(timeout=10)) for future in waiting])
    assert found == [[0], [1]]


def test_single_packets_are_copies(sessions: Sessions) -> None:
    left, right = sessions
    assert left.send_packet(packet(1))
    assert left.send(packets(2, 4)) == 2
    first = right.receive_packet()
    assert isinstance(first, bytes)
    assert numbers([first, right.receive_packet(timeout=1)]) == [1, 2]
    assert numbers(right.receive()) == [3]
    assert right.receive_packet(timeout=0) == b""


@pytest.mark.parametrize("kind", [list, tuple, iter, Bundle])
def test_packets_may_come_in_any_iterable(sessions: Sessions, kind: Callable[[list[bytes]], Iterable[Packet]]) -> None:
    left, right = sessions
    assert left.send(kind(packets(3))) == 3
    assert numbers(right.receive()) == [0, 1, 2]


def test_packets_may_be_of_any_kind_of_buffer(sessions: Sessions) -> None:
    left, right = sessions
    kinds: list[Packet] = [packet(0), bytearray(packet(1)), memoryview(packet(2)), memoryview(packet(3)).cast("I")]
    assert left.send(kinds) == 4
    assert numbers(right.receive()) == [0, 1, 2, 3]


def test_nothing_is_sent_of_nothing(sessions: Sessions) -> None:
    left, right = sessions
    assert left.send([]) == 0
    assert left.send([], timeout=None) == 0
    assert asyncio.run(left.send_async([])) == 0
    assert left.statistics == SessionStatistics()
    assert not right.receive(timeout=0)


def test_a_lone_packet_is_refused(sessions: Sessions) -> None:
    with pytest.raises(TypeError, match="wrap a single one"):
        sessions[0].send(packet(1))  # type: ignore[arg-type]


def test_nothing_of_a_bundle_with_an_invalid_packet_is_sent(sessions: Sessions) -> None:
    left, right = sessions
    wrong = [packet(0), packet(1), b"\x00" * SIZE, packet(3)]
    uses: list[Callable[[], object]] = [
        lambda: left.send(wrong),
        lambda: left.send(Bundle(wrong), timeout=None),
        lambda: asyncio.run(left.send_async(iter(wrong))),
    ]
    for use in uses:
        with pytest.raises(InvalidPacket, match="packet 2 has IP version 0") as caught:
            use()
        assert caught.value.index == 2
    with pytest.raises(InvalidPacket, match="packet 0 is empty"):
        left.send_packet(b"")
    assert left.statistics == SessionStatistics()
    assert not right.receive(timeout=0)


def test_forwarding_drops_and_counts_what_is_no_packet(sessions: Sessions) -> None:
    left, right = sessions
    wrong = [b"", b"\x45" * 19, b"\x00" * SIZE]
    assert left.send(Bundle([packet(0), *wrong, packet(1)]), None, drop_invalid=True) == 2
    assert left.send(Bundle(packets(2, 4)), None, drop_invalid=True) == 2
    assert left.send(Bundle(wrong), None, drop_invalid=True) == 0
    assert numbers(right.receive()) == [0, 1, 2, 3]
    assert left.statistics == SessionStatistics(0, 0, 0, 4, 4 * SIZE, 2, 6)


def test_forwarding_waits_for_room(sessions: Sessions) -> None:
    left, right = sessions
    assert left.send(Bundle([b"", *packets(FITTING + 3)]), drop_invalid=True) == FITTING
    assert left.statistics.sent_dropped == 4
    forwarding = in_thread(partial(left.send, drop_invalid=True), Bundle([*packets(FITTING, 2 * FITTING), b""]), None)
    until_waiting(left, 1)
    assert drain(right, 2 * FITTING) == list(range(2 * FITTING))
    assert forwarding.result(timeout=10) == FITTING
    assert left.statistics.sent_dropped == 5


def test_received_packets_can_be_answered_in_place(sessions: Sessions) -> None:
    left, right = sessions
    left.send(packets(3))
    with right.receive() as bundle:
        for view in bundle:
            view[1:] = packet(int.from_bytes(view[1:5], "big") + 100)[1:]
        assert right.send(bundle) == 3
    assert numbers(left.receive()) == [100, 101, 102]


def test_held_packets_are_never_overwritten(sessions: Sessions) -> None:
    left, right = sessions
    held: list[memoryview] = []
    for number in range(200):
        left.send([packet(number, 20000), packet(number + 1000)])
        kept, passed = right.receive()
        held.append(kept[:6000] if number % 2 else kept)
        passed.release()
    assert numbers(held) == list(range(200))


def test_a_full_ring_is_a_smaller_number(sessions: Sessions) -> None:
    left, right = sessions
    assert left.send(packets(FITTING + 10)) == FITTING
    assert left.send(packets(5)) == 0
    assert not left.send_packet(packet(0))
    assert left.statistics.sent_dropped == 16
    assert drain(right, FITTING) == list(range(FITTING))
    assert left.send(packets(5)) == 5
    assert (left.statistics.sent_packets, left.statistics.sent_dropped) == (FITTING + 5, 16)


def test_sending_waits_for_room_no_longer_than_told(sessions: Sessions) -> None:
    left, _ = sessions
    start = time.monotonic()
    assert left.send(packets(FITTING + 3), timeout=0.02) == FITTING
    assert not left.send_packet(packet(0), timeout=0.02)
    assert time.monotonic() - start >= 0.038
    assert left.statistics.sent_dropped == 4


@pytest.mark.parametrize("timeout", [None, 30])
def test_sending_goes_on_as_the_reader_makes_room(sessions: Sessions, timeout: float | None) -> None:
    left, right = sessions
    sending = in_thread(left.send, packets(3 * FITTING), timeout)
    assert drain(right, 3 * FITTING) == list(range(3 * FITTING))
    assert sending.result(timeout=10) == 3 * FITTING
    assert left.statistics.sent_packets == 3 * FITTING
    assert left.statistics.sent_dropped == 0


def test_a_blocked_sender_wakes_when_there_is_room(sessions: Sessions) -> None:
    left, right = sessions
    sending = in_thread(left.send, packets(FITTING + 1), None)
    until_waiting(left, 1)
    assert numbers(right.receive()) == list(range(256))
    assert sending.result(timeout=10) == FITTING + 1


def test_a_far_end_without_a_session_has_no_room(adapters: Pair) -> None:
    left = adapters[0].start_session(CAPACITY)
    assert left.send(packets(3)) == 0
    sending = in_thread(left.send, packets(3, 5), None)
    until_waiting(left, 1)
    right = adapters[1].start_session(CAPACITY)
    assert sending.result(timeout=10) == 2
    assert numbers(right.receive()) == [3, 4]
    assert left.statistics.sent_dropped == 3


def test_statistics_are_exact(sessions: Sessions) -> None:
    left, right = sessions
    left.send([packet(1, 20), packet(2, 100)])
    left.send_packet(packet(3, 1500))
    left.send([])
    right.receive_packet()
    right.receive()
    right.receive(timeout=0)
    assert left.statistics == SessionStatistics(sent_packets=3, sent_bytes=1620, sent_bundles=2)
    assert right.statistics == SessionStatistics(received_packets=3, received_bytes=1620, received_bundles=2)
    fitting = (CAPACITY - 4) // 1504
    assert left.send([packet(4, 1500)] * 100) == fitting
    expected = SessionStatistics(0, 0, 0, 3 + fitting, 1620 + 1500 * fitting, 3, 100 - fitting)
    left.close()
    assert left.statistics == expected


def everyone(session: Session) -> Coroutine[None, None, list[object]]:
    """Two tasks that receive and two that send; what they returned or raised."""

    async def run() -> list[object]:
        waits = session.receive_async(), session.receive_async()
        sends = session.send_async(packets(1)), session.send_async(packets(1))
        return list(await asyncio.gather(*waits, *sends, return_exceptions=True))

    return run()


@pytest.mark.parametrize("by", ["session", "adapter"])
def test_closing_wakes_every_waiter(adapters: Pair, sessions: Sessions, by: str) -> None:
    left, _ = sessions
    assert left.send(packets(FITTING)) == FITTING
    threads: list[Future[object]] = [in_thread(left.receive) for _ in range(3)]
    threads += [in_thread(left.receive, 50), in_thread(left.receive_packet)]
    threads += [in_thread(left.send, packets(1), timeout) for timeout in (None, None, 50)]
    threads += [in_thread(left.send_packet, packet(0), None)]
    loops = [in_thread(asyncio.run, everyone(left)) for _ in range(2)]
    until_waiting(left, 9 + 8)
    left.close() if by == "session" else adapters[0].close()
    for future in threads:
        assert isinstance(future.exception(timeout=10), SessionClosed)
    for results in [loop.result(timeout=10) for loop in loops]:
        assert [type(result) for result in results] == [SessionClosed] * 4
    assert left.statistics.sent_dropped == 4 + 4


def test_the_far_adapter_going_wakes_every_waiter(adapters: Pair, sessions: Sessions) -> None:
    left, _ = sessions
    assert left.send(packets(FITTING)) == FITTING
    threads: list[Future[object]] = [in_thread(left.receive), in_thread(left.receive)]
    threads += [in_thread(left.send, packets(1), None)]
    loop = in_thread(asyncio.run, everyone(left))
    until_waiting(left, 3 + 4)
    adapters[1].close()
    for future in threads:
        assert isinstance(future.exception(timeout=10), AdapterGone)
    assert [type(result) for result in loop.result(timeout=10)] == [AdapterGone] * 4


def test_everybody_who_closes_returns_when_it_is_closed(adapters: Pair, sessions: Sessions) -> None:
    barrier = threading.Barrier(4)

    def close() -> bool:
        barrier.wait()
        sessions[0].close()
        return adapters[0].link_up

    closers = [in_thread(close) for _ in range(4)]
    assert [closer.result(timeout=10) for closer in closers] == [False] * 4
    sessions[0].close()
    assert sessions[0].closed


async def first_bundle(session: Session) -> Bundle:
    async for bundle in session:
        return bundle
    return Bundle()


USES: dict[str, Callable[[Session], object]] = {
    "receive": lambda session: session.receive(),
    "receive at once": lambda session: session.receive(timeout=0),
    "receive_packet": lambda session: session.receive_packet(timeout=0),
    "send": lambda session: session.send(packets(1)),
    "send nothing": lambda session: session.send([]),
    "send_packet": lambda session: session.send_packet(packet(1), timeout=None),
    "receive_async": lambda session: asyncio.run(session.receive_async()),
    "send_async": lambda session: asyncio.run(session.send_async(packets(1))),
    "fileno": lambda session: session.fileno(),
}


def test_a_closed_session_is_of_no_use(sessions: Sessions) -> None:
    left, right = sessions
    right.send(packets(3))
    with left:
        assert not left.closed
    assert left.closed
    for use in USES.values():
        with pytest.raises(SessionClosed, match="the session is closed"):
            use(left)
    assert list(left) == []
    assert not asyncio.run(first_bundle(left))


def test_iterating_ends_when_the_session_is_closed(sessions: Sessions) -> None:
    left, right = sessions

    def collect() -> list[int]:
        return [number for bundle in right for number in numbers(bundle)]

    async def collect_async() -> list[int]:
        return [number async for bundle in right for number in numbers(bundle)]

    collecting = [in_thread(collect), in_thread(asyncio.run, collect_async())]
    until_waiting(right, 2)
    left.send(packets(100))
    left.send(packets(100, 200))
    until(lambda: right.statistics.received_packets == 200)
    right.close()
    assert sorted([number for future in collecting for number in future.result(timeout=10)]) == list(range(200))


def test_iterating_can_be_left_and_taken_up(sessions: Sessions) -> None:
    left, right = sessions
    left.send(packets(300))
    assert len(next(iter(right))) == 256
    assert numbers(asyncio.run(first_bundle(right))) == list(range(256, 300))


# Sessions of the following tests are not the fixture's: what `fileno` gave goes with the session object.


def test_a_selector_tells_of_packets(adapters: Pair) -> None:
    left, right = (adapter.start_session(CAPACITY) for adapter in adapters)
    right.receive(timeout=0)
    with selectors.DefaultSelector() as selector:
        selector.register(right, selectors.EVENT_READ)
        assert selector.select(0) == []
        waiting = in_thread(selector.select, 30)
        left.send(packets(3))
        ((key, events),) = waiting.result(timeout=10)
        assert (key.fileobj, events) == (right, selectors.EVENT_READ)
        assert readable(right)
        assert len(right.receive()) == 3
        assert not right.receive(timeout=0)
        assert selector.select(0) == []
        assert not readable(right)


@pytest.mark.parametrize("end", [Session.close, MemoryAdapter.close], ids=["session", "adapter"])
def test_a_selector_tells_of_closing(adapters: Pair, end: Callable[[object], None]) -> None:
    session = adapters[0].start_session(CAPACITY)
    session.receive(timeout=0)
    with selectors.DefaultSelector() as selector:
        selector.register(fd := session.fileno(), selectors.EVENT_READ)
        assert selector.select(0) == []
        waiting: list[Future[Any]] = [in_thread(selector.select, 30), in_thread(select.select, [fd], [], [], 30)]
        end(session if end is Session.close else adapters[0])
        assert all(future.result(timeout=10) for future in waiting)
        assert readable(fd)
        adapters[0].close()
        del session
        gc.collect()
        if sys.platform != "win32":  # Where it is the number of a socket, which could be another's by now.
            with pytest.raises(OSError, match="Bad file descriptor"):
                os.fstat(fd)


def test_a_selector_tells_of_the_far_adapter_going(adapters: Pair) -> None:
    session = adapters[0].start_session(CAPACITY)
    session.receive(timeout=0)
    waiting = in_thread(select.select, [session], [], [], 30)
    adapters[1].close()
    assert waiting.result(timeout=10)[0] == [session]
    with pytest.raises(AdapterGone):
        session.receive()
    assert readable(session)


@pytest.mark.parametrize("direction", ["readable", "writable"])
def test_a_wake_is_for_ever(sessions: Sessions, direction: str) -> None:
    left, _ = sessions
    assert left.send(packets(FITTING)) == FITTING
    waitable: Waitable = getattr(left._port, direction)
    left._port.wake()
    assert not left.receive(timeout=0)
    assert not left.send(packets(1))
    # Who was in `receive` or `send` just then must not put those to sleep again who still wait.
    assert readable(waitable)


def test_cancelling_a_receive_loses_nothing(sessions: Sessions) -> None:
    left, right = sessions

    async def scenario() -> None:
        for number in range(50):
            task = asyncio.create_task(right.receive_async())
            await asyncio.to_thread(until_waiting, right, 1)
            left.send_packet(packet(number))
            for _ in range(number % 4):
                await asyncio.sleep(0)  # So many turns of the loop later, the task is cancelled.
            if task.cancel():
                with pytest.raises(asyncio.CancelledError):
                    await task
                task = asyncio.create_task(right.receive_async())
            assert numbers(await task) == [number]

    asyncio.run(scenario())
    until_waiting(right, 0)


def test_a_session_that_is_always_ready_leaves_others_their_turn(sessions: Sessions) -> None:
    left, right = sessions
    left.send(packets(2000))
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def scenario() -> None:
        task = asyncio.create_task(other())
        for received in range(7):
            assert numbers(await right.receive_async())[0] == 256 * received
        assert turns >= 6
        task.cancel()

    asyncio.run(scenario())


def test_a_receive_can_be_given_a_time_limit(sessions: Sessions) -> None:
    left, right = sessions

    async def scenario() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await right.receive_async()
        left.send(packets(2))
        async with asyncio.timeout(30):
            assert numbers(await right.receive_async()) == [0, 1]

    asyncio.run(scenario())


def test_sending_async_waits_for_room_for_all(sessions: Sessions) -> None:
    left, right = sessions
    count = 3 * FITTING

    async def scenario() -> None:
        sending = asyncio.create_task(left.send_async(packets(count)))
        found: list[int] = []
        while len(found) < count:
            found += numbers(await right.receive_async())
        assert found == list(range(count))
        assert await sending == count

    asyncio.run(scenario())
    assert left.statistics.sent_packets == count
    assert left.statistics.sent_dropped == 0


def test_cancelling_a_send_counts_the_rest_as_dropped(sessions: Sessions) -> None:
    left, right = sessions

    async def scenario() -> None:
        sending = asyncio.create_task(left.send_async(packets(FITTING + 10)))
        await asyncio.to_thread(until_waiting, left, 1)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending

    asyncio.run(scenario())
    assert (left.statistics.sent_packets, left.statistics.sent_dropped) == (FITTING, 10)
    assert drain(right, FITTING) == list(range(FITTING))


def test_two_loops_in_two_threads_share_a_session(sessions: Sessions) -> None:
    left, right = sessions
    count = 5_000

    async def collect() -> list[list[int]]:
        return list(await asyncio.gather(one(), one()))

    async def one() -> list[int]:
        return [number async for bundle in right for number in numbers(bundle)]

    loops = [in_thread(asyncio.run, collect()) for _ in range(2)]
    until_waiting(right, 4)
    for first in range(0, count, 8):
        assert left.send(packets(first, first + 8), timeout=None) == 8
    until(lambda: right.statistics.received_packets == count)
    right.close()
    found = [task for loop in loops for task in loop.result(timeout=10)]
    assert all(task == sorted(task) for task in found)
    assert sorted([number for task in found for number in task]) == list(range(count))


@pytest.mark.parametrize("sends", ["threads", "tasks"])
def test_several_senders_deliver_everything_intact(sessions: Sessions, sends: str) -> None:
    left, right = sessions
    each = 10_000

    def bundles(sender: int) -> Iterator[Sequence[bytes]]:
        rng = random.Random(sender)
        first, end = sender * each, (sender + 1) * each
        while first < end:
            last = min(end, first + rng.choice([1, 7, 100, 500]))
            yield [packet(number, rng.choice([SIZE, SIZE, 1500])) for number in range(first, last)]
            first = last

    def send_all(sender: int) -> int:
        return sum([left.send(bundle, timeout=None) for bundle in bundles(sender)])

    async def send_all_async(sender: int) -> int:
        return sum([await left.send_async(bundle) for bundle in bundles(sender)])

    if sends == "threads":
        senders = [in_thread(send_all, sender) for sender in range(4)]
    else:
        senders = [in_thread(asyncio.run, send_all_async(sender)) for sender in range(4)]
    found = drain(right, 4 * each)
    assert [sender.result(timeout=10) for sender in senders] == [each] * 4
    for sender in range(4):
        assert [number for number in found if number // each == sender] == list(
            range(sender * each, sender * each + each)
        )
    assert left.statistics.sent_packets == right.statistics.received_packets == 4 * each
    assert left.statistics.sent_bytes == right.statistics.received_bytes


def test_closing_at_any_moment_harms_nobody() -> None:
    rng = random.Random(7)
    for _ in range(100):
        left, right = MemoryAdapter.pair()
        with left, right:
            ends = [left.start_session(CAPACITY), right.start_session(CAPACITY)]
            uses: list[Callable[[Session], object]] = [list, list, send_on, send_on]
            users = [in_thread(use, end) for end in ends for use in uses]
            ends[0].receive(timeout=10)
            rng.shuffle(ends)
            for end in ends:
                end.close()
            for user in users:
                user.result(timeout=10)


def send_on(session: Session) -> None:
    """Send until the session is closed."""
    try:
        while True:
            session.send([packet(1, 1500)] * 20, timeout=None)
    except SessionClosed:
        return


class FakePort:
    """A port whose `send` does as told, call by call: accept so many packets, or raise."""

    def __init__(self, *answers: int | OSError) -> None:
        self.answers = list(answers)
        self.writable = Doorbell()
        self.writable.ring()
        self.readable: Waitable = self.writable
        self.calls: list[str] = []

    def receive(self) -> Bundle:
        return Bundle()

    def send(self, bundle: Bundle) -> Bundle:
        answer = self.answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return bundle[answer:]

    def lend(self) -> None:
        return None

    def wake(self) -> None:
        self.calls.append("wake")

    def stop(self) -> None:
        self.calls.append("stop")

    def dispose(self) -> None:
        self.calls.append("dispose")
        self.writable.close()


class Exhausted:
    """Something to wait for in a process that has no descriptors left."""

    def fileno(self) -> int:
        raise OSError(errno.EMFILE, "too many open files")

    def wait(self, timeout: float | None) -> None:
        raise OSError(errno.EMFILE, "too many open files")

    def notify(self, loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> Callable[[], None]:
        raise OSError(errno.EMFILE, "too many open files")

    def hold(self, held: bool) -> None: ...


def test_a_port_is_woken_stopped_and_disposed_of_once() -> None:
    session = Session(port := FakePort())
    session.close()
    session.close()
    assert port.calls == ["wake", "stop", "dispose"]


def test_what_is_left_when_the_link_goes_down_is_dropped() -> None:
    with closing(Session(FakePort(2, 0, LinkDown(errno.EIO, "down"), 5))) as session:
        with pytest.raises(LinkDown):
            session.send(packets(5), timeout=None)
        assert (session.statistics.sent_packets, session.statistics.sent_dropped) == (2, 3)
        assert session.send(packets(5)) == 5
    assert session.statistics == SessionStatistics(0, 0, 0, 7, 7 * SIZE, 2, 3)


@pytest.mark.parametrize("use", ["receive", "receive_async"])
def test_a_failure_to_wait_leaves_nothing_behind(use: str) -> None:
    port = FakePort()
    port.readable = Exhausted()
    session = Session(port)
    with pytest.raises(OSError, match="too many open files"):
        USES[use](session)
    session.close()
    assert port.calls == ["wake", "stop", "dispose"]
