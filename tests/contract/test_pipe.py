"""The pipe: both directions, order, back-pressure, and its ends."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

import threepipe
from tests.support.ports import PortInMemory
from threepipe.core.packet import MAX_PACKET
from threepipe.endpoint import Endpoint, Filter
from threepipe.piping import pipe
from threepipe.pump import interrupt, pump
from threepipe.ring import MIN_CAPACITY

SECONDS = 10.0


def packet(number: int, size: int = 100) -> bytes:
    return (b"\x45" + bytes(15) + number.to_bytes(4, "big")).ljust(size, b".")


class Stage:
    """Two programs, each behind a pair of memory adapters, and the two sessions between them, to be piped."""

    def __init__(self, stack: ExitStack) -> None:
        self.adapters = [stack.enter_context(adapter) for _ in "ab" for adapter in threepipe.MemoryAdapter.pair()]
        sessions = [adapter.start_session(MIN_CAPACITY) for adapter in self.adapters]
        self.program_a, self.a, self.b, self.program_b = sessions
        self.executor = stack.enter_context(ThreadPoolExecutor(4))
        # This runs before the executor is joined: no thread can be left waiting.
        for session in sessions:
            stack.callback(session.close)

    def start(self) -> None:
        self.ended = self.executor.submit(pipe, self.a, self.b)


@pytest.fixture
def stage() -> Iterator[Stage]:
    with ExitStack() as stack:
        yield Stage(stack)


def collect(session: threepipe.Session, count: int) -> list[bytes]:
    found: list[bytes] = []
    while len(found) < count and (bundle := session.receive(SECONDS)):
        found += map(bytes, bundle)
    return found


def test_packets_go_both_ways_in_order(stage: Stage) -> None:
    stage.start()
    packets = [packet(number) for number in range(1000)]
    for source, target in ((stage.program_a, stage.program_b), (stage.program_b, stage.program_a)):
        sending = stage.executor.submit(source.send, packets, None)
        assert collect(target, len(packets)) == packets
        assert sending.result(SECONDS) == len(packets)


def test_a_slow_target_makes_the_source_wait_and_loses_nothing(stage: Stage) -> None:
    stage.start()
    packets = [packet(number, 1400) for number in range(1000)]  # Ten times what all the rings hold.
    sending = stage.executor.submit(stage.program_a.send, packets, None)
    assert collect(stage.program_b, len(packets)) == packets
    assert sending.result(SECONDS) == len(packets)
    assert stage.b.statistics.sent_dropped == 0


@pytest.mark.parametrize("which", ["a", "b"])
def test_close_of_one_session_ends_the_pipe_and_closes_the_other(stage: Stage, which: str) -> None:
    stage.start()
    getattr(stage, which).close()
    assert stage.ended.result(SECONDS) is None
    assert stage.a.closed
    assert stage.b.closed


def test_close_while_the_target_has_no_room_ends_the_pipe(stage: Stage) -> None:
    stage.start()
    packets = [packet(number, 1400) for number in range(1000)]
    sending = stage.executor.submit(stage.program_a.send, packets, None)
    collect(stage.program_b, 1)
    stage.b.close()
    assert stage.ended.result(SECONDS) is None
    stage.program_a.close()
    with pytest.raises(threepipe.SessionClosed):
        sending.result(SECONDS)


@pytest.mark.parametrize("which", [0, 3])
@pytest.mark.parametrize("before", [True, False])
def test_close_of_the_other_end_of_an_adapter_ends_the_pipe(stage: Stage, which: int, before: bool) -> None:
    if not before:
        stage.start()
        assert stage.program_a.send([packet(1)], None) == 1
        assert collect(stage.program_b, 1) == [packet(1)]
    stage.adapters[which].close()
    if before:
        stage.start()
    assert stage.ended.result(SECONDS) is None
    assert stage.a.closed
    assert stage.b.closed


def test_packets_for_an_adapter_whose_other_end_is_closed_are_dropped_and_counted(stage: Stage) -> None:
    assert stage.program_a.send([packet(1), packet(2)]) == 2
    stage.adapters[3].close()
    stage.start()
    assert stage.ended.result(SECONDS) is None
    assert (stage.a.statistics.received_packets, stage.b.statistics.sent_dropped) == (2, 2)


def pipe_in_a_loop(a: Endpoint, b: Endpoint) -> None:
    asyncio.run(threepipe.pipe_async(a, b))


EITHER = pytest.mark.parametrize("run", [pipe, pipe_in_a_loop])


@EITHER
@pytest.mark.parametrize("error", [ZeroDivisionError, SystemExit])
@pytest.mark.parametrize("which", [0, 1])
def test_an_exception_of_an_endpoint_reaches_the_caller(
    stage: Stage, which: int, error: type[BaseException], run: Callable[[Endpoint, Endpoint], None]
) -> None:
    class Broken(Filter):
        def receive(self, timeout: float | None = None) -> threepipe.Bundle:
            raise error

    endpoints: list[Endpoint] = [stage.a, stage.b]
    endpoints[which] = Broken(endpoints[which])
    with pytest.raises(error):
        run(*endpoints)
    assert stage.a.closed
    assert stage.b.closed


@EITHER
def test_a_pipe_without_a_thread_closes_both_ends(
    stage: Stage, run: Callable[[Endpoint, Endpoint], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        run(Filter(stage.a), stage.b)
    assert stage.a.closed
    assert stage.b.closed


@EITHER
def test_an_object_that_is_not_an_endpoint_raises_type_error_and_nothing_is_closed(
    stage: Stage, run: Callable[[object, object], None]
) -> None:
    for ends in ((stage.adapters[1], stage.b), (stage.a, "tun:tp0")):
        with pytest.raises(TypeError, match=r"give a session of it, such as adapter\.start_session\(\)"):
            run(*ends)
    with pytest.raises(ValueError, match="both ends of the pipe are the same object"):
        run(stage.a, stage.a)
    assert not stage.a.closed
    assert not stage.b.closed


async def run_until_cancelled(stage: Stage, a: Endpoint, b: Endpoint) -> None:
    """Start a pipe in the event loop, pass packets both ways through it, and cancel it."""
    pipe_task = asyncio.create_task(threepipe.pipe_async(a, b))
    packets = [packet(number, 1400) for number in range(300)]
    for source, target in ((stage.program_a, stage.program_b), (stage.program_b, stage.program_a)):
        sending = asyncio.create_task(source.send_async(packets))
        found: list[bytes] = []
        while len(found) < len(packets):
            found += map(bytes, await asyncio.wait_for(target.receive_async(), SECONDS))
        assert found == packets
        assert await sending == len(packets)
    pipe_task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await pipe_task


@pytest.mark.parametrize("with_filter", [False, True])
def test_an_asyncio_pipe_moves_packets_both_ways_and_can_be_cancelled(stage: Stage, with_filter: bool) -> None:
    threads = threading.active_count()
    asyncio.run(run_until_cancelled(stage, Filter(stage.a) if with_filter else stage.a, stage.b))
    assert stage.a.closed
    assert stage.b.closed
    assert threading.active_count() == threads


@pytest.mark.parametrize("with_filter", [False, True])
@pytest.mark.parametrize("which", ["a", "b"])
def test_close_of_a_session_ends_an_asyncio_pipe(stage: Stage, which: str, with_filter: bool) -> None:
    async def main() -> None:
        left = Filter(stage.a) if with_filter else stage.a
        running = asyncio.create_task(threepipe.pipe_async(left, stage.b))
        await asyncio.sleep(0)
        getattr(stage, which).close()
        await asyncio.wait_for(running, SECONDS)

    asyncio.run(main())
    assert stage.a.closed
    assert stage.b.closed


def test_an_asyncio_pipe_drops_and_counts_packets_that_cannot_be_sent() -> None:
    left, right = Ending([packet(1), b"\0" * 60], [packet(2)]), Ending()
    right.errors = [threepipe.LinkDown(5, "down")]
    a, b = threepipe.Session(left), threepipe.Session(right)
    pipe_in_a_loop(a, b)
    assert right.sent == [packet(2)]
    assert b.statistics.sent_dropped == 2


class Script:
    """A port that returns prepared bundles and then waits; its sends raise `errors`, one after the other."""

    def __init__(self, bundles: list[list[bytes]], errors: list[Exception]) -> None:
        self._bundles = bundles
        self._errors = errors
        self._awake = threading.Event()
        self.sent: list[bytes] = []
        self.done = threading.Event()
        self.readable = self.writable = self

    def fileno(self) -> int:
        return -1

    def notify(self, loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> Callable[[], None]:
        raise NotImplementedError

    def hold(self, held: bool) -> None: ...

    def wait(self, timeout: float | None) -> None:
        self.done.set()
        self._awake.wait(timeout)

    def receive(self) -> threepipe.Bundle:
        return threepipe.Bundle(self._bundles.pop(0) if self._bundles else [])

    def send(self, bundle: threepipe.Bundle) -> threepipe.Bundle:
        if self._errors:
            raise self._errors.pop(0)
        self.sent += map(bytes, bundle)
        return threepipe.Bundle()

    def lend(self) -> None:
        return None

    def wake(self) -> None:
        self._awake.set()

    def stop(self) -> None: ...
    def dispose(self) -> None: ...


def test_packets_for_a_link_that_is_down_are_dropped_and_counted() -> None:
    source = Script([[packet(1), packet(2)], [packet(3)]], [])
    target = Script([], [threepipe.LinkDown(5, "down")])
    a, b = threepipe.Session(source), threepipe.Session(target)
    with ThreadPoolExecutor(1) as executor:
        ended = executor.submit(pipe, a, b)
        assert source.done.wait(SECONDS)
        assert target.sent == [packet(3)]
        assert b.statistics.sent_dropped == 2
        a.close()
        ended.result(SECONDS)


def test_invalid_packets_are_dropped_and_counted() -> None:
    hostile = [b"", b"\x45", b"\0" * 60, b"\x45" * (MAX_PACKET + 1), b"\x60" * 39]
    source, target = Script([[packet(1), *hostile, packet(2)]], []), Script([], [])
    a, b = threepipe.Session(source), threepipe.Session(target)
    with ThreadPoolExecutor(1) as executor:
        ended = executor.submit(pipe, a, b)
        assert source.done.wait(SECONDS)
        assert target.sent == [packet(1), packet(2)]
        assert b.statistics.sent_dropped == len(hostile)
        b.close()
        ended.result(SECONDS)


class Ending(PortInMemory):
    """A port with descriptors that gives out prepared bundles and then ends; its sends raise `errors` first."""

    def __init__(self, *bundles: list[bytes]) -> None:
        super().__init__()
        self._bundles = list(bundles)
        self.readable.ring()
        self.writable.ring()
        self.errors: list[Exception] = []
        self.sent: list[bytes] = []

    def receive(self) -> threepipe.Bundle:
        if not self._bundles:
            raise threepipe.EndpointEnded("the other end has closed")
        return threepipe.Bundle(self._bundles.pop(0))

    def send(self, bundle: threepipe.Bundle) -> threepipe.Bundle:
        if self.errors:
            raise self.errors.pop(0)
        self.sent += map(bytes, bundle)
        return threepipe.Bundle()


def test_a_pipe_of_two_ended_endpoints_delivers_their_packets_and_ends() -> None:
    left, right = Ending([packet(1), packet(2)]), Ending([packet(3)])
    a, b = threepipe.Session(left), threepipe.Session(right)
    pipe(a, b)
    assert (left.sent, right.sent) == ([packet(3)], [packet(1), packet(2)])
    assert a.closed
    assert b.closed


def test_an_error_of_an_endpoint_without_descriptors_reaches_the_caller() -> None:
    class Broken(Script):
        def receive(self) -> threepipe.Bundle:
            raise threepipe.AdapterGone(19, "the adapter was removed")

    with pytest.raises(threepipe.AdapterGone, match="was removed"):
        pipe(threepipe.Session(Broken([], [])), threepipe.Session(Script([], [])))


def test_an_interrupt_before_the_pump_has_it_return_at_once(stage: Stage) -> None:
    interrupt(stage.a)
    assert pump(stage.a, stage.b)
    assert not stage.a.closed
    assert not stage.b.closed


def test_sessions_without_descriptors_are_not_pumped() -> None:
    class WithoutDescriptor(Script):
        def fileno(self) -> int:
            raise OSError("this system has no descriptor for it")

    with threepipe.Session(WithoutDescriptor([], [])) as left, threepipe.Session(Script([], [])) as right:
        assert not pump(left, right)
