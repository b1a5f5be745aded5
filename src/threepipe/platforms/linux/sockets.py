"""Sockets on Linux: large buffers, runs of datagrams in one system call (UDP GSO and GRO), and what their path takes.

Constants are those of <linux/udp.h>, <linux/in.h> and <linux/in6.h>, which a test compiles against.
"""

import sys

assert sys.platform == "linux"

import errno
import socket
import struct
from collections.abc import Sequence

from threepipe.datagrams import Datagrams, Source
from threepipe.errors import EndpointError

__all__ = ["LinuxDatagrams", "enlarge_buffers", "open_datagrams"]

UDP_SEGMENT = 103
UDP_GRO = 104
_MOST_SEGMENTS = 64  # UDP_MAX_SEGMENTS of the kernel's own headers.
IP_MTU_DISCOVER = 10
IP_MTU = 14
IPV6_MTU_DISCOVER = 23
IPV6_MTU = 24
IP_PMTUDISC_WANT = 1
IP_PMTUDISC_DO = 2
SO_MARK = 36
SO_RCVBUFFORCE = 33
SO_SNDBUFFORCE = 32

_BUFFER = 1 << 22  # Bytes.
_LONGEST_RUN = 65000  # Bytes, which leaves room for what IP and UDP add.
_LONGEST = 0xFFFF  # A datagram, or a run of them as GRO hands it over.
_SIZE = struct.Struct("H")
_ANCILLARY = socket.CMSG_SPACE(struct.calcsize("i"))
_HEADERS = {socket.AF_INET: 20 + 8, socket.AF_INET6: 40 + 8}
_NO_RUNS_AT_ALL = frozenset({errno.EIO, errno.ENOPROTOOPT, errno.EOPNOTSUPP})


def enlarge_buffers(opened: socket.socket) -> None:
    """Let as much wait in the kernel as an adapter's session holds, or what the system allows this user."""
    for force, plain in ((SO_RCVBUFFORCE, socket.SO_RCVBUF), (SO_SNDBUFFORCE, socket.SO_SNDBUF)):
        try:
            opened.setsockopt(socket.SOL_SOCKET, force, _BUFFER)
        except PermissionError:
            opened.setsockopt(socket.SOL_SOCKET, plain, _BUFFER)


def open_datagrams(bound: socket.socket) -> Datagrams:
    """The best there is for `bound`, a datagram socket, which it takes over."""
    return LinuxDatagrams(bound) if bound.family in _HEADERS else Datagrams(bound)


class LinuxDatagrams(Datagrams):
    """A UDP socket."""

    def __init__(self, bound: socket.socket) -> None:
        super().__init__(bound)
        self._longest_segment = _LONGEST_RUN  # In runs; datagrams that do not fit in their path go one by one.
        enlarge_buffers(bound)
        self._discover(IP_PMTUDISC_DO)
        try:
            bound.setsockopt(socket.IPPROTO_UDP, UDP_GRO, 1)
        except OSError:
            pass  # It came with Linux 5.0, and is no more than a quicker way.

    def receive_run(self, memory: memoryview) -> tuple[int, int, Source]:
        used, ancillary, _, source = self.socket.recvmsg_into([memory[:_LONGEST]], _ANCILLARY)
        for level, kind, data in ancillary:
            if level == socket.IPPROTO_UDP and kind == UDP_GRO:
                return used, _SIZE.unpack_from(data)[0], source
        return used, used, source

    def send(self, packets: Sequence[memoryview], target: Source) -> tuple[int, int]:
        sent = 0
        while sent < len(packets):
            end = self._run(packets, sent)
            try:
                if end == sent + 1:
                    self.send_one(packets[sent], target)
                else:
                    self._send_together(packets[sent:end], len(packets[sent]), target)
            except BlockingIOError:
                return sent, 0
            except OSError as error:
                if end == sent + 1 or not self._refuses_runs(error.errno, len(packets[sent])):
                    return sent, error.errno or 0
            else:
                sent = end
        return sent, 0

    def _run(self, packets: Sequence[memoryview], start: int) -> int:
        """The end of the run of datagrams of one size, the last of which may be shorter."""
        segment = len(packets[start])
        if segment > self._longest_segment:
            return start + 1
        most = min(len(packets), start + min(_MOST_SEGMENTS, _LONGEST_RUN // max(segment, 1)))
        end = start + 1
        while end < most and (size := len(packets[end])) <= segment:
            end += 1
            if size < segment:
                break
        return end

    def send_run(self, memory: memoryview, size: int, target: Source) -> int:
        if size < len(memory) and size <= self._longest_segment:
            try:
                self._send_together([memory], size, target)
            except BlockingIOError:
                return 0
            except OSError as error:
                if not self._refuses_runs(error.errno, size):
                    raise
            else:
                return len(memory)
        return super().send_run(memory, size, target)

    def _send_together(self, parts: Sequence[memoryview], size: int, target: Source) -> None:
        """Datagrams of `size` bytes, of which the last may be shorter, in one system call."""
        ancillary = [(socket.IPPROTO_UDP, UDP_SEGMENT, _SIZE.pack(size))]
        # Without a target the argument has to be missing, which is how the module says it.
        self.socket.sendmsg(parts, ancillary, 0, *([] if target is None else [target]))

    def _refuses_runs(self, error: int | None, segment: int) -> bool:
        """Whether `error` is about the run, and not its datagrams; then there will be no such runs any more."""
        if error in _NO_RUNS_AT_ALL:
            self._longest_segment = 0  # A kernel before 4.18, or a device that computes no checksums.
        elif error in (errno.EMSGSIZE, errno.EINVAL):
            self._longest_segment = segment - 1  # Longer than its path takes; fragments go one by one.
        else:
            return False
        return True

    def room(self, target: Source) -> int:
        family = self.socket.family
        with socket.socket(family, socket.SOCK_DGRAM) as probe:  # A socket knows it only for whom it is connected to.
            try:
                probe.connect(target or self.socket.getpeername())
                if family == socket.AF_INET6:
                    return probe.getsockopt(socket.IPPROTO_IPV6, IPV6_MTU) - _HEADERS[family]
                return probe.getsockopt(socket.IPPROTO_IP, IP_MTU) - _HEADERS[family]
            except OSError:
                return 0

    def mark(self, fwmark: int) -> None:
        if fwmark or self.socket.getsockopt(socket.SOL_SOCKET, SO_MARK):
            try:
                self.socket.setsockopt(socket.SOL_SOCKET, SO_MARK, fwmark)
            except OSError as error:
                raise EndpointError(error.errno, "a fwmark takes CAP_NET_ADMIN; run as root, or leave it out") from None

    def allow_fragments(self) -> None:
        self._discover(IP_PMTUDISC_WANT)

    def _discover(self, how: int) -> None:
        self.socket.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, how)
        if self.socket.family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, how)
