"""Sessions in event loops, and many senders at once."""

import asyncio
import random
from collections.abc import Iterator, Sequence

import pytest

from tests.support.sessions import (
    FITTING,
    SIZE,
    Sessions,
    drain,
    in_thread,
    numbers,
    packet,
    packets,
    until,
    until_waiting,
)


def test_a_cancelled_receive_loses_no_packet(sessions: Sessions) -> None:
    left, right = sessions

    async def scenario() -> None:
        for number in range(50):
            task = asyncio.create_task(right.receive_async())
            await asyncio.to_thread(until_waiting, right, 1)
            left.send_packet(packet(number))
            for _ in range(number % 4):
                await asyncio.sleep(0)  # The task is cancelled after that many turns of the loop.
            if task.cancel():
                with pytest.raises(asyncio.CancelledError):
                    await task
                task = asyncio.create_task(right.receive_async())
            assert numbers(await task) == [number]

    asyncio.run(scenario())
    until_waiting(right, 0)


def test_receiving_from_a_ready_session_lets_other_tasks_run(sessions: Sessions) -> None:
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


def test_receive_async_times_out_under_asyncio_timeout(sessions: Sessions) -> None:
    left, right = sessions

    async def scenario() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await right.receive_async()
        left.send(packets(2))
        async with asyncio.timeout(30):
            assert numbers(await right.receive_async()) == [0, 1]

    asyncio.run(scenario())


def test_send_async_waits_until_all_packets_are_accepted(sessions: Sessions) -> None:
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


def test_a_cancelled_send_counts_the_rest_as_dropped(sessions: Sessions) -> None:
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


def test_two_event_loops_in_two_threads_share_a_session(sessions: Sessions) -> None:
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
def test_packets_of_several_senders_arrive_intact_and_in_order(sessions: Sessions, sends: str) -> None:
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
