"""Datagrams: a packet in each, sent and received one a system call; what every system can.

Platforms that can do more have a `Datagrams` of their own: mostly a `RunDatagrams`, of systems that send runs of
datagrams at once. Knows no sessions.
"""

import errno
import socket
from collections.abc import Sequence
from typing import Any, TypeAlias

from threepipe.offload import MAX_RECORD

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

    def receive(self, memory: memoryview, limit: int) -> tuple[list[memoryview], int, Source]:
        """Datagrams that are ready, of one source, at the start of `memory`, and how many bytes they take.

        `memory` has room for one at least. There may be more than `limit` of them. Raises `OSError`,
        `BlockingIOError` where nothing is ready.
        """
        size, source = self.socket.recvfrom_into(memory, MAX_RECORD)
        return [memory[:size]], size, source

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

    def send_one(self, packet: memoryview, target: Source) -> None:
        if target is None:
            self.socket.send(packet)
        else:
            self.socket.sendto(packet, target)

    def room(self, target: Source) -> int:
        """Bytes a datagram to `target` may have to pass whole, 0 where the system does not say."""
        return 0

    def allow_fragments(self) -> None:
        """From now on datagrams that are too long for their path go in fragments."""


class RunDatagrams(Datagrams):
    """Runs of datagrams of one size, the last of which may be shorter, go in one system call."""

    def __init__(self, bound: socket.socket, longest_segment: int = _LONGEST_RUN) -> None:
        """`longest_segment`: bytes of a datagram in a run; longer ones go one by one. 0: all do."""
        super().__init__(bound)
        self.longest_segment = longest_segment

    def send_run(self, packets: Sequence[memoryview], target: Source) -> None:
        """Send a run, of two at least: all or, where this raises, none. Each platform has its own."""
        ...

    def send(self, packets: Sequence[memoryview], target: Source) -> tuple[int, int]:
        sent = 0
        while sent < len(packets):
            end = self._run(packets, sent)
            try:
                if end == sent + 1:
                    self.send_one(packets[sent], target)
                else:
                    self.send_run(packets[sent:end], target)
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
