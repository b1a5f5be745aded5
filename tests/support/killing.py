"""Processes that pass traffic and are killed in the middle of it."""

import os
import signal
import socket

import threepipe
from tests.support.hosts import answers
from threepipe import Adapter, Session


def there_and_back(sock: socket.socket, session: Session, host: str) -> None:
    """Pass a packet each way: the kernel's datagram to `host`, and the answer."""
    sock.sendto(host.encode(), (host, 9))
    while not (answer := answers(session.receive(timeout=30))):
        pass
    assert session.send(answer) == len(answer)
    assert sock.recv(100) == host.encode()


def pass_traffic(number: int, ready: int, all_ready: int) -> None:
    """Pass packets both ways, write a byte to `ready`, and go on without end once `all_ready` ends.

    Those that are ready first pause, as their traffic would slow the start of the others down.
    """
    signal.alarm(60)  # This ends the process if its parent cannot kill it.
    with (
        Adapter.create("tp%d", addresses=[f"10.6.{number}.1/24"]) as adapter,
        adapter.start_session() as session,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock,
    ):
        sock.settimeout(30)
        there_and_back(sock, session, f"10.6.{number}.2")
        os.write(ready, b".")
        os.read(all_ready, 1)
        there_and_back(sock, session, f"10.6.{number}.2")
        os.write(ready, b".")
        while True:
            there_and_back(sock, session, f"10.6.{number}.2")


def kill_in_mid_traffic(count: int) -> tuple[int, list[int]]:
    """Fork `count` processes with an adapter each and kill them; return the adapters seen and the exit codes."""
    (ready, children_ready), (all_ready, not_all_ready) = os.pipe(), os.pipe()
    children = []
    for number in range(count):
        child = os.fork()
        if not child:
            try:
                os.close(not_all_ready)
                pass_traffic(number, children_ready, all_ready)
            finally:
                os._exit(1)
        children.append(child)
    os.close(children_ready)
    os.close(all_ready)
    await_signs(ready, count)
    os.close(not_all_ready)
    await_signs(ready, count)
    seen = len(threepipe.adapters())
    for child in children:
        os.kill(child, signal.SIGKILL)
    return seen, [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def await_signs(ready: int, count: int) -> None:
    """Read a byte of each process. The pipe ends if all processes are dead."""
    while count and (signs := os.read(ready, count)):
        count -= len(signs)
