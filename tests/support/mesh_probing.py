"""Probes between two nodes of a mesh: numbered datagrams, one every 10 ms."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

__all__ = ["INTERVAL", "Probes", "probing"]

INTERVAL = 0.01  # Seconds between probes.
_PORT = 9


class Probes:
    """The probes that were sent, and those that have arrived, by number."""

    def __init__(self) -> None:
        self.sent: dict[int, float] = {}
        """The times of the monotonic clock at which they were sent."""
        self.arrived: set[int] = set()
        self.over = threading.Event()

    def pass_for(self, seconds: float) -> None:
        """Let probes pass for so many seconds."""
        self.over.wait(seconds)


@contextlib.contextmanager
def probing(source: socket.socket, target: socket.socket, address: str) -> Iterator[Probes]:
    """Bind the target to the address, and send probes to it while the block runs. Close both sockets."""
    probes = Probes()
    over = probes.over

    def receive() -> None:
        while not over.is_set():
            with contextlib.suppress(TimeoutError):
                probes.arrived.add(int.from_bytes(target.recv(100), "big"))

    def send() -> None:
        number, begin = 0, time.monotonic()
        while not over.wait(max(0.0, begin + number * INTERVAL - time.monotonic())):
            probes.sent[number] = time.monotonic()
            with contextlib.suppress(OSError):  # There may be no route for a moment.
                source.sendto(number.to_bytes(4, "big"), (address, _PORT))
            number += 1

    threads = [threading.Thread(target=work) for work in (receive, send)]
    with source, target:
        target.bind((address, _PORT))
        target.settimeout(0.5)
        for thread in threads:
            thread.start()
        try:
            yield probes
        finally:
            over.set()
            for thread in threads:
                thread.join()
