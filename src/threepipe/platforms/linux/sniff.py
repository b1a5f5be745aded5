"""Capturing an interface on Linux with a packet socket (packet(7)), which takes no packets from other programs.

With PACKET_VNET_HDR every packet has a virtio header, as on a TUN descriptor: superpackets are split and partial
checksums completed, as on a link. The constants are those of <linux/if_packet.h>, <linux/if_arp.h>,
<linux/if_ether.h> and <asm-generic/socket.h>.
"""

import sys

assert sys.platform == "linux"

import errno
import selectors
import socket
import struct
import time
from collections.abc import Iterator

from threepipe.backend import INBOUND, OUTBOUND, CapturedBundle
from threepipe.bundle import Arena
from threepipe.core.fast import split
from threepipe.core.packet import is_packet
from threepipe.core.superpacket import HEADER_SIZE, MAX_RECORD
from threepipe.errors import AdapterError, AdapterGone, AdapterNotFound, PermissionDenied
from threepipe.net.doorbell import Doorbell
from threepipe.platforms.linux.namespace import Namespace
from threepipe.platforms.linux.privilege import become
from threepipe.settings import NamespaceName

__all__ = ["LinuxCapture", "open_capture"]

SOL_PACKET = 263
PACKET_STATISTICS = 6
PACKET_VNET_HDR = 15
PACKET_OUTGOING = 4
ETH_P_ALL = 3
ARPHRD_NONE = 0xFFFE
SO_RCVBUFFORCE = 33
SO_TIMESTAMPNS = 35

_BUFFER = 1 << 25  # Bytes that can wait in the kernel, which cannot be made to wait for us.
_MOST = 64  # Records that are read before they are passed on.
_STATISTICS = struct.Struct("II")
_TIME = struct.Struct("ll")
_ANCILLARY = socket.CMSG_SPACE(_TIME.size)
_INTERFACE, _KIND, _HARDWARE = 0, 2, 3  # Indices in the address of a packet socket.


def open_capture(name: str, netns: NamespaceName | None) -> "LinuxCapture":
    """Capture the layer-3 interface `name`, even if other programs have it open.

    Raises `AdapterNotFound`, `PermissionDenied` or `NamespaceNotFound`.
    """
    namespace = Namespace.find(netns)
    try:
        return LinuxCapture(name, namespace.run(lambda: _bound(name)))
    finally:
        namespace.close()


def _bound(name: str) -> socket.socket:
    try:
        # With protocol 0, as until it is bound it would get the packets of all interfaces.
        sniffing = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
    except PermissionError as error:
        raise PermissionDenied(error.errno, f"capturing {name} needs CAP_NET_RAW; {become('CAP_NET_RAW')}") from None
    try:
        sniffing.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
        sniffing.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        try:
            sniffing.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, _BUFFER)
        except PermissionError:  # In a user namespace.
            sniffing.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        sniffing.bind((name, ETH_P_ALL))
        if sniffing.getsockname()[_HARDWARE] != ARPHRD_NONE:
            raise AdapterNotFound(errno.EINVAL, f"{name} is not a layer-3 interface; capture it with tcpdump")
    except AdapterError:
        sniffing.close()
        raise
    except OSError as error:
        sniffing.close()
        if error.errno == errno.ENODEV:
            raise AdapterNotFound(
                error.errno, f"there is no adapter {name}; threepipe adapter list shows all adapters"
            ) from None
        raise AdapterError(error.errno, f"capturing {name}: {error.strerror}") from None
    return sniffing


class LinuxCapture:
    """The packets of an interface from now on; a `threepipe.backend.Source`."""

    def __init__(self, name: str, sniffing: socket.socket) -> None:
        self.name = name
        self._socket = sniffing
        self._arena = Arena()
        self._bell = Doorbell()
        self._stopped: int | None = None  # Nanoseconds since 1970.
        self._dropped = 0

    @property
    def dropped(self) -> int:
        """Packets that the capture missed; a superpacket counts as one."""
        self._count_dropped()
        return self._dropped

    def _count_dropped(self) -> None:
        if self._socket.fileno() >= 0:
            data = self._socket.getsockopt(SOL_PACKET, PACKET_STATISTICS, _STATISTICS.size)
            self._dropped += _STATISTICS.unpack(data)[1]  # The kernel counts from the previous call.

    def __iter__(self) -> Iterator[list[CapturedBundle]]:
        """Yield packets as they come, even after the link was down for a while. Raises `AdapterGone`."""
        with selectors.DefaultSelector() as selector:
            for file in (self._socket, self._bell):
                selector.register(file, selectors.EVENT_READ)
            while self._stopped is None:
                selector.select()
                if seen := self._read():
                    yield seen
        # Packets that waited in the kernel at the stop; a busy link always has later ones.
        while (seen := self._read()) and seen[0].time_ns < self._stopped:
            yield seen

    def _read(self) -> list[CapturedBundle]:
        found: list[CapturedBundle] = []
        while len(found) < _MOST:
            memory = self._arena.free()
            if found and len(memory) < 2 * MAX_RECORD:
                break  # Replacing the arena for one more read would cost more.
            try:
                size, ancillary, flags, address = self._socket.recvmsg_into([memory[:MAX_RECORD]], _ANCILLARY)
            except BlockingIOError:
                break
            except OSError as error:
                self._check_there(error)
                continue
            self._arena.take(size)
            packets = _packets(memory[:size]) if not flags & socket.MSG_TRUNC else []
            if not packets:
                self._dropped += 1
                continue
            direction = OUTBOUND if address[_KIND] == PACKET_OUTGOING else INBOUND
            found.append(CapturedBundle(direction, packets, _time(ancillary)))
        return found

    def _check_there(self, error: OSError) -> None:
        """Raise an error unless the interface is only down; the kernel reports once that it went down or vanished."""
        if error.errno != errno.ENETDOWN:
            raise AdapterError(error.errno, f"capturing {self.name}: {error.strerror}") from None
        if not self._socket.getsockname()[_INTERFACE]:
            raise AdapterGone(errno.ENODEV, f"{self.name} was removed by another program; create it again") from None

    def stop(self) -> None:
        self._stopped = time.time_ns()
        self._bell.ring(for_ever=True)

    def close(self) -> None:
        self._count_dropped()
        self._socket.close()
        self._bell.close()


def _packets(record: memoryview) -> list[memoryview]:
    """Return the packets of a record; if its header contradicts its content, the content as one packet."""
    if len(record) < HEADER_SIZE:
        return []
    return [packet for packet in split([record]) or [record[HEADER_SIZE:]] if is_packet(packet)]


def _time(ancillary: list[tuple[int, int, bytes]]) -> int:
    """Return when the kernel saw the packet, in nanoseconds since 1970."""
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == SO_TIMESTAMPNS and len(data) == _TIME.size:
            seconds, nanoseconds = _TIME.unpack(data)
            return int(seconds) * 1_000_000_000 + int(nanoseconds)
    return time.time_ns()
