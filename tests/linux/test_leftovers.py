"""Nothing of an adapter is left on Linux: after use, after failure, and after sudden death."""

import errno
import os
import signal
import socket
import threading

import pytest

import threepipe
from tests.conftest import Network, answers, call_elsewhere, come_true, links, udp_socket
from threepipe import Adapter, Session

pytestmark = pytest.mark.kernel


def tasks() -> int:
    """Threads of this process as the kernel counts them."""
    return len(os.listdir("/proc/self/task"))


def there_and_back(sock: socket.socket, session: Session, host: str) -> None:
    """A packet each way: the kernel's datagram to `host`, and the answer."""
    sock.sendto(host.encode(), (host, 9))
    while not (answer := answers(session.receive(timeout=30))):
        pass
    assert session.send(answer) == len(answer)
    assert sock.recv(100) == host.encode()


def test_two_hundred_adapters_used_and_closed(network: Network) -> None:
    threads, before, descriptors = threading.active_count(), tasks(), len(os.listdir("/proc/self/fd"))
    with udp_socket(network, "0.0.0.0") as sock:
        for _ in range(200):
            with (
                Adapter.create("tp%d", netns=network.path, addresses=["10.6.7.1/24"]) as adapter,
                adapter.start_session() as session,
            ):
                assert adapter.name == "tp0"
                there_and_back(sock, session, "10.6.7.2")
    assert links(network) == set()
    assert threading.active_count() == threads
    assert come_true(lambda: tasks() <= before)
    assert len(os.listdir("/proc/self/fd")) == descriptors


def pass_traffic(number: int, ready: int) -> None:
    """Pass packets both ways without end; a byte goes to `ready` once the first got through."""
    signal.alarm(60)  # Should nobody be left to kill it.
    with (
        Adapter.create("tp%d", addresses=[f"10.6.{number}.1/24"]) as adapter,
        adapter.start_session() as session,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock,
    ):
        sock.settimeout(30)
        there_and_back(sock, session, f"10.6.{number}.2")
        os.write(ready, b".")
        while True:
            there_and_back(sock, session, f"10.6.{number}.2")


def kill_in_mid_traffic(count: int) -> tuple[int, list[int]]:
    """Fork that many processes with an adapter each and kill them: the adapters seen, the exit codes."""
    ready, children_ready = os.pipe()
    children = []
    for number in range(count):
        child = os.fork()
        if not child:
            try:
                pass_traffic(number, children_ready)
            finally:
                os._exit(1)
        children.append(child)
    os.close(children_ready)
    waiting = count
    while waiting and (signs := os.read(ready, count)):  # Its end comes where all are dead.
        waiting -= len(signs)
    seen = len(threepipe.adapters())
    for child in children:
        os.kill(child, signal.SIGKILL)
    return seen, [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def test_fifty_processes_killed_in_mid_traffic(network: Network) -> None:
    seen, codes = call_elsewhere(network, kill_in_mid_traffic, 50)
    assert seen == 50
    assert codes == [-signal.SIGKILL] * 50
    assert come_true(lambda: not links(network))


@pytest.mark.parametrize("persistent", [False, True])
def test_twenty_creations_that_fail_half_way(network: Network, persistent: bool) -> None:
    before = tasks()
    with Adapter.create("taker", netns=network.path, routes=["10.77.0.0/16", "fd77::/16"]):
        for number in range(20):
            with pytest.raises(threepipe.AdapterError, match="has it already") as caught:
                Adapter.create(
                    "tp0",
                    netns=network.path,
                    addresses=["10.6.7.1/24", "fd00::1/64"],
                    routes=["10.78.0.0/16", ("10.77.0.0/16", "fd77::/16")[number % 2]],
                    mtu=1400,
                    persistent=persistent,
                )
            assert caught.value.errno == errno.EEXIST
            assert links(network) == {"taker"}
    assert come_true(lambda: tasks() <= before)
