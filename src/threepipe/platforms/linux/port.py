"""The packet path on Linux: bundles read from and written to TUN descriptors. No control code.

With offload, every packet has a virtio header in front (IFF_VNET_HDR), and superpackets pass whole in
both directions; what is sent is coalesced. Without, there are whole packets only. The descriptors belong
to the device; this file owns only what is waited on: an epoll of them and of a doorbell that closing rings.
"""

import sys

assert sys.platform == "linux"

import errno
import io
import os
import select
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from threepipe.backend import Counts, Port
from threepipe.bundle import Arena, Bundle
from threepipe.core import fast
from threepipe.core.descriptor import FULL
from threepipe.core.pump import End, Loan
from threepipe.core.superpacket import plain_records
from threepipe.net.doorbell import Doorbell
from threepipe.net.notify import notify_readable
from threepipe.platforms.linux import tun

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

__all__ = ["LinuxPort", "Records"]


class Records(Protocol):
    """How records are read from and written to a descriptor, as `descriptor` says it."""

    def receive(self, file: io.FileIO, memory: memoryview, limit: int, /) -> list[memoryview]: ...

    def send(self, file: io.FileIO, records: Sequence[memoryview], /) -> tuple[int, int]: ...


class LinuxPort:
    """A session's traffic on the attached, non-blocking descriptors of an interface.

    It receives from all `queues`, a bundle from each in turn, and sends by `sender`. What offload the
    interface has says `offload`.
    """

    def __init__(
        self,
        queues: Sequence[io.FileIO],
        sender: io.FileIO,
        name: str,
        offload: tun.Offload,
        take_link_down: Callable[[], None],
        records: Records = fast,
    ) -> None:
        """`records`: for descriptors that have more in front of a packet than `pump` could read and write."""
        self._queues = list(queues)
        self._sender = sender
        self._name = name
        self._headed = offload is not tun.Offload.NONE
        self._coalescing = self._headed
        self._udp = offload is tun.Offload.TCP_AND_UDP
        self._take_link_down = take_link_down
        self._records = records
        self._arena = Arena()
        self._kept = Bundle()  # Packets of a superpacket of which fewer were asked for.
        self._bell = Doorbell()  # Rung while there are such packets, and for ever by closing.
        self.readable = _Poll(self._queues, select.EPOLLIN, self._bell)
        self.writable = _Poll([sender], select.EPOLLOUT, self._bell)

    def receive(self, limit: int) -> Bundle:
        if bundle := self._kept:
            self._keep(Bundle())
        else:
            records = self._read(limit)
            bundle = Bundle.of_records(records) if self._headed else Bundle.of_views(records)
        if limit == 1 and len(bundle) > 1:
            self._keep(bundle[1:])
            bundle = bundle[:1]
        return bundle

    def _read(self, limit: int) -> list[memoryview]:
        memory = self._arena.free()
        records: list[memoryview] = []
        for _ in self._queues:
            queue = self._queues[0]
            try:
                records = self._records.receive(queue, memory, limit)
            except OSError as error:
                raise tun.refused(error, self._name) from None
            if len(self._queues) > 1:
                self._queues.append(self._queues.pop(0))  # The next one's turn.
            if records:
                break
        self._arena.take(sum(map(len, records)))
        return records

    def _keep(self, bundle: Bundle) -> None:
        self._kept = bundle
        if bundle:
            self._bell.ring()
        else:
            self._bell.clear()

    def send(self, bundle: Bundle) -> Bundle:
        records = self._outgoing(bundle)
        written, error = self._records.send(self._sender, records)
        if error == errno.EINVAL and self._coalescing:
            self._coalescing = False  # A kernel that offers superpackets and refuses them: there are such.
            return self.send(self._rest(records[written:]))
        if error not in FULL and not written:
            raise self._failed(error)
        return self._rest(records[written:])

    def _outgoing(self, bundle: Bundle) -> Sequence[memoryview]:
        """The records to be written: with offload, bundles are coalesced, and what is whole stays whole."""
        if not self._headed:
            return list(bundle)
        if not self._coalescing:
            return plain_records(list(bundle))
        if (records := bundle.records) is None:
            return fast.coalesce(list(bundle), False, self._udp)
        return fast.coalesce(records, True, self._udp) if len(records) > 1 else records

    def _rest(self, records: Sequence[memoryview]) -> Bundle:
        """A bundle of records that were not written."""
        return Bundle.of_records(records) if self._headed else Bundle.of_views(records)

    def pump(self, other: Port, counts: tuple[Counts, Counts], other_counts: tuple[Counts, Counts]) -> bool:
        pumped = False
        if self._records is fast:
            end = End(self._queues, self._sender, *counts, self._coalescing)
            loan = Loan(end, self, self._bell, self._headed, self._udp, self._failed)
            pumped = other.join(loan, other_counts)
            self._coalescing = end.coalescing
        self._calm()
        return pumped

    def join(self, loan: Loan, counts: tuple[Counts, Counts]) -> bool:
        if self._records is not fast or loan.headed != self._headed:
            self._calm()
            return False
        end = End(self._queues, self._sender, *counts, self._coalescing)
        error, failed = fast.pump(loan.end, end, (loan.bell, self._bell), self._headed, self._udp)
        self._coalescing = end.coalescing
        if failed is not None:
            raise (self._failed if failed is end else loan.failed)(error)
        self._calm()
        return True

    def _failed(self, error: int) -> Exception:
        return tun.refused(OSError(error, os.strerror(error)), self._name)

    def _calm(self) -> None:
        """After an interruption; if it was closing, the bell stays as it is."""
        if not self._kept:
            self._bell.clear()

    def interrupt(self) -> None:
        self._bell.ring()

    def wake(self) -> None:
        self._bell.ring(for_ever=True)

    def stop(self) -> None:
        self._take_link_down()

    def dispose(self) -> None:
        self.readable.close()
        self.writable.close()
        self._bell.close()


class _Poll:
    """Readable, and returning from `wait`, when a TUN descriptor has an event or the doorbell rings."""

    def __init__(self, files: Sequence[io.FileIO], event: int, bell: Doorbell) -> None:
        self._epoll = select.epoll(1 + len(files))
        self._epoll.register(bell, select.EPOLLIN)
        for file in files:
            self._epoll.register(file, event)

    def fileno(self) -> int:
        return self._epoll.fileno()

    def wait(self, timeout: float | None) -> None:
        self._epoll.poll(timeout, 1)

    def notify(self, loop: "AbstractEventLoop", callback: Callable[[], None]) -> Callable[[], None]:
        return notify_readable(self.fileno(), loop, callback)

    def close(self) -> None:
        self._epoll.close()
