"""A mesh of nodes in network namespaces, joined by WireGuard devices and routed by real routing daemons.

Underneath, every node has an address on one bridge; a link is cut by packet filters of its two ends. The nodes form a
ring with chords. Inside, node N has the addresses fd12::N and 10.42.0.N.
"""

import contextlib
import itertools
import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from ipaddress import ip_address
from pathlib import Path
from typing import NamedTuple

from tests.support.kernel import Network
from tests.support.mesh_probing import INTERVAL, probing
from tests.support.waiting import come_true
from threepipe.wireguard import generate_key, key_to_text, link_local, public_key

__all__ = ["Gap", "Lab", "Node", "lab", "missing"]

_APART = 'mount -t tmpfs none /run && exec "$@"'
_PORT = 52000
_HELLO = 0.2  # Seconds.

_BABELD = """
interface {name} type tunnel split-horizon false hello-interval {hello}
redistribute local ip fd12::/16 allow
redistribute local ip 10.42.0.0/16 allow
redistribute local deny
"""
_BIRD = """
router id 10.42.0.{number};
protocol device {{ scan time 1; }}
protocol kernel {{ ipv6 {{ export where source != RTS_DEVICE; }}; }}
protocol kernel {{ ipv4 {{ export where source != RTS_DEVICE; }}; }}
protocol direct {{ ipv6; ipv4; interface "lo"; }}
"""
_BIRD_BABEL = """
protocol babel {{
    ipv6 {{ import all; export where source = RTS_DEVICE || source = RTS_BABEL; }};
    ipv4 {{ import all; export where source = RTS_DEVICE || source = RTS_BABEL; }};
    interface {names} {{ type wired; hello interval {milliseconds} ms; limit 14; }};
}}
"""
_BIRD_OSPF = """
protocol ospf v3 {{
    ecmp no;
    ipv6 {{ import all; export where source = RTS_DEVICE; }};
    area 0 {{
        interface {names} {{
            type {kind}; hello 1; dead 3;
            {neighbours}
        }};
    }};
}}
"""


class Gap(NamedTuple):
    """The loss of probes, one every 10 ms, by a cut."""

    lost: int
    longest: float
    """Seconds between the last probe that arrived before the longest loss and the first after it."""


def chorded_ring(count: int) -> list[tuple[int, int]]:
    """Return the links of a ring of nodes 1 to `count`, with a chord from each third node to one across."""
    links = {(number, number % count + 1) for number in range(1, count + 1)}
    links |= {(number, (number + count // 3) % count + 1) for number in range(1, count + 1, 3)}
    return sorted({(min(link), max(link)) for link in links})


class Node:
    """A network with its keys: one for a device with all peers, or one for each peer."""

    def __init__(self, lab: "Lab", number: int) -> None:
        self.lab, self.number = lab, number
        self.network = Network()
        self.key = generate_key()
        self.public = public_key(self.key)
        self.addresses = f"10.42.0.{number}", f"fd12::{number}"
        self.neighbours: list[Node] = []
        self.folder = lab.folder / f"node{number}"
        self.folder.mkdir()

    @property
    def names(self) -> list[str]:
        """The names of its devices."""
        return [f"m{other.number}" for other in self.neighbours] if self.lab.apart else ["mesh0"]

    def set_up(self) -> None:
        """Join the node to the bridge, and start its devices."""
        run, number = self.network.run, self.number
        run("ip", "link", "add", "v0", "type", "veth", "peer", "name", f"v{number}", "netns", str(self.lab.hub.path))
        run("ip", "address", "add", f"192.0.2.{number}/24", "dev", "v0")
        run("ip", "link", "set", "v0", "up")
        self.lab.hub.run("ip", "link", "set", f"v{number}", "master", "br0", "up")
        for setting in ("ipv6.conf.all.forwarding", "ipv4.ip_forward"):
            run("sysctl", "-qw", f"net.{setting}=1")
        for address, length in zip(self.addresses, (32, 128), strict=True):
            run("ip", "address", "add", f"{address}/{length}", "dev", "lo")
        run("nft", "add table inet cut; add chain inet cut in { type filter hook input priority 0; }")
        for name in self.names:
            path = self.folder / f"{name}.conf"
            path.touch(mode=0o600)
            path.write_text(self._configuration(name))
            self.lab.start(self, "-m", "threepipe", "wg", "up", "-q", str(path))

    def _configuration(self, name: str) -> str:
        text = f"[Interface]\nPrivateKey = {key_to_text(self.key)}\nMTU = 1420\n"
        if not self.lab.apart:
            text += f"ListenPort = {_PORT}\nRouting = fd12::/16, 10.42.0.0/16\n"
            return text + "".join(self._peer(other, _PORT) for other in self.neighbours)
        other = self.lab.nodes[int(name[1:]) - 1]
        text += f"ListenPort = {_PORT + other.number}\nTable = off\n"
        return text + self._peer(other, _PORT + self.number) + "AllowedIPs = 0.0.0.0/0, ::/0\n"

    def _peer(self, other: "Node", port: int) -> str:
        return f"[Peer]\nPublicKey = {key_to_text(other.public)}\nEndpoint = 192.0.2.{other.number}:{port}\n"

    def route_by(self, daemon: str) -> None:
        """Start a routing daemon."""
        names = ", ".join(f'"{name}"' for name in self.names)
        form = {"number": self.number, "names": names, "hello": _HELLO, "milliseconds": int(1000 * _HELLO)}
        path = self.folder / f"{daemon}.conf"
        if daemon == "babeld":
            path.write_text("".join(_BABELD.format(name=name, **form) for name in self.names))
            self.lab.run(self, "babeld", "-I", "", "-S", f"{self.folder}/state", "-c", str(path), *self.names)
            return
        hops = "".join(f"{link_local(other.public)}; " for other in self.neighbours)
        form |= {"kind": "ptp", "neighbours": ""} if self.lab.apart else {
            "kind": "ptmp", "neighbours": f"neighbors {{ {hops}}};"
        }  # fmt: skip
        path.write_text((_BIRD + (_BIRD_OSPF if daemon == "bird-ospf" else _BIRD_BABEL)).format(**form))
        self.lab.run(self, "bird", "-f", "-c", str(path), "-s", f"{self.folder}/ctl")

    def knows_all(self, version: int = 1) -> bool:
        """Return True if there are routes by the devices to all other nodes."""
        routes = json.loads(self.network.run("ip", "-j", f"-{(4, 6)[version]}", "route"))
        ways = [(route["dst"], way) for route in routes for way in route.get("nexthops", [route])]
        found = {destination for destination, way in ways if way.get("dev") in self.names}
        return found >= {each.addresses[version] for each in self.lab.nodes if each is not self}

    def next_to(self, other: "Node") -> "Node":
        """Return the neighbour that packets to the other node go to."""
        (route,) = json.loads(self.network.run("ip", "-j", "route", "get", other.addresses[1]))
        if self.lab.apart:
            return self.lab.nodes[int(route["dev"][1:]) - 1]
        hop = ip_address(route["gateway"])
        return next(each for each in self.neighbours if link_local(each.public) == hop)

    def cut(self, other: "Node") -> None:
        """Drop all datagrams from and to the other node."""
        for one, far in ((self, other), (other, self)):
            one.network.run("nft", f"add rule inet cut in ip saddr 192.0.2.{far.number} drop")

    def heal(self) -> None:
        self.network.run("nft", "flush chain inet cut in")


class Lab:
    """The nodes and their processes; with `apart`, each node has a device for each peer, as plain WireGuard needs."""

    def __init__(self, stack: ExitStack, folder: Path, count: int, *, apart: bool) -> None:
        self.apart, self.folder, self._stack = apart, folder, stack
        self.hub = Network()
        stack.callback(self.hub.namespace.close)
        self.hub.run("ip", "link", "add", "br0", "up", "type", "bridge")
        self.nodes = [Node(self, number) for number in range(1, count + 1)]
        self.links = [(self.nodes[one - 1], self.nodes[other - 1]) for one, other in chorded_ring(count)]
        for one, other in self.links:
            one.neighbours.append(other)
            other.neighbours.append(one)
        for node in self.nodes:
            stack.callback(node.network.namespace.close)
            node.set_up()
        assert come_true(lambda: all(self._has_devices(node) for node in self.nodes), 120)

    def _has_devices(self, node: Node) -> bool:
        links = json.loads(node.network.run("ip", "-j", "link"))
        return {link["ifname"] for link in links if "LOWER_UP" in link["flags"]} >= set(node.names)

    def start(self, node: Node, *words: str) -> None:
        """Start Python in the network of a node, for the lab's time, with folders of its own for its sockets."""
        self.run(node, "unshare", "--mount", "sh", "-c", _APART, "sh", sys.executable, *words)

    def run(self, node: Node, *words: str) -> None:
        """Start a program in the network of a node, for the lab's time; its output goes to a file."""
        output = self._stack.enter_context((node.folder / "output").open("ab"))
        process = subprocess.Popen(node.network.command(*words), stdout=output, stderr=output)
        self._stack.callback(process.wait, 30)
        self._stack.callback(process.terminate)

    def route_by(self, daemon: str) -> float:
        """Start a daemon on each node, wait until all know all, and return how many seconds that took."""
        begin = time.monotonic()
        for node in self.nodes:
            node.route_by(daemon)
        assert come_true(self.all_know_all, 120), "some routes are missing"
        return time.monotonic() - begin

    def all_know_all(self, version: int = 1) -> bool:
        """Return True if every node has a route to every other."""
        return all(one.knows_all(version) for one in self.nodes)

    def gap(self, one: Node, other: Node, change: Callable[[], None], seconds: float, version: int = 1) -> Gap:
        """Probe from one node to another for so many seconds before `change` and after it; return the loss."""
        family, address = (socket.AF_INET, socket.AF_INET6)[version], other.addresses[version]
        target = other.network.namespace.run(lambda: socket.socket(family, socket.SOCK_DGRAM))
        source = one.network.namespace.run(lambda: socket.socket(family, socket.SOCK_DGRAM))
        with probing(source, target, address) as probes:
            probes.pass_for(seconds)
            change()
            probes.pass_for(seconds)
        sent, numbers = probes.sent, sorted(probes.arrived)
        assert numbers, "no probe arrived"
        longest = max((sent[after] - sent[before] for before, after in itertools.pairwise(numbers)), default=0.0)
        return Gap(numbers[-1] - numbers[0] + 1 - len(numbers), longest - INTERVAL)


def missing() -> list[str]:
    """Return the programs that a lab needs and this machine lacks."""
    return [name for name in ("babeld", "bird", "nft", "ip") if not shutil.which(name)]


@contextlib.contextmanager
def lab(folder: Path, count: int, *, apart: bool = False) -> Iterator[Lab]:
    """Return a lab for the block."""
    with ExitStack() as stack:
        yield Lab(stack, folder, count, apart=apart)
