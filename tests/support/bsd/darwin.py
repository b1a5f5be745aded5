"""A model of XNU's utun: a socket of PF_SYSTEM whose connection is the interface.

recvmsg_x and sendmsg_x act as in XNU's sources (bsd/kern/uipc_syscalls.c, releases 3248 to 11417).
"""

import errno
import struct
from collections.abc import Callable, Sequence

from tests.support.bsd.interfaces import Tun, fail
from tests.support.bsd.kernel import Kernel
from threepipe.platforms.bsd import darwin
from threepipe.platforms.bsd.datagrams import MAX_DATAGRAMS
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


class DarwinDatagrams:
    """recvmsg_x and sendmsg_x."""

    def __init__(self, kernel: "DarwinKernel") -> None:
        self._kernel = kernel

    def receive(self, descriptor: int, memory: memoryview, size: int) -> list[int]:
        parts = [memory[at : at + size] for at in range(0, len(memory) - size + 1, size)]
        lengths: list[int] = []

        def receive(number: int) -> None:
            lengths.append(self._kernel.readv(descriptor, [parts[number]]))

        self._each("receive", min(len(parts), MAX_DATAGRAMS), receive)
        return lengths

    def send(self, descriptor: int, datagrams: Sequence[tuple[bytes, bytes | bytearray | memoryview]]) -> int:
        return self._each("send", len(datagrams), lambda n: self._kernel.writev(descriptor, datagrams[n]))

    def _each(self, name: str, count: int, act: Callable[[int], object]) -> int:
        """Act on each datagram. An error ends the call, and is not told after the first one if it may pass."""
        done = 0
        try:
            if self._kernel.refusal:
                raise fail(self._kernel.refusal)
            for done in range(min(count, self._kernel.max_datagrams)):
                act(done)
            done += 1
        except OSError as error:
            if not done or error.errno not in (errno.EAGAIN, errno.EINTR, errno.ENOBUFS, errno.EMSGSIZE):
                raise
        self._kernel.calls.append((name, done))
        return done


class DarwinKernel(Kernel):
    """XNU."""

    kind = darwin.KIND
    tun_type = 1  # IFT_OTHER
    max_buffer = 8 << 20
    """kern.ipc.maxsockbuf"""
    max_datagrams = 100
    """kern.ipc.somaxrecvmsgx and kern.ipc.somaxsendmsgx"""

    def __init__(self, *, root: bool = True, has_datagrams: bool = True) -> None:
        super().__init__(root=root)
        self.has_datagrams = has_datagrams
        """True if the library has recvmsg_x and sendmsg_x."""
        self.refusal = 0
        """The number of the error that these calls raise; 0 if none."""
        self.calls: list[tuple[str, int]] = []
        """The calls so far: the name of each, and its number of datagrams."""

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
            self.need_root()
            if unit == 0:
                unit = next(free for free in range(1, 256) if f"utun{free - 1}" not in self.interfaces)
            if f"utun{unit - 1}" in self.interfaces:
                raise fail(errno.EBUSY)
            interface = self.make(f"utun{unit - 1}")
            interface.tun, tun.interface = tun, interface
            interface.limit = 1

    def datagrams(self) -> "DarwinDatagrams | None":
        return DarwinDatagrams(self) if self.has_datagrams else None

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
