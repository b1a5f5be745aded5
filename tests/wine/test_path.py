"""The packet path from this kernel through a program on Windows' Python, and back.

A kernel in a network of its own, its adapter, `threepipe pipe` over UDP; and at the other end, under Wine,
the contract library, the Windows platform on it, and a program.
"""

import hashlib
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from tests.support.examples import ECHOES, EXAMPLES
from tests.support.kernel import Network, needs_root
from tests.support.pinging import answered
from tests.support.waiting import come_true
from tests.support.windows_python import ON_CONTRACT, free_ports, on_windows

pytestmark = [pytest.mark.wine, pytest.mark.kernel, needs_root]

SECONDS = 30.0
MTU = 1400
SIZE = 64 << 20


@contextmanager
def cable(network: Network, address: str, own: int, other: int) -> Iterator[None]:
    """Make an adapter in `network` whose packets go to UDP port `other`, and come from there to port `own`."""
    adapter = f"tun:tp0,netns={network.path},mtu={MTU},{address}"
    far_end = f"udp:127.0.0.1:{other},bind=127.0.0.1:{own}"
    command = [sys.executable, "-W", "error", "-m", "threepipe", "pipe", adapter, far_end]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as pipe:
        try:
            assert come_true(lambda: "LOWER_UP" in network.run("ip", "link", "show", "tp0", check=False), SECONDS)
            yield
        finally:
            pipe.terminate()
            try:
                pipe.wait(SECONDS)
            finally:
                pipe.kill()


def says(program: "subprocess.Popen[str]", what: str) -> None:
    """Wait until a program prints the text; fail with all its output if it ends before."""
    assert program.stdout is not None
    said = ""
    while what not in said:
        line = program.stdout.readline()
        assert line, f"it ended, and has said: {said}"
        said += line


@pytest.mark.timeout(180)
@pytest.mark.parametrize("example", ECHOES)
def test_a_program_on_windows_answers_ping(network: Network, example: str) -> None:
    here, there = free_ports(2)
    program = (ON_CONTRACT, str(EXAMPLES / example), "echo0")
    with (
        on_windows(*program, THREEPIPE_CONTRACT_UDP=f"echo0:{there}:{here}") as echo,
        cable(network, "address=10.33.3.7/24,address=fd33::7/64", here, there),
    ):
        says(echo, "echo0 answers ping in 10.33.3.0/24")
        for address in ("10.33.3.77", "fd33::77"):
            output = network.run("ping", "-A", "-q", "-c", "200", "-s", "1000", "-w", "30", address)
            assert answered(output) == (200, 200)


@pytest.fixture
def far() -> Iterator[Network]:
    """Return another network."""
    fresh = Network()
    yield fresh
    fresh.namespace.close()


def digest_of_all(listener: socket.socket, digests: list[str]) -> None:
    """Accept one connection, read it to its end, and send back the number of bytes."""
    connection, _ = listener.accept()
    with connection:
        connection.settimeout(SECONDS)
        digest, total = hashlib.sha256(), 0
        while data := connection.recv(1 << 20):
            digest.update(data)
            total += len(data)
        digests.append(digest.hexdigest())
        connection.sendall(str(total).encode())


def send_all(network: Network, address: tuple[str, int]) -> tuple[str, int]:
    """Send `SIZE` random bytes from `network`; return their SHA-256 and the byte count that the other end reports."""
    digest = hashlib.sha256()
    with network.namespace.run(lambda: socket.create_connection(address, SECONDS)) as sock:
        for _ in range(SIZE >> 20):
            data = os.urandom(1 << 20)
            digest.update(data)
            sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        return digest.hexdigest(), int(sock.recv(100))


@pytest.mark.timeout(300)
def test_64_mib_of_tcp_go_through_a_forwarder_on_windows(network: Network, far: Network) -> None:
    """`threepipe pipe` on Windows joins two adapters; a kernel is on the outer side of each."""
    ports = free_ports(4)
    networks = f"left:{ports[1]}:{ports[0]},right:{ports[2]}:{ports[3]}"
    command = [ON_CONTRACT, "-m", "threepipe", "pipe", f"tun:left,mtu={MTU}", f"tun:right,mtu={MTU}"]
    with ExitStack() as stack:
        forwarder = stack.enter_context(on_windows(*command, THREEPIPE_CONTRACT_UDP=networks))
        says(forwarder, "adapter right created")
        stack.enter_context(cable(network, "address=10.6.7.1/24", ports[0], ports[1]))
        stack.enter_context(cable(far, "address=10.6.7.2/24", ports[3], ports[2]))
        listener = stack.enter_context(far.namespace.run(lambda: socket.create_server(("10.6.7.2", 0))))
        listener.settimeout(SECONDS)
        network.run("ping", "-c", "1", "-w", "30", "10.6.7.2")
        digests: list[str] = []
        receiving = threading.Thread(target=digest_of_all, args=(listener, digests))
        receiving.start()
        sent, total = send_all(network, listener.getsockname())
        receiving.join(SECONDS)
        assert forwarder.poll() is None
    assert total == SIZE
    assert digests == [sent]
