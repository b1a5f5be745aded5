"""Datagram sockets: one system call per datagram, which every system can do, or one per run of datagrams.

A platform that can do more subclasses `Datagrams`, or `RunDatagrams` if it can send runs. Knows no sessions.
"""

import errno
import socket
from collections.abc import Sequence
from typing import Any, TypeAlias

from threepipe.core.packet import Packet
from threepipe.core.superpacket import MAX_RECORD
from threepipe.core.transport import MAX_RUN, MAX_SEGMENTS
from threepipe.errors import EndpointError

__all__ = ["Datagrams", "RunDatagrams", "Source"]

Source: TypeAlias = Any
"""The sender of a datagram, as the socket module has it; None if unknown."""

_NO_RUNS_AT_ALL = frozenset({errno.EIO, errno.ENOPROTOOPT, errno.EOPNOTSUPP})


class Datagrams:
    """A non-blocking datagram socket; one thread may receive while another sends."""

    has_end = False
    """True if the other end can close a connection, which a read of 0 bytes tells."""

    def __init__(self, bound: socket.socket) -> None:
        bound.setblocking(False)
        self.socket = bound
        self.received_local: bytes | None = None
        """The local address, 4 or 16 bytes, that the last datagrams received were sent to; None if unknown."""
        self.send_local: bytes | None = None
        """The local address to send from; None to let the system choose.

        Becomes None if the system refuses to send from it, but sends from another address.
        """
        self.received_ecn = 0
        """The ECN field (RFC 3168) of the IP header of the last datagrams received; 0 if unknown."""
        self.send_ecn = 0
        """The ECN field to send with; the rest of the byte (DSCP) stays 0."""

    def receive(self, memory: memoryview, limit: int) -> tuple[list[memoryview], int, Source]:
        """Receive datagrams of one source into `memory`. Return views of them, the bytes they take, and the source.

        `memory` has room for one datagram at least. May return more than `limit` of them. Raises `OSError`, and
        `BlockingIOError` if nothing is ready.
        """
        used, size, source = self.receive_run(memory)
        starts = range(0, used, size) if size else (0,)
        return [memory[start : min(start + size, used)] for start in starts], used, source

    def receive_run(self, memory: memoryview) -> tuple[int, int, Source]:
        """Receive datagrams of one source. Return the bytes received, the size of each but the last, and the source."""
        size, source = self.socket.recvfrom_into(memory, MAX_RECORD)
        return size, size, source

    def send(self, packets: Sequence[memoryview], target: Source) -> tuple[int, int]:
        """Send to `target` (None: the socket's peer) until the socket is full.

        Returns how many were sent, and 0 or the errno that stopped it.
        """
        sent = 0
        try:
            for packet in packets:
                self.send_one(packet, target)
                sent += 1
        except BlockingIOError:
            return sent, 0
        except OSError as error:
            return sent, error.errno or 0
        return sent, 0

    def send_run(self, memory: memoryview, size: int, target: Source) -> int:
        """Send a run until the socket is full: datagrams end to end, each of `size` bytes, except a shorter last one.

        Returns how many bytes were sent. A run has at most 64 datagrams and 65000 bytes. Raises `OSError` if one
        cannot be sent to `target`.
        """
        for start in range(0, len(memory), size):
            try:
                self.send_one(memory[start : start + size], target)
            except BlockingIOError:
                return start
        return len(memory)

    def send_one(self, packet: Packet, target: Source) -> None:
        if target is None:
            self.socket.send(packet)
        else:
            self.socket.sendto(packet, target)

    def room(self, target: Source) -> int:
        """Return the most bytes of a datagram that reaches `target` unfragmented; 0 if unknown."""
        return 0

    def mark(self, fwmark: int) -> None:
        """Mark datagrams for policy routing; 0 for no mark. Raises `EndpointError` on systems without marks."""
        if fwmark:
            raise EndpointError(errno.ENOTSUP, "this system marks no packets; leave out the fwmark")

    def report_errors(self) -> None:
        """Raise the ICMP errors about earlier datagrams from now on, which only a connected socket does by itself.

        Does nothing where the system cannot do it.
        """

    def forget_errors(self) -> None:
        """Empty the queue in which the system keeps reported errors too."""

    def report_local_addresses(self) -> None:
        """Set `received_local`, and send from `send_local`, from now on, if the system can."""

    def report_ecn(self) -> None:
        """Set `received_ecn`, and send with `send_ecn`, from now on, if the system can."""

    def allow_fragments(self) -> None:
        """Send datagrams that are too long for their path in fragments from now on."""


class RunDatagrams(Datagrams):
    """A socket that sends runs, datagrams of one size of which the last may be shorter, in one system call."""

    def __init__(self, bound: socket.socket, longest_segment: int = MAX_RUN) -> None:
        """Send datagrams of up to `longest_segment` bytes in runs, longer ones one by one; with 0 all one by one."""
        super().__init__(bound)
        self.longest_segment = longest_segment

    def send_together(self, packets: Sequence[memoryview], size: int, target: Source) -> None:
        """Send two or more datagrams of `size` bytes, end to end in one or several views: all, or none if this raises.

        Each platform implements this.
        """
        ...

    def send_run(self, memory: memoryview, size: int, target: Source) -> int:
        if size < len(memory) and size <= self.longest_segment:
            try:
                self.send_together([memory], size, target)
            except BlockingIOError:
                return 0
            except OSError as error:
                if not self._refuses_runs(error.errno, size):
                    raise
            else:
                return len(memory)
        return super().send_run(memory, size, target)

    def send(self, packets: Sequence[memoryview], target: Source) -> tuple[int, int]:
        sent = 0
        while sent < len(packets):
            end = self._run(packets, sent)
            try:
                if end == sent + 1:
                    self.send_one(packets[sent], target)
                else:
                    self.send_together(packets[sent:end], len(packets[sent]), target)
            except BlockingIOError:
                return sent, 0
            except OSError as error:
                if end == sent + 1 or not self._refuses_runs(error.errno, len(packets[sent])):
                    return sent, error.errno or 0
            else:
                sent = end
        return sent, 0

    def _run(self, packets: Sequence[memoryview], start: int) -> int:
        """Return the end of the run that begins at `start`."""
        segment = len(packets[start])
        if segment > self.longest_segment or start + 1 == len(packets):
            return start + 1
        most = min(len(packets), start + min(MAX_SEGMENTS, MAX_RUN // max(segment, 1)))
        end = start + 1
        while end < most and (size := len(packets[end])) <= segment:
            end += 1
            if size < segment:
                break
        return end

    def _refuses_runs(self, error: int | None, segment: int) -> bool:
        """Return True if `error` is about the run, not its datagrams; no such runs are sent from then on."""
        if error in _NO_RUNS_AT_ALL:
            self.longest_segment = 0  # A system that is too old, or a device that computes no checksums.
        elif error in (errno.EMSGSIZE, errno.EINVAL):
            self.longest_segment = segment - 1  # Longer than its path takes; fragments go one by one.
        else:
            return False
        return True
