"""The options mark= and interface=, which choose the way of a socket's packets, over kernel routes."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

import threepipe
from tests.support.endpoints import Place, opened, packet, received
from tests.support.kernel import Network
from threepipe.endpoints.address import parse_address

pytestmark = pytest.mark.kernel

HERE, THERE = "10.88.0.1", "10.88.0.2"
KINDS = ["udp", "tcp", "tls"]


def ends(kind: str, folder: Path, host: str) -> tuple[str, str]:
    """Return the addresses of a caller and a listener at `host`."""
    files = ["", ""]
    if kind == "tls":
        place = Place("tls", folder)
        files = [place.files("client") + f",name={place.host}", place.files("server")]
    return f"{kind}:{host}:4242{files[0]}", f"{kind}-listen:{host}:4242{files[1]}"


def joined_networks(stack: ExitStack) -> tuple[Network, Network]:
    """Return two networks joined by `v0`, and in the first a wrong route to the second's address, into nowhere."""
    near, far = Network(), Network()
    for number, network in enumerate((near, far), 1):
        stack.callback(network.namespace.close)
        if number == 1:
            near.run("ip", "link", "add", "v0", "type", "veth", "peer", "v0", "netns", far.path)
        network.run("ip", "address", "add", f"10.88.0.{number}/24", "dev", "v0")
        network.run("ip", "link", "set", "v0", "up")
    far.run("ip", "link", "set", "v0", "up")
    near.run("ip", "link", "add", "nowhere", "type", "veth", "peer", "nobody")
    for name in ("nowhere", "nobody"):
        near.run("ip", "link", "set", name, "up")
    near.run("ip", "route", "add", f"{THERE}/32", "dev", "nowhere")
    near.run("ip", "route", "add", f"{THERE}/32", "dev", "v0", "table", "77")
    near.run("ip", "rule", "add", "fwmark", "0x80000077", "table", "77")
    near.run("sysctl", "-qw", "net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.v0.rp_filter=0")
    return near, far


def opened_in(network: Network, stack: ExitStack, address: str) -> threepipe.Session:
    return network.namespace.run(lambda: opened(stack, address))


@pytest.mark.parametrize("option", ["mark=0x80000077", "mark=2147483767", "interface=v0"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_caller_takes_the_way_that_its_option_chooses(
    stack: ExitStack, tmp_path: Path, kind: str, option: str
) -> None:
    near, far = joined_networks(stack)
    calling, listening = ends(kind, tmp_path, THERE)
    listener = opened_in(far, stack, listening)
    exchange(stack, near, f"{calling},{option}", listener)


@pytest.mark.parametrize("option", ["mark=0x80000077", "interface=v0"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_listener_answers_by_the_way_that_its_option_chooses(
    stack: ExitStack, tmp_path: Path, kind: str, option: str
) -> None:
    near, far = joined_networks(stack)
    calling, listening = ends(kind, tmp_path, HERE)
    exchange(stack, far, calling, opened_in(near, stack, f"{listening},{option}"))


def exchange(stack: ExitStack, network: Network, calling: str, listener: threepipe.Session) -> None:
    """Open a caller in `network`, and send a packet each way."""
    with ThreadPoolExecutor(1) as executor:  # A TLS handshake needs both sides at once.
        opening = executor.submit(opened_in, network, stack, calling)
        while not opening.done():
            listener.receive(0.01)
        caller = opening.result()
    assert caller.send([packet(1)]) == 1
    assert received(listener, 1) == [packet(1)]
    assert listener.send([packet(2)]) == 1
    assert received(caller, 1) == [packet(2)]


def test_the_path_mtu_is_that_of_the_way_that_is_taken(stack: ExitStack, caplog: pytest.LogCaptureFixture) -> None:
    near, far = joined_networks(stack)
    for network in (near, far):
        network.run("ip", "link", "set", "v0", "mtu", "1400")
    listener = opened_in(far, stack, f"udp-listen:{THERE}:4242")
    caller = opened_in(near, stack, f"udp:{THERE}:4242,mark=0x80000077,interface=v0")
    assert near.namespace.run(lambda: caller.send([packet(1, 1500)])) == 1
    assert received(listener, 1) == [packet(1, 1500)]
    assert "do not fit in datagrams of 1372 bytes" in caplog.text


@pytest.mark.parametrize("kind", ["udp", "tcp"])
@pytest.mark.parametrize("name", ["none", "v0andmorethanthat"])
def test_an_interface_that_does_not_exist_is_explained(kind: str, name: str) -> None:
    with pytest.raises(threepipe.EndpointError, match=f"interface {name}: .*; see 'ip link' for the names"):
        threepipe.open_endpoint(f"{kind}:127.0.0.1:4242,interface={name}")
    with pytest.raises(threepipe.EndpointError, match=f"interface {name}: .*; see 'ip link' for the names"):
        threepipe.open_endpoint(f"{kind}-listen:127.0.0.1:4242,interface={name}")


@pytest.mark.parametrize("mark", ["0", "-1", "0x100000000", "many", ""])
def test_a_mark_that_is_not_a_number_of_32_bits_is_refused(mark: str) -> None:
    with pytest.raises(threepipe.InvalidSetting, match="expected a whole number from 1 to 0xffffffff"):
        parse_address(f"udp:127.0.0.1:4242,mark={mark}", side="left")
