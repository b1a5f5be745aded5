"""Sockets on Linux: large buffers, runs of datagrams per system call (UDP GSO and GRO), and the path's MTU.

The constants are those of <linux/udp.h>, <linux/in.h> and <linux/in6.h>; a test compares them with the headers.
"""

import sys

assert sys.platform == "linux"

import errno
import socket
import struct
from collections.abc import Sequence

from threepipe.core.descriptor import FULL
from threepipe.core.packet import Packet
from threepipe.errors import EndpointError
from threepipe.net.datagrams import Datagrams, RunDatagrams, Source
from threepipe.platforms.linux.privilege import become
from threepipe.settings import MAX_NAME

__all__ = ["LinuxDatagrams", "bind_to_interface", "enlarge_buffers", "mark_socket", "open_datagrams"]

UDP_SEGMENT = 103
UDP_GRO = 104
IP_TOS = 1
IP_PKTINFO = 8
IP_MTU_DISCOVER = 10
IP_RECVERR = 11
IP_RECVTOS = 13
IP_MTU = 14
IPV6_MTU_DISCOVER = 23
IPV6_MTU = 24
IPV6_RECVERR = 25
IPV6_RECVPKTINFO = 49
IPV6_PKTINFO = 50
IPV6_RECVTCLASS = 66
IPV6_TCLASS = 67
IP_PMTUDISC_WANT = 1
IP_PMTUDISC_DO = 2
SO_BINDTODEVICE = 25
SO_MARK = 36
SO_RCVBUFFORCE = 33
SO_SNDBUFFORCE = 32

_BUFFER = 1 << 22  # Bytes.
_LONGEST = 0xFFFF  # Bytes of a datagram, or of a run from GRO.
_MARK = struct.Struct("I")
_SIZE = struct.Struct("H")
_INT = struct.Struct("i")
_PKTINFO, _PKTINFO6 = struct.Struct("I4s4s"), struct.Struct("16sI")  # struct in_pktinfo, struct in6_pktinfo.
_ANCILLARY = 2 * socket.CMSG_SPACE(_INT.size) + socket.CMSG_SPACE(_PKTINFO6.size)
_ECN = 3  # The bits of ECN in the byte that it shares with DSCP.
_HEADERS = {socket.AF_INET: 20 + 8, socket.AF_INET6: 40 + 8}
_TRAFFIC_CLASS = {
    socket.AF_INET: (socket.IPPROTO_IP, IP_TOS),
    socket.AF_INET6: (socket.IPPROTO_IPV6, IPV6_TCLASS),
}
_REPORT_TRAFFIC_CLASS = {
    socket.AF_INET: (socket.IPPROTO_IP, IP_RECVTOS),
    socket.AF_INET6: (socket.IPPROTO_IPV6, IPV6_RECVTCLASS),
}


def enlarge_buffers(opened: socket.socket) -> None:
    """Give the socket buffers as large as a session's, or as large as the system allows this user."""
    for force, plain in ((SO_RCVBUFFORCE, socket.SO_RCVBUF), (SO_SNDBUFFORCE, socket.SO_SNDBUF)):
        try:
            opened.setsockopt(socket.SOL_SOCKET, force, _BUFFER)
        except PermissionError:
            opened.setsockopt(socket.SOL_SOCKET, plain, _BUFFER)


def mark_socket(opened: socket.socket, mark: int) -> None:
    """Mark the socket's packets, for policy routing; 0 for no mark. Raises `EndpointError`."""
    try:
        opened.setsockopt(socket.SOL_SOCKET, SO_MARK, _MARK.pack(mark))
    except OSError as error:
        raise EndpointError(
            error.errno, f"a mark needs CAP_NET_ADMIN; {become('CAP_NET_ADMIN')}, or leave it out"
        ) from None


def bind_to_interface(opened: socket.socket, name: str) -> None:
    """Send and receive by that interface only, whatever the routes say. Raises `EndpointError`."""
    try:
        socket.if_nametoindex(name)  # The option takes the start of a name that is too long.
        opened.setsockopt(socket.SOL_SOCKET, SO_BINDTODEVICE, name.encode() + b"\0")
    except OSError as error:
        advice = become("CAP_NET_RAW") if error.errno == errno.EPERM else "see 'ip link' for the names"
        raise EndpointError(error.errno, f"interface {name}: {error.strerror or error}; {advice}") from None


def open_datagrams(bound: socket.socket) -> Datagrams:
    """Return the fastest `Datagrams` for the datagram socket `bound`, which it owns from then on."""
    return LinuxDatagrams(bound) if bound.family in _HEADERS else Datagrams(bound)


class LinuxDatagrams(RunDatagrams):
    """A UDP socket that sends and receives runs of datagrams, and knows its local addresses."""

    def __init__(self, bound: socket.socket) -> None:
        super().__init__(bound)
        self._keeps_errors = False
        self._traffic_class = _TRAFFIC_CLASS[bound.family]
        enlarge_buffers(bound)
        self._discover(IP_PMTUDISC_DO)
        try:
            bound.setsockopt(socket.IPPROTO_UDP, UDP_GRO, 1)
        except OSError:
            pass  # Linux has GRO since 5.0; it only saves time.

    def receive_run(self, memory: memoryview) -> tuple[int, int, Source]:
        try:
            used, ancillary, _, source = self.socket.recvmsg_into([memory[:_LONGEST]], _ANCILLARY)
        except BlockingIOError:
            raise
        except OSError as error:
            self._forget_errors(error)
            raise
        size, self.received_ecn = used, 0
        for level, kind, data in ancillary:
            if level == socket.IPPROTO_UDP and kind == UDP_GRO:
                (size,) = _SIZE.unpack_from(data)
            elif (level, kind) == (socket.IPPROTO_IP, IP_PKTINFO):
                self.received_local = _PKTINFO.unpack_from(data)[1]
            elif (level, kind) == (socket.IPPROTO_IPV6, IPV6_PKTINFO):
                self.received_local = _PKTINFO6.unpack_from(data)[0]
            elif (level, kind) == self._traffic_class:
                self.received_ecn = int.from_bytes(data, sys.byteorder) & _ECN  # One byte for IPv4, else an int.
        return used, size, source

    def send_together(self, packets: Sequence[memoryview], size: int, target: Source) -> None:
        self._send(packets, [(socket.IPPROTO_UDP, UDP_SEGMENT, _SIZE.pack(size))], target)

    def send_one(self, packet: Packet, target: Source) -> None:
        if self.send_local is not None or self.send_ecn:
            self._send([packet], [], target)
            return
        try:
            super().send_one(packet, target)
        except OSError as error:
            self._forget_errors(error)
            raise

    def _send(self, packets: Sequence[Packet], ancillary: list[tuple[int, int, bytes]], target: Source) -> None:
        # Without a target, sendmsg must not get the argument.
        to = [] if target is None else [target]
        if self.send_ecn:
            ancillary = [*ancillary, (*self._traffic_class, _INT.pack(self.send_ecn))]
        try:
            self.socket.sendmsg(packets, [*ancillary, *self._local_address()], 0, *to)
        except OSError as error:
            self._forget_errors(error)
            if self.send_local is None or error.errno in FULL:
                raise
            self.socket.sendmsg(packets, ancillary, 0, *to)  # Raises again unless the local address was the reason.
            self.send_local = None

    def _local_address(self) -> list[tuple[int, int, bytes]]:
        """Return ancillary data with the local address to send from."""
        if (address := self.send_local) is None:
            return []
        if len(address) == 4:
            return [(socket.IPPROTO_IP, IP_PKTINFO, _PKTINFO.pack(0, address, bytes(4)))]
        return [(socket.IPPROTO_IPV6, IPV6_PKTINFO, _PKTINFO6.pack(address, 0))]

    def report_errors(self) -> None:
        self.socket.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
        if self.socket.family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVERR, 1)
        self._keeps_errors = True

    def _forget_errors(self, error: OSError) -> None:
        if error.errno not in FULL:
            self.forget_errors()

    def forget_errors(self) -> None:
        """Empty the queue in which the kernel keeps reported errors too: it wakes waiters while it holds one."""
        if self._keeps_errors:
            try:
                while True:
                    self.socket.recvmsg(0, 0, socket.MSG_ERRQUEUE)
            except OSError:
                pass  # It is empty.

    def report_local_addresses(self) -> None:
        if self.socket.family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVPKTINFO, 1)
        else:
            self.socket.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)

    def report_ecn(self) -> None:
        self.socket.setsockopt(*_REPORT_TRAFFIC_CLASS[self.socket.family], 1)

    def room(self, target: Source) -> int:
        family = self.socket.family
        with socket.socket(family, socket.SOCK_DGRAM) as probe:  # The kernel reports it only for a connected socket.
            try:
                self._take_the_same_way(probe)
                probe.connect(target or self.socket.getpeername())
                if family == socket.AF_INET6:
                    return probe.getsockopt(socket.IPPROTO_IPV6, IPV6_MTU) - _HEADERS[family]
                return probe.getsockopt(socket.IPPROTO_IP, IP_MTU) - _HEADERS[family]
            except OSError:
                return 0

    def _take_the_same_way(self, probe: socket.socket) -> None:
        for option in (SO_MARK, SO_BINDTODEVICE):
            if any(value := self.socket.getsockopt(socket.SOL_SOCKET, option, MAX_NAME + 1)):
                probe.setsockopt(socket.SOL_SOCKET, option, value)

    def mark(self, fwmark: int) -> None:
        if fwmark or self.socket.getsockopt(socket.SOL_SOCKET, SO_MARK):
            mark_socket(self.socket, fwmark)

    def allow_fragments(self) -> None:
        self._discover(IP_PMTUDISC_WANT)

    def _discover(self, how: int) -> None:
        self.socket.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, how)
        if self.socket.family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, how)
