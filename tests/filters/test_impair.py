"""Impairments of sessions: measured delays and rates, counts, endings and waking."""

import random
import struct
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

import threepipe
from tests.support.frames import TCP4, TCP6, UDP4, UDP6, frame, icmp, mss, syn
from tests.support.impairments import MANY, packet, within_bounds
from tests.support.ports import PortInMemory
from tests.support.timing import CLOCK, assert_late_by
from threepipe import Bundle
from threepipe.endpoint import Filter
from threepipe.filters.clamp import Clamp
from threepipe.filters.impair import Impair
from threepipe.filters.impairment import Impairment, parse_impairment
from threepipe.piping import pipe
from threepipe.settings import MAX_CAPACITY

SECONDS = 10.0


class Stage:
    """Two programs with a pipe between them; packets of the first are impaired."""

    def __init__(self, stack: ExitStack, impairment: str, back: str | None = None) -> None:
        self.stack = stack
        adapters = [stack.enter_context(adapter) for _ in "ab" for adapter in threepipe.MemoryAdapter.pair()]
        self.left, a, b, self.right = [adapter.start_session(MAX_CAPACITY) for adapter in adapters]
        self.impaired = Impair(a, parse_impairment(impairment), towards="right")
        far = b if back is None else Impair(b, parse_impairment(back), towards="left")
        self.executor = stack.enter_context(ThreadPoolExecutor(4))
        stack.callback(self.left.close)
        stack.callback(self.right.close)
        stack.callback(self.impaired.close)
        self.ended = self.executor.submit(pipe, self.impaired, far)

    def arrivals(self, count: int) -> list[tuple[float, bytes]]:
        found: list[tuple[float, bytes]] = []
        while len(found) < count and (bundle := self.right.receive(SECONDS)):
            now = time.monotonic()
            found += [(now, bytes(data)) for data in bundle]
        return found


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as everything:
        yield everything


def stamped() -> bytes:
    return packet(0, 92) + struct.pack("d", time.monotonic())


@pytest.mark.soak
def test_the_measured_delay_is_right_within_a_millisecond(stack: ExitStack) -> None:
    stage = Stage(stack, "delay=20ms")

    def late() -> list[float]:
        receiving = stage.executor.submit(stage.arrivals, 60)
        for _ in range(60):
            stage.left.send([stamped()])
            time.sleep(0.0037)  # The interval between packets; several are on their way at a time.
        return [now - struct.unpack("d", data[92:])[0] for now, data in receiving.result(SECONDS)]

    assert_late_by(0.02, 0.001, late)


@pytest.mark.soak
def test_the_measured_rate_is_right_within_three_percent(stack: ExitStack) -> None:
    stage = Stage(stack, "rate=20mbit,limit=5000")
    packets = [packet(number, 1250) for number in range(3000)]  # They take 1.5 s.
    receiving = stage.executor.submit(stage.arrivals, len(packets))
    stage.left.send(packets, None)
    found = receiving.result(SECONDS)
    assert [data for _, data in found] == packets
    start, end = found[0][0], found[-1][0]
    behind_first = sum(len(data) for now, data in found if now > start)
    assert behind_first * 8 / (end - start) == pytest.approx(20e6, rel=0.03)


def test_loss_duplication_and_corruption_agree_with_the_counts(stack: ExitStack) -> None:
    near, far = map(stack.enter_context, threepipe.MemoryAdapter.pair())
    target, program = [stack.enter_context(adapter.start_session(MAX_CAPACITY)) for adapter in (near, far)]
    packets = [packet(number, 60) for number in range(MANY)]
    bundles = [packets[start : start + 100] for start in range(0, MANY, 100)]
    impaired = replayed(bundles, "loss=5%,duplicate=2%,corrupt=3%,seed=1")
    pipe(impaired, target)  # It returns when the replay ends.
    counts = impaired.counts
    arrived: list[bytes] = []
    while bundle := program.receive(0):
        arrived += map(bytes, bundle)
    numbers = [data[16:20] for data in arrived]
    assert len(set(numbers)) == MANY - counts.lost
    assert len(numbers) - len(set(numbers)) == counts.duplicated
    assert sum(data[20:] != packets[0][20:] for data in arrived) == counts.corrupted
    assert within_bounds(counts.lost, MANY, 0.05)
    assert within_bounds(counts.duplicated, MANY - counts.lost, 0.02)
    assert within_bounds(counts.corrupted, len(arrived), 0.03)
    assert (counts.reordered, counts.overflowed) == (0, 0)
    assert impaired.statistics.received_packets == len(arrived)
    assert impaired.statistics.received_bytes == 60 * len(arrived)
    assert impaired.inner.statistics.received_packets == MANY


def test_each_direction_has_its_own_impairment(stack: ExitStack) -> None:
    stage = Stage(stack, "delay=1ms", back="loss=100%")
    stage.right.send([packet(number) for number in range(5)])
    stage.left.send([packet(7)])
    assert [data for _, data in stage.arrivals(1)] == [packet(7)]
    assert not stage.left.receive(0)


def test_clamp_and_impair_work_together(stack: ExitStack) -> None:
    adapters = [stack.enter_context(adapter) for _ in "ab" for adapter in threepipe.MemoryAdapter.pair()]
    left, a, b, right = [stack.enter_context(adapter.start_session()) for adapter in adapters]
    slow = Impairment(delay=0.01)
    ends = Impair(Clamp(a, 1300), slow, towards="right"), Impair(Clamp(b, 1300), slow, towards="left")
    executor = stack.enter_context(ThreadPoolExecutor(1))
    ended = executor.submit(pipe, *ends)
    stack.callback(ends[0].close)
    for source, target in ((left, right), (right, left)):
        before = time.monotonic()
        source.send([syn(TCP4, mss(1460)), syn(TCP6, mss(1440))])
        assert list(target.receive(SECONDS)) == [syn(TCP4, mss(1260)), syn(TCP6, mss(1240))]
        assert time.monotonic() - before >= 0.01
    ends[1].close()
    assert ended.result(SECONDS) is None


def test_two_impairments_in_a_row_add_up() -> None:
    start = time.monotonic()
    with replayed([[packet(number) for number in range(3)]], "delay=15ms") as near:
        far = Impair(near, Impairment(delay=0.01, rate=80e3), towards="right")
        found: list[bytes] = []
        while len(found) < 3:
            found += map(bytes, far.receive(SECONDS))
        assert time.monotonic() - start >= 0.055  # 10 ms for each packet, and both delays.
        assert found == [packet(number) for number in range(3)]
        with pytest.raises(threepipe.EndpointEnded):
            far.receive()


def test_delayed_packets_keep_their_contents_and_order(stack: ExitStack) -> None:
    """The packets exceed the receive memory of sessions, which is reused."""
    stage = Stage(stack, "delay=30ms")
    packets = [random.Random(number).randbytes(4).join([packet(number, 700)] * 2) for number in range(4000)]
    sending = stage.executor.submit(stage.left.send, packets, None)
    assert [data for _, data in stage.arrivals(4000)] == packets
    assert sending.result(SECONDS) == 4000


class Replay(PortInMemory):
    """A port that returns `bundles` one by one, and then ends or stays silent."""

    def __init__(self, bundles: list[list[bytes]], *, ends: bool) -> None:
        super().__init__()
        self._bundles = bundles
        self._ends = ends
        self.readable.ring()

    def receive(self) -> Bundle:
        if self._bundles:
            return Bundle([bytearray(data) for data in self._bundles.pop(0)])
        if self._ends:
            raise threepipe.EndpointEnded("the replay is over")
        self.readable.clear()
        return Bundle()

    def send(self, bundle: Bundle) -> Bundle:
        raise NotImplementedError


def replayed(bundles: list[list[bytes]], impairment: str, *, ends: bool = True) -> Impair:
    return Impair(threepipe.Session(Replay(bundles, ends=ends)), parse_impairment(impairment), towards="right")


def test_delayed_packets_arrive_in_time_before_the_end() -> None:
    start = time.monotonic()
    with replayed([[packet(1)], [packet(2), packet(3)]], "delay=30ms") as impaired:
        found: list[bytes] = []
        while len(found) < 3:
            found += map(bytes, impaired.receive(SECONDS))
        assert time.monotonic() - start >= 0.03
        assert found == [packet(1), packet(2), packet(3)]
        for _ in range(2):
            with pytest.raises(threepipe.EndpointEnded):
                impaired.receive()


def test_an_end_without_delayed_packets_is_raised_at_once() -> None:
    with replayed([[packet(1)]], "loss=100%") as impaired, pytest.raises(threepipe.EndpointEnded):
        impaired.receive()


def test_invalid_packets_pass_unchanged() -> None:
    hostile = [b"", b"\x45", bytes(60), b"\x60" * 39]
    with replayed([hostile], "corrupt=100%") as impaired:
        found = [bytes(data) for data in impaired.receive(SECONDS)]
    assert [len(data) for data in found] == [len(data) for data in hostile]


@pytest.mark.parametrize("timeout", [0, 0.001, 0.03])
def test_receive_with_a_delayed_packet_keeps_its_timeout(timeout: float) -> None:
    with replayed([[packet(1)]], "delay=1000s", ends=False) as impaired:
        before = time.monotonic()
        assert not impaired.receive(timeout)
        assert time.monotonic() - before >= timeout - CLOCK


def test_a_wait_for_a_first_packet_takes_no_processor_time() -> None:
    with replayed([], "delay=20ms", ends=False) as impaired:
        before = time.thread_time()
        assert not impaired.receive(0.5)
        assert time.thread_time() - before < 0.05


def test_a_wait_for_a_packet_due_soon_takes_little_processor_time(stack: ExitStack) -> None:
    near, far = map(stack.enter_context, threepipe.MemoryAdapter.pair())
    impaired = stack.enter_context(Impair(near.start_session(), Impairment(delay=0.0019), towards="right"))
    program = stack.enter_context(far.start_session())
    start, before = time.monotonic(), time.thread_time()
    for _ in range(100):
        program.send([packet(1)])
        assert impaired.receive(SECONDS)
    assert time.thread_time() - before < (time.monotonic() - start) / 2


@pytest.mark.parametrize("ends", [False, True])
@pytest.mark.parametrize("delay", ["delay=1000s", "delay=1ms,rate=1bit"])
def test_close_wakes_a_receive_that_waits_for_a_delayed_packet(ends: bool, delay: str) -> None:
    with replayed([[packet(1)]], delay, ends=ends) as impaired, ThreadPoolExecutor(1) as executor:
        assert not impaired.receive(0.01)  # From now on the packet is delayed.
        waiting = executor.submit(impaired.receive)
        impaired.close()
        with pytest.raises(threepipe.SessionClosed):
            waiting.result(SECONDS)
        with pytest.raises(threepipe.SessionClosed):
            impaired.receive(0)


class Gone(Filter):
    """An endpoint whose adapter is removed after its first bundle."""

    def receive(self, timeout: float | None = None) -> Bundle:
        if self.statistics.received_packets:
            raise threepipe.AdapterGone(19, "the adapter was removed")
        return self.inner.receive(timeout)


def test_a_failed_inner_endpoint_is_raised_at_once(stack: ExitStack) -> None:
    near, far = map(stack.enter_context, threepipe.MemoryAdapter.pair())
    impaired = stack.enter_context(Impair(Gone(near.start_session()), Impairment(delay=1000), towards="right"))
    far.start_session().send([packet(1)])
    with pytest.raises(threepipe.AdapterGone):
        impaired.receive(SECONDS)


def test_more_packets_than_a_bundle_holds_arrive_in_several() -> None:
    packets = [packet(number) for number in range(3000)]
    with replayed([packets], "delay=1ms") as impaired:
        found: list[bytes] = []
        while len(found) < 3000:
            bundle = impaired.receive(SECONDS)
            assert 0 < len(bundle) <= 1024
            found += map(bytes, bundle)
        assert found == packets
        assert impaired.statistics[:3] == (3000, 300_000, 3)


def test_packets_of_both_versions_and_all_protocols_pass(stack: ExitStack) -> None:
    stage = Stage(stack, "delay=1ms,jitter=1ms")
    packets = [frame(kind) for kind in (TCP4, TCP6, UDP4, UDP6)] + [icmp(4), icmp(6)]
    stage.left.send(packets)
    assert [data for _, data in stage.arrivals(6)] == packets
