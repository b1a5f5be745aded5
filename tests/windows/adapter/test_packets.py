"""Packets of Windows adapters: bundles, room and memory."""

import itertools
import threading

import pytest

import threepipe
from tests.support.contract_dll.library import Fault
from tests.support.contract_system import ContractWire
from tests.support.windows_adapters import SECONDS, Made, in_threads, number_of, packet, packets
from threepipe.core import fast
from threepipe.errors import InvalidPacket
from threepipe.settings import MIN_CAPACITY

pytestmark = pytest.mark.windows


def test_bundles_are_of_256_packets_at_most_and_none_is_lost(made: Made) -> None:
    adapter, wire = made
    with adapter.start_session() as session:
        wire.send(packets(600))
        assert [len(session.receive(SECONDS)) for _ in range(3)] == [256, 256, 88]
        assert not session.receive(0)


def test_several_waiting_threads_share_the_packets(made: Made) -> None:
    """One thread is woken, and leaves the packets beyond a bundle to the others."""
    adapter, wire = made
    with adapter.start_session() as session:
        waiting = threading.Barrier(4)
        sizes: list[int] = []

        def receive() -> None:
            waiting.wait(SECONDS)
            sizes.append(len(session.receive(SECONDS)))

        with in_threads(receive, receive, receive):
            waiting.wait(SECONDS)
            for _ in range(3):
                wire.send(packets(256))
        while left := session.receive(0):
            sizes.append(len(left))
        assert sum(sizes) == 768


def test_receive_packet_keeps_the_rest_of_the_bundle(made: Made) -> None:
    adapter, wire = made
    with adapter.start_session() as session:
        wire.send(packets(600))
        assert [number_of(session.receive_packet(SECONDS)) for _ in range(100)] == list(range(100))
        rest = [number_of(packet) for _ in range(3) for packet in session.receive(SECONDS)]
        assert rest == list(range(100, 600))
        assert session.receive_packet(0) == b""


def test_waiting_threads_are_woken_for_kept_packets(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three packets may wake one thread only, which takes all three and keeps two for the others."""
    monkeypatch.setattr("threepipe.platforms.windows.waiting.PATIENCE", 10 * SECONDS)
    adapter, wire = made
    with adapter.start_session() as session:
        waiting = threading.Barrier(4)
        found: list[int] = []

        def receive() -> None:
            waiting.wait(SECONDS)
            found.append(number_of(session.receive_packet()))

        for _ in range(20):
            with in_threads(receive, receive, receive):
                waiting.wait(SECONDS)
                wire.send(packets(3))
        assert sorted(found) == sorted([0, 1, 2] * 20)


def test_packets_across_the_end_of_the_ring_arrive_intact(made: Made) -> None:
    adapter, wire = made
    with adapter.start_session(MIN_CAPACITY) as session:
        numbers = itertools.count()
        for size in (40, 1000, 1500, 9000, 65535) * 30:
            sent = [packet(next(numbers), size)]
            wire.send(sent)
            assert session.receive(SECONDS)[0] == sent[0]
            assert session.send(sent, SECONDS) == 1
            assert wire.receive(SECONDS) == sent


def test_a_bundle_larger_than_the_receive_memory_arrives(made: Made) -> None:
    adapter, wire = made
    with adapter.start_session(0x1000000) as session:
        sent = packets(100, 65535)
        wire.send(sent)
        bundle = session.receive(SECONDS)
        assert [bytes(each) for each in bundle] == sent
        bundle[0][:4] = b"\x45\0\0\0"  # The memory belongs to the program.


def test_send_to_a_full_ring_returns_fewer(made: Made) -> None:
    adapter, wire = made
    with adapter.start_session(MIN_CAPACITY) as session:
        wire.fault(Fault.STALL, 1)
        sent = packets(300, 1000)
        accepted = session.send(sent)
        assert 0 < accepted < 300
        assert session.statistics.sent_dropped == 300 - accepted
        assert session.send(sent[:1]) == 0
        assert session.send(sent[:1], timeout=0.05) == 0
        wire.fault(Fault.STALL, 0)
        assert session.send(sent[accepted:], SECONDS) == 300 - accepted
        wire.settle()
        assert wire.receive(SECONDS) == sent


def test_a_packet_that_is_too_long_is_rejected_by_the_port(made: Made) -> None:
    """A session rejects such a packet; as it would break the ring, the port checks as well."""
    adapter, _ = made
    with adapter.start_session() as session:
        long = threepipe.Bundle([packet(0), packet(1, 65535) + b"~"])
        with pytest.raises(InvalidPacket) as caught:
            session._port.send(long)
        assert caught.value.index == 1
        assert session.send([packet(2)]) == 1


def test_a_packet_that_cannot_be_copied_does_not_block_the_ring(made: Made) -> None:
    adapter, wire = made
    with adapter.start_session() as session:
        bundle = threepipe.Bundle(map(memoryview, packets(3)))
        released = list(bundle)[1]

        views: list[memoryview] = [bundle[0], Disappearing(released), bundle[2]]  # type: ignore[list-item]
        with pytest.raises((ValueError, TypeError)):
            session._port.send(threepipe.Bundle.of_views(views))
        assert session.send([packet(7)]) == 1
        assert wire.receive(SECONDS) == [packet(7)]
        assert bench_discarded(wire) == (0 if fast.NATIVE else 3)  # The core checks packets before it allocates places.


class Disappearing:
    """A packet that has a length, and is gone when it is copied."""

    def __init__(self, view: memoryview) -> None:
        self._view = view

    def __len__(self) -> int:
        return len(self._view)


def bench_discarded(wire: ContractWire) -> int:
    return wire.discarded()
