"""Faults that the contract library makes on demand."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.support.contract_dll.library import Contract, Fault, Function
from tests.support.contract_packets import (
    CAPACITY,
    EOF,
    FILE_NOT_FOUND,
    INVALID_DATA,
    NOT_FOUND,
    names,
    packet,
    until_one_sleeps,
)

pytestmark = pytest.mark.windows


@pytest.mark.parametrize("size", [65536, 5, 0x80000004], ids=["too large", "more than there is", "absurd"])
def test_a_corrupt_record_is_reported_after_the_valid_ones(
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
def test_an_impossible_tail_is_reported(contract: Contract, adapter: int, session: int, tail: int, error: int) -> None:
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


def test_close_by_the_creator_ends_the_session_of_another_handle(contract: Contract) -> None:
    created = contract.WintunCreateAdapter("tp0", "threepipe", None)
    opened = contract.WintunOpenAdapter("tp0")
    session = contract.WintunStartSession(opened, CAPACITY)
    contract.WintunCloseAdapter(created)
    assert contract.receive(session)[0] == 0
    assert contract.error() == EOF
    contract.WintunCloseAdapter(opened)
    contract.WintunEndSession(session)  # This is allowed after its adapter is gone.


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
def test_a_fault_without_a_session_fails(contract: Contract, adapter: int, fault: int) -> None:
    assert not contract.ContractSetFault(adapter, fault, 0)
    assert contract.error() == NOT_FOUND


def test_calls_fail_on_demand_as_often_as_set(contract: Contract, adapter: int, session: int) -> None:
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


def test_calls_are_slow_on_demand(contract: Contract, adapter: int) -> None:
    contract.ContractDelayCall(Function.OPEN_ADAPTER, 30_000, 1)
    with ThreadPoolExecutor(1) as pool:
        opening = pool.submit(contract.WintunOpenAdapter, "tp0")
        until_one_sleeps(contract)
        assert contract.describe(adapter).name == "tp0"  # No lock is held meanwhile.
        assert not opening.done()
        contract.ContractDelayCall(Function.OPEN_ADAPTER, 0, 0)
        contract.WintunCloseAdapter(opening.result())
    contract.ContractDelayCall(Function.OPEN_ADAPTER, 20, 1)
    start = time.monotonic()
    contract.WintunCloseAdapter(contract.WintunOpenAdapter("tp0"))
    assert time.monotonic() - start > 0.019
    assert not contract.ContractDelayCall(len(Function), 1, 1)
