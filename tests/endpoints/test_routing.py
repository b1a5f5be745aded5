"""The options that choose the way of packets, over kernel routes: mark=, interface= and default-route=."""

import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

import threepipe
from tests.support.endpoints import Place, opened, packet, received
from tests.support.kernel import Network
from tests.support.waiting import come_true
from threepipe.assembly import Plan, assemble
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


OUTSIDE, SERVER = "198.51.100.1", "203.0.113.9"
"""Addresses that only a default route leads to; the second is one of the second network."""


def networks_with_default_routes(stack: ExitStack) -> tuple[Network, Network]:
    near, far = Network(), Network()
    for network in (near, far):
        stack.callback(network.namespace.close)
    near.run("ip", "link", "add", "v0", "type", "veth", "peer", "v0", "netns", far.path)
    for number, network in enumerate((near, far), 1):
        network.run("ip", "address", "add", f"10.88.0.{number}/24", "dev", "v0")
        network.run("ip", "-6", "address", "add", f"fd88::{number}/64", "dev", "v0", "nodad")
        network.run("ip", "link", "set", "v0", "up")
    far.run("ip", "link", "set", "v0", "up")
    far.run("ip", "address", "add", SERVER, "dev", "lo")
    near.run("ip", "route", "add", "default", "via", THERE)
    near.run("ip", "-6", "route", "add", "default", "via", "fd88::2")
    return near, far


def state(network: Network) -> list[str]:
    """Return the rules and routes of the network."""
    return [network.run("ip", version, *what) for version in ("-4", "-6") for what in (("rule",), ("route",))]


def ask(network: Network, target: str) -> None:
    """Send a UDP packet to the target from a program without a mark."""
    family = socket.AF_INET6 if ":" in target else socket.AF_INET
    with network.namespace.run(lambda: socket.socket(family, socket.SOCK_DGRAM)) as plain:
        plain.sendto(b"question", (target, 53))


@pytest.mark.parametrize(("own", "outside"), [("10.7.0.1/24", OUTSIDE), ("fd77::1/64", "2001:db8::1")])
def test_all_traffic_goes_through_the_tunnel_but_its_own_datagrams(
    stack: ExitStack, caplog: pytest.LogCaptureFixture, own: str, outside: str
) -> None:
    near, far = networks_with_default_routes(stack)
    before = state(near)
    listener = opened_in(far, stack, f"udp-listen:{SERVER}:4242")
    plan = Plan(
        parse_address(f"tun:tp0,address={own},default-route=0x7069", "left"),
        parse_address(f"udp:{SERVER}:4242,mark=0x7069", "right"),
    )
    with ExitStack() as ends, ThreadPoolExecutor(1) as executor:
        assembly = near.namespace.run(lambda: ends.enter_context(assemble(plan)))
        running = executor.submit(near.namespace.run, assembly.run)  # What ends it undoes the routes in its network.
        ask(near, outside)
        while not (arrived := [each for each in received(listener, 1) if each.endswith(b"question")]):
            pass  # The kernel's own packets, such as router solicitations.
        assert socket.inet_pton(socket.AF_INET6 if ":" in outside else socket.AF_INET, outside) in arrived[0]
        near.namespace.run(assembly.close)
        running.result(10)
    assert state(near) == before
    assert "come back" not in caplog.text


def test_without_a_mark_the_loop_is_stopped_and_explained(stack: ExitStack, caplog: pytest.LogCaptureFixture) -> None:
    near, far = networks_with_default_routes(stack)
    opened_in(far, stack, f"udp-listen:{SERVER}:4242")
    caller = opened_in(near, stack, f"udp:{SERVER}:4242")
    tunnel = opened_in(near, stack, "tun:tp0,address=10.7.0.1/24,route=0.0.0.0/1,route=128.0.0.0/1")
    with ThreadPoolExecutor(1) as executor:
        running = executor.submit(threepipe.pipe, tunnel, caller)
        ask(near, OUTSIDE)
        assert come_true(lambda: f"the datagrams to {SERVER} port 4242 come back" in caplog.text, 10)
        assert come_true(lambda: caller.statistics.sent_dropped > 0, 10)
        tunnel.close()
        running.result(10)
    assert caller.statistics.sent_packets < 20  # Not tens of thousands.


KILLED = """
import os, signal
from contextlib import ExitStack
from tests.support.endpoints import opened
opened(ExitStack(), "tun:{},address=10.7.0.1/24,address=fd77::1/64,default-route=0x7069")
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_rules_of_a_killed_pipe_are_removed_by_the_next_default_route(
    stack: ExitStack, caplog: pytest.LogCaptureFixture
) -> None:
    near, _ = networks_with_default_routes(stack)
    before = state(near)
    for name in ("tp0", "tp7"):
        done = subprocess.run(near.command(sys.executable, "-c", KILLED.format(name)), capture_output=True, text=True)
        assert done.returncode == -signal.SIGKILL, done.stderr
    assert near.run("ip", "rule").count("fwmark 0x7069") == 1, "the second start removed the rules of the first"
    other = opened_in(near, stack, "tun:tp0,address=10.7.0.1/24,address=fd77::1/64,default-route=0x7069")
    assert "removed 4 routing rules of a tunnel whose process was killed" in caplog.text
    for version in ("-4", "-6"):
        assert near.run("ip", version, "rule").count("suppress_prefixlength") == 1
    caplog.clear()
    another = opened_in(near, stack, "tun:tp1,address=10.9.0.1/24,default-route=0x7070")
    assert "removed" not in caplog.text, "those of a running one stay"
    for session in (another, other):
        near.namespace.run(session.close)
    assert state(near) == before


def test_a_second_default_route_is_explained(stack: ExitStack) -> None:
    near, _ = networks_with_default_routes(stack)
    with pytest.raises(threepipe.AdapterError, match="use default-route=MARK"):
        opened_in(near, stack, "tun:tp0,address=10.7.0.1/24,route=0.0.0.0/0")


def test_a_default_route_without_an_address_is_refused_and_leaves_nothing(stack: ExitStack) -> None:
    near, _ = networks_with_default_routes(stack)
    before = state(near)
    with pytest.raises(threepipe.InvalidSetting, match="tp0 has no address to send from; add address="):
        opened_in(near, stack, "tun:tp0,default-route=5")
    assert state(near) == before
    assert "tp0" not in near.run("ip", "link")


def test_a_default_route_in_another_namespace_is_refused() -> None:
    with pytest.raises(threepipe.InvalidSetting, match="run threepipe there, without netns"):
        parse_address("tun:tp0,address=10.7.0.1/24,default-route=5,netns=other")
