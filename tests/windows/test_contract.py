"""The contract library behaves as Wintun does: every rule of its header, with faults and misuse, from threads.

Its own tests, which every other test that uses it leans on. THREEPIPE_CONTRACT names a library that is
there already: so these run under AddressSanitizer, and on Windows with one that was built elsewhere.
"""

import ctypes
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.support.contract_dll.build import build, compiler, sanitizer
from tests.support.contract_dll.library import (
    PROTOTYPES,
    Contract,
    Counters,
    Fault,
    Function,
    Guid,
    Interface,
    Kind,
    Logger,
    Statistics,
)

pytestmark = pytest.mark.windows

GIVEN = os.environ.get("THREEPIPE_CONTRACT", "")

CAPACITY = 0x20000
USABLE = CAPACITY - 4
"""A ring that is full has its tail 4 bytes behind its head."""

HEADER = 4
ENDED = 0xFFFFFFFF

INVALID_HANDLE, INVALID_DATA, EOF, INVALID_PARAMETER = 6, 13, 38, 87
OVERFLOW, EXISTS, NO_MORE_ITEMS, NOT_FOUND, BUSY, IN_USE = 111, 183, 259, 1168, 1247, 0xE000023D
FILE_NOT_FOUND, ADDRESS_IN_USE = 2, 10048

VIOLATIONS = {"use_after_end", "end_inside_call", "use_after_close", "wrong_release", "wrong_send", "oversized_packet"}


def packet(size: int = 28, number: int = 0) -> bytes:
    """The start of an IPv4 packet, with a number, of `size` bytes."""
    return (b"\x45\0\0\0" + number.to_bytes(4, "big")).ljust(size, b"\x5a")


def number(data: bytes) -> int:
    return int.from_bytes(data[4:8], "big")


def record_length(size: int) -> int:
    return (HEADER + size + 3) & ~3


@pytest.fixture(scope="module")
def path(request: pytest.FixtureRequest) -> Path:
    """The library, built where its sources have changed."""
    if GIVEN:
        return Path(GIVEN)
    if sys.platform != "linux" or not compiler("linux"):
        pytest.skip("there is no gcc to build the contract library with, and THREEPIPE_CONTRACT names none")
    return build("linux", request.config.cache.mkdir("contract"))


@pytest.fixture(scope="module")
def library(path: Path) -> Contract:
    return Contract(path)


@pytest.fixture
def contract(library: Contract) -> Iterator[Contract]:
    """The library with nothing set. Whatever a test does not expect and take out of the counters fails it."""
    library.ContractReset()
    library.ContractSetStrict(False)
    yield library
    counters = library.counters()
    library.WintunSetLogger(Logger())
    library.ContractReset()
    assert not {"adapters", "sessions"} & set(counters), "handles were left open"


@pytest.fixture
def adapter(contract: Contract) -> Iterator[int]:
    handle = contract.WintunCreateAdapter("tp0", "threepipe", None)
    yield handle
    contract.WintunCloseAdapter(handle)


@pytest.fixture
def session(contract: Contract, adapter: int) -> Iterator[int]:
    handle = contract.WintunStartSession(adapter, CAPACITY)
    assert handle, contract.error()
    yield handle
    contract.WintunEndSession(handle)


# Adapters.


def names(contract: Contract) -> dict[str, Kind]:
    return {interface.name: Kind(interface.kind) for interface in contract.interfaces()}


def test_an_adapter_has_what_was_asked_for(contract: Contract) -> None:
    guid = Guid(1, 2, 3, (ctypes.c_uint8 * 8)(*range(8)))
    adapter = contract.WintunCreateAdapter("Ein Name", "Übung", guid)
    luid = ctypes.c_uint64()
    contract.WintunGetAdapterLUID(adapter, luid)
    described = contract.describe(adapter)
    assert (described.name, described.description) == ("Ein Name", "Übung Tunnel")
    assert bytes(described.guid) == bytes(guid)
    assert described.luid == luid.value
    assert luid.value >> 48 == 53  # IF_TYPE_PROP_VIRTUAL
    assert luid.value >> 24 & 0xFFFFFF
    assert not described.connected
    contract.WintunCloseAdapter(adapter)
    assert names(contract) == {}


def test_adapters_differ_in_guid_and_luid(contract: Contract) -> None:
    adapters = [contract.WintunCreateAdapter(f"tp{index}", "threepipe", None) for index in range(3)]
    described = [contract.describe(adapter) for adapter in adapters]
    assert len({bytes(interface.guid) for interface in described}) == 3
    assert len({interface.luid for interface in described}) == 3
    assert not contract.WintunCreateAdapter("tp3", "threepipe", described[0].guid)
    assert contract.error() == EXISTS
    for adapter in adapters:
        contract.WintunCloseAdapter(adapter)


def test_opening_finds_names_without_case_and_closing_only_lets_go(contract: Contract, adapter: int) -> None:
    opened = contract.WintunOpenAdapter("TP0")
    assert opened != adapter
    assert contract.describe(opened).luid == contract.describe(adapter).luid
    contract.WintunCloseAdapter(opened)
    assert names(contract) == {"tp0": Kind.ADAPTER}


def test_what_is_not_there_or_no_adapter_is_not_opened(contract: Contract) -> None:
    contract.ContractAddInterface("Ethernet", Kind.NEIGHBOUR)
    for name in ("tp0", "Ethernet"):
        assert not contract.WintunOpenAdapter(name)
        assert contract.error() == NOT_FOUND


@pytest.mark.parametrize(
    ("kind", "neighbour", "newcomer"), [(Kind.NEIGHBOUR, "tunnel 1", "tunnel"), (Kind.FIXED, "Tunnel", "tunnel 1")]
)
def test_a_name_that_is_taken_costs_one_of_two_his_name(
    contract: Contract, kind: Kind, neighbour: str, newcomer: str
) -> None:
    contract.ContractAddInterface("Tunnel", kind)
    assert not contract.ContractAddInterface("TUNNEL", kind)
    adapter = contract.WintunCreateAdapter("tunnel", "threepipe", None)
    assert adapter
    assert contract.describe(adapter).name == newcomer
    assert names(contract) == {neighbour: kind, newcomer: Kind.ADAPTER}
    contract.WintunCloseAdapter(adapter)


def test_names_are_numbered_until_one_is_free(contract: Contract) -> None:
    for name in ("tp0", "tp0 1", "tp0 2"):
        contract.ContractAddInterface(name, Kind.FIXED)
    adapter = contract.WintunCreateAdapter("tp0", "threepipe", None)
    assert contract.describe(adapter).name == "tp0 3"
    contract.WintunCloseAdapter(adapter)


def test_texts_have_127_characters_at_most(contract: Contract) -> None:
    adapter = contract.WintunCreateAdapter("n" * 127, "t" * 127, None)
    assert contract.describe(adapter).name == "n" * 127
    contract.WintunCloseAdapter(adapter)
    for texts in (("n" * 128, "t"), ("n", "t" * 128)):
        assert not contract.WintunCreateAdapter(*texts, None)
        assert contract.error() == OVERFLOW


def test_leftovers_go_with_the_next_that_is_done(contract: Contract) -> None:
    contract.ContractAddInterface("tp0", Kind.LEFTOVER)
    adapter = contract.WintunCreateAdapter("tp0", "threepipe", None)
    assert names(contract) == {"tp0": Kind.ADAPTER}
    contract.ContractAddInterface("tp1", Kind.LEFTOVER)
    assert not contract.WintunOpenAdapter("tp1")
    contract.ContractAddInterface("tp2", Kind.LEFTOVER)
    contract.WintunCloseAdapter(adapter)
    assert names(contract) == {}


def test_the_driver_runs_for_its_adapters(contract: Contract) -> None:
    assert contract.WintunGetRunningDriverVersion() == 0
    assert contract.error() == FILE_NOT_FOUND
    adapter = contract.WintunCreateAdapter("tp0", "threepipe", None)
    assert contract.WintunGetRunningDriverVersion() == 0 << 16 | 14
    assert not contract.WintunDeleteDriver()
    assert contract.error() & ENDED == IN_USE
    contract.WintunCloseAdapter(adapter)
    contract.ContractAddInterface("tp1", Kind.LEFTOVER)
    assert contract.WintunGetRunningDriverVersion()
    assert contract.WintunDeleteDriver()
    assert not contract.WintunGetRunningDriverVersion()


def test_the_logger_is_called_in_calls_and_from_other_threads(contract: Contract) -> None:
    lines: list[tuple[int, int, str, int]] = []
    logger = Logger(lambda level, time, text: lines.append((level, time, text, threading.get_ident())))
    contract.WintunSetLogger(logger)
    adapter = contract.WintunCreateAdapter("tp0", "threepipe", None)
    assert [(level, text) for level, _, text, _ in lines] == [
        (0, "Creating adapter tp0"),
        (0, "Waiting for the interface of the adapter"),
    ]
    assert lines[0][3] == threading.get_ident() != lines[1][3]
    years = [time / 1e7 / 86400 / 365.2425 + 1601 for _, time, _, _ in lines]
    assert 2024 < years[0] <= years[1] < 2200
    assert not contract.WintunStartSession(adapter, 1)
    assert lines[-1][0] == 2
    assert lines[-1][2].endswith("(Code 0x00000057)")
    contract.WintunSetLogger(Logger())
    before = len(lines)
    contract.WintunCloseAdapter(adapter)
    assert len(lines) == before


# Sessions.


@pytest.mark.parametrize("capacity", [0, 0x10000, CAPACITY - 1, CAPACITY + 4, 3 << 16, 0x8000000])
def test_a_capacity_is_a_power_of_two_in_range(contract: Contract, adapter: int, capacity: int) -> None:
    assert not contract.WintunStartSession(adapter, capacity)
    assert contract.error() == INVALID_PARAMETER


@pytest.mark.parametrize("capacity", [CAPACITY, 0x4000000])
def test_the_link_is_up_while_a_session_runs(contract: Contract, adapter: int, capacity: int) -> None:
    for _ in range(2):
        session = contract.WintunStartSession(adapter, capacity)
        assert contract.describe(adapter).connected
        contract.WintunEndSession(session)
        assert not contract.describe(adapter).connected


def test_an_adapter_has_one_session(contract: Contract, adapter: int, session: int) -> None:
    opened = contract.WintunOpenAdapter("tp0")
    for handle in (adapter, opened):
        assert not contract.WintunStartSession(handle, CAPACITY)
        assert contract.error() == BUSY
    contract.WintunCloseAdapter(opened)


def test_packets_arrive_in_order_and_then_there_are_no_more(contract: Contract, adapter: int, session: int) -> None:
    for index, size in enumerate([1, 20, 21, 65535]):
        assert contract.inject(adapter, packet(size, index)[:size])
    for index, size in enumerate([1, 20, 21, 65535]):
        address, data = contract.receive(session)
        assert data == packet(size, index)[:size]
        contract.WintunReleaseReceivePacket(session, address)
    assert contract.receive(session) == (0, b"")
    assert contract.error() == NO_MORE_ITEMS
    assert contract.statistics(adapter) == {"received_packets": 4, "received_bytes": 1 + 20 + 21 + 65535}


def test_the_newest_packet_is_dropped_when_the_ring_is_full(contract: Contract, adapter: int, session: int) -> None:
    fits = USABLE // record_length(1000)
    assert contract.ContractInjectMany(adapter, packet(1000), 1000, fits + 5) == fits
    assert not contract.inject(adapter, packet(1000))
    assert contract.statistics(adapter)["received_dropped"] == 2
    rest = USABLE - fits * record_length(1000)
    assert not contract.inject(adapter, packet(rest - HEADER + 1))
    assert contract.inject(adapter, packet(rest - HEADER))
    address, _ = contract.receive(session)
    assert not contract.inject(adapter, packet(1000))  # What was received takes its room until it is released.
    contract.WintunReleaseReceivePacket(session, address)
    assert contract.inject(adapter, packet(1000))


def test_room_comes_back_in_the_order_of_the_ring(contract: Contract, adapter: int, session: int) -> None:
    contract.ContractInjectMany(adapter, packet(1000), 1000, 1000)
    held = [contract.receive(session)[0] for _ in range(3)]
    contract.WintunReleaseReceivePacket(session, held[2])
    contract.WintunReleaseReceivePacket(session, held[1])
    assert not contract.inject(adapter, packet(1000))
    contract.WintunReleaseReceivePacket(session, held[0])
    assert contract.ContractInjectMany(adapter, packet(1000), 1000, 5) == 3
    assert contract.counters()["released_out_of_order"] == 2


def test_records_never_wrap(contract: Contract, adapter: int, session: int) -> None:
    contract.ContractInjectMany(adapter, packet(65000), 65000, 2)
    first, second = (contract.receive(session)[0] for _ in range(2))
    contract.WintunReleaseReceivePacket(session, first)
    contract.WintunReleaseReceivePacket(session, second)
    for index in range(50):  # Each third or so begins close to the end of the ring and runs past it.
        assert contract.inject(adapter, packet(50001, index))
        address, data = contract.receive(session)
        assert data == packet(50001, index)
        assert 0 <= address - first <= CAPACITY
        contract.WintunReleaseReceivePacket(session, address)


def test_what_was_released_is_overwritten(contract: Contract, adapter: int, session: int) -> None:
    contract.inject(adapter, packet(60))
    address, _ = contract.receive(session)
    contract.WintunReleaseReceivePacket(session, address)
    assert ctypes.string_at(address, 60) == b"\xdd" * 60


def test_the_event_is_set_for_every_packet_and_resets_itself(contract: Contract, adapter: int, session: int) -> None:
    event = contract.WintunGetReadWaitEvent(session)
    assert event == contract.WintunGetReadWaitEvent(session)
    assert not contract.wait(event, 0)
    contract.ContractInjectMany(adapter, packet(), 28, 2)
    assert contract.wait(event, 0)
    assert not contract.wait(event, 0)
    contract.inject(adapter, packet())
    assert contract.wait(event, 0)


def test_sent_packets_leave_in_the_order_of_allocation(contract: Contract, adapter: int, session: int) -> None:
    places = [contract.allocate(session, packet(40, index)) for index in range(4)]
    for index in (3, 1, 2):
        contract.WintunSendPacket(session, places[index])
    assert contract.ContractSettle(adapter, 10_000)
    assert contract.take(adapter) == b""  # The first holds the others.
    assert contract.error() == NO_MORE_ITEMS
    contract.WintunSendPacket(session, places[0])
    assert [number(contract.take(adapter, 10_000)) for _ in range(4)] == [0, 1, 2, 3]
    assert contract.counters()["sent_out_of_order"] == 3


def test_a_full_ring_refuses_and_takes_again_when_it_is_emptied(contract: Contract, adapter: int, session: int) -> None:
    assert contract.ContractSetFault(adapter, Fault.STALL, 1)
    sizes = [1000] * (USABLE // record_length(1000))
    assert all(contract.send(session, packet(size)) for size in sizes)
    rest = USABLE - len(sizes) * record_length(1000)
    assert not contract.send(session, packet(rest - HEADER + 1))
    assert contract.error() == OVERFLOW
    assert contract.send(session, packet(rest - HEADER))
    contract.ContractSetFault(adapter, Fault.STALL, 0)
    assert contract.ContractSettle(adapter, 10_000)
    assert contract.send(session, packet(1000))
    assert [len(contract.take(adapter, 10_000)) for _ in range(len(sizes) + 2)] == [*sizes, rest - HEADER, 1000]


def test_packets_of_any_length_go_round_the_ring(contract: Contract, adapter: int, session: int) -> None:
    for index, size in enumerate([65535, 20, 65535, 21, 40000, 22, 65534, 23, 30001] * 5):
        assert contract.ContractSettle(adapter, 10_000)
        assert contract.send(session, packet(size, index))
        assert contract.take(adapter, 10_000) == packet(size, index)


def test_what_is_taken_has_to_fit(contract: Contract, adapter: int, session: int) -> None:
    contract.send(session, packet(100))
    contract.ContractSettle(adapter, 10_000)
    assert contract.ContractTake(adapter, ctypes.create_string_buffer(99), 99, 0) == 0
    assert contract.error() == OVERFLOW
    assert contract.take(adapter) == packet(100)


def test_a_driver_without_room_for_packets_leaves_them_in_the_ring(
    contract: Contract, adapter: int, session: int
) -> None:
    large, fits = packet(65535), (64 << 20) // 65535
    for _ in range(fits):
        assert contract.send(session, large) or (
            contract.ContractSettle(adapter, 10_000) and contract.send(session, large)
        )
    assert contract.ContractSettle(adapter, 10_000)
    assert contract.send(session, large)
    assert not contract.ContractSettle(adapter, 0)
    assert not contract.send(session, large)
    assert contract.take(adapter) == large
    assert contract.ContractSettle(adapter, 10_000)
    assert contract.send(session, large)
    assert contract.statistics(adapter)["sent_packets"] == fits + 1


@pytest.mark.parametrize(
    "data",
    [b"", b"\x45", packet(19), b"\x60" + bytes(38), b"\x35" + bytes(59), bytes(100)],
    ids=["empty", "1", "IPv4 of 19", "IPv6 of 39", "version 3", "zeros"],
)
def test_what_is_no_ip_packet_is_discarded_and_counted(
    contract: Contract, adapter: int, session: int, data: bytes
) -> None:
    assert contract.send(session, data)
    assert contract.send(session, packet(20, 7))
    assert contract.send(session, b"\x60" + bytes(39))
    assert number(contract.take(adapter, 10_000)) == 7
    assert contract.take(adapter, 10_000) == b"\x60" + bytes(39)
    assert contract.statistics(adapter) == {"sent_packets": 2, "sent_bytes": 60, "sent_discarded": 1}


def test_a_record_that_cannot_be_ends_the_direction(contract: Contract, adapter: int, session: int) -> None:
    contract.send(session, packet(20, 1))
    place = contract.allocate(session, packet(60))
    ctypes.c_uint32.from_address(place - HEADER).value = 65536 | 1 << 31
    contract.WintunSendPacket(session, place)
    assert contract.ContractSettle(adapter, 10_000)
    assert not contract.send(session, packet())
    assert contract.error() == EOF
    assert number(contract.take(adapter)) == 1
    assert contract.inject(adapter, packet())  # The other direction lives.
    assert contract.receive(session)[0]


def test_more_than_65535_bytes_are_allocated_and_end_the_direction(
    contract: Contract, adapter: int, session: int
) -> None:
    place = contract.WintunAllocateSendPacket(session, 65536)
    assert contract.counters()["oversized_packet"] == 1
    contract.WintunSendPacket(session, place)
    assert contract.ContractSettle(adapter, 10_000)
    assert not contract.WintunAllocateSendPacket(session, 20)
    assert contract.error() == EOF
    assert not contract.WintunAllocateSendPacket(session, 0xFFFFFFFF)


def test_a_direction_that_ended_is_back_with_the_next_session(contract: Contract, adapter: int) -> None:
    session = contract.WintunStartSession(adapter, CAPACITY)
    contract.ContractSetFault(adapter, Fault.CORRUPT_HEAD, ENDED)
    assert not contract.send(session, packet())
    assert contract.error() == EOF
    contract.WintunEndSession(session)
    session = contract.WintunStartSession(adapter, CAPACITY)
    assert contract.send(session, packet())
    contract.WintunEndSession(session)


# Faults.


@pytest.mark.parametrize("size", [65536, 5, 0x80000004], ids=["too large", "more than there is", "absurd"])
def test_a_corrupt_record_is_found_behind_the_good_ones(
    contract: Contract, adapter: int, session: int, size: int
) -> None:
    contract.inject(adapter, packet())
    assert contract.ContractSetFault(adapter, Fault.CORRUPT_SIZE, size)
    assert contract.wait(contract.WintunGetReadWaitEvent(session), 0)
    assert contract.receive(session)[0]
    for _ in range(2):
        assert contract.receive(session) == (0, b"")
        assert contract.error() == INVALID_DATA


@pytest.mark.parametrize(("tail", "error"), [(2, INVALID_DATA), (CAPACITY, EOF), (CAPACITY - 8, INVALID_DATA)])
def test_a_tail_that_cannot_be(contract: Contract, adapter: int, session: int, tail: int, error: int) -> None:
    contract.ContractSetFault(adapter, Fault.CORRUPT_SIZE, 70000)
    contract.ContractSetFault(adapter, Fault.CORRUPT_TAIL, tail)
    assert contract.receive(session) == (0, b"")
    assert contract.error() == error
    assert not contract.inject(adapter, packet())


def test_a_terminating_adapter_ends_both_directions(contract: Contract, adapter: int, session: int) -> None:
    event = contract.WintunGetReadWaitEvent(session)
    contract.inject(adapter, packet())
    contract.wait(event, 0)
    assert contract.ContractSetFault(adapter, Fault.TERMINATE, 0)
    assert contract.wait(event, 0)
    assert contract.receive(session) == (0, b"")
    assert contract.error() == EOF
    assert not contract.send(session, packet())
    assert contract.error() == EOF
    assert not contract.inject(adapter, packet())
    assert names(contract) == {}
    assert not contract.WintunOpenAdapter("tp0")
    assert not contract.describe(adapter).connected


def test_a_removed_adapter_starts_no_session(contract: Contract, adapter: int) -> None:
    contract.ContractSetFault(adapter, Fault.TERMINATE, 0)
    assert not contract.WintunStartSession(adapter, CAPACITY)
    assert contract.error() == FILE_NOT_FOUND


def test_closing_its_creator_ends_the_session_of_another_handle(contract: Contract) -> None:
    created = contract.WintunCreateAdapter("tp0", "threepipe", None)
    opened = contract.WintunOpenAdapter("tp0")
    session = contract.WintunStartSession(opened, CAPACITY)
    contract.WintunCloseAdapter(created)
    assert contract.receive(session)[0] == 0
    assert contract.error() == EOF
    contract.WintunCloseAdapter(opened)
    contract.WintunEndSession(session)  # Allowed after its adapter is gone.


def test_wakeups_are_lost_on_demand(contract: Contract, adapter: int, session: int) -> None:
    event = contract.WintunGetReadWaitEvent(session)
    contract.ContractSetFault(adapter, Fault.LOST_WAKEUPS, 2)
    contract.ContractInjectMany(adapter, packet(), 28, 2)
    assert not contract.wait(event, 0)
    assert contract.receive(session)[0]
    contract.inject(adapter, packet())
    assert contract.wait(event, 0)
    assert contract.counters()["lost_wakeups"] == 2


@pytest.mark.parametrize("fault", [*(set(Fault) - {Fault.TERMINATE}), 99])
def test_faults_need_a_session(contract: Contract, adapter: int, fault: int) -> None:
    assert not contract.ContractSetFault(adapter, fault, 0)
    assert contract.error() == NOT_FOUND


def test_calls_fail_on_demand_and_only_as_often(contract: Contract, adapter: int, session: int) -> None:
    calls: dict[Function, Callable[[], Any]] = {
        Function.CREATE_ADAPTER: lambda: contract.WintunCreateAdapter("tp1", "threepipe", None),
        Function.OPEN_ADAPTER: lambda: contract.WintunOpenAdapter("tp0"),
        Function.GET_RUNNING_DRIVER_VERSION: contract.WintunGetRunningDriverVersion,
        Function.DELETE_DRIVER: contract.WintunDeleteDriver,
        Function.START_SESSION: lambda: contract.WintunStartSession(adapter, CAPACITY),
        Function.RECEIVE_PACKET: lambda: contract.receive(session)[0],
        Function.ALLOCATE_SEND_PACKET: lambda: contract.WintunAllocateSendPacket(session, 20),
    }
    for function, call in calls.items():
        assert contract.ContractFailCall(function, 5, 2)
        for _ in range(2):
            assert not call()
            assert contract.error() == 5
    contract.inject(adapter, packet())
    for function in (Function.RECEIVE_PACKET, Function.ALLOCATE_SEND_PACKET, Function.GET_RUNNING_DRIVER_VERSION):
        assert calls[function]()
    for other in (*(set(Function) - set(calls)), len(Function)):
        assert not contract.ContractFailCall(other, 5, 1)


def until_one_sleeps(contract: Contract) -> None:
    while not contract.counters().get("sleepers"):
        pass


def test_calls_are_slow_on_demand(contract: Contract, adapter: int) -> None:
    contract.ContractDelayCall(Function.OPEN_ADAPTER, 30_000, 1)
    with ThreadPoolExecutor(1) as pool:
        opening = pool.submit(contract.WintunOpenAdapter, "tp0")
        until_one_sleeps(contract)
        assert contract.describe(adapter).name == "tp0"  # Nothing is locked meanwhile.
        assert not opening.done()
        contract.ContractDelayCall(Function.OPEN_ADAPTER, 0, 0)
        contract.WintunCloseAdapter(opening.result())
    contract.ContractDelayCall(Function.OPEN_ADAPTER, 20, 1)
    start = time.monotonic()
    contract.WintunCloseAdapter(contract.WintunOpenAdapter("tp0"))
    assert time.monotonic() - start > 0.019
    assert not contract.ContractDelayCall(len(Function), 1, 1)


# Misuse.


def misuse_after_end(contract: Contract, adapter: int) -> None:
    session = contract.WintunStartSession(adapter, CAPACITY)
    contract.WintunEndSession(session)
    calls: list[Callable[[], Any]] = [
        lambda: contract.receive(session)[0],
        lambda: contract.WintunAllocateSendPacket(session, 20),
        lambda: contract.WintunGetReadWaitEvent(session),
    ]
    for call in calls:
        assert not call()
        assert contract.error() == INVALID_HANDLE
    contract.WintunSendPacket(session, 4096)
    contract.WintunReleaseReceivePacket(session, 4096)
    contract.WintunEndSession(session)


def test_use_after_end_is_found(contract: Contract, adapter: int) -> None:
    misuse_after_end(contract, adapter)
    assert contract.counters()["use_after_end"] == 6


def test_use_after_close_is_found(contract: Contract) -> None:
    adapter = contract.WintunCreateAdapter("tp0", "threepipe", None)
    contract.WintunCloseAdapter(adapter)
    luid = ctypes.c_uint64(7)
    contract.WintunGetAdapterLUID(adapter, luid)
    assert luid.value == 0
    assert not contract.WintunStartSession(adapter, CAPACITY)
    assert contract.error() == INVALID_HANDLE
    contract.WintunCloseAdapter(adapter)
    contract.WintunCloseAdapter(None)  # Which is allowed.
    assert contract.counters() == {"use_after_close": 3}


def test_releasing_twice_or_what_was_not_received_is_found(contract: Contract, adapter: int, session: int) -> None:
    contract.ContractInjectMany(adapter, packet(), 28, 2)
    address, _ = contract.receive(session)
    for wrong in (address + 4, address + 1, address + record_length(28), address + (1 << 40), address - HEADER, None):
        contract.WintunReleaseReceivePacket(session, wrong)
    contract.WintunReleaseReceivePacket(session, address)
    contract.WintunReleaseReceivePacket(session, address)
    assert contract.counters()["wrong_release"] == 7
    address, data = contract.receive(session)
    assert data == packet()
    contract.WintunReleaseReceivePacket(session, address)


def test_sending_twice_or_what_was_not_allocated_is_found(contract: Contract, adapter: int, session: int) -> None:
    place = contract.allocate(session, packet())
    for wrong in (place + 4, place + 1, None):
        contract.WintunSendPacket(session, wrong)
    contract.WintunSendPacket(session, place)
    contract.WintunSendPacket(session, place)
    assert contract.counters()["wrong_send"] == 4
    assert contract.take(adapter, 10_000) == packet()


def test_ending_under_a_caller_is_found_and_waits_for_him(contract: Contract, adapter: int) -> None:
    session = contract.WintunStartSession(adapter, CAPACITY)
    contract.ContractDelayCall(Function.RECEIVE_PACKET, 30_000, 1)
    with ThreadPoolExecutor(2) as pool:
        receiving = pool.submit(lambda: (contract.receive(session), contract.error()))
        until_one_sleeps(contract)
        ending = pool.submit(contract.WintunEndSession, session)
        while not contract.counters().get("end_inside_call"):
            pass
        assert not ending.done()
        contract.ContractDelayCall(Function.RECEIVE_PACKET, 0, 0)
        assert receiving.result() == ((0, b""), NO_MORE_ITEMS)
        ending.result()


def test_what_is_held_at_the_end_is_counted(contract: Contract, adapter: int) -> None:
    session = contract.WintunStartSession(adapter, CAPACITY)
    contract.ContractInjectMany(adapter, packet(), 28, 3)
    contract.WintunReleaseReceivePacket(session, contract.receive(session)[0])
    contract.receive(session)
    for _ in range(2):
        contract.allocate(session, packet())
    contract.WintunEndSession(session)
    counters = contract.counters()
    assert (counters["unreleased_at_end"], counters["unsent_at_end"]) == (1, 2)


MISUSE = """
import sys
from pathlib import Path
from tests.support.contract_dll.library import Contract

contract = Contract(Path(sys.argv[1]))
contract.ContractSetStrict(True)
adapter = contract.WintunCreateAdapter("tp0", "threepipe", None)
session = contract.WintunStartSession(adapter, 0x20000)
contract.inject(adapter, bytes(28))
address, _ = contract.receive(session)
contract.WintunReleaseReceivePacket(session, address)
print("so far all is well", flush=True)
contract.WintunReleaseReceivePacket(session, address)
print("not reached", flush=True)
"""


def test_misuse_aborts_where_that_is_wanted(path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", MISUSE, str(path)], env=environment, capture_output=True, text=True, timeout=50
    )
    assert done.stdout == "so far all is well\n"
    assert done.returncode
    assert "contract: a packet was released that was not received, or was released before" in done.stderr


# From threads.


def receive_until(contract: Contract, session: int, got: threading.Semaphore, stop: threading.Event) -> list[int]:
    """The numbers of the packets that one of several readers gets, who releases them late and in the wrong order."""
    event = contract.WintunGetReadWaitEvent(session)
    held: list[int] = []
    numbers: list[int] = []
    while not stop.is_set():
        address, data = contract.receive(session)
        if address:
            held.append(address)
            numbers.append(number(data))
        if held and (len(held) == 8 or not address):
            for place in reversed(held):
                contract.WintunReleaseReceivePacket(session, place)
                got.release()
            held.clear()
        if not address:
            contract.wait(event, 10)
    return numbers


def send_all(contract: Contract, session: int, numbers: range) -> None:
    for index in numbers:
        while not contract.send(session, packet(28 + index % 1400, index)):
            assert contract.error() == OVERFLOW


def test_eight_threads_on_a_session(contract: Contract, adapter: int, session: int) -> None:
    each, got, stop = 500, threading.Semaphore(0), threading.Event()
    with ThreadPoolExecutor(8) as pool:
        readers = [pool.submit(receive_until, contract, session, got, stop) for _ in range(4)]
        writers = [pool.submit(send_all, contract, session, range(i * each, (i + 1) * each)) for i in range(4)]
        for index in range(4 * each):
            while not contract.inject(adapter, packet(28 + index % 1400, index)):
                got.acquire(timeout=10)
                got.release()
        taken = [contract.take(adapter, 10_000) for _ in range(4 * each)]
        assert all(got.acquire(timeout=10) for _ in range(4 * each))
        stop.set()
        received = [reader.result() for reader in readers]
        for writer in writers:
            writer.result()
    assert sorted(index for numbers in received for index in numbers) == list(range(4 * each))
    assert all(numbers == sorted(numbers) for numbers in received)
    assert sorted(map(number, taken)) == list(range(4 * each))
    for i in range(4):  # What one thread sends stays in order.
        own = [number(data) for data in taken if number(data) // each == i]
        assert own == sorted(own)
    assert all(data == packet(len(data), number(data)) for data in taken)
    assert not VIOLATIONS & set(contract.counters())


def live(contract: Contract, name: str) -> None:
    """An adapter from its beginning to its end, ten times."""
    for index in range(10):
        adapter = contract.WintunCreateAdapter(name, "threepipe", None)
        session = contract.WintunStartSession(adapter, CAPACITY)
        assert contract.inject(adapter, packet(28, index))
        address, data = contract.receive(session)
        assert contract.send(session, data)
        contract.WintunReleaseReceivePacket(session, address)
        assert number(contract.take(adapter, 10_000)) == index
        contract.WintunEndSession(session)
        contract.WintunCloseAdapter(adapter)


def test_eight_threads_with_adapters_of_their_own(contract: Contract) -> None:
    with ThreadPoolExecutor(8) as pool:
        for life in [pool.submit(live, contract, f"tp{index}") for index in range(8)]:
            life.result()
    assert contract.counters() == {}


def test_the_driver_sleeps_and_wakes_for_every_packet(contract: Contract, adapter: int, session: int) -> None:
    event = contract.WintunGetReadWaitEvent(session)
    contract.ContractSetDiscard(adapter, True)
    for index in range(2000):
        if index % 20 == 0:
            contract.wait(event, 1)  # Which is never set, and longer than the driver looks before it sleeps.
        assert contract.send(session, packet())
        assert contract.ContractSettle(adapter, 10_000)
    assert contract.statistics(adapter)["sent_packets"] == 2000
    assert contract.take(adapter) == b""


# The network.


@pytest.fixture
def outside() -> Iterator[socket.socket]:
    """A UDP socket of the machine's."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(10)
        sock.bind(("127.0.0.1", 0))
        yield sock


def cross(contract: Contract, session: int, outside: socket.socket, port: int) -> None:
    """Packets go both ways between the program and a socket."""
    for size in (20, 1500, 65507):
        assert contract.send(session, packet(size, size))
        assert outside.recvfrom(65536) == (packet(size, size), ("127.0.0.1", port))
        outside.sendto(packet(size, size), ("127.0.0.1", port))
        while not (got := contract.receive(session))[0]:
            assert contract.error() == NO_MORE_ITEMS
            assert contract.wait(contract.WintunGetReadWaitEvent(session), 10_000)
        assert got[1] == packet(size, size)
        contract.WintunReleaseReceivePacket(session, got[0])


def test_an_adapter_is_a_udp_port(contract: Contract, adapter: int, outside: socket.socket) -> None:
    remote = outside.getsockname()[1]
    contract.ContractSetNetwork("TP0", 0, remote)
    session = contract.WintunStartSession(adapter, CAPACITY)
    port = contract.ContractGetNetworkPort(adapter)
    assert port not in (0, remote)
    cross(contract, session, outside, port)
    assert contract.send(session, packet(65508))  # More than a datagram holds.
    assert contract.ContractSettle(adapter, 10_000)
    assert contract.statistics(adapter)["network_errors"] == 1
    contract.WintunEndSession(session)
    assert contract.ContractGetNetworkPort(adapter) == 0
    contract.ContractSetNetwork("tp0", 0, 0)
    session = contract.WintunStartSession(adapter, CAPACITY)
    assert contract.ContractGetNetworkPort(adapter) == 0
    assert contract.send(session, packet())
    assert contract.take(adapter, 10_000) == packet()
    contract.WintunEndSession(session)


def test_a_port_that_is_taken_is_said(contract: Contract, adapter: int, outside: socket.socket) -> None:
    contract.ContractSetNetwork("tp0", outside.getsockname()[1], 9)
    assert not contract.WintunStartSession(adapter, CAPACITY)
    assert contract.error() == ADDRESS_IN_USE
    assert not contract.describe(adapter).connected


def test_the_environment_names_networks(
    contract: Contract, adapter: int, outside: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote = outside.getsockname()[1]
    monkeypatch.setenv("THREEPIPE_CONTRACT_UDP", f"other:1:2,nonsense,TP0:0:{remote}")
    session = contract.WintunStartSession(adapter, CAPACITY)
    cross(contract, session, outside, contract.ContractGetNetworkPort(adapter))
    contract.WintunEndSession(session)


# The library itself.


@pytest.mark.skipif(not compiler("linux"), reason="there is no gcc to compile the header with")
def test_structures_and_numbers_are_those_of_the_header() -> None:
    structures = {"CONTRACT_INTERFACE": Interface, "CONTRACT_STATISTICS": Statistics, "CONTRACT_COUNTERS": Counters}
    checks = [f"sizeof({name}) == {ctypes.sizeof(ours)}" for name, ours in structures.items()]
    for name, ours in structures.items():
        for field, *_ in ours._fields_:
            theirs = {"guid": "InterfaceGuid", "luid": "InterfaceLuid"}.get(field, field.title().replace("_", ""))
            checks.append(f"offsetof({name}, {theirs}) == {getattr(ours, field).offset}")
    for prefix, numbers in (("CONTRACT_", Function), ("CONTRACT_FAULT_", Fault), ("CONTRACT_", Kind)):
        checks += [f"{prefix}{entry.name} == {entry.value}" for entry in numbers]
    checks.append(f"CONTRACT_FUNCTIONS == {len(Function)}")
    asserts = [f'_Static_assert({check}, "ours differs");' for check in checks]
    source = "\n".join(["#include <stddef.h>", '#include "contract.h"', *asserts, ""])
    header = Path(__file__).parents[1] / "support" / "contract_dll"
    command = ["gcc", "-std=c17", "-Wall", "-Werror", "-fsyntax-only", f"-I{header}", "-x", "c", "-"]
    done = subprocess.run(command, input=source, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.skipif(bool(GIVEN), reason="the library is given")
@pytest.mark.skipif(not compiler("windows"), reason="there is no mingw-w64 here to build the DLL with")
@pytest.mark.timeout(300)
def test_the_dll_exports_the_functions_by_their_names(request: pytest.FixtureRequest) -> None:
    dll = build("windows", request.config.cache.mkdir("contract"))
    listing = subprocess.check_output(["x86_64-w64-mingw32-objdump", "-p", str(dll)], text=True)
    exports = {line.split()[-1] for line in listing.partition("Ordinal/Name")[2].partition("\n\n")[0].splitlines()[1:]}
    assert exports == set(PROTOTYPES)


@pytest.mark.skipif(bool(GIVEN), reason="the library is given")
@pytest.mark.skipif(not sanitizer(), reason="there is no gcc with AddressSanitizer")
@pytest.mark.timeout(300)
def test_all_that_under_address_sanitizer(path: Path, request: pytest.FixtureRequest) -> None:
    library = build("linux-asan", request.config.cache.mkdir("contract"))
    environment = os.environ | {
        "THREEPIPE_CONTRACT": str(library),
        "LD_PRELOAD": str(sanitizer()),
        "ASAN_OPTIONS": "detect_leaks=0",  # Python leaves much behind, and the library its handles, on purpose.
    }
    command = [sys.executable, "-m", "pytest", "-q", "--noconftest", "-p", "no:cacheprovider", __file__]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout
