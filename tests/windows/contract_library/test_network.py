"""UDP ports behind adapters of the contract library."""

import socket

import pytest

from tests.support.contract_dll.library import Contract
from tests.support.contract_packets import ADDRESS_IN_USE, CAPACITY, NO_MORE_ITEMS, packet

pytestmark = pytest.mark.windows


def cross(contract: Contract, session: int, outside: socket.socket, port: int) -> None:
    """Send packets both ways between the program and a socket."""
    for size in (20, 1500, 65507):
        assert contract.send(session, packet(size, size))
        assert outside.recvfrom(65536) == (packet(size, size), ("127.0.0.1", port))
        outside.sendto(packet(size, size), ("127.0.0.1", port))
        while not (got := contract.receive(session))[0]:
            assert contract.error() == NO_MORE_ITEMS
            assert contract.wait(contract.WintunGetReadWaitEvent(session), 10_000)
        assert got[1] == packet(size, size)
        contract.WintunReleaseReceivePacket(session, got[0])


def test_an_adapter_with_a_network_is_a_udp_port(contract: Contract, adapter: int, outside: socket.socket) -> None:
    remote = outside.getsockname()[1]
    contract.ContractSetNetwork("TP0", 0, remote)
    session = contract.WintunStartSession(adapter, CAPACITY)
    port = contract.ContractGetNetworkPort(adapter)
    assert port not in (0, remote)
    cross(contract, session, outside, port)
    assert contract.send(session, packet(65508))  # This is more than a datagram holds.
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


def test_a_network_at_a_taken_port_fails(contract: Contract, adapter: int, outside: socket.socket) -> None:
    contract.ContractSetNetwork("tp0", outside.getsockname()[1], 9)
    assert not contract.WintunStartSession(adapter, CAPACITY)
    assert contract.error() == ADDRESS_IN_USE
    assert not contract.describe(adapter).connected


def test_networks_are_read_from_the_environment(
    contract: Contract, adapter: int, outside: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote = outside.getsockname()[1]
    monkeypatch.setenv("THREEPIPE_CONTRACT_UDP", f"other:1:2,nonsense,TP0:0:{remote}")
    session = contract.WintunStartSession(adapter, CAPACITY)
    cross(contract, session, outside, contract.ContractGetNetworkPort(adapter))
    contract.WintunEndSession(session)
