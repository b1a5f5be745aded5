"""Sessions and rings of the contract library."""

import ctypes

import pytest

from tests.support.contract_dll.library import Contract, Fault
from tests.support.contract_packets import (
    BUSY,
    CAPACITY,
    ENDED,
    EOF,
    HEADER,
    INVALID_PARAMETER,
    NO_MORE_ITEMS,
    OVERFLOW,
    USABLE,
    number,
    packet,
    record_length,
)

pytestmark = pytest.mark.windows


@pytest.mark.parametrize("capacity", [0, 0x10000, CAPACITY - 1, CAPACITY + 4, 3 << 16, 0x8000000])
def test_a_capacity_that_is_not_a_power_of_two_in_range_fails(contract: Contract, adapter: int, capacity: int) -> None:
    assert not contract.WintunStartSession(adapter, capacity)
    assert contract.error() == INVALID_PARAMETER


@pytest.mark.parametrize("capacity", [CAPACITY, 0x4000000])
def test_the_link_is_up_while_a_session_runs(contract: Contract, adapter: int, capacity: int) -> None:
    for _ in range(2):
        session = contract.WintunStartSession(adapter, capacity)
        assert contract.describe(adapter).connected
        contract.WintunEndSession(session)
        assert not contract.describe(adapter).connected


def test_a_second_session_fails(contract: Contract, adapter: int, session: int) -> None:
    opened = contract.WintunOpenAdapter("tp0")
    for handle in (adapter, opened):
        assert not contract.WintunStartSession(handle, CAPACITY)
        assert contract.error() == BUSY
    contract.WintunCloseAdapter(opened)


def test_packets_arrive_in_order_until_no_more_items(contract: Contract, adapter: int, session: int) -> None:
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
    assert not contract.inject(adapter, packet(1000))  # A received packet occupies its room until it is released.
    contract.WintunReleaseReceivePacket(session, address)
    assert contract.inject(adapter, packet(1000))


def test_room_is_freed_in_the_order_of_the_ring(contract: Contract, adapter: int, session: int) -> None:
    contract.ContractInjectMany(adapter, packet(1000), 1000, 1000)
    held = [contract.receive(session)[0] for _ in range(3)]
    contract.WintunReleaseReceivePacket(session, held[2])
    contract.WintunReleaseReceivePacket(session, held[1])
    assert not contract.inject(adapter, packet(1000))
    contract.WintunReleaseReceivePacket(session, held[0])
    assert contract.ContractInjectMany(adapter, packet(1000), 1000, 5) == 3
    assert contract.counters()["released_out_of_order"] == 2


def test_a_record_at_the_end_of_the_ring_is_contiguous(contract: Contract, adapter: int, session: int) -> None:
    contract.ContractInjectMany(adapter, packet(65000), 65000, 2)
    first, second = (contract.receive(session)[0] for _ in range(2))
    contract.WintunReleaseReceivePacket(session, first)
    contract.WintunReleaseReceivePacket(session, second)
    for index in range(50):  # About every third packet begins close to the end of the ring and runs past it.
        assert contract.inject(adapter, packet(50001, index))
        address, data = contract.receive(session)
        assert data == packet(50001, index)
        assert 0 <= address - first <= CAPACITY
        contract.WintunReleaseReceivePacket(session, address)


def test_a_released_packet_is_overwritten(contract: Contract, adapter: int, session: int) -> None:
    contract.inject(adapter, packet(60))
    address, _ = contract.receive(session)
    contract.WintunReleaseReceivePacket(session, address)
    assert ctypes.string_at(address, 60) == b"\xdd" * 60


def test_the_event_is_set_for_every_packet_and_resets(contract: Contract, adapter: int, session: int) -> None:
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
    assert contract.take(adapter) == b""  # The first packet delays the others.
    assert contract.error() == NO_MORE_ITEMS
    contract.WintunSendPacket(session, places[0])
    assert [number(contract.take(adapter, 10_000)) for _ in range(4)] == [0, 1, 2, 3]
    assert contract.counters()["sent_out_of_order"] == 3


def test_a_full_ring_rejects_packets_until_it_is_emptied(contract: Contract, adapter: int, session: int) -> None:
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


def test_packets_of_any_length_pass_around_the_ring(contract: Contract, adapter: int, session: int) -> None:
    for index, size in enumerate([65535, 20, 65535, 21, 40000, 22, 65534, 23, 30001] * 5):
        assert contract.ContractSettle(adapter, 10_000)
        assert contract.send(session, packet(size, index))
        assert contract.take(adapter, 10_000) == packet(size, index)


def test_take_into_a_buffer_that_is_too_small_fails(contract: Contract, adapter: int, session: int) -> None:
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
def test_data_without_an_ip_packet_is_discarded_and_counted(
    contract: Contract, adapter: int, session: int, data: bytes
) -> None:
    assert contract.send(session, data)
    assert contract.send(session, packet(20, 7))
    assert contract.send(session, b"\x60" + bytes(39))
    assert number(contract.take(adapter, 10_000)) == 7
    assert contract.take(adapter, 10_000) == b"\x60" + bytes(39)
    assert contract.statistics(adapter) == {"sent_packets": 2, "sent_bytes": 60, "sent_discarded": 1}


def test_an_impossible_record_ends_the_direction(contract: Contract, adapter: int, session: int) -> None:
    contract.send(session, packet(20, 1))
    place = contract.allocate(session, packet(60))
    ctypes.c_uint32.from_address(place - HEADER).value = 65536 | 1 << 31
    contract.WintunSendPacket(session, place)
    assert contract.ContractSettle(adapter, 10_000)
    assert not contract.send(session, packet())
    assert contract.error() == EOF
    assert number(contract.take(adapter)) == 1
    assert contract.inject(adapter, packet())  # The other direction still works.
    assert contract.receive(session)[0]


def test_a_packet_of_more_than_65535_bytes_ends_the_direction(contract: Contract, adapter: int, session: int) -> None:
    place = contract.WintunAllocateSendPacket(session, 65536)
    assert contract.counters()["oversized_packet"] == 1
    contract.WintunSendPacket(session, place)
    assert contract.ContractSettle(adapter, 10_000)
    assert not contract.WintunAllocateSendPacket(session, 20)
    assert contract.error() == EOF
    assert not contract.WintunAllocateSendPacket(session, 0xFFFFFFFF)


def test_an_ended_direction_works_in_the_next_session(contract: Contract, adapter: int) -> None:
    session = contract.WintunStartSession(adapter, CAPACITY)
    contract.ContractSetFault(adapter, Fault.CORRUPT_HEAD, ENDED)
    assert not contract.send(session, packet())
    assert contract.error() == EOF
    contract.WintunEndSession(session)
    session = contract.WintunStartSession(adapter, CAPACITY)
    assert contract.send(session, packet())
    contract.WintunEndSession(session)
