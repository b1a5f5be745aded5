"""Endpoints over UDP in networks with several addresses, and while addresses come and go."""

import socket
import sys
from contextlib import ExitStack

import pytest

import threepipe
from tests.support.endpoints import SECONDS, opened, packet, received
from tests.support.kernel import Network

pytestmark = pytest.mark.kernel

TWO = {4: ("10.88.0.1", "10.88.0.11"), 6: ("fd88::1", "fd88::11")}
"""IP version -> two addresses of the first network."""
FAR = {4: "10.88.0.2", 6: "fd88::2"}
"""IP version -> the address of the second network."""
LENGTH = {4: 24, 6: 64}


def host(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def joined_networks(stack: ExitStack) -> tuple[Network, Network]:
    """Return two networks joined by `v0`; the first has two addresses of each family, and one on `lo`."""
    near, far = Network(), Network()
    for network in (near, far):
        stack.callback(network.namespace.close)
    near.run("ip", "link", "add", "v0", "type", "veth", "peer", "v0", "netns", far.path)
    for version in (4, 6):
        for address in TWO[version]:
            add(near, address)
        add(far, FAR[version])
    for network in (near, far):
        network.run("ip", "link", "set", "v0", "up")
    near.run("sysctl", "-qw", "net.ipv4.conf.all.promote_secondaries=1")  # Removing one address leaves the others.
    near.run("ip", "address", "add", "10.99.0.1/32", "dev", "lo")
    near.run("ip", "-6", "address", "add", "fd99::1/128", "dev", "lo")
    far.run("ip", "route", "add", "10.99.0.1", "via", TWO[4][0])
    far.run("ip", "route", "add", "fd99::1", "via", TWO[6][0])
    return near, far


def add(network: Network, address: str) -> None:
    version = 6 if ":" in address else 4
    detection = ["nodad"] if version == 6 else []
    network.run("ip", "address", "add", f"{address}/{LENGTH[version]}", "dev", "v0", *detection)


def remove(network: Network, address: str) -> None:
    network.run("ip", "address", "del", f"{address}/{LENGTH[6 if ':' in address else 4]}", "dev", "v0")


def opened_in(network: Network, stack: ExitStack, address: str) -> threepipe.Session:
    return network.namespace.run(lambda: opened(stack, address))


@pytest.mark.parametrize("address", [*TWO[4], *TWO[6], "10.99.0.1", "fd99::1"])
@pytest.mark.parametrize("at", ["0.0.0.0", "[::]"])
def test_a_listener_answers_from_the_address_that_was_asked(stack: ExitStack, at: str, address: str) -> None:
    if at == "0.0.0.0" and ":" in address:
        at = "[::]"
    near, far = joined_networks(stack)
    listener = opened_in(near, stack, f"udp-listen:{at}:4242")
    with far.namespace.run(lambda: socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, 2)) as plain:
        plain.settimeout(SECONDS)
        plain.connect((address, 4242))  # Takes datagrams of that address only.
        plain.send(packet(1))
        assert received(listener, 1) == [packet(1)]
        packets = [packet(2, 1000), packet(3, 1000), packet(4)]
        assert listener.send(packets) == 3
        assert [plain.recv(2000) for _ in packets] == packets


def test_a_listener_answers_a_peer_that_asks_another_address_from_there(stack: ExitStack) -> None:
    near, far = joined_networks(stack)
    listener = opened_in(near, stack, "udp-listen:0.0.0.0:4242")
    with far.namespace.run(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as plain:
        plain.settimeout(SECONDS)
        for address in TWO[4]:
            plain.sendto(packet(1), (address, 4242))
            assert received(listener, 1) == [packet(1)]
            assert listener.send([packet(2)]) == 1
            assert plain.recvfrom(2000) == (packet(2), (address, 4242))


def test_a_listener_whose_asked_address_is_gone_answers_from_another(stack: ExitStack) -> None:
    near, far = joined_networks(stack)
    listener = opened_in(near, stack, "udp-listen:0.0.0.0:4242")
    with far.namespace.run(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as plain:
        plain.settimeout(SECONDS)
        plain.sendto(packet(1), (TWO[4][1], 4242))
        assert received(listener, 1) == [packet(1)]
        remove(near, TWO[4][1])
        for number in (2, 3):
            assert listener.send([packet(number)]) == 1
            assert plain.recvfrom(2000) == (packet(number), (TWO[4][0], 4242))


@pytest.mark.skipif(sys.platform == "win32", reason="Windows inherits no descriptors")
def test_an_unbound_descriptor_answers_from_the_address_that_was_asked(stack: ExitStack) -> None:
    near, far = joined_networks(stack)
    bound = near.namespace.run(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    bound.bind(("0.0.0.0", 4242))
    listener = opened_in(near, stack, f"fd:{bound.detach()}")
    with far.namespace.run(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as plain:
        plain.settimeout(SECONDS)
        plain.connect((TWO[4][1], 4242))
        plain.send(packet(1))
        assert received(listener, 1) == [packet(1)]
        assert listener.send([packet(2)]) == 1
        assert plain.recv(2000) == packet(2)


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("gap", [False, True])
def test_a_caller_goes_on_from_its_new_address(stack: ExitStack, version: int, gap: bool) -> None:
    near, far = joined_networks(stack)
    old, new = TWO[version]
    remove(near, new)
    listener = opened_in(far, stack, f"udp-listen:{host(FAR[version])}:4242")
    caller = opened_in(near, stack, f"udp:{host(FAR[version])}:4242")
    both_ways(caller, listener)
    if not gap:
        add(near, new)
    remove(near, old)
    if gap:
        if version == 6:
            near.run("ip", "-6", "route", "flush", "dev", "v0")
        with pytest.raises(threepipe.LinkDown, match="no route"):
            caller.send([packet(0)])
        add(near, new)
    both_ways(caller, listener)


def both_ways(caller: threepipe.Session, listener: threepipe.Session) -> None:
    assert caller.send([packet(1)]) == 1
    assert received(listener, 1) == [packet(1)]
    assert listener.send([packet(2)]) == 1
    assert received(caller, 1) == [packet(2)]


def test_a_caller_keeps_its_port_when_its_address_changes(stack: ExitStack) -> None:
    near, far = joined_networks(stack)
    caller = opened_in(near, stack, f"udp:{FAR[4]}:4242")
    with far.namespace.run(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as plain:
        plain.settimeout(SECONDS)
        plain.bind((FAR[4], 4242))
        assert caller.send([packet(1)]) == 1
        first = plain.recvfrom(2000)[1]
        remove(near, TWO[4][0])
        assert caller.send([packet(2)]) == 1
        second = plain.recvfrom(2000)[1]
    assert first[1] == second[1]
    assert first[0] != second[0]
