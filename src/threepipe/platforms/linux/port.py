"""The packet path on Linux: bundles read from and written to a TUN descriptor. No control code.

Whole packets in both directions (IFF_NO_PI). The descriptor belongs to the device; this file owns
only what is waited on: an epoll of the descriptor and of a doorbell that closing rings.
"""

import sys

assert sys.platform == "linux"

import errno
import io
import select
from collections.abc import Callable

from threepipe.bundle import Arena, Bundle
from threepipe.doorbell import Doorbell
from threepipe.packet import MAX_PACKET
from threepipe.platforms.linux import tun

__all__ = ["LinuxPort"]

_FULL = frozenset({errno.ENOBUFS, errno.ENOMEM})


class LinuxPort:
    """A session's traffic on an attached, non-blocking TUN descriptor."""

    def __init__(self, file: io.FileIO, name: str, take_link_down: Callable[[], None]) -> None:
        self._file = file
        self._name = name
        self._take_link_down = take_link_down
        self._arena = Arena()
        self._closing = Doorbell()
        self.readable = _Poll(file, select.EPOLLIN, self._closing)
        self.writable = _Poll(file, select.EPOLLOUT, self._closing)

    def receive(self, limit: int) -> Bundle:
        memory = self._arena.free()
        readinto, used = self._file.readinto, 0
        packets: list[memoryview] = []
        last = len(memory) - MAX_PACKET
        try:
            while used <= last and len(packets) < limit:
                # None where nothing is ready: no exception to pay for at the end of every bundle.
                if not (size := readinto(memory[used:])):
                    break
                packets.append(memory[used : used + size])
                used += size
        except OSError as error:
            if not packets:
                raise tun.refused(error, self._name) from None
        self._arena.take(used)
        return Bundle.of_views(packets)

    def send(self, bundle: Bundle) -> int:
        write, sent = self._file.write, 0
        try:
            for packet in bundle:
                if write(packet) is None:
                    break
                sent += 1
        except OSError as error:
            if error.errno not in _FULL and not sent:
                raise tun.refused(error, self._name) from None
        return sent

    def wake(self) -> None:
        self._closing.ring(for_ever=True)

    def stop(self) -> None:
        self._take_link_down()

    def dispose(self) -> None:
        self.readable.close()
        self.writable.close()
        self._closing.close()


class _Poll:
    """Readable, and returning from `wait`, when the TUN descriptor has an event or the doorbell rings."""

    def __init__(self, file: io.FileIO, event: int, closing: Doorbell) -> None:
        self._epoll = select.epoll(2)
        self._epoll.register(file, event)
        self._epoll.register(closing, select.EPOLLIN)

    def fileno(self) -> int:
        return self._epoll.fileno()

    def wait(self, timeout: float | None) -> None:
        self._epoll.poll(timeout, 1)

    def close(self) -> None:
        self._epoll.close()
