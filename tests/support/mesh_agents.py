"""A mesh of agents in network namespaces, with a real nats-server, for soak tests.

Underneath, every node has an address on one bridge, and the bus another: 192.0.2.254.
"""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from ipaddress import IPv6Address
from pathlib import Path
from typing import Any, NamedTuple

from tests.support.kernel import Network
from tests.support.mesh_probing import probing
from tests.support.waiting import come_true
from threepipe.mesh import Certificate, Store, make_authority, node_address, read_authority
from threepipe.mesh.records import public_part
from threepipe.wireguard import key_to_text, parse_networks

__all__ = ["BUS", "PREFIX", "AgentLab", "AgentNode", "Nats", "Probe", "agent_lab", "missing"]

BUS, PREFIX = "192.0.2.254", "fd12:3456:789a::/48"
_APART = 'mount -t tmpfs none /run && exec "$@"'
_YEAR = 365 * 86_400_000


def _nats_server() -> str | None:
    return shutil.which("nats-server", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")


def missing() -> list[str]:
    """Return the programs and libraries that a lab needs and this machine lacks."""
    found = [name for name in ("ip", "nft") if not shutil.which(name)]
    found += [] if _nats_server() else ["nats-server"]
    try:
        import nats  # noqa: F401
    except ImportError:
        found.append("nats-py")
    return found


class Nats:
    """A nats-server with JetStream, whose data outlives it."""

    def __init__(self, folder: Path, host: str = "127.0.0.1", port: int = 4222, network: Network | None = None) -> None:
        self.host, self.port, self._network = host, port, network
        self._folder = folder
        self._folder.mkdir(exist_ok=True)
        self._process: subprocess.Popen[bytes] | None = None
        self.options: list[str] = []

    @property
    def url(self) -> str:
        return f"nats://{self.host}:{self.port}"

    def start(self) -> None:
        """Start it, and wait until it listens."""
        words = [str(_nats_server()), "-js", "-sd", str(self._folder), "-a", self.host, "-p", str(self.port)]
        words += self.options
        if self._network is not None:
            words = self._network.command(*words)
        with (self._folder / "log").open("ab") as output:
            self._process = subprocess.Popen(words, stdout=output, stderr=output)
        assert come_true(self._listens, 30), (self._folder / "log").read_text()

    def _listens(self) -> bool:
        def connect() -> bool:
            with contextlib.suppress(OSError), socket.create_connection((self.host, self.port), 1):
                return True
            return False

        return connect() if self._network is None else self._network.namespace.run(connect)

    def kill(self) -> None:
        """Kill it, and wait until it is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(30)
            self._process = None


class AgentNode:
    """A node: a network, and an agent's process in it."""

    def __init__(self, lab: "AgentLab", name: str, number: int, prefixes: tuple[str, ...] = ()) -> None:
        self.lab, self.name, self.number = lab, name, number
        self.network = Network()
        self.store = Store(lab.folder / name)
        self.keys = self.store.keys()
        self.process: subprocess.Popen[bytes] | None = None
        self.certify(prefixes)
        self.network.run("sysctl", "-qw", "net.ipv6.conf.all.forwarding=1")
        self._attach(self.network)

    def _attach(self, network: Network) -> None:
        run, port = network.run, f"v{self.number}"
        run("ip", "link", "add", "v0", "type", "veth", "peer", "name", port, "netns", str(self.lab.hub.path))
        run("ip", "address", "add", f"192.0.2.{self.number}/24", "dev", "v0")
        run("ip", "link", "set", "v0", "up")
        self.lab.hub.run("ip", "link", "set", port, "master", "br0", "up")

    def move_behind_nat(self, stack: ExitStack) -> None:
        """Put a router with NAT before the node, which gets the private address 10.0.0.2."""
        router = Network()
        stack.callback(router.namespace.close)
        self.network.run("ip", "link", "del", "v0")
        self._attach(router)
        router.run("ip", "link", "add", "in0", "type", "veth", "peer", "name", "v0", "netns", str(self.network.path))
        for network, name, address in ((router, "in0", "10.0.0.1/24"), (self.network, "v0", "10.0.0.2/24")):
            network.run("ip", "address", "add", address, "dev", name)
            network.run("ip", "link", "set", name, "up")
        self.network.run("ip", "route", "add", "default", "via", "10.0.0.1")
        router.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
        rules = f"oif v0 udp sport 51820 masquerade to :{40000 + self.number}; oif v0 masquerade"
        router.run("nft", f"table ip nat {{ chain post {{ type nat hook postrouting priority 100; {rules}; }}; }}")
        router.run("nft", "table ip f { chain in { type filter hook input priority 0; iif v0 ct state new drop; }; }")

    def certify(self, prefixes: tuple[str, ...] = ()) -> None:
        """Get a certificate from the lab's authority."""
        now = time.time_ns() // 1_000_000
        request = self.keys.request(self.name)
        made = Certificate.issue(self.lab.authority, request, parse_networks(prefixes), now, now + _YEAR)
        self.store.put_certificate(f"{made.text}\n{key_to_text(public_part(self.lab.authority))}\n")

    @property
    def address(self) -> IPv6Address:
        found = node_address(parse_networks([PREFIX]), self.keys.request(self.name).key)
        assert found is not None
        return found

    @property
    def log(self) -> str:
        return (self.store.folder / "log").read_text()

    def start(self, *more: str) -> None:
        """Start the agent; it shares the folders for sockets with no other one."""
        words = ["threepipe", "mesh", "join", "--bus", self.lab.nats.url, "--prefix", PREFIX, "--name", self.name]
        words += ["--state", str(self.store.folder), "--verbose", *more]
        words = ["unshare", "--mount", "sh", "-c", _APART, "sh", sys.executable, "-m", *words]
        with (self.store.folder / "log").open("ab") as output:
            self.process = subprocess.Popen(self.network.command(*words), stdout=output, stderr=output)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait(30)
            self.process = None

    def call(self, *words: str) -> str:
        """Return the output of a command of threepipe beside the agent."""
        assert self.process is not None
        beside = ["nsenter", "-t", str(self.process.pid), "-n", "-m", sys.executable, "-m", "threepipe", *words]
        done = subprocess.run(beside, capture_output=True, text=True, timeout=50)
        assert not done.returncode, done.stderr
        return done.stdout

    def status(self) -> Any:
        return json.loads(self.call("mesh", "status", "--json"))

    def routes(self) -> set[str]:
        """Return the destinations of the routes by the mesh's next hops."""
        routes = json.loads(self.network.run("ip", "-j", "-6", "route"))
        return {route["dst"] for route in routes if route.get("dev") == "mesh0" and "gateway" in route}

    def is_up(self) -> bool:
        return "mesh0 is up" in self.log


class Probe(NamedTuple):
    """The numbers of probes, one every 10 ms, that were sent and that arrived."""

    sent: int
    arrived: int


class AgentLab:
    """The bus, the nodes and their networks."""

    def __init__(self, stack: ExitStack, folder: Path) -> None:
        self.folder, self._stack = folder, stack
        make_authority(folder / "authority")
        self.authority = read_authority(folder / "authority")
        self.hub = Network()
        stack.callback(self.hub.namespace.close)
        self.hub.run("ip", "link", "add", "br0", "up", "type", "bridge")
        self.hub.run("ip", "address", "add", f"{BUS}/24", "dev", "br0")
        self.nats = Nats(folder / "nats", BUS, network=self.hub)
        stack.callback(self.nats.kill)
        self.nats.start()
        self.nodes: list[AgentNode] = []

    def add(self, name: str, prefixes: tuple[str, ...] = ()) -> AgentNode:
        """Make a node, whose agent is not started."""
        node = AgentNode(self, name, len(self.nodes) + 1, prefixes)
        self._stack.callback(node.network.namespace.close)
        self._stack.callback(node.kill)
        self.nodes.append(node)
        return node

    def know_each_other(self) -> bool:
        """Return True if all running nodes have routes to each other."""
        running = [node for node in self.nodes if node.process is not None]
        return all(node.routes() >= {str(other.address) for other in running if other is not node} for node in running)

    @contextlib.contextmanager
    def probing(self, one: AgentNode, other: AgentNode) -> Iterator[Callable[[], Probe]]:
        """Send probes every 10 ms while the block runs; the function returns how many were sent, and arrived."""
        target = other.network.namespace.run(lambda: socket.socket(socket.AF_INET6, socket.SOCK_DGRAM))
        source = one.network.namespace.run(lambda: socket.socket(socket.AF_INET6, socket.SOCK_DGRAM))
        with probing(source, target, str(other.address)) as probes:
            yield lambda: Probe(len(probes.sent), len(probes.arrived))


@contextlib.contextmanager
def agent_lab(folder: Path) -> Iterator[AgentLab]:
    """Return a lab for the block."""
    with ExitStack() as stack:
        yield AgentLab(stack, folder)
