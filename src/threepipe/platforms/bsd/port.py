"""The packet path on macOS and the BSDs: packets read from a TUN descriptor and written to it, one call a packet.

A header of four bytes with the address family, big-endian, is before each packet. It is scattered and gathered, so that
no packet is copied for it. No control code: the device owns the descriptor and the interface.
"""

import errno
import os
import selectors
import struct
from collections.abc import Callable
from typing import NamedTuple

from threepipe.bundle import EMPTY, Arena, Bundle
from threepipe.core.descriptor import FULL, MAX_BUNDLE
from threepipe.core.ends import End
from threepipe.core.packet import MAX_PACKET, Packet
from threepipe.errors import AdapterError, AdapterGone, LinkDown
from threepipe.platforms.bsd.changes import Changes
from threepipe.platforms.bsd.kind import AF_INET, Kind
from threepipe.platforms.bsd.system import System

__all__ = ["FAMILY_SIZE", "NOTHING", "NO_ROOM", "Attachment", "BsdPort", "discard", "ended"]

FAMILY_SIZE = 4

NOTHING = frozenset({errno.EAGAIN, errno.EHOSTDOWN})
"""Errors of reading that mean: nothing now. EHOSTDOWN: the interface has had no address or was not up yet."""
NO_ROOM = FULL | {errno.EAGAIN}
_GONE = frozenset({errno.ENXIO, errno.EIO, errno.EBADF, errno.ENODEV, errno.ENOTCONN})
_UNWANTED = frozenset({errno.EAFNOSUPPORT, errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES, errno.EPERM})
"""Errors of writing that mean one packet: of a family that the kernel lacks, or blocked by its packet filter, whose
answer NetBSD's driver passes on."""
_DOWN = frozenset({errno.EHOSTDOWN, errno.ENETDOWN})


class Attachment(NamedTuple):
    """An open interface, as its device gives it to a port."""

    system: System
    kind: Kind
    descriptor: int
    """The descriptor of the packets, which does not block."""
    name: str
    get_mtu: Callable[[], int]
    """Return the MTU of the interface. Raises `AdapterGone`."""
    take_link_down: Callable[[], None]


class BsdPort:
    """The traffic of a session."""

    def __init__(self, attachment: Attachment) -> None:
        """Watch the descriptor. Raises `AdapterGone` if the interface was removed."""
        system, kind, descriptor, self._name, self._get_mtu, self._take_link_down = attachment
        self._system = system
        self._descriptor = descriptor
        self._mtu = self._get_mtu()
        self.refused = 0
        """Packets that the system refused for themselves; only the thread that sends counts them."""
        self.crowded = 0
        """Packets that found no room, each time that they were tried."""
        self.cut = 0
        """Packets for the program that were cut and lost; only the thread that receives counts them."""
        self.sent_packets = self.sent_bytes = 0
        """Counts of packets that the system took."""
        self._arena = Arena()
        self._header = bytearray(FAMILY_SIZE)
        self._headers = {4: struct.pack("!I", AF_INET), 6: struct.pack("!I", kind.inet6)}
        self.readable = system.watch()
        self.writable = system.watch()
        self._changes = None if kind.tells_of_removal else Changes(system, kind)
        if self._changes is not None:
            self.readable.watch(self._changes, selectors.EVENT_READ)
        self.readable.watch(_Descriptor(descriptor), selectors.EVENT_READ)
        self.writable.watch(_Descriptor(descriptor), selectors.EVENT_WRITE)

    def receive(self) -> Bundle:
        """Return the packets that are ready."""
        readv, descriptor, header = self._system.readv, self._descriptor, self._header
        memory = self._arena.free()
        packets: list[memoryview] = []
        used, last = 0, len(memory) - MAX_PACKET
        try:
            while used <= last and len(packets) < MAX_BUNDLE:
                size = readv(descriptor, (header, memory[used:]))
                if size > FAMILY_SIZE:
                    packets.append(memory[used : used + size - FAMILY_SIZE])
                    used += size - FAMILY_SIZE
                elif not size:
                    raise ended()
        except OSError as error:
            if not packets and error.errno not in NOTHING:
                raise self._failure(error) from None
        if not packets and self._changes is not None and self._changes.happened():
            self._get_mtu()  # Another program may have removed the interface.
        self._arena.take(used)
        return Bundle.of_views(packets)

    def send(self, bundle: Bundle) -> Bundle:
        """Write packets until the system has no room. Drop and count those that the system refuses for themselves."""
        writev, descriptor, headers = self._system.writev, self._descriptor, self._headers
        taken = size = 0
        try:
            for done, packet in enumerate(bundle.buffers):
                try:
                    # While the interface is down, FreeBSD returns 0 and takes nothing.
                    if not writev(descriptor, (headers[packet[0] >> 4], packet)):
                        raise OSError(errno.EHOSTDOWN, os.strerror(errno.EHOSTDOWN))
                except OSError as error:
                    if self._is_unwanted(error, packet):
                        self.refused += 1
                        continue
                    self.crowded += error.errno == errno.ENOBUFS
                    if done or error.errno in NO_ROOM:
                        return bundle[done:] if done else bundle
                    raise self._failure(error) from None
                taken, size = taken + 1, size + len(packet)
        finally:
            self.sent_packets += taken
            self.sent_bytes += size
        return EMPTY

    def _is_unwanted(self, error: OSError, packet: Packet) -> bool:
        """Return True if others may pass. NetBSD says EIO of a packet that is too long, others of a lost interface."""
        if error.errno in _UNWANTED:
            return True
        if error.errno == errno.EIO and len(packet) <= self._mtu:
            try:
                self._mtu = self._get_mtu()  # An administrator may have changed it.
            except AdapterError:
                return False
        return error.errno == errno.EMSGSIZE or (error.errno == errno.EIO and len(packet) > self._mtu)

    def expect(self, mtu: int) -> None:
        """Be ready for packets of up to `mtu` bytes, which the interface is going to have."""
        self._mtu = max(mtu, self._mtu)

    def lend(self) -> End | None:
        """Lend nothing: the native loop does not know the header."""
        return None

    def wake(self) -> None:
        """Wake every waiter, now and later."""
        self.readable.ring(for_ever=True)
        self.writable.ring(for_ever=True)

    def stop(self) -> None:
        """Take the link down."""
        self._take_link_down()

    def dispose(self) -> None:
        """Close the objects that sessions wait for; the device closes the descriptor."""
        self.readable.close()
        self.writable.close()
        if self._changes is not None:
            self._changes.close()

    def _failure(self, error: OSError) -> AdapterError:
        code = error.errno or 0
        if code in _GONE:
            return AdapterGone(code, f"{self._name} was removed by another program; create or open it again")
        if code in _DOWN:
            return LinkDown(code, f"{self._name} was set down; as root: ifconfig {self._name} up")
        return AdapterError(code, f"{self._name}: {error.strerror}")


def ended() -> OSError:
    """Return the error that stands for the end of a file: the interface is gone, and no packet will come."""
    return OSError(errno.ENXIO, os.strerror(errno.ENXIO))


class _Descriptor:
    """A descriptor for `Watch`."""

    def __init__(self, number: int) -> None:
        self._number = number

    def fileno(self) -> int:
        return self._number


def discard(system: System, descriptor: int) -> None:
    """Discard the packets that wait for the program, of an interface that is down."""
    rest = bytearray(FAMILY_SIZE)
    try:
        while system.readv(descriptor, (rest,)):
            pass  # A short read loses the rest of the packet.
    except OSError as error:
        if error.errno not in NOTHING:
            raise
