"""The packet path on Linux: bundles read from and written to TUN descriptors. No control code.

With offload, every packet has a virtio header (IFF_VNET_HDR), superpackets pass whole in both directions, and packets
to be sent are coalesced. Without offload, there are single packets only. The device owns the descriptors; this module
owns what sessions wait on: an epoll of the descriptors and of a doorbell, which closing rings.
"""

import sys

assert sys.platform == "linux"

import errno
import io
import os
import select
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol, TypeVar

from threepipe.bundle import Arena, Bundle
from threepipe.core import fast
from threepipe.core.descriptor import FULL, MAX_BUNDLE
from threepipe.core.ends import End, TunEnd
from threepipe.core.packet import MAX_PACKET
from threepipe.core.superpacket import PLAIN_HEADER, plain_records
from threepipe.core.tunnel import FILLER
from threepipe.net.doorbell import Doorbell
from threepipe.net.notify import notify_readable
from threepipe.platforms.linux import tun
from threepipe.platforms.linux.splitting import Splitting

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

__all__ = ["LinuxPort", "Records"]


Received = TypeVar("Received", bytes, memoryview)


class Records(Protocol):
    """Functions that read records from a descriptor and write them to it, as those of `core.descriptor`."""

    def receive(self, file: io.FileIO, memory: memoryview, limit: int, /) -> list[memoryview]: ...

    def send(self, file: io.FileIO, records: Sequence[memoryview], /) -> tuple[int, int]: ...


class LinuxPort:
    """The traffic of a session, on the attached, non-blocking descriptors of an interface.

    It receives from all `queues`, a bundle from each in turn, and sends to `sender`.
    """

    def __init__(
        self,
        queues: Sequence[io.FileIO],
        sender: io.FileIO,
        name: str,
        offload: tun.Offload,
        take_link_down: Callable[[], None],
        records: Records = fast,
        switch: Callable[[bool], None] | None = None,
    ) -> None:
        """`offload` is that of the interface. `records` replaces `fast` for descriptors with more before a packet.

        `switch` lets the kernel hand over superpackets, or not, if the port may choose.
        """
        self._queues = list(queues)
        self._name = name
        self._take_link_down = take_link_down
        self._records = records
        self._arena = Arena()
        self._splitting = Splitting(switch) if switch and offload is not tun.Offload.NONE and not fast.NATIVE else None
        self._end = TunEnd(
            self._queues,
            sender,
            self._failure,
            vnet_header=offload is not tun.Offload.NONE,
            wide=offload.wide,
            udp=offload.udp,
        )
        self.sender = fast.PacketSender(sender, self._end.vnet_header, self._end.wide) if records is fast else None
        self._bell = Doorbell()  # Rung by closing.
        self.readable = _Poll(self._queues, select.EPOLLIN, self._bell)
        self.writable = _Poll([sender], select.EPOLLOUT, self._bell)

    def receive(self) -> Bundle:
        """Return the packets of the first queue that has any, beginning with the queue whose turn it is."""
        memory = self._arena.free()
        if self._end.wide:
            records = self._first_of_queues(lambda queue: fast.receive(queue, memory, MAX_BUNDLE, True))
            # The runs of a tunnel superpacket are longer than that.
            self._arena.take(sum(map(len, records)) + len(FILLER) * len(records))
        else:
            records = self._first_of_queues(lambda queue: self._records.receive(queue, memory, MAX_BUNDLE))
            self._arena.take(sum(map(len, records)))
        if self._splitting is not None and records:
            self._splitting.handed_out()
            return Bundle.of_records(records, self._splitting.looked)
        return self._bundle(records)

    def receive_packets(self) -> list[bytes]:
        """Return copies of the packets that `receive` would return."""
        if self._records is not fast:
            return self.receive().copies()
        memory, form = self._arena.free(), (self._end.vnet_header, self._end.wide)
        packets = self._first_of_queues(lambda queue: fast.receive_packets(queue, memory, MAX_BUNDLE, *form))
        if self._splitting is not None and packets:
            self._splitting.looked()
        return packets

    def receive_once(self) -> Sequence[bytes]:
        """Return the packet of one read; nothing if records have headers, as superpackets are to stay whole."""
        if self._end.vnet_header or self._records is not fast or len(self._queues) > 1:
            return ()
        try:
            packet = self._queues[0].read(MAX_PACKET)
        except OSError:
            return ()  # The next read fails, too.
        return (packet,) if packet else ()

    def _first_of_queues(self, receive: Callable[[io.FileIO], list[Received]]) -> list[Received]:
        received: list[Received] = []
        for _ in self._queues:
            queue = self._queues[0]
            try:
                received = receive(queue)
            except OSError as error:
                raise self._failure(error.errno or 0) from None
            if len(self._queues) > 1:
                self._queues.append(self._queues.pop(0))  # It is the next queue's turn.
            if received:
                break
        return received

    def send(self, bundle: Bundle) -> Bundle:
        """Write a bundle: coalesce packets if the interface takes superpackets, which stay whole."""
        end = self._end
        rest, written, error = self._write_records(bundle)
        accepted = written > 0
        if error == errno.EINVAL and end.coalescing:
            end.coalescing = False  # Some kernels offer superpackets and refuse them.
            rest, written, error = self._write_records(self._bundle(rest))
            accepted = accepted or written > 0
        if error not in FULL and not accepted:
            raise self._end.failure(error)
        return self._bundle(rest)

    def _write_records(self, bundle: Bundle) -> tuple[Sequence[memoryview], int, int]:
        """Write a bundle, and return the records that were not written, how many were, and 0 or an errno."""
        end, records = self._end, self._outgoing(bundle)
        if records is None:
            pieces = bundle.buffers if bundle.records is None else bundle.records
            return fast.send_coalesced(end.target, pieces, bundle.records is not None, end.udp, end.wide)
        written, error = self._send_records(records)
        return records[written:], written, error

    def _send_records(self, records: Sequence[memoryview]) -> tuple[int, int]:
        """Write records, and return how many were written, and 0 or an errno."""
        if self._end.wide:
            return fast.send(self._end.target, records, True)
        return self._records.send(self._end.target, records)

    def send_packet(self, packet: bytes) -> bool:
        """Write one packet as it is."""
        record = PLAIN_HEADER + packet if self._end.vnet_header else packet
        written, error = self._send_records([memoryview(record)])
        if error not in FULL:
            raise self._end.failure(error)
        return written > 0

    def _outgoing(self, bundle: Bundle) -> Sequence[memoryview] | None:
        """Return the records to write; None if `fast.send_coalesced` is to make them of the bundle's."""
        end, records = self._end, bundle.records
        if not end.vnet_header:
            return list(bundle)
        # What Python's splitting cost is not to be paid again.
        if not end.coalescing or bundle.looked_at:
            return bundle.plain or plain_records(list(bundle))
        if records is not None and len(records) <= 1:
            return records
        if self._records is fast:
            return None
        return fast.coalesce(list(bundle) if records is None else records, records is not None, end.udp)

    def _bundle(self, records: Sequence[memoryview]) -> Bundle:
        return Bundle.of_records(records) if self._end.vnet_header else Bundle.of_views(records)

    def lend(self) -> End | None:
        """Lend the descriptors, unless the native loop could not read their records."""
        if self._splitting is not None:
            self._splitting.begin()
        return self._end if self._records is fast else None

    def wake(self) -> None:
        """Wake every waiter, now and later."""
        self._bell.ring(for_ever=True)

    def stop(self) -> None:
        """Take the link down."""
        if self.sender is not None:
            self.sender.stop()
        if self._splitting is not None:
            self._splitting.begin()
        self._take_link_down()

    def dispose(self) -> None:
        """Close the epolls and the doorbell; the device closes the descriptors."""
        self.readable.close()
        self.writable.close()
        self._bell.close()

    def _failure(self, error: int) -> Exception:
        # The interface may have another name now.
        return tun.refused(OSError(error, os.strerror(error)), tun.name_of(self._end.target) or self._name)


class _Poll:
    """An epoll that is ready when a TUN descriptor has an event, the doorbell is set, or it is held."""

    def __init__(self, files: Sequence[io.FileIO], event: int, bell: Doorbell) -> None:
        self._epoll = select.epoll(1 + len(files))
        self._epoll.register(bell, select.EPOLLIN)
        self._bell = bell
        self._held = False
        for file in files:
            self._epoll.register(file, event)

    def fileno(self) -> int:
        return self._epoll.fileno()

    def wait(self, timeout: float | None) -> None:
        self._epoll.poll(timeout, 1)

    def notify(self, loop: "AbstractEventLoop", callback: Callable[[], None]) -> Callable[[], None]:
        return notify_readable(self.fileno(), loop, callback)

    def hold(self, held: bool) -> None:
        if held != self._held:
            self._held = held
            # The bell's descriptor can be written at any time, so waiting for that makes the epoll ready.
            self._epoll.modify(self._bell, select.EPOLLIN | (select.EPOLLOUT if held else 0))

    def close(self) -> None:
        self._epoll.close()
