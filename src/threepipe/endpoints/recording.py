"""The opener of `pcap`, and its two endpoints: one replays a capture file, one writes it. Knows no file format."""

import errno
import os
import stat
import threading
import time
from collections.abc import Callable
from typing import BinaryIO

from threepipe.backend import OUTBOUND, CapturedBundle
from threepipe.bundle import Bundle
from threepipe.capture.reader import CapturedPacket, CaptureReader
from threepipe.capture.writer import CaptureWriter
from threepipe.core.descriptor import MAX_BUNDLE
from threepipe.endpoints.request import OpenRequest, RateLimitedLog
from threepipe.errors import EndpointEnded, EndpointError, ThreepipeError
from threepipe.net.connect import close_on_error
from threepipe.net.watch import EndpointPort, Watch
from threepipe.session import Session

__all__ = ["RecordPort", "ReplayPort", "open_pcap"]

_MAX_WAIT = 3600.0  # Seconds; a longer wait looks at the clock in between.
_BUFFER = 1 << 18  # Bytes.


def open_pcap(request: OpenRequest[str], *, speed: float = 1.0, loop: bool = False, repair: bool = True) -> Session:
    """Open a replay, `speed` times as fast as captured, at the left of a pipe, and a new file at the right.

    With `repair`, packets that their sender had left to its network card to complete are replayed complete. Raises
    `EndpointError` if the file cannot be opened, or is not a capture.
    """
    path = request.parameter
    if request.side == "right":
        return Session(RecordPort(_new_file(path), request.log))
    try:
        _check_type(path)
        file = open(path, "rb", _BUFFER)  # noqa: SIM115  # The port closes it.
    except FileNotFoundError as error:
        raise EndpointError(error.errno, f"{path}: no such file to replay; check the path") from None
    except OSError as error:
        raise EndpointError(error.errno, f"{path}: {error.strerror or error}") from None
    with close_on_error(file):
        return Session(ReplayPort(file, path, request.log, speed=speed, loop=loop, repair=repair))


def _new_file(path: str) -> CaptureWriter:
    try:
        _check_type(path)
    except FileNotFoundError:
        pass  # `CaptureWriter` creates it.
    return CaptureWriter(os.path.abspath(path), "pipe")


def _check_type(path: str) -> None:
    """Raise `EndpointError` for a FIFO or the like, which would block until another program opens it."""
    mode = os.stat(path).st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISCHR(mode)):
        text = f"{path} is not a plain file; to pass packets to another program use threepipe capture"
        raise EndpointError(errno.EINVAL, text)


class _Alarm(Watch):
    """A watch that is set at a moment of its clock. A thread sets it for those that wait for its descriptor."""

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__()
        self._clock = clock
        self._due: float | None = None
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._ended = False

    def set(self, due: float | None) -> None:
        """Be set from the moment `due` on, and not before; None for never."""
        with self._changed:
            self._due = due
            if due is not None and due <= self._clock():
                self.ring()
            else:
                self.clear()
            self._changed.notify()

    def end(self) -> None:
        with self._changed:
            self._ended = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()

    def fileno(self) -> int:
        number = super().fileno()
        with self._changed:
            if self._thread is None:
                self._thread = threading.Thread(target=self._ring_when_due, name="threepipe-replay", daemon=True)
                self._thread.start()
        return number

    def wait(self, timeout: float | None) -> None:
        remaining = self._remaining()
        super().wait(remaining if timeout is None else min(timeout, remaining))

    def _remaining(self) -> float:
        due = self._due
        return _MAX_WAIT if due is None else min(max(due - self._clock(), 0.0), _MAX_WAIT)

    def _ring_when_due(self) -> None:
        with self._changed:
            while not self._ended:
                remaining = self._remaining()
                if not remaining:
                    self.ring()
                self._changed.wait(remaining or _MAX_WAIT)


def _listed(*counts: tuple[int, str]) -> str:
    *first, last = [f"{count} {things}" for count, things in counts if count] or [""]
    return f"{', '.join(first)} and {last}" if first else last


class ReplayPort(EndpointPort):
    """A port that replays a capture, with time running from the first call of `receive`, and drops packets sent."""

    def __init__(
        self,
        file: BinaryIO,
        name: str,
        log: RateLimitedLog,
        *,
        speed: float = 1.0,
        loop: bool = False,
        repair: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take over `file`, which is seekable. `clock` returns seconds. Raises `EndpointError`."""
        # It may raise, so it comes before anything that must be closed.
        self._reader = CaptureReader(file, name, repair=repair)
        super().__init__()
        self.readable.close()
        self.readable = self._alarm = _Alarm(clock)
        self.writable.ring()
        self._file, self._name, self._log = file, name, log
        self._speed, self._loop, self._repair, self._clock = speed, loop, repair, clock
        self._packets = iter(self._reader)
        self._next: CapturedPacket | None = None
        self._first: int | None = None  # Nanoseconds: when the first packet was captured.
        self._base: float | None = None  # Seconds of the clock: when it was replayed.
        self._due = 0.0
        self._end: ThreepipeError | None = None
        self._reported = False

    def receive(self) -> Bundle:
        now = self._clock()
        if self._base is None:
            self._base = self._due = now
            self._advance(now)
        packets: list[memoryview] = []
        while self._next is not None and self._due <= now and len(packets) < MAX_BUNDLE:
            packets.append(memoryview(bytearray(self._next.packet)))
            self._advance(self._base)
        self._alarm.set(self._due)  # It stays set after the last packet, so that the end is received.
        if self._end is not None and not packets:
            raise self._end
        return Bundle.of_views(packets)

    def _advance(self, base: float) -> None:
        """Read the next packet, and compute when it is due."""
        try:
            self._next = next(self._packets, None)
            if self._next is None:
                self._report()
                if self._loop and self._first is not None:
                    base = self._base = max(base, self._due)
                    self._restart()
        except EndpointError as error:
            self._next, self._end = None, error
        if self._next is None:
            self._end = self._end or EndpointEnded(f"{self._name} was replayed to its end")
            return
        if self._first is None:
            self._first = self._next.time_ns
        self._due = base + (self._next.time_ns - self._first) / 1e9 / self._speed

    def _restart(self) -> None:
        self._file.seek(0)
        self._reader = CaptureReader(self._file, self._name, repair=self._repair)
        self._reported = False
        self._packets = iter(self._reader)
        self._first = None
        self._next = next(self._packets, None)

    def _report(self) -> None:
        """Log the counts of skipped and repaired packets, once for each replay of the file."""
        if self._reported:
            return
        self._reported = True
        if skipped := _listed(
            (self._reader.not_ip, "frames without an IP packet"),
            (self._reader.truncated, "packets that were captured in part"),
        ):
            self._log.warn("skipped", f"skipped {skipped}")
        if self._reader.cut_short:
            self._log.warn("cut off", "the file ends in the middle of a packet, which was skipped")
        repairs = self._reader.repairs
        if repaired := _listed(
            (repairs.checksums, "checksums"),
            (repairs.lengths, "lengths"),
            (repairs.superpackets, f"superpackets (now {repairs.segments} packets)"),
        ):
            text = "that the sender had left to its network card; repair=off replays packets as recorded"
            self._log.info(f"completed {repaired} {text}")
        if repairs.wrong:
            self._log.warn("wrong", f"{repairs.wrong} packets have a wrong checksum, and were replayed with it")

    def send(self, bundle: Bundle) -> Bundle:
        return Bundle()

    def stop(self) -> None:
        self._alarm.end()
        self._report()
        self._file.close()


class RecordPort(EndpointPort):
    """A port that writes each packet it is sent to a file, at once, and has none to receive."""

    def __init__(self, file: CaptureWriter, log: RateLimitedLog) -> None:
        super().__init__()
        self.writable.ring()
        self._file, self._log = file, log

    def receive(self) -> Bundle:
        return Bundle()

    def send(self, bundle: Bundle) -> Bundle:
        self._file.write([CapturedBundle(OUTBOUND, list(bundle), time.time_ns())])
        return Bundle()

    def stop(self) -> None:
        try:
            self._file.close()
        except EndpointError as error:
            self._log.warn("end", f"the file is incomplete: {error.strerror}")
