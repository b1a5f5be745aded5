"""Packets of sessions: order, buffers, errors, room and statistics."""

import asyncio
import time
from collections.abc import Callable, Iterable
from functools import partial

import pytest

from tests.support.sessions import (
    CAPACITY,
    FITTING,
    SIZE,
    Pair,
    Sessions,
    drain,
    in_thread,
    numbers,
    packet,
    packets,
    until,
    until_waiting,
)
from threepipe import Bundle, InvalidPacket
from threepipe.core.packet import Packet
from threepipe.session import SessionStatistics


def test_packets_arrive_in_order_and_256_at_most_per_bundle(sessions: Sessions) -> None:
    left, right = sessions
    assert left.send(packets(300)) == 300
    assert left.send(packets(300, 600)) == 300
    bundles = [right.receive() for _ in range(3)]
    assert [len(bundle) for bundle in bundles] == [256, 256, 88]
    assert [number for bundle in bundles for number in numbers(bundle)] == list(range(600))
    assert not right.receive(timeout=0)


def test_the_two_directions_are_independent(sessions: Sessions) -> None:
    left, right = sessions
    left.send(packets(3))
    right.send(packets(10, 12))
    assert numbers(left.receive()) == [10, 11]
    assert numbers(right.receive()) == [0, 1, 2]


def test_receive_returns_an_empty_bundle_after_the_timeout(sessions: Sessions) -> None:
    left, _ = sessions
    start = time.monotonic()
    assert len(left.receive(timeout=0)) == 0
    assert len(left.receive(timeout=-1)) == 0
    assert time.monotonic() - start < 1
    start = time.monotonic()
    assert len(left.receive(timeout=0.02)) == 0
    assert time.monotonic() - start >= 0.019


def test_a_waiting_receive_returns_when_a_packet_arrives(sessions: Sessions) -> None:
    left, right = sessions
    waiting = [in_thread(right.receive), in_thread(right.receive, 30)]
    until_waiting(right, 2)
    left.send(packets(1))
    until(lambda: any(future.done() for future in waiting))
    left.send(packets(1, 2))
    found = sorted([numbers(future.result(timeout=10)) for future in waiting])
    assert found == [[0], [1]]


def test_receive_packet_returns_bytes_and_keeps_the_rest(sessions: Sessions) -> None:
    left, right = sessions
    assert left.send_packet(packet(1))
    assert left.send(packets(2, 4)) == 2
    first = right.receive_packet()
    assert isinstance(first, bytes)
    assert numbers([first, right.receive_packet(timeout=1)]) == [1, 2]
    assert numbers(right.receive()) == [3]
    assert right.receive_packet(timeout=0) == b""


@pytest.mark.parametrize("kind", [list, tuple, iter, Bundle])
def test_send_accepts_any_iterable_of_packets(
    sessions: Sessions, kind: Callable[[list[bytes]], Iterable[Packet]]
) -> None:
    left, right = sessions
    assert left.send(kind(packets(3))) == 3
    assert numbers(right.receive()) == [0, 1, 2]


def test_send_accepts_any_kind_of_buffer(sessions: Sessions) -> None:
    left, right = sessions
    kinds: list[Packet] = [packet(0), bytearray(packet(1)), memoryview(packet(2)), memoryview(packet(3)).cast("I")]
    assert left.send(kinds) == 4
    assert numbers(right.receive()) == [0, 1, 2, 3]


def test_send_of_no_packets_returns_zero(sessions: Sessions) -> None:
    left, right = sessions
    assert left.send([]) == 0
    assert left.send([], timeout=None) == 0
    assert asyncio.run(left.send_async([])) == 0
    assert left.statistics == SessionStatistics()
    assert not right.receive(timeout=0)


def test_send_of_bytes_in_place_of_a_list_raises_type_error(sessions: Sessions) -> None:
    with pytest.raises(TypeError, match="wrap a single one"):
        sessions[0].send(packet(1))  # type: ignore[arg-type]


def test_send_of_a_bundle_with_an_invalid_packet_sends_nothing(sessions: Sessions) -> None:
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


def test_send_with_drop_invalid_drops_and_counts_invalid_packets(sessions: Sessions) -> None:
    left, right = sessions
    wrong = [b"", b"\x45" * 19, b"\x00" * SIZE]
    assert left.send(Bundle([packet(0), *wrong, packet(1)]), None, drop_invalid=True) == 2
    assert left.send(Bundle(packets(2, 4)), None, drop_invalid=True) == 2
    assert left.send(Bundle(wrong), None, drop_invalid=True) == 0
    assert numbers(right.receive()) == [0, 1, 2, 3]
    assert left.statistics == SessionStatistics(0, 0, 0, 4, 4 * SIZE, 2, 6)


def test_send_with_drop_invalid_waits_for_room(sessions: Sessions) -> None:
    left, right = sessions
    assert left.send(Bundle([b"", *packets(FITTING + 3)]), drop_invalid=True) == FITTING
    assert left.statistics.sent_dropped == 4
    forwarding = in_thread(partial(left.send, drop_invalid=True), Bundle([*packets(FITTING, 2 * FITTING), b""]), None)
    until_waiting(left, 1)
    assert drain(right, 2 * FITTING) == list(range(2 * FITTING))
    assert forwarding.result(timeout=10) == FITTING
    assert left.statistics.sent_dropped == 5


def test_received_packets_can_be_edited_and_sent_back(sessions: Sessions) -> None:
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


def test_send_to_a_full_ring_returns_fewer(sessions: Sessions) -> None:
    left, right = sessions
    assert left.send(packets(FITTING + 10)) == FITTING
    assert left.send(packets(5)) == 0
    assert not left.send_packet(packet(0))
    assert left.statistics.sent_dropped == 16
    assert drain(right, FITTING) == list(range(FITTING))
    assert left.send(packets(5)) == 5
    assert (left.statistics.sent_packets, left.statistics.sent_dropped) == (FITTING + 5, 16)


def test_send_waits_for_room_until_the_timeout(sessions: Sessions) -> None:
    left, _ = sessions
    start = time.monotonic()
    assert left.send(packets(FITTING + 3), timeout=0.02) == FITTING
    assert not left.send_packet(packet(0), timeout=0.02)
    assert time.monotonic() - start >= 0.038
    assert left.statistics.sent_dropped == 4


@pytest.mark.parametrize("timeout", [None, 30])
def test_send_continues_as_the_reader_makes_room(sessions: Sessions, timeout: float | None) -> None:
    left, right = sessions
    sending = in_thread(left.send, packets(3 * FITTING), timeout)
    assert drain(right, 3 * FITTING) == list(range(3 * FITTING))
    assert sending.result(timeout=10) == 3 * FITTING
    assert left.statistics.sent_packets == 3 * FITTING
    assert left.statistics.sent_dropped == 0


def test_a_blocked_send_returns_when_there_is_room(sessions: Sessions) -> None:
    left, right = sessions
    sending = in_thread(left.send, packets(FITTING + 1), None)
    until_waiting(left, 1)
    assert numbers(right.receive()) == list(range(256))
    assert sending.result(timeout=10) == FITTING + 1


def test_send_to_an_adapter_without_a_session_waits_for_one(adapters: Pair) -> None:
    left = adapters[0].start_session(CAPACITY)
    assert left.send(packets(3)) == 0
    sending = in_thread(left.send, packets(3, 5), None)
    until_waiting(left, 1)
    right = adapters[1].start_session(CAPACITY)
    assert sending.result(timeout=10) == 2
    assert numbers(right.receive()) == [3, 4]
    assert left.statistics.sent_dropped == 3


def test_statistics_count_packets_bytes_and_bundles(sessions: Sessions) -> None:
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
