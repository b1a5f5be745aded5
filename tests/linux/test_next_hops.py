"""The next hops of the kernel's routes, their changes, and meshes that the kernel routes."""

import errno
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from ipaddress import IPv6Address, ip_address, ip_network
from pathlib import Path

import pytest

from tests.support.forks import in_child
from tests.support.kernel import Network, udp_socket
from tests.support.waiting import come_true
from tests.support.wireguard_pair import new_key
from threepipe import Adapter, pipe
from threepipe.errors import AdapterError, SessionClosed
from threepipe.wireguard import Change, Device, KernelRoutes, NextHopRouting, PeerChange, link_local, public_key

if sys.platform != "linux":
    pytest.skip(f"{sys.platform} has no namespaces", allow_module_level=True)

from threepipe.platforms.linux.next_hops import NextHops, open_next_hops

pytestmark = pytest.mark.kernel

SECONDS = 20.0
HOP, OTHER_HOP = "fe80::2", "fe80::3"
EVERYTHING = {ip_network("0.0.0.0/0"), ip_network("::/0")}


@contextmanager
def interface(network: Network) -> Iterator[tuple[Adapter, NextHops]]:
    with Adapter.create("mesh0", netns=network.path) as adapter, adapter.start_session():
        hops = open_next_hops(adapter.index, "mesh0", network.path)
        network.run("ip", "addr", "add", "fe80::1/64", "dev", "mesh0", "nodad")
        network.run("ip", "addr", "add", "10.42.0.1/32", "dev", "mesh0")
        network.run("ip", "addr", "add", "fd12::1/128", "dev", "mesh0")
        try:
            yield adapter, hops
        finally:
            hops.close()


def find(hops: NextHops, destination: str, source: str = "fd12::1") -> str | None:
    packed = ip_address(destination).packed
    hop = hops.find(packed, b"" if len(packed) == 4 else ip_address(source).packed)
    return None if hop is None else str(ip_address(hop))


def test_threads_that_ask_at_once_get_their_own_answers(network: Network) -> None:
    with interface(network) as (_, hops), ThreadPoolExecutor(4) as threads:
        for number in range(4):
            network.run("ip", "route", "add", f"fd12:{number}::/32", "via", f"fe80::{number + 2}", "dev", "mesh0")

        def ask(number: int) -> set[str | None]:
            return {find(hops, f"fd12:{number}::9") for _ in range(500)}

        assert list(threads.map(ask, range(4))) == [{f"fe80::{number + 2}"} for number in range(4)]


@pytest.mark.parametrize(
    ("route", "destination", "hop"),
    [
        (["fd12:5::/32", "via", HOP], "fd12:5::9", HOP),
        (["default", "via", HOP], "2001:db8::1", HOP),
        (["10.42.5.0/24", "via", "inet6", HOP], "10.42.5.9", HOP),
        (["fd12:5::/32"], "fd12:5::9", None),
        (["10.42.5.0/24"], "10.42.5.9", None),
        (["10.42.5.0/24", "via", "10.42.0.9", "onlink"], "10.42.5.9", None),
        (["unreachable", "fd12:5::/32"], "fd12:5::9", None),
        (["fd12:6::/32", "via", HOP], "fd12:5::9", None),
        (["10.42.6.0/24", "via", "inet6", HOP], "10.42.5.9", None),
    ],
    ids=[
        "IPv6", "default", "IPv4 by IPv6", "on the link", "IPv4 on the link", "IPv4 next hop",
        "unreachable", "no route", "no IPv4 route",
    ],
)  # fmt: skip
def test_find_returns_the_ipv6_next_hop_of_the_route(
    network: Network, route: list[str], destination: str, hop: str | None
) -> None:
    family = "-4" if "." in destination else "-6"
    with interface(network) as (_, hops):
        network.run("ip", family, "route", "add", *route, "dev", "mesh0")
        assert [find(hops, destination) for _ in range(2)] == [hop] * 2


def test_find_returns_a_next_hop_of_a_multipath_route(network: Network) -> None:
    with interface(network) as (_, hops):
        ways = [word for hop in (HOP, OTHER_HOP) for word in ("nexthop", "via", hop, "dev", "mesh0")]
        network.run("ip", "-6", "route", "add", "fd12:5::/32", *ways)
        assert find(hops, "fd12:5::9") in (HOP, OTHER_HOP)


def test_find_heeds_rules_by_source_and_next_hop_objects(network: Network) -> None:
    with interface(network) as (_, hops):
        network.run("ip", "-6", "route", "add", "fd12:5::/32", "via", HOP, "dev", "mesh0")
        network.run("ip", "-6", "route", "add", "fd12:5::/32", "via", OTHER_HOP, "dev", "mesh0", "table", "77")
        network.run("ip", "-6", "rule", "add", "from", "fd12:7::/32", "table", "77")
        assert find(hops, "fd12:5::9", source="fd12:7::1") == OTHER_HOP
        assert find(hops, "fd12:5::9", source="fd12:8::1") == HOP
        network.run("ip", "nexthop", "add", "id", "5", "via", OTHER_HOP, "dev", "mesh0")
        network.run("ip", "-6", "route", "add", "fd12:9::/32", "nhid", "5")
        assert find(hops, "fd12:9::9") == OTHER_HOP


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (["-6 route add fd12:5::/32 via fe80::2 dev mesh0"], {ip_network("fd12:5::/32")}),
        (["-4 route add 10.42.5.0/24 via inet6 fe80::2 dev mesh0"], {ip_network("10.42.5.0/24")}),
        (["-6 route add default via fe80::2 dev mesh0"], {ip_network("::/0")}),
        (
            ["-6 route add fd12:5::/32 via fe80::2 dev mesh0", "-6 route del fd12:5::/32"],
            {ip_network("fd12:5::/32")},
        ),
        (["-6 rule add from fd12:7::/32 table 77"], EVERYTHING),
        (["nexthop add id 5 via fe80::3 dev mesh0"], EVERYTHING),
        (["link set mesh0 down"], EVERYTHING),
    ],
)
def test_changes_returns_the_destinations_of_changed_routes_and_everything_for_others(
    network: Network, changes: list[str], expected: set[object]
) -> None:
    with interface(network) as (_, hops):
        network.run("ip", "addr", "add", "198.51.100.1/32", "dev", "lo")
        while ip_network("198.51.100.1/32") not in (hops.changes() or ()):
            pass  # Those of the setup are over.
        for change in changes:
            network.run("ip", *change.split())
        seen: set[object] = set()
        while not seen >= expected:
            seen |= set(hops.changes() or ())


def test_many_changes_and_a_gap_are_changes_of_everything(network: Network) -> None:
    routes = "".join(f"route add 10.{high}.{low}.0/24 dev mesh0\n" for high in range(10) for low in range(200))
    with interface(network) as (_, hops):
        network.run("sh", "-c", f"ip -batch - <<END\n{routes}END\n")
        assert set(hops.changes() or ()) == EVERYTHING
        assert find(hops, "10.1.1.1") is None


def test_close_ends_changes_and_what_follows(network: Network) -> None:
    found: list[object] = []
    with interface(network) as (_, hops):

        def follow() -> None:
            while (networks := hops.changes()) is not None:
                found.extend(networks)
            found.append(None)

        thread = threading.Thread(target=follow)
        thread.start()
        assert come_true(lambda: bool(found), SECONDS)
        hops.close()
        thread.join(SECONDS)
        assert found[-1] is None
        assert hops.changes() is None


def test_a_forked_child_has_no_next_hops_and_leaves_those_of_the_parent(network: Network) -> None:
    with interface(network) as (_, hops):
        network.run("ip", "-6", "route", "add", "fd12:5::/32", "via", HOP, "dev", "mesh0")

        def work() -> str:
            assert hops.changes() is None
            with pytest.raises(OSError, match="Bad file descriptor"):
                find(hops, "fd12:5::9")
            return "closed"

        assert in_child(work) == "closed"
        assert find(hops, "fd12:5::9") == HOP


def test_the_adapter_has_the_link_local_address_of_the_key_alone(network: Network) -> None:
    with Adapter.create("mesh0", addresses=["fd12::1/128"], netns=network.path) as adapter, adapter.start_session():
        assert come_true(lambda: len(adapter.addresses) == 2, SECONDS), "the kernel adds one of its own"
        keys = new_key(), new_key()
        routing = NextHopRouting(["fd12::/16"], KernelRoutes(adapter, netns=network.path))
        with Device(private_key=keys[0], routing=routing) as device:
            for key in keys:
                device.configure(Change(private_key=key))
                addresses = [str(address) for address in adapter.addresses]
                assert sorted(addresses) == ["fd12::1/128", f"{link_local(public_key(key))}/64"]
            device.configure(Change(private_key=bytes(32)))
            assert [str(address) for address in adapter.addresses] == ["fd12::1/128"]
            device.configure(Change(private_key=keys[0]))
        assert [str(address) for address in adapter.addresses] == ["fd12::1/128"]


def test_the_adapter_takes_no_routes_from_peers_or_warns(
    network: Network, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with interface(network):
        for setting in ("accept_ra", "accept_redirects"):
            assert network.run("sysctl", "-n", f"net.ipv6.conf.mesh0.{setting}") == "0\n"
    assert not caplog.messages

    def refuse(path: Path, text: str) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "write_text", refuse)
    with interface(network):
        assert [message.partition(" cannot")[0] for message in caplog.messages] == [
            "mesh0: accept_ra",
            "mesh0: accept_redirects",
        ]


def test_closing_routes_whose_adapter_is_closed_raises_nothing(network: Network) -> None:
    adapter = Adapter.create("mesh0", netns=network.path)
    with KernelRoutes(adapter, netns=network.path) as routes:
        routes.use_address(link_local(public_key(new_key())))
        adapter.close()


class Node:
    """A network with a device on an adapter, whose routes decide; the datagrams pass outside, by loopback."""

    def __init__(self, stack: ExitStack, number: int) -> None:
        self.network = Network()
        stack.callback(self.network.namespace.close)
        self.addresses = f"10.42.0.{number}", f"fd12::{number}"
        adapter = stack.enter_context(
            Adapter.create(
                "mesh0", addresses=[f"{self.addresses[0]}/32", f"{self.addresses[1]}/128"], netns=self.network.path
            )
        )
        routing = NextHopRouting(["fd12::/16", "10.42.0.0/16"], KernelRoutes(adapter, netns=self.network.path))
        self.device = stack.enter_context(Device(private_key=new_key(), mtu=1420, routing=routing))
        self.key = self.device.status().public_key
        self.hop = str(link_local(self.key))
        self._session = adapter.start_session()
        thread = threading.Thread(target=self._run)
        stack.callback(thread.join, SECONDS)
        stack.callback(self.device.close)
        thread.start()
        for setting in ("ipv6.conf.all.forwarding", "ipv4.ip_forward"):
            self.network.run("sysctl", "-qw", f"net.{setting}=1")

    def _run(self) -> None:
        try:
            pipe(self._session, self.device.session)
        except SessionClosed:
            pass

    def know(self, other: "Node") -> None:
        endpoint = ("127.0.0.1", other.device.status().listen_port)
        self.device.configure(Change(peers=[PeerChange(other.key, endpoint=endpoint)]))

    def route(self, target: "Node", hop: "Node") -> None:
        for address, words in zip(target.addresses, (["via", "inet6"], ["via"]), strict=True):
            self.network.run("ip", "route", "replace", address, *words, hop.hop, "dev", "mesh0")


@pytest.fixture
def nodes() -> Iterator[list[Node]]:
    with ExitStack() as stack:
        nodes = [Node(stack, number) for number in range(1, 5)]
        for one, other in ((0, 1), (1, 2), (2, 3), (3, 0)):
            nodes[one].know(nodes[other])
            nodes[other].know(nodes[one])
        yield nodes


def passes(one: Node, other: Node, version: int) -> bool:
    """Send a datagram from the kernel of one node to that of the other and back."""
    near, far = [udp_socket(node.network, node.addresses[version]) for node in (one, other)]
    with near, far:
        near.sendto(b"there", far.getsockname()[:2])
        data, source = far.recvfrom(100)
        far.sendto(data[::-1], source)
        return near.recv(100) == b"ereht"


@pytest.mark.parametrize("version", [0, 1], ids=["IPv4", "IPv6"])
def test_packets_pass_by_the_next_hops_of_the_kernels_routes_and_turn_with_them(
    nodes: list[Node], version: int
) -> None:
    first, left, far, right = nodes
    for by in (left, right, left):
        first.route(far, by)
        by.route(far, far)
        far.route(first, by)
        by.route(first, first)
        assert passes(first, far, version)
        others = right if by is left else left

        def sent(other: Node = others) -> int:
            (peer,) = [each for each in first.device.status().peers if each.public_key == other.key]
            return peer.tx_bytes

        def quiet(sent: Callable[[], int] = sent) -> bool:
            before = sent()
            return passes(first, far, version) and sent() == before

        assert come_true(quiet, SECONDS)


def test_a_group_of_the_link_has_all_neighbours_as_members(nodes: list[Node]) -> None:
    first, left, far, right = nodes
    sockets = []
    for node in (left, far, right):
        member = node.network.namespace.run(lambda: socket.socket(socket.AF_INET6, socket.SOCK_DGRAM))
        index = node.network.namespace.run(lambda: socket.if_nametoindex("mesh0"))
        member.settimeout(SECONDS)
        member.bind(("::", 6696))
        joined = ip_address("ff02::1:6").packed + index.to_bytes(4, "little")
        member.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, joined)
        sockets.append(member)
    index = first.network.namespace.run(lambda: socket.if_nametoindex("mesh0"))
    with first.network.namespace.run(lambda: socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)) as sender:
        sender.sendto(b"hello", ("ff02::1:6", 6696, 0, index))
    for member in (sockets[0], sockets[2]):
        data, source = member.recvfrom(100)
        assert (data, source[0].partition("%")[0]) == (b"hello", first.hop)
    sockets[1].setblocking(False)
    with pytest.raises(BlockingIOError):
        sockets[1].recv(100)
    for member in sockets:
        member.close()


@pytest.mark.parametrize("destination", ["fd12:5::/32", "10.42.5.0/24", "fd12:5::9/128"])
def test_routes_of_the_program_lead_to_the_hop_until_they_are_removed(network: Network, destination: str) -> None:
    with interface(network) as (adapter, hops), KernelRoutes(adapter, netns=network.path) as routes:
        there, inside = ip_network(destination), destination.partition("/")[0]
        routes.add(there, IPv6Address(OTHER_HOP))
        routes.add(there, IPv6Address(HOP))
        assert find(hops, inside) == HOP
        routes.remove(there, IPv6Address(OTHER_HOP))
        assert find(hops, inside) == HOP
        routes.remove(there, IPv6Address(HOP))
        routes.remove(there, IPv6Address(HOP))
        assert find(hops, inside) is None


def test_routes_of_a_daemon_win_over_those_of_the_program(network: Network) -> None:
    with interface(network) as (adapter, hops), KernelRoutes(adapter, netns=network.path) as routes:
        routes.add(ip_network("fd12:5::/32"), IPv6Address(HOP))
        network.run("ip", "-6", "route", "add", "fd12:5::/32", "via", OTHER_HOP, "dev", "mesh0")
        assert find(hops, "fd12:5::9") == OTHER_HOP
        network.run("ip", "-6", "route", "del", "fd12:5::/32", "via", OTHER_HOP)
        assert find(hops, "fd12:5::9") == HOP


def test_a_refused_route_raises(network: Network) -> None:
    with interface(network) as (adapter, _), KernelRoutes(adapter, netns=network.path) as routes:
        with pytest.raises(AdapterError, match="the route for fd12:5::/32 was refused: ") as refused:
            routes.add(ip_network("fd12:5::/32"), IPv6Address("fd12:5::1"))
        assert refused.value.errno == errno.EHOSTUNREACH
