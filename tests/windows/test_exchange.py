"""Bundles out of and into a session's rings: both implementations on the contract library, and one beside the other."""

from collections.abc import Iterator
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
from threepipe.core.rings import Rings
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
    """A fresh session of the library, and what is behind it; what was done wrong, or left, fails the test."""

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
        """The packets and the error."""
        memory = memoryview(bytearray(room))
        packets, used, code = module.ring_receive(self.rings, memory, limit)
        assert used <= room
        return [bytes(data) for data in packets], code


def packet(number: int, size: int = 100) -> bytes:
    return (b"\x45\0" + size.to_bytes(2, "big") + number.to_bytes(4, "big")).ljust(size, b"~")


def packets(number: int, size: int = 100) -> list[bytes]:
    return [packet(index, size) for index in range(number)]


@EACH
def test_what_is_ready_is_taken_up_to_a_limit(bench: Bench, module: ModuleType) -> None:
    with Opened(bench) as opened:
        opened.wire.send(packets(300))
        assert opened.receive(module, 7) == (packets(300)[:7], 0)
        assert opened.receive(module) == (packets(300)[7:263], 0)
        assert opened.receive(module) == (packets(300)[263:], ERROR_NO_MORE_ITEMS)
        assert opened.receive(module) == ([], ERROR_NO_MORE_ITEMS)
        assert opened.receive(module, 1000) == ([], ERROR_NO_MORE_ITEMS)


@EACH
def test_views_are_of_the_memory_that_was_given_or_of_their_own(bench: Bench, module: ModuleType) -> None:
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
def test_the_ring_may_begin_again_in_the_middle_of_a_bundle(bench: Bench, module: ModuleType) -> None:
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
def test_a_full_ring_is_said_so(bench: Bench, module: ModuleType) -> None:
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


@EACH
def test_a_corrupt_ring_gives_what_came_before(bench: Bench, module: ModuleType) -> None:
    with Opened(bench) as opened:
        opened.wire.send(packets(2))
        opened.wire.fault(Fault.CORRUPT_SIZE, 70_000)
        assert opened.receive(module) == (packets(2), ERROR_INVALID_DATA)
        assert opened.receive(module) == ([], ERROR_INVALID_DATA)


def test_ctypes_asks_once_more_and_takes_what_came_meanwhile(bench: Bench) -> None:
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
def test_what_is_taken_into_no_memory_is_given_back(bench: Bench, module: ModuleType) -> None:
    with Opened(bench) as opened:
        opened.wire.send(packets(3))
        with pytest.raises(TypeError):
            module.ring_receive(opened.rings, memoryview(bytes(1000)), 256)
        opened.wire.send(packets(1))
        assert opened.receive(module) == (packets(1), ERROR_NO_MORE_ITEMS)


@pytest.mark.skipif(not fast.NATIVE, reason="there is no native core")
def test_the_core_calls_nothing_at_address_0() -> None:
    class Nowhere:
        addresses = (0, 1, 1, 1, 1)

    nowhere: Any = Nowhere()
    with pytest.raises(ValueError, match="address 0"):
        fast.ring_receive(nowhere, memoryview(bytearray(10)), 1)
    with pytest.raises(ValueError, match="address 0"):
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
def test_one_does_what_the_other_does(bench: Bench, script: list[tuple[str, Any]]) -> None:
    assert told(bench, fast, script) == told(bench, python_rings, script)


def told(bench: Bench, module: ModuleType, script: list[tuple[str, Any]]) -> list[object]:
    """What happens on a fresh session."""
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
                opened.wire.fault(Fault.STALL, 1)  # What finds room does not depend on the driver's pace.
                happened.append(module.ring_send(opened.rings, [memoryview(data) for data in some]))
                opened.wire.fault(Fault.STALL, 0)
                opened.wire.settle()
                happened.append(opened.wire.receive(0))
        return happened
