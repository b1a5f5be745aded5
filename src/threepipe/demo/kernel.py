"""The stage between two network stacks of the operating system, in a network namespace each.

The left stack pings and sends, the right one answers and receives; only this program joins them. The stream's ends
are processes of their own, so that this one only pumps.
"""

import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

from threepipe import platforms
from threepipe.adapter import Adapter
from threepipe.demo.play import PrivateNetwork, Transfer
from threepipe.echo import echo_request

__all__ = ["ADDRESSES", "PREFIX_LENGTH", "KernelStage", "kernel_stage", "ping", "ping_socket"]

ADDRESSES = {4: ("10.77.0.1", "10.77.0.2"), 6: ("fd77::1", "fd77::2")}
"""The left stack's and the right one's, by IP version."""
PREFIX_LENGTH = {4: 24, 6: 64}
_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
_ICMP = {4: (socket.IPPROTO_ICMP, 0), 6: (socket.IPPROTO_ICMPV6, 129)}  # Protocol, and type of an echo reply.
_IP_HEADER = {4: 20, 6: 40}
_PING_TIMEOUT = 2.0  # Seconds.
_CONNECT_TIMEOUT = 10.0  # Seconds.


@contextmanager
def kernel_stage() -> Iterator["KernelStage"]:
    """Create two networks with an adapter and a session each, and remove them afterwards.

    Raises `AdapterUnavailable` or `PermissionDenied` if this machine or user cannot create them.
    """
    privilege: str
    networks: tuple[PrivateNetwork, ...]
    privilege, networks = platforms.private_networks()
    with ExitStack() as stack:
        for network in networks:
            stack.callback(network.close)
        adapters = []
        for side, network in enumerate(networks):
            addresses = [f"{ADDRESSES[version][side]}/{PREFIX_LENGTH[version]}" for version in (4, 6)]
            adapter = Adapter.create(f"demo{side}", netns=network.path, addresses=addresses)
            adapters.append(stack.enter_context(adapter))
        yield KernelStage(privilege, networks, adapters)


class KernelStage:
    """The `Stage` with two networks of the kernel."""

    backend = "linux-tun"

    def __init__(self, privilege: str, networks: tuple[PrivateNetwork, ...], adapters: list[Adapter]) -> None:
        self.privilege = privilege
        self.namespaces = tuple([os.readlink(network.path) for network in networks])
        self.families: tuple[int, ...] = tuple(sorted({address.version for address in adapters[0].addresses}))
        self._networks = networks
        self._adapters = adapters
        self.left, self.right = [adapter.start_session() for adapter in adapters]

    def ping(self, version: int, count: int) -> list[float]:
        with self._networks[0].run(lambda: ping_socket(version)) as icmp:
            return ping(icmp, version, count)

    def transfer(self, size: int, progress: Callable[[int], None]) -> Transfer:
        address = ADDRESSES[4][1]
        with ExitStack() as stack:
            listener = self._networks[1].run(lambda: socket.create_server((address, 0)))
            with listener:
                sender = stack.enter_context(self._networks[0].run(socket.socket))
                for end in (listener, sender):
                    end.settimeout(_CONNECT_TIMEOUT)
                sender.connect(listener.getsockname())
                receiver = stack.enter_context(listener.accept()[0])
            start = time.perf_counter()
            receiving = stack.enter_context(_StreamProcess("receive", receiver, size))
            sending = stack.enter_context(_StreamProcess("send", sender, size))
            for line in receiving.lines():
                progress(int(line))
            seconds = time.perf_counter() - start
            sent, received = sending.result(), receiving.result()
        return Transfer(received.bytes, seconds, sent == received and received.bytes == size)

    def dropped(self) -> int:
        counts = [adapter.statistics for adapter in self._adapters]
        return sum(count.received_dropped + count.sent_dropped for count in counts)


def ping_socket(version: int) -> socket.socket:
    """Return a socket for `ping` in this thread's network. Raises `OSError`."""
    return socket.socket(_FAMILIES[version], socket.SOCK_RAW, _ICMP[version][0])


def ping(icmp: socket.socket, version: int, count: int) -> list[float]:
    """Ping the right stack, as `Stage.ping` does."""
    source, destination = ADDRESSES[version]
    reply = _ICMP[version][1]
    times = []
    icmp.settimeout(_PING_TIMEOUT)
    identifier = os.getpid() & 0xFFFF
    for sequence in range(count):
        request = echo_request(source, destination, identifier, sequence, bytes(56))
        expected = struct.pack("!HH", identifier, sequence)
        start = time.perf_counter()
        icmp.sendto(request[_IP_HEADER[version] :], (destination, 0))
        try:
            while True:
                answer = icmp.recv(0xFFFF)
                # A raw socket returns the IP header in IPv4, and not in IPv6.
                echo = answer[_IP_HEADER[4] :] if version == 4 else answer
                if echo[0] == reply and echo[4:8] == expected:
                    break
        except TimeoutError:
            continue
        times.append(time.perf_counter() - start)
    return times


class _StreamResult(NamedTuple):
    bytes: int
    sha256: str


class _StreamProcess:
    """A process at one end of the stream."""

    def __init__(self, role: str, end: socket.socket, size: int) -> None:
        program = f"from threepipe.demo.stream import main; main({role!r}, {end.fileno()}, {size})"
        self._process = subprocess.Popen(
            [sys.executable, "-c", program],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            pass_fds=(end.fileno(),),
            process_group=0,  # Ctrl-C goes to the demonstration alone, which ends this process.
        )
        end.close()  # The process has it now. A second holder would hide its end from the other side.
        self._result = _StreamResult(0, "")

    def lines(self) -> Iterator[str]:
        """Yield the progress until the process has ended."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("="):
                _, count, digest = line.split()
                self._result = _StreamResult(int(count), digest)
            else:
                yield line

    def result(self) -> _StreamResult:
        """Wait for the process and return the result that it printed."""
        for _ in self.lines():
            pass
        self._process.wait()
        return self._result

    def __enter__(self) -> "_StreamProcess":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()
