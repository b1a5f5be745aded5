"""The scheduler of impairments, with exact times of a clock that the tests set."""

import math
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.frames import TCP4, TCP6, UDP4, frame
from tests.support.impairments import MANY, number_of, packet, within_bounds
from threepipe.filters.impairment import Impairment, Towards
from threepipe.filters.scheduler import ImpairmentCounts, Scheduler

ALL = 1 << 30


def scheduler(towards: Towards = "right", **impairment: float) -> Scheduler:
    return Scheduler(Impairment(**impairment), towards)  # type: ignore[arg-type]


def run(line: Scheduler, packets: list[bytes], interval: float = 0.0) -> list[tuple[float, bytes]]:
    """Put packets one after the other from time 0 on, take each when it is due, and return them with those times."""
    found: list[tuple[float, bytes]] = []

    def take_until(moment: float) -> None:
        while (due := line.next_due) is not None and due <= moment:
            taken = line.take(due, 1)
            assert len(taken) == 1
            found.append((due, bytes(taken[0])))

    for index, data in enumerate(packets):
        take_until(index * interval)
        line.put([data], index * interval)
    take_until(math.inf)
    assert len(line) == 0
    return found


def test_packets_without_impairment_pass_at_once_and_in_order() -> None:
    packets = [packet(number) for number in range(100)]
    line = scheduler()
    assert line.next_due is None
    line.put(packets, 5.0)
    assert line.next_due == 5.0
    assert [bytes(view) for view in line.take(5.0, 60)] == packets[:60]
    assert [bytes(view) for view in line.take(5.0, 60)] == packets[60:]
    assert line.take(6.0, 60) == []
    assert line.counts == ImpairmentCounts()


def test_a_delayed_packet_is_due_exactly_after_the_delay() -> None:
    line = scheduler(delay=0.02)
    found = run(line, [packet(number) for number in range(10)], 0.001)
    assert [number_of(data) for _, data in found] == list(range(10))
    assert [due for due, _ in found] == pytest.approx([0.02 + index * 0.001 for index in range(10)], abs=1e-12)
    line.put([packet(1)], 100.0)
    assert line.take(100.0199, ALL) == []
    assert len(line.take(100.02, ALL)) == 1


def test_put_copies_packets_and_take_returns_writable_ones() -> None:
    line, memory = scheduler(), bytearray(packet(1))
    line.put([memoryview(memory)], 0.0)
    memory[:] = bytes(len(memory))
    (taken,) = line.take(0.0, 1)
    assert taken == packet(1)
    assert not taken.readonly


def test_jitter_is_uniform_around_the_delay() -> None:
    late = [
        due - index for index, (due, _) in enumerate(run(scheduler(delay=0.5, jitter=0.1), [packet(0)] * MANY, 1.0))
    ]
    assert 0.4 <= min(late) < 0.401
    assert 0.599 < max(late) <= 0.6
    tenths = [sum(0.4 + tenth * 0.02 <= value < 0.42 + tenth * 0.02 for value in late) for tenth in range(10)]
    assert all(within_bounds(count, MANY, 0.1) for count in tenths)


def test_packets_with_jitter_stay_in_order() -> None:
    line = scheduler(delay=0.05, jitter=0.05)
    found = run(line, [packet(number) for number in range(1000)], 0.001)
    assert [number_of(data) for _, data in found] == list(range(1000))
    assert line.counts.reordered == 0


def test_jitter_greater_than_the_delay_stops_at_zero() -> None:
    late = [
        due - index for index, (due, _) in enumerate(run(scheduler(delay=0.1, jitter=0.4), [packet(0)] * 1000, 1.0))
    ]
    assert min(late) == 0
    assert 0.49 < max(late) <= 0.5


@pytest.mark.parametrize("probability", [0.001, 0.01, 0.1, 0.5])
@pytest.mark.parametrize("seed", [0, 7])
def test_loss_is_within_statistical_bounds(probability: float, seed: int) -> None:
    line = scheduler(loss=probability, seed=seed)
    found = [number_of(data) for _, data in run(line, [packet(number) for number in range(MANY)])]
    assert found == sorted(set(found))
    assert line.counts == ImpairmentCounts(lost=MANY - len(found))
    assert within_bounds(MANY - len(found), MANY, probability)


@pytest.mark.parametrize("probability", [0.001, 0.01, 0.1, 0.5])
def test_duplication_is_within_statistical_bounds(probability: float) -> None:
    line = scheduler(duplicate=probability)
    found = [number_of(data) for _, data in run(line, [packet(number) for number in range(MANY)])]
    assert sorted(set(found)) == list(range(MANY))
    assert line.counts == ImpairmentCounts(duplicated=len(found) - MANY)
    assert within_bounds(len(found) - MANY, MANY, probability)
    assert max(map(found.count, found[:200])) <= 2


@pytest.mark.parametrize("make", [lambda: frame(TCP4), lambda: frame(TCP6), lambda: frame(UDP4, middle=b"\1" * 8)])
def test_corruption_flips_one_bit_after_the_ip_header(make: Callable[[], bytes]) -> None:
    data = make()
    header = (data[0] & 15) * 4 if data[0] >> 4 == 4 else 40
    line = scheduler(corrupt=0.3)
    whole = int.from_bytes(data, "big")
    turned = [int.from_bytes(found, "big") ^ whole for _, found in run(line, [data] * MANY)]
    bits = [bits for bits in turned if bits]
    assert line.counts == ImpairmentCounts(corrupted=len(bits))
    assert within_bounds(len(bits), MANY, 0.3)
    assert {value.bit_count() for value in bits} == {1}
    places = {len(data) * 8 - value.bit_length() for value in bits}
    assert places == set(range(header * 8, len(data) * 8)), "some bits are never turned over"


@pytest.mark.parametrize("data", [b"", b"\x45", packet(1, 20), frame(TCP6)[:40], frame(TCP6)[:39], b"\x4f" + bytes(59)])
def test_a_bare_header_is_not_corrupted(data: bytes) -> None:
    line = scheduler(corrupt=1)
    assert run(line, [data]) == [(0.0, data)]
    assert line.counts.corrupted == 0


def test_an_impossible_header_length_counts_as_the_shortest() -> None:
    line = scheduler(corrupt=1)
    for _, found in run(line, [b"\x41" + bytes(20)] * 100):
        assert found[:20] == b"\x41" + bytes(19)
        assert found[20]


def test_reordered_packets_overtake_the_delayed_ones() -> None:
    line = scheduler(delay=0.0105, reorder=0.1)
    found = [(due, number_of(data)) for due, data in run(line, [packet(number) for number in range(MANY)], 0.001)]
    early = {number for due, number in found if due == number * 0.001}
    ordinary = [number for _, number in found if number not in early]
    assert ordinary == sorted(ordinary)
    assert [due for due, number in found if number not in early] == [number * 0.001 + 0.0105 for number in ordinary]
    assert within_bounds(len(early), MANY, 0.1)
    # Ten others are delayed when a packet overtakes them, unless all of those overtake as well.
    after = [{number for _, number in found[place + 1 : place + 12]} for place in range(MANY)]
    overtaking = sum(min(numbers, default=number) < number for (_, number), numbers in zip(found, after, strict=True))
    assert line.counts == ImpairmentCounts(reordered=overtaking)


def test_a_reordered_packet_that_overtakes_none_is_not_counted() -> None:
    line = scheduler(delay=0.5, reorder=1)
    run(line, [packet(number) for number in range(10)], 1.0)
    assert line.counts == ImpairmentCounts()


def test_packets_pass_one_after_the_other_at_the_exact_rate() -> None:
    sizes = [1500, 40, 1000, 60]
    found = run(scheduler(rate=8e6), [packet(0, size) for size in sizes])
    assert [due for due, _ in found] == pytest.approx([0.0015, 0.00154, 0.00254, 0.0026])
    found = run(scheduler(rate=8e6, delay=0.1), [packet(0, size) for size in sizes], 1.0)
    assert [due for due, _ in found] == pytest.approx([0.1015, 1.10004, 2.101, 3.10006])


def test_reordered_packets_and_copies_keep_to_the_rate() -> None:
    line = scheduler(rate=8e6, delay=0.01, reorder=0.5, duplicate=0.5)
    found = run(line, [packet(number, 1000) for number in range(900)])
    assert line.counts.overflowed > 0
    passed = len(found)
    assert found[-1][0] == pytest.approx(passed * 0.001 + 0.01, abs=0.01)
    skipped = [due for due, _ in found if due <= 0.01]
    assert skipped == pytest.approx([round(due / 0.001) * 0.001 for due in skipped])
    assert line.counts.reordered > 200


def test_a_burst_passes_at_once_after_a_pause() -> None:
    line = scheduler(rate=8e6, burst=5000)
    line.put([packet(0, 1000)] * 10, 1.0)
    assert len(line.take(1.0, ALL)) == 5
    for left in range(5):
        assert line.next_due == pytest.approx(1.001 + left * 0.001)
        assert len(line.take(1.0011 + left * 0.001, ALL)) == 1
    # Two milliseconds after the last packet there is room for two again.
    line.put([packet(0, 1000)] * 4, 1.007 + 1e-9)
    assert len(line.take(1.007 + 1e-9, ALL)) == 2
    line.put([packet(0, 1000)] * 10, 50.0)
    assert len(line.take(50.0, ALL)) == 7


def test_the_default_limit_counts_packets_that_wait_for_the_line_only() -> None:
    line = scheduler(rate=8e6, delay=10)
    for moment in range(5):
        line.put([packet(0, 1000)] * 1000, moment * 1.0001)
    assert line.counts == ImpairmentCounts()
    assert len(line) == 5000
    line.put([packet(0, 1000)] * 10, 4.0005)
    assert line.counts == ImpairmentCounts(overflowed=10)


def test_a_delay_alone_has_no_limit_of_packets() -> None:
    line = scheduler(delay=1)
    line.put([packet(0)] * 30_000, 0.0)
    assert len(line) == 30_000


def test_a_given_limit_counts_all_delayed_packets() -> None:
    line = scheduler(rate=8e6, delay=1, limit=10)
    line.put([packet(number, 1000) for number in range(15)], 0.0)
    assert line.counts == ImpairmentCounts(overflowed=5)
    assert [number_of(data) for data in line.take(2.0, ALL)] == list(range(10))
    line.put([packet(0)], 2.0)
    assert line.counts == ImpairmentCounts(overflowed=5)


def test_memory_is_bounded_for_any_limit() -> None:
    line = scheduler(delay=1000, limit=1 << 40)
    line.put([packet(0, 65535)] * 5000, 0.0)
    assert len(line) * 65535 < 1 << 28
    before = line.counts.overflowed
    assert before == 5000 - len(line) > 0
    assert len(line.take(1000.0, 10)) == 10
    line.put([packet(0, 65535)] * 20, 1000.0)
    assert line.counts.overflowed == before + 10


EVERYTHING = {
    "delay": 0.01,
    "jitter": 0.005,
    "loss": 0.1,
    "duplicate": 0.1,
    "reorder": 0.1,
    "corrupt": 0.1,
    "rate": 1e6,
}


def test_equal_seeds_give_equal_results() -> None:
    packets = [packet(number) for number in range(500)]

    def outcome(towards: Towards, seed: int) -> list[tuple[float, bytes]]:
        return run(scheduler(towards, seed=seed, **EVERYTHING), packets, 0.001)

    assert outcome("right", 1) == outcome("right", 1)
    others = [outcome(towards, seed) for towards in ("left", "right") for seed in (0, 1, 2)]
    assert all(one != other for index, one in enumerate(others) for other in others[:index])


def test_a_seed_gives_the_result_of_earlier_versions() -> None:
    line = scheduler("left", loss=0.5, seed=7)
    found = [number_of(data) for _, data in run(line, [packet(number) for number in range(20)])]
    assert found == [0, 3, 4, 5, 8, 9, 15, 16, 17, 18]


PROBABILITY = st.sampled_from([0.0, 0.1, 0.5, 1.0])


@settings(derandomize=True, deadline=None, max_examples=300)
@given(
    impairment=st.builds(
        Impairment,
        delay=st.sampled_from([0.001, 0.1]),
        jitter=st.sampled_from([0.0, 0.05]),
        loss=PROBABILITY,
        duplicate=PROBABILITY,
        reorder=PROBABILITY,
        corrupt=PROBABILITY,
        rate=st.sampled_from([8e3, 8e6]),
        burst=st.sampled_from([0, 1000]),
        limit=st.sampled_from([None, 1, 5]),
        seed=st.integers(0, 99),
    ),
    packets=st.lists(st.binary(max_size=100), max_size=30),
    interval=st.sampled_from([0.0, 0.01, 1.0]),
)
def test_counts_account_for_every_packet(impairment: Impairment, packets: list[bytes], interval: float) -> None:
    line = Scheduler(impairment, "left")
    found = run(line, packets, interval)
    counts = line.counts
    assert len(packets) + counts.duplicated == counts.lost + counts.overflowed + len(found)
    assert [due for due, _ in found] == sorted(due for due, _ in found)
