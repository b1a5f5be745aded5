"""Joins this kernel's Foo-over-UDP to `threepipe pipe`, and prints what went across as one line of JSON.

Run as root by test_soak_fou.py in a kernel that is started for it, for modules are loaded. The kernel
has one network and the pipes another; a veth link is the wire between them.
"""

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))

from conftest import Network, come_true
from threepipe import hot
from threepipe.demo.stream import chunks

MODULES = ("tun", "veth", "fou", "fou6", "ipip", "sit", "ip6_tunnel")
OUTSIDE = ("192.0.2.1", "192.0.2.2")
OUTSIDE_6 = ("fd00::1", "fd00::2")
SIZE = 2 << 20
PATIENCE = 120.0  # Seconds for what takes one or two on a processor that is not emulated.
FAULTS = (
    "TcpInErrs",
    "UdpInErrors",
    "Udp6InErrors",
    "IpInHdrErrors",
    "Ip6InHdrErrors",
    "IcmpInErrors",
    "Icmp6InErrors",
)


class Tunnel(NamedTuple):
    """A link of the kernel's, and the pipe at its other end; the kernel's addresses come first."""

    name: str
    kind: tuple[str, ...]
    port: int
    protocol: int
    """What is in the datagrams, as IP numbers it: Foo-over-UDP has one to a port."""
    outside: tuple[str, str]
    inside: tuple[str, str]
    mtu: int


TUNNELS = (
    Tunnel("ipip", ("ipip", "ttl", "64"), 4242, 4, OUTSIDE, ("10.9.0.1", "10.9.0.2"), 1472),
    Tunnel("sit", ("sit", "ttl", "64"), 4343, 41, OUTSIDE, ("fd99::1", "fd99::2"), 1472),
    # Without a checksum, which its links leave out unless they are told, UDP over IPv6 is not received (RFC 8200).
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
    """How the pipes are addressed, and what the wire does to what they send."""

    kind: str
    wire: tuple[tuple[str, ...], tuple[str, ...]]
    """Features of its two ends, as ethtool -K sets them."""


# A wire that computes no checksums, as no cable does: a veth link would leave those inside of tunnels for later.
CABLE = ("tx", "off")
ROUNDS = (
    # Runs of datagrams reach the kernel's end in one piece, as from a program on the same machine.
    Round("udp", (CABLE, ())),
    # They are cut before they get there, as by a network card, and put together again by GRO of Foo-over-UDP.
    Round("udp-listen", ((*CABLE, "gro", "on"), ("tx-udp-segmentation", "off"))),
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
    """The kernel's end. Its source port has to be said: a pipe answers the port that it hears from."""
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


def address_of(tunnel: Tunnel, kind: str) -> str:
    """The pipe's end, as an address of `threepipe pipe`."""
    kernel, own = (f"[{host}]:{tunnel.port}" if ":" in host else f"{host}:{tunnel.port}" for host in tunnel.outside)
    return {"udp": f"udp:{kernel},bind={own}", "udp-listen": f"udp-listen:{own}"}[kind]


@contextmanager
def pipe(network: Network, tunnel: Tunnel, kind: str) -> Iterator[list[dict[str, Any]]]:
    """Run one; what it has said is in the list when the block is over."""
    left = f"tun:{tunnel.name},address={subnet(tunnel.inside[1])},mtu={tunnel.mtu}"
    command = [sys.executable, "-m", "threepipe", "pipe", left, address_of(tunnel, kind), "--json"]
    events: list[dict[str, Any]] = []
    with subprocess.Popen(network.command(*command), stdout=subprocess.PIPE, text=True) as program:
        try:
            yield events
            program.send_signal(signal.SIGINT)
            events += map(json.loads, program.communicate(timeout=PATIENCE)[0].splitlines())
        finally:
            program.kill()


def answered(network: Network, address: str) -> bool:
    """Whether a ping was, sooner or later."""
    return come_true(lambda: " 1 received" in network.run("ping", "-c", "1", "-W", "5", address, check=False), PATIENCE)


def transfer(source: Network, target: Network, address: str) -> bool:
    """Whether a stream of the kernel's TCP to `address` arrives as it was sent."""
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
    """Packets the kernel's link received and sent, where a superpacket is one."""
    (link,) = json.loads(network.run("ip", "-j", "-s", "link", "show", tunnel.name))
    return link["stats64"]["rx"]["packets"], link["stats64"]["tx"]["packets"]


def cross(networks: tuple[Network, Network], tunnel: Tunnel) -> dict[str, Any]:
    """Pings and a stream each way; the kernel speaks first, as whoever listens does not know it yet."""
    kernel, other = networks
    near, far = tunnel.inside
    began = time.monotonic()
    return {
        "pings": [answered(kernel, far), answered(other, near)],
        "streams": [transfer(kernel, other, far), transfer(other, kernel, near)],
        "seconds": round(time.monotonic() - began, 1),
    }


def look(round_: Round) -> list[dict[str, Any]]:
    """What is seen of every tunnel in one round, in networks of its own."""
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
        with ExitStack() as pipes:
            told = [pipes.enter_context(pipe(networks[1], tunnel, round_.kind)) for tunnel in TUNNELS]
            seen = [{"tunnel": tunnel.name, "kind": round_.kind} | cross(networks, tunnel) for tunnel in TUNNELS]
        for tunnel, sight, events in zip(TUNNELS, seen, told, strict=True):
            received, sent = counts(networks[0], tunnel)
            sight |= {"link": {"received": received, "sent": sent}, "end": events[-1]}
            sight["notes"] = [event["text"] for event in events if event["event"] == "note"]
        faults = [json.loads(network.run("nstat", "-ajz"))["kernel"] for network in networks]
    for sight in seen:
        sight["faults"] = {name: total for name in FAULTS if (total := sum(found[name] for found in faults))}
    return seen


def main() -> None:
    for module in MODULES:
        subprocess.run(["modprobe", module], check=True)
    seen = [sight for round_ in ROUNDS for sight in look(round_)]
    print(json.dumps({"kernel": os.uname().release, "native": hot.NATIVE, "seen": seen}))  # noqa: T201


if __name__ == "__main__":
    main()
