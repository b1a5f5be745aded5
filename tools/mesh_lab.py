"""A mesh in network namespaces: nodes joined by cables that form a ring with chords, and a bus beside them.

Every node has an address outside the mesh, and reaches those at the other ends of its cables and the bus, but nobody
else. The namespaces have no names, and every program asks the kernel to die with this one, so nothing is left however
this program ends.
"""

import contextlib
import itertools
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from ipaddress import IPv6Address
from pathlib import Path
from typing import Any, NamedTuple

from threepipe.mesh import Certificate, Store, make_authority, node_address, read_authority
from threepipe.mesh.records import public_part
from threepipe.platforms.linux.namespace import Namespace
from threepipe.wireguard import key_to_text, link_local, parse_networks

__all__ = ["Failed", "Gap", "Lab", "Node", "is_alive", "named", "opened", "path_between", "tool"]

PREFIX = "fd12:3456:789a::/48"
BUS = "198.51.100.254"
PORT = 4222
EXPIRY = 30  # Seconds.
_INTERVAL = 0.01  # Seconds between probes.
_ALIVE = 180.0  # Seconds since a handshake after which a link has no keys.
_YEAR = 365 * 86_400_000

_WITH_PARENT = ("setpriv", "--pdeathsig", "KILL", "--")
_APART = 'mount -t tmpfs none /run && exec "$@"'
_BABELD = f"""
random-id true
interface mesh0 type tunnel split-horizon false hello-interval 0.2
redistribute local ip {PREFIX} allow
redistribute local deny
"""


class Failed(Exception):
    """The mesh has failed; the text says how."""


class Gap(NamedTuple):
    """The loss of probes, one every 10 ms, by a cut."""

    lost: int
    seconds: float
    """The longest time without a probe that arrived."""


def tool(name: str) -> str | None:
    """Return the path of a program: of one beside this Python, or of the system's."""
    return shutil.which(name, path=f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def chorded_ring(count: int) -> list[tuple[int, int]]:
    """Return the cables of a ring of nodes 1 to `count`, with a chord from each third node to one across."""
    cables = {(number, number % count + 1) for number in range(1, count + 1)}
    cables |= {(number, (number + count // 3) % count + 1) for number in range(1, count + 1, 3)}
    return sorted({(min(cable), max(cable)) for cable in cables})


def come_true(condition: Callable[[], bool], seconds: float) -> bool:
    """Return True once `condition` is true; False if it is not within so many seconds."""
    deadline = time.monotonic() + seconds
    while not (true := condition()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return true


class Place:
    """A network with an address outside the mesh, which others reach by cables alone."""

    def __init__(self, lab: "Lab", name: str, outside: str) -> None:
        self.name, self.outside = name, outside
        self._lab = lab
        self._network = lab.enter(contextlib.closing(Namespace.fresh()))
        self.run("ip", "link", "set", "lo", "up")
        self.run("ip", "address", "add", f"{outside}/32", "dev", "lo")
        self.run("sysctl", "-qw", "net.ipv4.ip_forward=0", "net.ipv6.conf.all.forwarding=1")  # Only the mesh forwards.

    def run(self, *words: str) -> str:
        """Run a program in this network to its end, and return its output. Raises `Failed`."""
        done = subprocess.run(self.inside(*words), capture_output=True, text=True, timeout=60)
        if done.returncode:
            raise Failed(f"{self.name}: {' '.join(words)}: {done.stderr.strip()}")
        return done.stdout

    def inside(self, *words: str) -> list[str]:
        """Return the command that runs another one in this network."""
        return ["nsenter", f"--net={self._network.path}", "--", *words]

    def plug(self, other: "Place", own_end: str, other_end: str) -> None:
        """Join two networks by a cable."""
        far_end = ("peer", "name", other_end, "netns", other._network.path)
        self.run("ip", "link", "add", own_end, "type", "veth", *far_end)
        for place, name, far in ((self, own_end, other), (other, other_end, self)):
            place.run("ip", "link", "set", name, "up")
            place.run("ip", "route", "add", f"{far.outside}/32", "dev", name, "src", place.outside)

    def open_datagrams(self) -> socket.socket:
        """Return a datagram socket in this network."""
        return self._network.run(lambda: socket.socket(socket.AF_INET6, socket.SOCK_DGRAM))


class Node(Place):
    """A place with an agent and a routing daemon."""

    def __init__(self, lab: "Lab", number: int) -> None:
        super().__init__(lab, f"n{number}", f"192.0.2.{number}")
        self.number = number
        self.neighbours: list[Node] = []
        self._folder = lab.folder / self.name
        store = Store(self._folder)
        request = store.keys().request(self.name)
        address = node_address(parse_networks([PREFIX]), request.key)
        assert address is not None
        self.address: IPv6Address = address
        self.hop = str(link_local(request.key))
        now = time.time_ns() // 1_000_000
        certificate = Certificate.issue(lab.authority, request, [], now, now + _YEAR)
        store.put_certificate(f"{certificate.text}\n{key_to_text(public_part(lab.authority))}\n")
        self._agent: subprocess.Popen[bytes] | None = None

    def join(self) -> None:
        """Start the agent."""
        words = ["mesh", "join", "--bus", f"nats://{BUS}:{PORT}", "--prefix", PREFIX, "--state", str(self._folder)]
        words += ["--endpoint", f"{self.outside}:51820", "--expiry", str(EXPIRY)]
        apart = ["unshare", "--mount", "sh", "-c", _APART, "sh"]
        self._agent = self._lab.start(self.inside(*apart, sys.executable, "-m", "threepipe", *words), self._log)

    def route(self) -> None:
        """Start babeld on the interface of the mesh."""
        path = self._folder / "babeld.conf"
        path.write_text(_BABELD)
        words = [str(tool("babeld")), "-I", "", "-S", str(self._folder / "babeld-state"), "-c", str(path), "mesh0"]
        self._lab.start(self.inside(*words), self._folder / "babeld.log")

    @property
    def _log(self) -> Path:
        return self._folder / "agent.log"

    def check(self) -> None:
        """Raise `Failed` if the agent has ended."""
        if self._agent is not None and self._agent.poll() is not None:
            raise Failed(f"the agent of {self.name} has ended: {self._log.read_text().strip()}")

    def routes(self, protocol: str | None = None) -> set[str]:
        """Return the destinations of the routes by next hops of the mesh, perhaps only those of one protocol."""
        found = json.loads(self.run("ip", "-j", "-6", "route"))
        return {
            route["dst"]
            for route in found
            if route.get("dev") == "mesh0" and "gateway" in route and protocol in (None, route.get("protocol"))
        }

    def status(self) -> Any:
        """Return the status of `threepipe mesh status --json`. Raises `Failed`."""
        self.check()
        assert self._agent is not None
        path = f"/proc/{self._agent.pid}/root/run/threepipe/mesh/mesh0.sock"
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(60)
            client.connect(path)
            client.sendall(b"status\n")
            answer = json.loads(client.makefile("rb").readline())
        if "nodes" not in answer:
            raise Failed(f"{self.name}: {answer.get('error')}; {self._log.read_text()[-500:]}")
        return answer

    def next_hop(self, other: "Node") -> "Node":
        """Return the node that packets to another one go to next. Raises `Failed` if there is none."""
        (route,) = json.loads(self.run("ip", "-j", "-6", "route", "get", str(other.address)))
        if (node := self._lab.by_hop.get(route.get("gateway", ""))) is None:
            raise Failed(f"{self.name} has no route to {other.name}")
        return node

    def cut(self, other: "Node") -> None:
        """Pull the cable to another node."""
        self.run("ip", "link", "set", f"c{other.number}", "down")


class Lab:
    """The nodes, the bus and their cables."""

    def __init__(self, stack: ExitStack, folder: Path, count: int) -> None:
        self.folder, self._stack = folder, stack
        self.enter = stack.enter_context
        make_authority(folder / "authority")
        self.authority = read_authority(folder / "authority")
        self.nodes = [Node(self, number) for number in range(1, count + 1)]
        self.by_hop = {node.hop: node for node in self.nodes}
        self._hub = Place(self, "bus", BUS)
        self.cables: list[tuple[Node, Node]] = []
        for one, other in ((self.nodes[a - 1], self.nodes[b - 1]) for a, b in chorded_ring(count)):
            one.plug(other, f"c{other.number}", f"c{one.number}")
            one.neighbours.append(other)
            other.neighbours.append(one)
            self.cables.append((one, other))
        for node in self.nodes:
            node.plug(self._hub, "bus", f"n{node.number}")

    def start(self, words: Sequence[str], log: Path) -> "subprocess.Popen[bytes]":
        """Start a program for the lab's time; its output goes to a file."""
        output = self.enter(log.open("ab"))
        process = subprocess.Popen([*_WITH_PARENT, *words], stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        self._stack.callback(process.wait)
        self._stack.callback(process.kill)
        return process

    def start_bus(self) -> None:
        """Start nats-server with JetStream, and wait until it listens. Raises `Failed`."""
        folder, log = self.folder / "bus", self.folder / "bus.log"
        words = [str(tool("nats-server")), "-js", "-sd", str(folder), "-a", BUS, "-p", str(PORT)]
        process = self.start(self._hub.inside(*words), log)
        if not come_true(lambda: process.poll() is not None or "Server is ready" in log.read_text(), 30):
            raise Failed(f"nats-server does not listen: {log.read_text()}")
        if process.poll() is not None:
            raise Failed(f"nats-server has ended: {log.read_text()}")

    def join(self) -> float:
        """Start all agents; return the seconds until every node knows every other. Raises `Failed`."""
        begin = time.monotonic()
        for node in self.nodes:
            node.join()
        self._wait_for_routes(None, "does not know")
        return time.monotonic() - begin

    def route(self) -> float:
        """Start babeld on all nodes; return the seconds until it has all routes. Raises `Failed`."""
        begin = time.monotonic()
        for node in self.nodes:
            node.route()
        self._wait_for_routes("babel", "has no route of babeld to")
        return time.monotonic() - begin

    def _wait_for_routes(self, protocol: str | None, lacks: str) -> None:
        missing: list[str] = []

        def complete() -> bool:
            missing.clear()
            for node in self.nodes:
                node.check()
                known = node.routes(protocol)
                missing.extend(
                    f"{node.name} {lacks} {other.name}"
                    for other in self.nodes
                    if other is not node and str(other.address) not in known
                )
            return not missing

        if not come_true(complete, 120):
            raise Failed("; ".join(missing[:3]))

    def statuses(self) -> dict[str, Any]:
        """Return the status of each node by its name."""
        return {node.name: node.status() for node in self.nodes}

    def gap(self, one: Node, other: Node, change: Callable[[], None], seconds: float) -> Gap:
        """Probe from one node to another for a second before `change` and for `seconds` after it."""
        arrived: set[int] = set()
        sent: dict[int, float] = {}
        over = threading.Event()
        with one.open_datagrams() as source, other.open_datagrams() as target:
            target.bind((str(other.address), 9))
            target.settimeout(0.5)

            def receive() -> None:
                while not over.is_set():
                    with contextlib.suppress(TimeoutError):
                        arrived.add(int.from_bytes(target.recv(100), "big"))

            def send() -> None:
                number, begin = 0, time.monotonic()
                while not over.wait(max(0.0, begin + number * _INTERVAL - time.monotonic())):
                    sent[number] = time.monotonic()
                    with contextlib.suppress(OSError):  # There may be no route for a moment.
                        source.sendto(number.to_bytes(4, "big"), (str(other.address), 9))
                    number += 1

            threads = [threading.Thread(target=work, daemon=True) for work in (receive, send)]
            for thread in threads:
                thread.start()
            try:
                over.wait(1)
                change()
                over.wait(seconds)
            finally:
                over.set()
                for thread in threads:
                    thread.join()
        numbers = sorted(arrived)
        if len(numbers) < 2 or sent[numbers[-1]] < max(sent.values()) - 1:
            raise Failed(f"no probe from {one.name} reaches {other.name} any more")
        longest = max(sent[after] - sent[before] for before, after in itertools.pairwise(numbers))
        return Gap(numbers[-1] - numbers[0] + 1 - len(numbers), longest)


def path_between(one: Node, other: Node) -> list[Node]:
    """Return the nodes on the way from one node to another, by the routes of each. Raises `Failed` for a circle."""
    path = [one]
    while path[-1] is not other:
        path.append(path[-1].next_hop(other))
        if path.count(path[-1]) > 1:
            raise Failed(f"the way from {one.name} to {other.name} is a circle: {named(path)}")
    return path


def named(path: Sequence[Node]) -> str:
    """Return the names of the nodes on a way."""
    return " - ".join(node.name for node in path)


def is_alive(statuses: dict[str, Any], one: str, other: str) -> bool:
    """Return True if both nodes have keys of a handshake with each other."""
    ages = [
        node["handshake_age"]
        for here, far in ((one, other), (other, one))
        for node in statuses[here]["nodes"]
        if node["name"] == far
    ]
    return len(ages) == 2 and all(age is not None and age < _ALIVE for age in ages)


@contextlib.contextmanager
def opened(folder: Path, count: int) -> Iterator[Lab]:
    """Return a lab for the block."""
    with ExitStack() as stack:
        yield Lab(stack, folder, count)
