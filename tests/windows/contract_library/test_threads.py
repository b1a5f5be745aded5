"""Threads on adapters and sessions of the contract library."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.contract_dll.library import Contract
from tests.support.contract_packets import CAPACITY, OVERFLOW, VIOLATIONS, number, packet

pytestmark = pytest.mark.windows


def receive_until(contract: Contract, session: int, got: threading.Semaphore, stop: threading.Event) -> list[int]:
    """Receive as one of several readers, release packets late and out of order, and return their numbers."""
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


def test_packets_of_eight_threads_on_a_session_arrive_intact(contract: Contract, adapter: int, session: int) -> None:
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
    for i in range(4):  # Packets of one thread stay in order.
        own = [number(data) for data in taken if number(data) // each == i]
        assert own == sorted(own)
    assert all(data == packet(len(data), number(data)) for data in taken)
    assert not VIOLATIONS & set(contract.counters())


def live(contract: Contract, name: str) -> None:
    """Create, use and close an adapter ten times."""
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


def test_eight_threads_with_an_adapter_each_succeed(contract: Contract) -> None:
    with ThreadPoolExecutor(8) as pool:
        for life in [pool.submit(live, contract, f"tp{index}") for index in range(8)]:
            life.result()
    assert contract.counters() == {}


def test_a_sleeping_driver_wakes_for_every_packet(contract: Contract, adapter: int, session: int) -> None:
    event = contract.WintunGetReadWaitEvent(session)
    contract.ContractSetDiscard(adapter, True)
    for index in range(2000):
        if index % 20 == 0:
            contract.wait(event, 1)  # It is never set; the wait is longer than the driver spins before it sleeps.
        assert contract.send(session, packet())
        assert contract.ContractSettle(adapter, 10_000)
    assert contract.statistics(adapter)["sent_packets"] == 2000
    assert contract.take(adapter) == b""
