"""Pipes between endpoints of streams, with programs at their other ends."""

import socket
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack

import threepipe
from tests.support.endpoints import SECONDS, opened, packet, record


class Piped:
    """A pipe from a program to a program, over connected Unix sockets."""

    def __init__(self, stack: ExitStack, *ends: threepipe.Session | None) -> None:
        self._stack = stack
        self.programs: list[socket.socket] = []
        made = [self._end() if end is None else end for end in (ends or (None, None))]
        self.left, self.right = made
        self.thread: Future[None] | None = None

    def _end(self) -> threepipe.Session:
        ours, its = socket.socketpair()
        self.programs.append(self._stack.enter_context(its))
        its.settimeout(SECONDS)
        return opened(self._stack, f"fd:{ours.detach()}")

    def start(self) -> None:
        executor = self._stack.enter_context(ThreadPoolExecutor(1))
        self._stack.callback(self.left.close)
        self.thread = executor.submit(threepipe.pipe, self.left, self.right)

    def greet(self) -> None:
        """Send a packet each way, after which both streams are known to carry records."""
        for source, target in (self.programs, self.programs[::-1]):
            source.sendall(record(packet(0)))
            assert take(target, 102) == record(packet(0))


def take(program: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size and (more := program.recv(min(size - len(data), 1 << 16))):
        data += more
    return bytes(data)


def answered(piped: Piped) -> None:
    """Have packets pass alone, in turns, as questions and their answers do."""
    for number in range(10):
        for source, target in (piped.programs, piped.programs[::-1]):
            source.sendall(record(packet(number)))
            assert take(target, 102) == record(packet(number))
