"""Files of packets as endpoints: one that replays, and one that records. Knows no file format."""

import errno
import os
import stat
import threading
import time
from collections.abc import Callable
from typing import BinaryIO

from threepipe.backend import OUTBOUND, EndpointPort, Seen
from threepipe.bundle import Bundle
from threepipe.capture.file import CaptureFile
from threepipe.capture.reading import Captured, CaptureReader
from threepipe.core.descriptor import MAX_BUNDLE
from threepipe.endpoints.request import Asked, Complaints
from threepipe.errors import EndpointEnded, EndpointError, InvalidSetting, ThreepipeError
from threepipe.net.watch import Watch
from threepipe.session import Session

__all__ = ["RecordPort", "ReplayPort", "open_pcap"]

_LONGEST_WAIT = 3600.0  # Seconds; who waits longer looks at the clock in between.
_BUFFER = 1 << 18  # Bytes.


def open_pcap(asked: Asked, *, speed: float = 1.0, loop: bool = False) -> Session:
    """At the left a replay of the file, `speed` times as fast as it was captured; at the right a new file.

    Raises `InvalidSetting` for options of a replay at the right, and `EndpointError` where there is no such file, or
    it is no capture.
    """
    path = asked.place
    if asked.side == "right":
        if speed != 1.0 or loop:
            raise InvalidSetting(
                "speed and loop are for a replay, which is pcap as LEFT; at the right it writes a file"
            )
        return Session(RecordPort(_new_file(path), asked.complaints))
    try:
        _check_kind(path)
        file = open(path, "rb", _BUFFER)  # noqa: SIM115  # The port closes it.
    except FileNotFoundError as error:
        raise EndpointError(error.errno, f"{path}: there is no such file to replay") from None
    except OSError as error:
        raise EndpointError(error.errno, f"{path}: {error.strerror or error}") from None
    try:
        return Session(ReplayPort(file, path, asked.complaints, speed=speed, loop=loop))
    except BaseException:
        file.close()
        raise


def _new_file(path: str) -> CaptureFile:
    try:
        _check_kind(path)
    except FileNotFoundError:
        pass  # It is made.
    return CaptureFile(os.path.abspath(path), "pipe")


def _check_kind(path: str) -> None:
    """Refuse what may have a pipe wait for a program that reads or writes it."""
    kind = os.stat(path).st_mode
    if not (stat.S_ISREG(kind) or stat.S_ISCHR(kind)):
        raise EndpointError(errno.EINVAL, f"{path} is no plain file; threepipe capture gives packets to other programs")


class _Alarm(Watch):
    """Is set at a moment of its clock. Who waits by its descriptor has a thread that rings for him."""

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__()
        self._clock = clock
        self._due: float | None = None
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._ended = False

    def set(self, due: float | None) -> None:
        """Be set from `due` on, and not before; None for never."""
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
        return _LONGEST_WAIT if due is None else min(max(due - self._clock(), 0.0), _LONGEST_WAIT)

    def _ring_when_due(self) -> None:
        with self._changed:
            while not self._ended:
                remaining = self._remaining()
                if not remaining:
                    self.ring()
                self._changed.wait(remaining or _LONGEST_WAIT)


class ReplayPort(EndpointPort):
    """Packets come when their time has come, counted from the first call of `receive`; what is sent goes nowhere."""

    def __init__(
        self,
        file: BinaryIO,
        name: str,
        complaints: Complaints,
        *,
        speed: float = 1.0,
        loop: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`file` can be sought in, and is taken over. `clock`: seconds. Raises `EndpointError`."""
        self._reader = CaptureReader(file, name)  # First, for where it raises there is to be nothing to close.
        super().__init__()
        self.readable.close()
        self.readable = self._alarm = _Alarm(clock)
        self.writable.ring()
        self._file, self._name, self._complaints = file, name, complaints
        self._speed, self._loop, self._clock = speed, loop, clock
        self._packets = iter(self._reader)
        self._next: Captured | None = None
        self._first: int | None = None  # Nanoseconds: when the first packet was captured, and, by our clock,
        self._base: float | None = None  # seconds: when it was replayed.
        self._due = 0.0
        self._end: ThreepipeError | None = None

    def receive(self) -> Bundle:
        now = self._clock()
        if self._base is None:
            self._base = self._due = now
            self._advance(now)
        packets: list[memoryview] = []
        while self._next is not None and self._due <= now and len(packets) < MAX_BUNDLE:
            packets.append(memoryview(bytearray(self._next.packet)))
            self._advance(self._base)
        self._alarm.set(self._due)  # After the last packet it stays set, for the end is to be told.
        if self._end is not None and not packets:
            raise self._end
        return Bundle.of_views(packets)

    def _advance(self, base: float) -> None:
        """Take the next packet from the file, and say when it is due."""
        try:
            self._next = next(self._packets, None)
            if self._next is None:
                self._tell_left_out()
                if self._loop and self._first is not None:
                    base = self._base = max(base, self._due)
                    self._begin_again()
        except EndpointError as error:
            self._next, self._end = None, error
        if self._next is None:
            self._end = self._end or EndpointEnded(f"{self._name} was replayed to its end")
            return
        if self._first is None:
            self._first = self._next.time_ns
        self._due = base + (self._next.time_ns - self._first) / 1e9 / self._speed

    def _begin_again(self) -> None:
        self._file.seek(0)
        self._reader = CaptureReader(self._file, self._name)
        self._packets = iter(self._reader)
        self._first = None
        self._next = next(self._packets, None)

    def _tell_left_out(self) -> None:
        counts = {
            "frames without an IP packet": self._reader.not_ip,
            "packets that were captured in part": self._reader.snapped,
        }
        lacks = [f"{count} {what}" for what, count in counts.items() if count]
        if lacks:
            self._complaints.warn("left out", f"left out {' and '.join(lacks)}")
        if self._reader.cut_off:
            self._complaints.warn("cut off", "the file ends in the middle of a packet, which is left out")

    def send(self, bundle: Bundle) -> Bundle:
        return Bundle()

    def stop(self) -> None:
        self._alarm.end()
        self._file.close()


class RecordPort(EndpointPort):
    """Writes all it is sent to a file, at once; nothing comes from it."""

    def __init__(self, file: CaptureFile, complaints: Complaints) -> None:
        super().__init__()
        self.writable.ring()
        self._file, self._complaints = file, complaints

    def receive(self) -> Bundle:
        return Bundle()

    def send(self, bundle: Bundle) -> Bundle:
        self._file.write([Seen(OUTBOUND, list(bundle), time.time_ns())])
        return Bundle()

    def stop(self) -> None:
        try:
            self._file.close()
        except EndpointError as error:
            self._complaints.warn("end", f"the file lacks its end: {error.strerror}")
