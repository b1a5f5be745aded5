"""Capturing what goes on, into a file: finding what is named, and moving packets until somebody has enough."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from threepipe import platforms
from threepipe.backend import Seen, Source
from threepipe.capture.file import CaptureFile
from threepipe.capture.running import PREFIX, PipeSource
from threepipe.settings import NamespaceName, check_name

__all__ = ["Recording", "Summary", "open_source", "stopped_by_signals"]


class Summary(NamedTuple):
    packets: int
    bytes: int
    dropped: int
    """Packets that are missing since there was no room for them."""


def open_source(name: str, netns: NamespaceName | None = None) -> Source:
    """The adapter of that name or, where it is `pipe:PID`, the running pipe.

    Raises `AdapterNotFound`, `PermissionDenied`, `AdapterUnavailable`, `NamespaceNotFound`, `InvalidSetting` and,
    for pipes, `EndpointError`.
    """
    if name.startswith(PREFIX):
        return PipeSource(name)
    return platforms.open_capture(check_name(name), netns)


class Recording:
    """Moves packets from a source to a file, and knows how many; the caller closes both."""

    def __init__(self, source: Source, file: CaptureFile) -> None:
        self._source = source
        self._file = file
        self._packets = self._bytes = 0

    @property
    def summary(self) -> Summary:
        return Summary(self._packets, self._bytes, self._source.dropped)

    def run(self, count: int | None = None) -> None:
        """Until the source ends or is stopped, `count` packets were written, or nobody reads the file any more.

        Raises what the source and the file do.
        """
        try:
            for seen in self._source:
                if count is not None:
                    seen = _first(seen, count - self._packets)
                self._file.write(seen)
                for _, packets, _ in seen:
                    self._packets += len(packets)
                    self._bytes += sum(map(len, packets))
                if self._packets == count:
                    return
        except BrokenPipeError:
            pass  # Who reads the file has seen enough.


def _first(seen: list[Seen], count: int) -> list[Seen]:
    """The first `count` packets of it."""
    kept = []
    for direction, packets, time_ns in seen:
        if count > 0:
            kept.append(Seen(direction, packets[:count], time_ns))
        count -= len(packets)
    return kept


@contextmanager
def stopped_by_signals(source: Source) -> Iterator[None]:
    """Inside, Ctrl-C and SIGTERM stop `source`; the second one interrupts as ever. For the main thread only."""

    def stop(number: int, _: object) -> None:
        source.stop()
        signal.signal(number, signal.default_int_handler)

    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, stop) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
