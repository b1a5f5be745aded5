"""A network between two WireGuard devices that sees and changes the ECN field of their datagrams.

A socket of loopback stands for it: each device knows the other by the address of that socket.
"""

import socket
import threading
from collections.abc import Callable

from threepipe.platforms.linux.sockets import LinuxDatagrams

SHORTEST_DATA = 33
"""Bytes: more than a keepalive."""
_TRANSPORT = 4


class MarkingNetwork:
    """Carries datagrams between two ports of `host` until it is closed."""

    def __init__(self, host: str, ports: tuple[int, int]) -> None:
        self.seen: list[int] = []
        """The ECN fields of the datagrams with packets, as they were sent."""
        self.control: set[int] = set()
        """The ECN fields of all others: handshakes and keepalives."""
        self.remark: Callable[[int], int] = lambda ecn: ecn
        """Returns the ECN field with which a datagram of that field arrives."""
        self._socket = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((host, 0))
        self.endpoint = (host, self._socket.getsockname()[1])
        self._datagrams = LinuxDatagrams(self._socket)
        self._datagrams.report_ecn()
        self._socket.settimeout(None)
        self._others = dict(zip(ports, reversed(ports), strict=True))
        self._thread = threading.Thread(target=self._carry)
        self._thread.start()

    def _carry(self) -> None:
        memory = memoryview(bytearray(0xFFFF))
        while True:
            used, size, source = self._datagrams.receive_run(memory)
            if (other := self._others.get(source[1])) is None:
                return  # The last datagram is of `close`.
            for start in range(0, used, size):
                self._take(memory[start : min(start + size, used)], (self.endpoint[0], other))

    def _take(self, datagram: memoryview, target: tuple[str, int]) -> None:
        ecn = self._datagrams.received_ecn
        if datagram[0] == _TRANSPORT and len(datagram) >= SHORTEST_DATA:
            self.seen.append(ecn)
            ecn = self.remark(ecn)
        else:
            self.control.add(ecn)
        self._datagrams.send_ecn = ecn
        self._datagrams.send_one(datagram, target)

    def close(self) -> None:
        with socket.socket(self._socket.family, socket.SOCK_DGRAM) as last:
            last.sendto(b"", self.endpoint)
        self._thread.join()
        self._socket.close()
