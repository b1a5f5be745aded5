"""A model of XNU's utun: a socket of PF_SYSTEM whose connection is the interface."""

import errno
import struct
from collections.abc import Sequence

from tests.support.bsd.kernel import Kernel, Tun, fail
from threepipe.platforms.bsd import darwin
from threepipe.platforms.bsd.kind import iowr

__all__ = ["DarwinKernel"]

AF_SYSTEM, SYSPROTO_CONTROL = 32, 2
SOL_SOCKET, SO_RCVBUF = 0xFFFF, 0x1002
UTUN_OPT_IFNAME, UTUN_OPT_MAX_PENDING_PACKETS = 2, 16
CTLIOCGINFO = iowr("N", 3, 100)
NUMBER = 7
"""The control's number."""
LONGEST = 69_000
"""Bytes of a write that still fit into the socket's buffer; 70,000 do not."""
INET, INET6 = struct.pack("!I", 2), struct.pack("!I", 30)


class DarwinTun(Tun):
    """A socket of utun, connected or not."""

    buffer = 512 << 10
    """Bytes of packets that the socket keeps for the program."""

    def ioctl(self, request: int, argument: bytes) -> bytes:
        if request == CTLIOCGINFO:
            if argument[4:].rstrip(b"\0") != b"com.apple.net.utun_control":
                raise fail(errno.ENOENT)
            return struct.pack("I", NUMBER) + argument[4:]
        return super().ioctl(request, argument)

    def read(self) -> bytes:
        packet = self.take()
        return (INET if packet[0] >> 4 == 4 else INET6) + packet

    def write(self, record: bytes) -> int:
        if self.interface is None:
            raise fail(errno.ENOTCONN)
        if len(record) > LONGEST:
            raise fail(errno.EMSGSIZE)
        if len(record) > 4 and record[:4] in (INET, INET6):  # Others are taken, and dropped silently.
            self.arrive(record[4:])
            # It is counted with its header when it is taken, and without it on its way to IP.
            self.interface.counts["ipackets"] += 1
            self.interface.counts["ibytes"] += len(record)
        return len(record)

    def last_close(self) -> None:
        if self.interface is not None:
            self.kernel.unmake(self.interface)


class DarwinKernel(Kernel):
    """XNU."""

    kind = darwin.KIND
    tun_type = 1  # IFT_OTHER
    max_buffer = 8 << 20
    """kern.ipc.maxsockbuf"""

    def socket(self, family: int, kind: int, protocol: int) -> int:
        if family != AF_SYSTEM:
            return super().socket(family, kind, protocol)
        assert protocol == SYSPROTO_CONTROL
        tun = DarwinTun(self, None)
        return self._add(tun, tun.bell.fileno())

    def connect_control(self, descriptor: int, number: int, unit: int) -> None:
        with self.lock:
            assert number == NUMBER
            tun = self.files[descriptor]
            assert isinstance(tun, DarwinTun)
            self._need_root()
            if unit == 0:
                unit = next(free for free in range(1, 256) if f"utun{free - 1}" not in self.interfaces)
            if f"utun{unit - 1}" in self.interfaces:
                raise fail(errno.EBUSY)
            interface = self.make(f"utun{unit - 1}")
            interface.tun, tun.interface = tun, interface
            interface.limit = 1

    def set_option(self, descriptor: int, level: int, option: int, value: bytes) -> None:
        tun = self.files[descriptor]
        assert isinstance(tun, DarwinTun)
        assert tun.interface is not None
        if (level, option) == (SOL_SOCKET, SO_RCVBUF):
            (size,) = struct.unpack("i", value)
            if size > self.max_buffer:
                raise fail(errno.ENOBUFS)
            tun.buffer = size
            return
        assert (level, option) == (SYSPROTO_CONTROL, UTUN_OPT_MAX_PENDING_PACKETS)
        (tun.interface.limit,) = struct.unpack("i", value)

    def get_option(self, descriptor: int, level: int, option: int, size: int) -> bytes:
        tun = self.files[descriptor]
        assert isinstance(tun, Tun)
        assert tun.interface is not None
        assert (level, option) == (SYSPROTO_CONTROL, UTUN_OPT_IFNAME)
        return tun.interface.name.encode() + b"\0"

    def deliver(self, name: str, packets: Sequence[bytes]) -> int:
        """Have packets that do not fit into the socket's buffer vanish: utun counts them among its errors."""
        taken = 0
        with self.lock:
            for packet in packets:
                interface = self.interfaces[name]
                assert isinstance(interface.tun, DarwinTun)
                waiting = sum(len(each) + len(INET) for each in interface.queue)
                if len(interface.queue) < interface.limit and waiting + len(packet) + len(INET) > interface.tun.buffer:
                    taken += 1
                else:
                    taken += super().deliver(name, [packet])
        return taken
