"""Network and mount namespaces for kernel tests, and functions that run inside them."""

import json
import os
import pickle
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.support.waiting import come_true

# <linux/sockios.h>, <linux/if.h>
_SIOCSIFFLAGS = 0x8914
_IFF_UP = 0x1

AS_ROOT = hasattr(os, "geteuid") and not os.geteuid()


class Network:
    """A fresh network namespace; `path` names it for `netns=`, `run` runs programs inside it."""

    def __init__(self) -> None:
        from threepipe.platforms.linux.namespace import Namespace

        self.namespace = Namespace.fresh()
        self.path = self.namespace.path
        self.namespace.run(_set_loopback_up)

    def command(self, *command: str) -> list[str]:
        """Return the command that runs `command` inside the namespace."""
        return ["nsenter", f"--net={self.path}", *command]

    def run(self, *command: str, check: bool = True) -> str:
        """Run a program inside to its end and return its output."""
        done = subprocess.run(self.command(*command), capture_output=True, text=True, timeout=50)
        assert not check or done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}"
        return done.stdout

    def disable_ipv6(self) -> None:
        """Disable IPv6, so that the kernel also sends no packets of its own."""
        for scope in ("all", "default"):
            self.run("sysctl", "-q", f"net.ipv6.conf.{scope}.disable_ipv6=1")


def _set_loopback_up() -> None:
    import fcntl  # Not on Windows, where modules of tests import this one.

    with socket.socket() as sock:
        fcntl.ioctl(sock, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", _IFF_UP))


needs_root = pytest.mark.skipif(
    not AS_ROOT, reason="needs real root: a user namespace has one user, and no device nodes can be made"
)

STRANGER = 61234
"""The id of an ordinary user; it needs no entry in a database."""

NO_TUN_NODE = "mount -t tmpfs none /dev/net"
"""Shell commands that remove /dev/net/tun in a mount namespace."""


def tun_node(mode: str = "0666", major: int = 10, minor: int = 200) -> str:
    """Return shell commands that give /dev/net/tun another mode or device number in a mount namespace."""
    return f"{NO_TUN_NODE}; mknod -m {mode} /dev/net/tun c {major} {minor}"


def links(network: Network) -> set[str]:
    """Return the names of the interfaces in `network`, except lo."""
    return {link["ifname"] for link in json.loads(network.run("ip", "-j", "link"))} - {"lo"}


def link(network: Network, name: str) -> Any:
    """Return the interface `name` in `network`, with its addresses, as iproute2 shows it."""
    return json.loads(network.run("ip", "-j", "-d", "address", "show", "dev", name))[0]


def cable(one: Network, two: Network) -> None:
    """Join two networks by a cable: 192.0.2.1 is on v1 in the first, 192.0.2.2 on v2 in the second."""
    one.run("ip", "link", "add", "v1", "type", "veth", "peer", "name", "v2", "netns", str(two.path))
    for number, each in ((1, one), (2, two)):
        each.run("ip", "address", "add", f"192.0.2.{number}/24", "dev", f"v{number}")
        each.run("ip", "link", "set", f"v{number}", "up")
    for each in (one, two):
        assert come_true(partial(_has_carrier, each)), "a veth has no carrier"


def _has_carrier(network: Network) -> bool:
    """Return True once no route is marked for want of a carrier, which the kernel notices a little late."""
    return "linkdown" not in network.run("ip", "route", "show", "table", "all")


def udp_socket(network: Network, address: str) -> socket.socket:
    """Return a UDP socket of the kernel in `network`, bound to `address` and a free port."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sock = network.namespace.run(lambda: socket.socket(family, socket.SOCK_DGRAM))
    sock.settimeout(30)
    sock.bind((address, 0))
    return sock


def call_elsewhere(
    network: Network,
    function: Callable[..., Any],
    *arguments: Any,
    user: int = 0,
    groups: Sequence[int] = (),
    mounts: str = "",
) -> Any:
    """Call `function` of a test module in a process of its own inside `network`; return or raise its result.

    The process has `user` and `groups`, and a mount namespace of its own where the shell has run `mounts`.
    """
    program = [sys.executable, str(Path(__file__).with_name("programs") / "call.py")]
    if mounts:
        program = ["unshare", "--mount", "sh", "-ec", f'{mounts}; exec "$@"', "sh", *program]
    order = pickle.dumps((user, tuple(groups), function, arguments))
    done = subprocess.run(network.command(*program), input=order, stdout=subprocess.PIPE, check=True, timeout=50)
    result, error = pickle.loads(done.stdout)
    if error is not None:
        raise error
    return result
