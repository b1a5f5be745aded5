"""Live capture: packets of an adapter or a running pipe, written to a file until one of the two ends."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from threepipe import platforms
from threepipe.backend import CapturedBundle, Source
from threepipe.capture.client import PREFIX, PipeSource
from threepipe.capture.writer import CaptureWriter
from threepipe.net.hangup import on_hangup
from threepipe.net.signals import ENDINGS, handle_signals, ignore_repeated
from threepipe.settings import NamespaceName, check_name

if TYPE_CHECKING:
    from threepipe.capture.expression import PacketFilter

__all__ = ["LiveCapture", "Summary", "open_source", "stopped_by_signals"]


class Summary(NamedTuple):
    """The counts of a capture."""

    packets: int
    bytes: int
    dropped: int
    """Packets that the capture missed for lack of room."""


def open_source(name: str, netns: NamespaceName | None = None) -> Source:
    """Open the adapter `name`, or the running pipe if the name has the form `pipe:PID`.

    Raises `AdapterNotFound`, `PermissionDenied`, `AdapterUnavailable`, `NamespaceNotFound`, `InvalidSetting` and,
    for pipes, `EndpointError`.
    """
    if name.startswith(PREFIX):
        return PipeSource(name)
    return platforms.open_capture(check_name(name), netns)


class LiveCapture:
    """The transfer of packets from a source to a file. The caller closes both."""

    def __init__(self, source: Source, file: CaptureWriter, wanted: "PacketFilter | None" = None) -> None:
        """Only packets that match the filter `wanted` are written and counted; None: all of them."""
        self._source = source
        self._file = file
        self._wanted = wanted
        self._packets = self._bytes = 0

    @property
    def summary(self) -> Summary:
        """The counts so far."""
        return Summary(self._packets, self._bytes, self._source.dropped)

    def run(self, count: int | None = None) -> None:
        """Write packets until the source ends or is stopped, or the file's reader closes it; at most `count` of them.

        Raises as the source and the file do.
        """
        try:
            with on_hangup(self._file, self._source.stop):
                self._transfer(count)
        except BrokenPipeError:
            pass  # The file's reader has closed it.

    def _transfer(self, count: int | None) -> None:
        for bundles in self._source:
            if self._wanted is not None:
                bundles = self._wanted.keep(bundles)
            if count is not None:
                bundles = _first(bundles, count - self._packets)
            self._file.write(bundles)
            for bundle in bundles:
                self._packets += len(bundle.packets)
                self._bytes += sum(map(len, bundle.packets))
            if self._packets == count:
                return


def _first(bundles: list[CapturedBundle], count: int) -> list[CapturedBundle]:
    """Return the first `count` packets."""
    kept = []
    for bundle in bundles:
        if count > 0:
            kept.append(bundle._replace(packets=bundle.packets[:count]))
        count -= len(bundle.packets)
    return kept


@contextmanager
def stopped_by_signals(source: Source) -> Iterator[None]:
    """Have Ctrl-C and other requests to end stop `source` while the block runs. Main thread only.

    A signal that is repeated interrupts, except SIGHUP, which a terminal that is gone may send twice.
    """

    def stop(number: int) -> None:
        source.stop()
        if not ignore_repeated(number):
            signal.signal(number, signal.default_int_handler)

    with handle_signals(("SIGINT", *ENDINGS), stop):
        yield
