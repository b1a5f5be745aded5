"""Bundles from and to the rings of a session: both implementations on the contract library, and compared."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.contract_dll.library import Fault, Function
from tests.support.contract_system import Bench, find_contract
from threepipe.core import fast
from threepipe.core import rings as python_rings
from threepipe.core.packet import MAX_PACKET
from threepipe.core.rings import Rings, RingSender
from threepipe.platforms.windows.wintun import ERROR_BUFFER_OVERFLOW, ERROR_INVALID_DATA, ERROR_NO_MORE_ITEMS
from threepipe.settings import MIN_CAPACITY

pytestmark = pytest.mark.windows

BOTH = [python_rings, fast] if fast.NATIVE else [python_rings]
EACH = pytest.mark.parametrize("module", BOTH, ids=["python", "native"][: len(BOTH)])


@pytest.fixture(scope="module")
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    bench = Bench(find_contract(request.config))
    yield bench
    bench.close()


class Opened:
    """A fresh session of the library and its wire; misuse and packets left behind fail the test."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        bench.contract.ContractReset()
        bench.contract.ContractSetStrict(True)

    def __enter__(self) -> "Opened":
        bench = self._bench
        self._context = bench.wired()
        self._adapter, self.wire = self._context.__enter__()
        self._handle = bench.wintun.open_adapter("tp0")
        self._session = bench.wintun.start_session(self._handle, "tp0", MIN_CAPACITY)
        self.rings = Rings(bench.wintun, self._session, MIN_CAPACITY)
        return self

    def __exit__(self, *_: object) -> None:
        self._bench.wintun.end_session(self._session)
        self._bench.wintun.close_adapter(self._handle)
        self._context.__exit__(None, None, None)
        assert not self._bench.wrongs()

    def receive(self, module: ModuleType, limit: int = 256, room: int = 1 << 20) -> tuple[list[bytes], int]:
        """Return the packets and the error."""
        memory = memoryview(bytearray(room))
        packets, used, code = module.ring_receive(self.rings, memory, limit)
        assert used <= room
        return [bytes(data) for data in packets], code


def packet(number: int, size: int = 100) -> bytes:
    return (b"\x45\0" + size.to_bytes(2, "big") + number.to_bytes(4, "big")).ljust(size, b"~")


def packets(number: int, size: int = 100) -> list[bytes]:
    return [packet(index, size) for index in range(number)]


@EACH
def test_receive_returns_ready_packets_up_to_the_limit(bench: Bench, module: ModuleType) -> None:
    with Opened(bench) as opened:
        opened.wire.send(packets(300))
        assert opened.receive(module, 7) == (packets(300)[:7], 0)
        assert opened.receive(module) == (packets(300)[7:263], 0)
        assert opened.receive(module) == (packets(300)[263:], ERROR_NO_MORE_ITEMS)
        assert opened.receive(module) == ([], ERROR_NO_MORE_ITEMS)
        assert opened.receive(module, 1000) == ([], ERROR_NO_MORE_ITEMS)


@EACH
def test_received_views_are_of_the_given_memory_or_of_new_memory(bench: Bench, module: ModuleType) -> None:
    with Opened(bench) as opened:
        for room, own in ((1000, False), (250, True)):
            opened.wire.send(packets(3))
            memory = bytearray(room)
            views, used, _ = module.ring_receive(opened.rings, memoryview(memory), 256)
            assert [view.obj is memory for view in views] == [not own] * 3
            assert (used == 0) == own
            views[1][:4] = b"\x45abc"
            assert (b"\x45abc" in memory) != own


@EACH
def test_bundles_across_the_end_of_the_ring_arrive_intact(bench: Bench, module: ModuleType) -> None:
    with Opened(bench) as opened:
        for index in range(200):
            sent = packets(1 + index % 13, 1000 + 37 * index)
            fitting = sent[: (MIN_CAPACITY - 4) // (len(sent[0]) + 8)]
            opened.wire.send(fitting)
            assert opened.receive(module, room=1 << 17)[0] == fitting
            assert module.ring_send(opened.rings, [memoryview(data) for data in fitting]) == (len(fitting), 0)
            opened.wire.settle()
            assert opened.wire.receive(10) == fitting


@EACH
def test_send_to_a_full_ring_returns_the_count_and_overflow(bench: Bench, module: ModuleType) -> None:
    with Opened(bench) as opened:
        opened.wire.fault(Fault.STALL, 1)
        given_ = [memoryview(data) for data in packets(300, 1000)]
        accepted, code = module.ring_send(opened.rings, given_)
        assert (0 < accepted < 300, code) == (True, ERROR_BUFFER_OVERFLOW)
        assert module.ring_send(opened.rings, given_) == (0, ERROR_BUFFER_OVERFLOW)
        opened.wire.fault(Fault.STALL, 0)
        opened.wire.settle()
        assert opened.wire.receive(10) == packets(300, 1000)[:accepted]
        assert module.ring_send(opened.rings, []) == (0, 0)


def test_a_sender_sends_valid_packets_until_the_ring_is_full_or_it_is_stopped(bench: Bench) -> None:
    with Opened(bench) as opened:
        found: list[None] = []
        sender = RingSender(opened.rings, lambda: found.append(None))
        for bad in (b"", b"\x45" * 19, b"\0" * 40, bytes(packet(0, MAX_PACKET)) + b"~", memoryview(packet(0))):
            assert not sender.send(bad)
        opened.wire.fault(Fault.STALL, 1)
        accepted = sum(map(sender.send, packets(300, 1000)))
        assert 0 < accepted < 300
        assert (sender.sent, len(found)) == ((accepted, accepted * 1000), accepted)
        opened.wire.fault(Fault.STALL, 0)
        opened.wire.settle()
        assert opened.wire.receive(10) == packets(300, 1000)[:accepted]
        sender.stop()
        assert not sender.send(packet(0))
        assert opened.wire.receive(0) == []


@EACH
def test_packets_of_a_sender_and_bundles_of_another_thread_keep_their_order(bench: Bench, module: ModuleType) -> None:
    with Opened(bench) as opened:
        sender = RingSender(opened.rings, lambda: None)
        alone, together = packets(150, 40), packets(150, 41)
        with ThreadPoolExecutor(1) as threads:
            sent = threads.submit(lambda: sum(map(sender.send, alone)))
            for start in range(0, 150, 30):
                bundle = [memoryview(data) for data in together[start : start + 30]]
                assert module.ring_send(opened.rings, bundle) == (30, 0)
            assert sent.result() == 150
        opened.wire.settle()
        arrived = opened.wire.receive(10)
        assert [data for data in arrived if len(data) == 40] == alone
        assert [data for data in arrived if len(data) == 41] == together


@EACH
def test_a_corrupt_ring_gives_the_packets_before_the_fault(bench: Bench, module: ModuleType) -> None:
    with Opened(bench) as opened:
        opened.wire.send(packets(2))
        opened.wire.fault(Fault.CORRUPT_SIZE, 70_000)
        assert opened.receive(module) == (packets(2), ERROR_INVALID_DATA)
        assert opened.receive(module) == ([], ERROR_INVALID_DATA)


def test_the_python_implementation_retries_an_empty_ring_once(bench: Bench) -> None:
    with Opened(bench) as opened:
        opened.wire.send(packets(3))
        bench.contract.ContractFailCall(Function.RECEIVE_PACKET, ERROR_NO_MORE_ITEMS, 1)
        assert opened.receive(python_rings) == (packets(1), 0)
        assert opened.receive(python_rings) == (packets(3)[1:], ERROR_NO_MORE_ITEMS)
        bench.contract.ContractFailCall(Function.ALLOCATE_SEND_PACKET, ERROR_BUFFER_OVERFLOW, 1)
        assert python_rings.ring_send(opened.rings, [memoryview(data) for data in packets(3)]) == (3, 0)
        opened.wire.settle()
        assert opened.wire.receive(10) == packets(3)


@EACH
def test_receive_into_read_only_memory_raises_and_releases_packets(bench: Bench, module: ModuleType) -> None:
    with Opened(bench) as opened:
        opened.wire.send(packets(3))
        with pytest.raises(TypeError):
            module.ring_receive(opened.rings, memoryview(bytes(1000)), 256)
        opened.wire.send(packets(1))
        assert opened.receive(module) == (packets(1), ERROR_NO_MORE_ITEMS)


@pytest.mark.skipif(not fast.NATIVE, reason="there is no native core")
def test_the_native_core_rejects_a_function_at_address_0() -> None:
    class Nowhere:
        addresses = (0, 1, 1, 1, 1)

    nowhere: Any = Nowhere()
    with pytest.raises(ValueError, match="is 0"):
        fast.ring_receive(nowhere, memoryview(bytearray(10)), 1)
    with pytest.raises(ValueError, match="is 0"):
        fast.ring_send(nowhere, [])


SIZES = st.lists(st.one_of(st.integers(20, 200), st.sampled_from([1500, 9000, MAX_PACKET])), max_size=40)
STEPS = st.one_of(
    st.tuples(st.just("come"), SIZES),
    st.tuples(st.just("receive"), st.tuples(st.integers(0, 300), st.sampled_from([0, 1000, 1 << 20]))),
    st.tuples(st.just("send"), SIZES),
)


@pytest.mark.skipif(not fast.NATIVE, reason="there is no native core")
@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(script=st.lists(STEPS, max_size=12))
def test_both_implementations_give_the_same_results(bench: Bench, script: list[tuple[str, Any]]) -> None:
    assert told(bench, fast, script) == told(bench, python_rings, script)


def told(bench: Bench, module: ModuleType, script: list[tuple[str, Any]]) -> list[object]:
    """Run a script on a fresh session and return its results."""
    with Opened(bench) as opened:
        happened: list[object] = []
        for step, argument in script:
            if step == "receive":
                happened.append(opened.receive(module, *argument))
                continue
            some = [packet(index, size) for index, size in enumerate(argument)]
            if step == "come":
                opened.wire.send(some)
            else:
                opened.wire.fault(Fault.STALL, 1)  # Then the room does not depend on the speed of the driver.
                happened.append(module.ring_send(opened.rings, [memoryview(data) for data in some]))
                opened.wire.fault(Fault.STALL, 0)
                opened.wire.settle()
                happened.append(opened.wire.receive(0))
        return happened
