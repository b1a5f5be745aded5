"""A stand-in for python-pytun 2.4: `from threepipe.compat.pytun import TunTapDevice, IFF_NO_PI`. Linux only.

Each call reads or writes one packet on the descriptor of the device, as there. docs/handing-over.md has the
differences.
"""

import errno
import io
import select
from typing import Any

from threepipe.compat.device import FLAGS, NODE, Device
from threepipe.core.ends import TunEnd
from threepipe.core.packet import Packet, is_packet
from threepipe.platforms import PACKET_INFORMATION
from threepipe.session import Session

__all__ = [
    "IFF_MULTI_QUEUE",
    "IFF_NO_PI",
    "IFF_ONE_QUEUE",
    "IFF_TAP",
    "IFF_TUN",
    "IFF_TUN_EXCL",
    "IFF_VNET_HDR",
    "Error",
    "TunTapDevice",
]

IFF_TUN = FLAGS["IFF_TUN"]
IFF_TAP = FLAGS["IFF_TAP"]
IFF_MULTI_QUEUE = FLAGS["IFF_MULTI_QUEUE"]
IFF_NO_PI = FLAGS["IFF_NO_PI"]
IFF_ONE_QUEUE = FLAGS["IFF_ONE_QUEUE"]
IFF_VNET_HDR = FLAGS["IFF_VNET_HDR"]
IFF_TUN_EXCL = FLAGS["IFF_TUN_EXCL"]

_SIZE = 4


class Error(OSError):
    """The error of every method."""


class TunTapDevice(Device):
    """A TUN device; with packet information before each packet unless `flags` has IFF_NO_PI."""

    Error = Error
    version = 4
    prefix = 32

    def __init__(self, name: str = "", flags: int = IFF_TUN, dev: str = NODE) -> None:
        super().__init__(name, flags, dev, offload=False)
        self._front = 0 if flags & IFF_NO_PI else _SIZE
        self._file: io.FileIO | None = None

    def read(self, size: int) -> bytes:
        """Wait for a packet and return its first `size` bytes, which count the packet information."""
        if size <= self._front:
            raise ValueError(f"size must be greater than {self._front}")
        while True:
            session = self._open_session()
            with self._errors():
                if packet := self._open_file().read(size - self._front):
                    return PACKET_INFORMATION[packet[0] >> 4] + packet if self._front else packet
                select.select([session.fileno()], [], [])

    def write(self, data: Packet) -> int:
        """Write a packet, behind packet information unless the device has none, and return the size of `data`."""
        self._open_session()
        packet = memoryview(data)[self._front :]
        if not is_packet(packet):
            raise self.Error(errno.EINVAL, "the data is not an IP packet, behind 4 bytes unless flags has IFF_NO_PI")
        with self._errors():
            while not self._open_file().write(packet):
                select.select([], [self._open_file()], [])
        return len(data)

    def fileno(self) -> int:
        """Return the descriptor, to wait until it can be read or written; reading it gives bare packets."""
        self._open_session()
        return self._open_file().fileno()

    def _started(self, session: Session) -> None:
        end: Any = session._port.lend()
        assert isinstance(end, TunEnd)
        self._file = end.target

    def _open_file(self) -> io.FileIO:
        assert self._file is not None
        return self._file
