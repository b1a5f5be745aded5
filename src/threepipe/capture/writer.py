"""Writing a pcapng file as packets come. This file knows no endpoint and no pipe."""

import io
import os
import select
import stat
import sys
import threading
import time
from collections.abc import Sequence
from typing import Self

from threepipe.backend import CapturedBundle
from threepipe.capture.pcapng_blocks import file_header, packet_blocks, statistics_block
from threepipe.errors import EndpointError

__all__ = ["CaptureWriter"]

STANDARD_OUTPUT = "-"
_MODE = 0o600


class CaptureWriter:
    """A pcapng file that is being written.

    Each call is one write to the system. So no packet waits in this program, and a killed program loses its last
    write at most. Methods may be called from several threads. They raise `EndpointError`, and `BrokenPipeError` when
    the reader of a pipe has closed it.
    """

    def __init__(self, path: str, interface: str) -> None:
        """Create or empty the file, for packets of `interface`. The path `-` is standard output.

        Only this user may read and write a new file, as packets are nobody else's business.
        """
        self._path = "standard output" if path == STANDARD_OUTPUT else path
        self._lock = threading.Lock()
        self._packets = 0
        self._file = self._open(path)
        self._regular = stat.S_ISREG(os.fstat(self._file.fileno()).st_mode)
        try:
            self._append(file_header(interface))
        except BaseException:
            self._file.close()
            raise

    def fileno(self) -> int:
        """Return the descriptor of the file, which shows when the reader of a pipe has closed it."""
        return self._file.fileno()

    def write(self, bundles: Sequence[CapturedBundle]) -> None:
        """Append packets; after `close` do nothing."""
        blocks = packet_blocks(bundles)
        with self._lock:
            if not self._file.closed:
                self._append(blocks)
                self._packets += sum([len(bundle.packets) for bundle in bundles])

    def sink(self, bundle: CapturedBundle) -> None:
        """Append packets; the form of `write` that `Taps` calls."""
        self.write([bundle])

    def close(self, dropped: int = 0) -> None:
        """Append the count of packets and of the `dropped` ones, which the capture missed; close. May be repeated."""
        with self._lock:
            if self._file.closed:
                return
            try:
                self._append(statistics_block(time.time_ns(), self._packets + dropped, dropped))
            finally:
                self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open(self, path: str) -> io.FileIO:
        if path == STANDARD_OUTPUT:
            return io.FileIO(sys.stdout.fileno(), "wb", closefd=False)
        try:
            return io.FileIO(path, "wb", opener=_open_privately)
        except OSError as error:
            raise self._error(error) from None

    def _append(self, blocks: bytes) -> None:
        """Write all of `blocks`; if a regular file has no room for them, nothing."""
        rest = memoryview(blocks)
        try:
            while rest:
                # Another program that shares standard output may have made it non-blocking.
                if (written := self._file.write(rest)) is None:
                    select.select((), (self._file,), ())
                else:
                    rest = rest[written:]
        except BrokenPipeError:
            raise
        except OSError as error:
            self._remove_last(len(blocks) - len(rest))
            raise self._error(error) from None

    def _remove_last(self, size: int) -> None:
        """Remove the last `size` bytes, so that a regular file ends with a complete block."""
        if size and self._regular:
            try:
                self._file.seek(-size, os.SEEK_CUR)
                self._file.truncate()
            except OSError:
                pass  # The file then ends in the middle of a block, which readers accept.

    def _error(self, error: OSError) -> EndpointError:
        return EndpointError(error.errno, f"{self._path}: {error.strerror or error}")


def _open_privately(path: str, flags: int) -> int:
    return os.open(path, flags, _MODE)
