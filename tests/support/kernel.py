"""Namespaces of networks and mounts for tests of the kernel, and functions that run inside of them."""

import json
import os
import pickle
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

AS_ROOT = hasattr(os, "geteuid") and not os.geteuid()


class Network:
    """A fresh network namespace; `path` names it for `netns=`, `run` runs programs inside it."""

    def __init__(self) -> None:
        from threepipe.platforms.linux.namespace import Namespace

        self.namespace = Namespace.fresh()
        self.path = self.namespace.path
        self.run("ip", "link", "set", "lo", "up")

    def command(self, *command: str) -> list[str]:
        """`command` as it has to be started to run inside the namespace."""
        return ["nsenter", f"--net={self.path}", *command]

    def run(self, *command: str, check: bool = True) -> str:
        """Run a program inside to its end and return what it printed."""
        done = subprocess.run(self.command(*command), capture_output=True, text=True, timeout=50)
        assert not check or done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}"
        return done.stdout


needs_root = pytest.mark.skipif(
    not AS_ROOT, reason="takes real root: in a user namespace there is one user, and no device can be made"
)

STRANGER = 61234
"""An ordinary user's id, which needs no entry in any data base."""

NO_TUN_NODE = "mount -t tmpfs none /dev/net"
"""Shell for a mount namespace in which /dev/net/tun is missing."""


def tun_node(mode: str = "0666", major: int = 10, minor: int = 200) -> str:
    """Shell for a mount namespace in which /dev/net/tun has another mode, or is another device."""
    return f"{NO_TUN_NODE}; mknod -m {mode} /dev/net/tun c {major} {minor}"


def links(network: Network) -> set[str]:
    """The names of the interfaces in `network`, less lo."""
    return {link["ifname"] for link in json.loads(network.run("ip", "-j", "link"))} - {"lo"}


def udp_socket(network: Network, address: str) -> socket.socket:
    """A UDP socket of the kernel in `network`, bound to `address` and some port."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sock = network.namespace.run(lambda: socket.socket(family, socket.SOCK_DGRAM))
    sock.settimeout(10)
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
    """What `function` of a test module returns, or raises, in a process of its own inside `network`.

    As `user` with `groups`, in a mount namespace of its own where the shell has run `mounts`.
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
