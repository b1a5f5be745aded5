"""A program that joins this kernel's Foo-over-UDP to udp and udp-listen pipes, and prints results as JSON.

Run as root by tests/soak/test_fou.py, in a kernel that has the modules loaded. The kernel's end is in one
network and the pipes are in another; a veth link is the wire between them. All pipes are in this
process, as an emulated processor takes a minute to start another Python.
"""

import hashlib
import json
import platform
import socket
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[3]))

from tests.support.kernel import Network
from threepipe import open_endpoint
from threepipe.core import fast
from threepipe.demo.stream import chunks
from threepipe.piping import pipe

OUTSIDE = ("192.0.2.1", "192.0.2.2")
OUTSIDE_6 = ("fd00::1", "fd00::2")
SIZE = 2 << 20
PATIENCE = 120.0  # Seconds for actions that take two on a real processor.
FAULTS = ("TcpInErrs", "UdpInErrors", "Udp6InErrors", "IcmpInErrors", "Icmp6InErrors")
"""The names in nstat of wrong checksums and lengths. Not of headers: IPv6 solicits on every adapter, even ipip."""


class Tunnel(NamedTuple):
    """A link of the kernel, and the pipe at its other end; the kernel's addresses come first."""

    name: str
    kind: tuple[str, ...]
    port: int
    protocol: int
    """The IP protocol number inside the datagrams: Foo-over-UDP has one per port."""
    outside: tuple[str, str]
    inside: tuple[str, str]
    mtu: int


TUNNELS = (
    Tunnel("ipip", ("ipip", "ttl", "64"), 4242, 4, OUTSIDE, ("10.9.0.1", "10.9.0.2"), 1472),
    Tunnel("sit", ("sit", "ttl", "64"), 4343, 41, OUTSIDE, ("fd99::1", "fd99::2"), 1472),
    # UDP over IPv6 without a checksum is not received (RFC 8200); links omit it unless told otherwise.
    Tunnel(
        "ip6ip6",
        ("ip6tnl", "mode", "ip6ip6", "encaplimit", "none", "encap-udp6-csum"),
        4444,
        41,
        OUTSIDE_6,
        ("fd98::1", "fd98::2"),
        1452,
    ),
)


class Round(NamedTuple):
    """The kind of the pipes' addresses, and the features of the wire."""

    kind: str
    wire: tuple[tuple[str, ...], tuple[str, ...]]
    """Features of its two ends, as arguments of ethtool -K."""


# The kernel's end must complete its packets, as for a cable: veth would pass on superpackets, and packets with open
# checksums inside the tunnel.
ROUNDS = (
    # Runs of datagrams reach the kernel's end whole, as from a program on the same machine.
    Round("udp", (("tx", "off"), ())),
    # Runs are segmented before, as by a network card, and GRO of Foo-over-UDP merges their packets.
    Round("udp-listen", (("tx", "off", "gro", "on"), ("tso", "off", "tx-udp-segmentation", "off"))),
)


def wired() -> tuple[Network, Network]:
    networks = Network(), Network()
    networks[0].run("ip", "link", "add", "v0", "type", "veth", "peer", "name", "v1", "netns", networks[1].path)
    for end, network in enumerate(networks):
        network.run("ip", "address", "add", f"{OUTSIDE[end]}/24", "dev", f"v{end}")
        network.run("ip", "address", "add", f"{OUTSIDE_6[end]}/64", "dev", f"v{end}", "nodad")
        network.run("ip", "link", "set", f"v{end}", "up")
    return networks


def add_link(network: Network, tunnel: Tunnel) -> None:
    """Add the kernel's end. It needs a source port: a pipe answers to the port of received datagrams."""
    port, (local, remote) = str(tunnel.port), tunnel.outside
    family = ("-6",) if ":" in local else ()
    network.run("ip", "fou", "add", "port", port, "ipproto", str(tunnel.protocol), *family)
    encapsulation = "encap", "fou", "encap-sport", port, "encap-dport", port
    ends = "local", local, "remote", remote
    network.run("ip", "link", "add", tunnel.name, "mtu", str(tunnel.mtu), "type", *tunnel.kind, *ends, *encapsulation)
    network.run("ip", "address", "add", subnet(tunnel.inside[0]), "dev", tunnel.name)
    network.run("ip", "link", "set", tunnel.name, "up")


def subnet(address: str) -> str:
    return address + ("/64" if ":" in address else "/24")


def place_of(tunnel: Tunnel, kind: str) -> str:
    """Return the pipe's end of the wire, as an address of `threepipe pipe`."""
    kernel, own = (f"[{host}]:{tunnel.port}" if ":" in host else f"{host}:{tunnel.port}" for host in tunnel.outside)
    return {"udp": f"udp:{kernel},bind={own}", "udp-listen": f"udp-listen:{own}"}[kind]


@contextmanager
def piped(network: Network, tunnel: Tunnel, kind: str) -> Iterator[None]:
    """Run a pipe during the block."""
    adapter = f"tun:{tunnel.name},netns={network.path},address={subnet(tunnel.inside[1])},mtu={tunnel.mtu}"
    with (
        ThreadPoolExecutor(1) as executor,
        open_endpoint(adapter) as left,
        network.namespace.run(lambda: open_endpoint(place_of(tunnel, kind))) as right,
    ):
        pumping = executor.submit(pipe, left, right)
        yield
        left.close()
        pumping.result()


def ping(network: Network, address: str) -> bool:
    """Return True if the ping was answered."""
    return " 1 received" in network.run("ping", "-c", "1", "-W", "30", address, check=False)


def transfer(source: Network, target: Network, address: str) -> bool:
    """Return True if a stream of the kernel's TCP to `address` arrives intact."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listener = target.namespace.run(lambda: socket.create_server((address, 0), family=family))
    sender = source.namespace.run(lambda: socket.socket(family))
    sent, received = hashlib.sha256(), hashlib.sha256()

    def send() -> None:
        for chunk in chunks(SIZE):
            sender.sendall(chunk)
            sent.update(chunk)
        sender.shutdown(socket.SHUT_WR)

    with listener, sender, ThreadPoolExecutor(1) as executor:
        for waiting in (listener, sender):
            waiting.settimeout(PATIENCE)
        sender.connect(listener.getsockname()[:2])
        receiver, _ = listener.accept()
        with receiver:
            receiver.settimeout(PATIENCE)
            sending = executor.submit(send)
            while data := receiver.recv(1 << 20):
                received.update(data)
            sending.result()
    return received.digest() == sent.digest()


def counts(network: Network, tunnel: Tunnel) -> tuple[int, int]:
    """Return the packets that the kernel's link sent and received; a superpacket counts as one."""
    (link,) = json.loads(network.run("ip", "-j", "-s", "link", "show", tunnel.name))
    return link["stats64"]["tx"]["packets"], link["stats64"]["rx"]["packets"]


def cross(networks: tuple[Network, Network], tunnel: Tunnel) -> dict[str, Any]:
    """Send pings and a stream each way; the kernel begins, as a listener does not know it yet."""
    kernel, other = networks
    near, far = tunnel.inside
    pings = [ping(kernel, far), ping(other, near)]
    began, before = time.monotonic(), counts(kernel, tunnel)
    streams = [transfer(kernel, other, far)]
    between = counts(kernel, tunnel)
    streams.append(transfer(other, kernel, near))
    after, seconds = counts(kernel, tunnel), round(time.monotonic() - began, 1)
    packets = {"sent": between[0] - before[0], "received": after[1] - between[1]}
    return {"pings": pings, "streams": streams, "bytes": SIZE, "link": packets, "seconds": seconds}


def look(round_: Round) -> list[dict[str, Any]]:
    """Return the observations of every tunnel in one round, in networks of its own."""
    seen: list[dict[str, Any]] = []
    networks = wired()
    with ExitStack() as stack:
        for network in networks:
            stack.callback(network.namespace.close)
        for end, features in enumerate(round_.wire):
            if features:
                networks[end].run("ethtool", "-K", f"v{end}", *features)
        for tunnel in TUNNELS:
            add_link(networks[0], tunnel)
            with piped(networks[1], tunnel, round_.kind):
                seen.append({"tunnel": tunnel.name, "kind": round_.kind} | cross(networks, tunnel))
        faults = [json.loads(network.run("nstat", "-ajz"))["kernel"] for network in networks]
    for sight in seen:
        sight["faults"] = {name: total for name in FAULTS if (total := sum(found[name] for found in faults))}
    return seen


def main() -> None:
    seen = [sight for round_ in ROUNDS for sight in look(round_)]
    print(json.dumps({"kernel": platform.release(), "native": fast.NATIVE, "seen": seen}))  # noqa: T201


if __name__ == "__main__":
    main()
