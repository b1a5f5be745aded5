"""What tests of the kernel need: namespaces of their own, and a clear word where there can be none."""

import gc
import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import hypothesis
import pytest

import threepipe
from threepipe.core.packet import Packet

if sys.platform != "linux":
    collect_ignore_glob = ["linux/*", "wine/*"]  # They import what others lack.

if sys.platform == "win32":
    # What is found by chance is found where tests run fast: under Wine, too slow would be the word for most of them.
    hypothesis.settings.register_profile("windows", deadline=None, max_examples=20)
    hypothesis.settings.load_profile("windows")


def _no_kernel() -> str:
    """Why this process cannot make adapters, or nothing. Enters a user namespace where it helps."""
    if sys.platform != "linux":
        return f"adapters are not made on {sys.platform}"
    from threepipe.platforms.linux.namespace import Namespace, enter_user_namespace

    try:
        if os.geteuid():
            enter_user_namespace()
        namespace = Namespace.fresh()
        try:
            threepipe.Adapter.create("probe", netns=namespace.path).close()
        finally:
            namespace.close()
    except threepipe.ThreepipeError as error:
        return f"no adapters can be made here: {error}"
    return ""


# Shells let programs in the background ignore Ctrl-C, and so would all that we start and want to interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

AS_ROOT = hasattr(os, "geteuid") and not os.geteuid()
NO_KERNEL = _no_kernel()


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("kernel") and NO_KERNEL:
        if os.environ.get("CI"):
            pytest.fail(f"kernel tests may not be skipped in CI: {NO_KERNEL}")
        pytest.skip(NO_KERNEL)


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


@pytest.fixture
def network() -> Iterator[Network]:
    """A network namespace of the test's own, without a name, that goes with it."""
    fresh = Network()
    yield fresh
    fresh.namespace.close()


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A folder of the test's own. Pytest's goes by the user's name, which in a user namespace is root's."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """Every test gives back the descriptors it opened."""
    before = _descriptors()
    yield
    if _descriptors() > before:
        gc.collect()  # Some belong to objects in cycles; collecting for every test would take long.
    assert _descriptors() <= before, "descriptors were left open"


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd")) if sys.platform == "linux" else 0


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


ECHO_REPLY = {8: 0, 128: 129}
"""ICMP and ICMPv6: type of an echo request -> type of its reply."""


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


def answers(packets: Iterable[Packet]) -> list[bytes]:
    """What hosts behind an adapter would answer: pings are replied to, UDP datagrams come back."""
    return [answer for packet in packets if (answer := _answer(bytes(packet)))]


def _answer(packet: bytes) -> bytes:
    source, size, start, protocol = (12, 4, 20, 9) if packet[0] >> 4 == 4 else (8, 16, 40, 6)
    message = bytearray(packet[start:])
    if packet[protocol] == socket.IPPROTO_UDP:
        message[:4] = message[2:4] + message[:2]  # The ports. Swapping leaves a checksum as it is.
    elif message[0] in ECHO_REPLY:
        request, message[0] = message[0], ECHO_REPLY[message[0]]
        checksum = int.from_bytes(message[2:4], "big") + ((request - message[0]) << 8)
        message[2:4] = (checksum % 0xFFFF).to_bytes(2, "big")  # Brought up to date as in RFC 1624.
    else:
        return b""  # What the kernel says of its own accord, to routers and multicast groups.
    middle, end = source + size, source + 2 * size
    return packet[:source] + packet[middle:end] + packet[source:middle] + packet[end:start] + message


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
    program = [sys.executable, str(Path(__file__).parent / "support" / "programs" / "call.py")]
    if mounts:
        program = ["unshare", "--mount", "sh", "-ec", f'{mounts}; exec "$@"', "sh", *program]
    order = pickle.dumps((user, tuple(groups), function, arguments))
    done = subprocess.run(network.command(*program), input=order, stdout=subprocess.PIPE, check=True, timeout=50)
    result, error = pickle.loads(done.stdout)
    if error is not None:
        raise error
    return result


def come_true(condition: Callable[[], bool], seconds: float = 10) -> bool:
    """Whether `condition` is true before long: for what the kernel does in its own time, untold."""
    deadline = time.monotonic() + seconds
    while not (true := condition()) and time.monotonic() < deadline:
        time.sleep(0.01)
    return true
