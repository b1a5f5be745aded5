"""Datagrams: a packet in each, sent and received one a system call; what every system can.

Platforms that can do more have a `Datagrams` of their own: mostly a `RunDatagrams`, of systems that send runs of
datagrams at once. Knows no sessions.
"""

import errno
import socket
from collections.abc import Sequence
from typing import Any, TypeAlias

from threepipe.core.superpacket import MAX_RECORD
from threepipe.errors import EndpointError

__all__ = ["Datagrams", "RunDatagrams", "Source"]

Source: TypeAlias = Any
"""Where a datagram came from, as the socket module has it; None where it does not say."""

_MOST_SEGMENTS = 64  # UDP_MAX_SEGMENTS of Linux's own headers, before 6.9; others say no number.
_LONGEST_RUN = 65000  # Bytes, which leaves room for what IP and UDP add.
_NO_RUNS_AT_ALL = frozenset({errno.EIO, errno.ENOPROTOOPT, errno.EOPNOTSUPP})


class Datagrams:
    """A non-blocking datagram socket; one thread may receive while another sends."""

    def __init__(self, bound: socket.socket) -> None:
        bound.setblocking(False)
        self.socket = bound
        self.received_local: bytes | None = None
        """The local address, 4 or 16 bytes, that the last datagrams received were sent to; None if unknown."""
        self.send_local: bytes | None = None
        """The local address to send from; None to let the system choose.

        Becomes None if sending from it fails, and from another one does not.
        """

    def receive(self, memory: memoryview, limit: int) -> tuple[list[memoryview], int, Source]:
        """Datagrams that are ready, of one source, at the start of `memory`, and how many bytes they take.

        `memory` has room for one at least. There may be more than `limit` of them. Raises `OSError`,
        `BlockingIOError` where nothing is ready.
        """
        used, size, source = self.receive_run(memory)
        starts = range(0, used, size) if size else (0,)
        return [memory[start : min(start + size, used)] for start in starts], used, source

    def receive_run(self, memory: memoryview) -> tuple[int, int, Source]:
        """As `receive`, but not taken apart: how many bytes came, and of how many each datagram is but the last."""
        size, source = self.socket.recvfrom_into(memory, MAX_RECORD)
        return size, size, source

    def send(self, packets: Sequence[memoryview], target: Source) -> tuple[int, int]:
        """Send to `target` (None: whom the socket is connected to) until there is no room.

        Returns how many were sent, and the errno of what stopped it or 0.
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
        """Send datagrams that lie one behind the other, each of `size` bytes but the last, until there is no room.

        Returns how many bytes were sent. A run is of at most 64 datagrams and 65000 bytes. Raises `OSError` where one
        cannot be sent to `target`.
        """
        for start in range(0, len(memory), size):
            try:
                self.send_one(memory[start : start + size], target)
            except BlockingIOError:
                return start
        return len(memory)

    def send_one(self, packet: memoryview, target: Source) -> None:
        if target is None:
            self.socket.send(packet)
        else:
            self.socket.sendto(packet, target)

    def room(self, target: Source) -> int:
        """Bytes a datagram to `target` may have to pass whole, 0 where the system does not say."""
        return 0

    def mark(self, fwmark: int) -> None:
        """Mark what is sent, for policy routing; 0 for no mark. Raises `EndpointError` where the system has none."""
        if fwmark:
            raise EndpointError(errno.ENOTSUP, "this system marks no packets; leave out the fwmark")

    def report_local_addresses(self) -> None:
        """Set `received_local`, and send from `send_local`, from now on, if the system can."""

    def allow_fragments(self) -> None:
        """From now on datagrams that are too long for their path go in fragments."""


class RunDatagrams(Datagrams):
    """Runs of datagrams of one size, the last of which may be shorter, go in one system call."""

    def __init__(self, bound: socket.socket, longest_segment: int = _LONGEST_RUN) -> None:
        """`longest_segment`: bytes of a datagram in a run; longer ones go one by one. 0: all do."""
        super().__init__(bound)
        self.longest_segment = longest_segment

    def send_together(self, packets: Sequence[memoryview], size: int, target: Source) -> None:
        """Send what are datagrams of `size` bytes one behind the other: all or, where this raises, none.

        Two at least; memory of one piece or several. Each platform has its own.
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
        """The end of the run of datagrams of one size, the last of which may be shorter."""
        segment = len(packets[start])
        if segment > self.longest_segment:
            return start + 1
        most = min(len(packets), start + min(_MOST_SEGMENTS, _LONGEST_RUN // max(segment, 1)))
        end = start + 1
        while end < most and (size := len(packets[end])) <= segment:
            end += 1
            if size < segment:
                break
        return end

    def _refuses_runs(self, error: int | None, segment: int) -> bool:
        """Whether `error` is about the run, and not its datagrams; then there will be no such runs any more."""
        if error in _NO_RUNS_AT_ALL:
            self.longest_segment = 0  # A system that is too old, or a device that computes no checksums.
        elif error in (errno.EMSGSIZE, errno.EINVAL):
            self.longest_segment = segment - 1  # Longer than its path takes; fragments go one by one.
        else:
            return False
        return True
