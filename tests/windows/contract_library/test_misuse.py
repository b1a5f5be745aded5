"""Misuse of handles and packets that the contract library finds."""

import ctypes
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.support.contract_dll.library import Contract, Function
from tests.support.contract_packets import (
    CAPACITY,
    HEADER,
    INVALID_HANDLE,
    NO_MORE_ITEMS,
    packet,
    record_length,
    until_one_sleeps,
)

pytestmark = pytest.mark.windows


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


def test_use_of_an_ended_session_is_counted(contract: Contract, adapter: int) -> None:
    misuse_after_end(contract, adapter)
    assert contract.counters()["use_after_end"] == 6


def test_use_of_a_closed_adapter_is_counted(contract: Contract) -> None:
    adapter = contract.WintunCreateAdapter("tp0", "threepipe", None)
    contract.WintunCloseAdapter(adapter)
    luid = ctypes.c_uint64(7)
    contract.WintunGetAdapterLUID(adapter, luid)
    assert luid.value == 0
    assert not contract.WintunStartSession(adapter, CAPACITY)
    assert contract.error() == INVALID_HANDLE
    contract.WintunCloseAdapter(adapter)
    contract.WintunCloseAdapter(None)  # This is allowed.
    assert contract.counters() == {"use_after_close": 3}


def test_a_wrong_release_is_counted(contract: Contract, adapter: int, session: int) -> None:
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


def test_a_wrong_send_is_counted(contract: Contract, adapter: int, session: int) -> None:
    place = contract.allocate(session, packet())
    for wrong in (place + 4, place + 1, None):
        contract.WintunSendPacket(session, wrong)
    contract.WintunSendPacket(session, place)
    contract.WintunSendPacket(session, place)
    assert contract.counters()["wrong_send"] == 4
    assert contract.take(adapter, 10_000) == packet()


def test_end_during_a_call_is_counted_and_waits_for_it(contract: Contract, adapter: int) -> None:
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


def test_packets_held_at_the_end_are_counted(contract: Contract, adapter: int) -> None:
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


def test_misuse_in_strict_mode_aborts(path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    done = subprocess.run(
        [sys.executable, "-c", MISUSE, str(path)], env=environment, capture_output=True, text=True, timeout=50
    )
    assert done.stdout == "so far all is well\n"
    assert done.returncode
    assert "contract: a packet was released that was not received, or was released before" in done.stderr
