"""CaptureFile: a pcapng file that is being written, of bundles as they come. Knows no endpoint and no pipe."""

import io
import os
import select
import stat
import sys
import threading
import time
from collections.abc import Sequence
from typing import Self

from threepipe.backend import Seen
from threepipe.capture.writing import beginning, packet_blocks, statistics_block
from threepipe.errors import EndpointError

__all__ = ["CaptureFile"]

STANDARD_OUTPUT = "-"


class CaptureFile:
    """Each call is one write to the system, so that nothing waits here, and a killed program loses its last at most.

    Methods may be called from several threads. They raise `EndpointError`, `BrokenPipeError` where a pipe's reader
    has left.
    """

    def __init__(self, path: str, interface: str) -> None:
        """Make the file, or one that exists empty, for packets of `interface`; `-` is standard output."""
        self._path = "standard output" if path == STANDARD_OUTPUT else path
        self._lock = threading.Lock()
        self._packets = 0
        self._file = self._opened(path)
        self._plain = stat.S_ISREG(os.fstat(self._file.fileno()).st_mode)
        try:
            self._append(beginning(interface))
        except BaseException:
            self._file.close()
            raise

    def write(self, seen: Sequence[Seen]) -> None:
        """Append packets. After `close` nothing is written."""
        blocks = packet_blocks(seen)
        with self._lock:
            if not self._file.closed:
                self._append(blocks)
                self._packets += sum([len(packets) for _, packets, _ in seen])

    def sink(self, seen: Seen) -> None:
        """`write`, as `Taps` calls it."""
        self.write([seen])

    def close(self, dropped: int = 0) -> None:
        """Write how many packets there were and how many were `dropped`, and close it. May be repeated."""
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

    def _opened(self, path: str) -> io.FileIO:
        if path == STANDARD_OUTPUT:
            return io.FileIO(sys.stdout.fileno(), "wb", closefd=False)
        try:
            return io.FileIO(path, "wb")
        except OSError as error:
            raise self._refused(error) from None

    def _append(self, blocks: bytes) -> None:
        """Write all of `blocks`, or nothing where the file is a plain one."""
        rest = memoryview(blocks)
        try:
            while rest:
                if (written := self._file.write(rest)) is None:  # Whoever shares it may have made it non-blocking.
                    select.select((), (self._file,), ())
                else:
                    rest = rest[written:]
        except BrokenPipeError:
            raise
        except OSError as error:
            self._take_back(len(blocks) - len(rest))
            raise self._refused(error) from None

    def _take_back(self, size: int) -> None:
        """Remove the `size` bytes of a block that has no room, so that the file ends with a whole one."""
        if size and self._plain:
            try:
                self._file.seek(-size, os.SEEK_CUR)
                self._file.truncate()
            except OSError:
                pass  # Then it ends in the middle of a block, which readers know.

    def _refused(self, error: OSError) -> EndpointError:
        return EndpointError(error.errno, f"{self._path}: {error.strerror or error}")
