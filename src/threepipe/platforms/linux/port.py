"""The packet path on Linux: bundles read from and written to a TUN descriptor. No control code.

With offload, every packet has a virtio header in front (IFF_VNET_HDR), and superpackets pass whole in
both directions; without, there are whole packets only. The descriptor belongs to the device; this file
owns only what is waited on: an epoll of the descriptor and of a doorbell that closing rings.
"""

import sys

assert sys.platform == "linux"

import errno
import io
import os
import select
from collections.abc import Callable, Iterable

from threepipe.bundle import Arena, Bundle
from threepipe.doorbell import Doorbell
from threepipe.offload import MAX_RECORD, PLAIN_HEADER, measure
from threepipe.platforms.linux import tun

__all__ = ["LinuxPort"]

_FULL = frozenset({errno.ENOBUFS, errno.ENOMEM})


class LinuxPort:
    """A session's traffic on an attached, non-blocking TUN descriptor."""

    def __init__(self, file: io.FileIO, name: str, offload: bool, take_link_down: Callable[[], None]) -> None:
        self._file = file
        self._name = name
        self._offload = self._whole = offload
        self._header = PLAIN_HEADER if offload else b""
        self._take_link_down = take_link_down
        self._arena = Arena()
        self._kept = Bundle()  # Packets of a superpacket of which fewer were asked for.
        self._bell = Doorbell()  # Rung while there are such packets, and for ever by closing.
        self.readable = _Poll(file, select.EPOLLIN, self._bell)
        self.writable = _Poll(file, select.EPOLLOUT, self._bell)

    def receive(self, limit: int) -> Bundle:
        if bundle := self._kept:
            self._keep(Bundle())
        else:
            records = self._read(limit)
            bundle = Bundle.of_records(records) if self._offload else Bundle.of_views(records)
        if limit == 1 and len(bundle) > 1:
            self._keep(bundle[1:])
            bundle = bundle[:1]
        return bundle

    def _read(self, limit: int) -> list[memoryview]:
        """Up to `limit` records, end to end in the arena."""
        memory = self._arena.free()
        readinto, used = self._file.readinto, 0
        records: list[memoryview] = []
        last = len(memory) - MAX_RECORD
        try:
            while used <= last and len(records) < limit:
                # None where nothing is ready: no exception to pay for at the end of every bundle.
                if not (size := readinto(memory[used:])):
                    break
                records.append(memory[used : used + size])
                used += size
        except OSError as error:
            if not records:
                raise tun.refused(error, self._name) from None
        self._arena.take(used)
        return records

    def _keep(self, bundle: Bundle) -> None:
        self._kept = bundle
        if bundle:
            self._bell.ring()
        else:
            self._bell.clear()

    def send(self, bundle: Bundle) -> int:
        records = bundle.records if self._whole else None
        if records is None:
            sent, error = self._write(bundle, self._header)
        else:
            written, error = self._write(records, b"")
            sent = len(bundle) if written == len(records) else measure(records[:written]).packets
            if error is not None and error.errno == errno.EINVAL:
                self._whole = False  # A kernel that offers superpackets and refuses them: there are such.
                return sent + self.send(bundle[sent:])
        if error is not None and error.errno not in _FULL and not sent:
            raise tun.refused(error, self._name) from None
        return sent

    def _write(self, packets: Iterable[memoryview], header: bytes) -> tuple[int, OSError | None]:
        """Write each with `header` in front until there is no room; how many were, and what else stopped it."""
        written = 0
        try:
            for packet in packets:
                if header:
                    os.writev(self._file.fileno(), (header, packet))
                elif self._file.write(packet) is None:
                    break
                written += 1
        except BlockingIOError:
            pass  # How writev() says that there is no room.
        except OSError as error:
            return written, error
        return written, None

    def wake(self) -> None:
        self._bell.ring(for_ever=True)

    def stop(self) -> None:
        self._take_link_down()

    def dispose(self) -> None:
        self.readable.close()
        self.writable.close()
        self._bell.close()


class _Poll:
    """Readable, and returning from `wait`, when the TUN descriptor has an event or the doorbell rings."""

    def __init__(self, file: io.FileIO, event: int, bell: Doorbell) -> None:
        self._epoll = select.epoll(2)
        self._epoll.register(file, event)
        self._epoll.register(bell, select.EPOLLIN)

    def fileno(self) -> int:
        return self._epoll.fileno()

    def wait(self, timeout: float | None) -> None:
        self._epoll.poll(timeout, 1)

    def close(self) -> None:
        self._epoll.close()
