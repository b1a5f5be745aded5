"""The parts that the readers of both formats share: the reader of a file's bytes, and the packet records they yield.

This file knows no format.
"""

import errno
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from threepipe.backend import UNKNOWN
from threepipe.errors import EndpointError

__all__ = ["MAX_BLOCK", "ByteReader", "CutShort", "FileStatistics", "PacketRecord", "Readable"]

MAX_BLOCK = 1 << 20
"""Bytes of the longest block that is read; any IP packet fits, with its headers and comments."""

_CHUNK = 1 << 16  # Bytes that are read at a time to be skipped.


class Readable(Protocol):
    """A file, or anything else with `read`. It need not be seekable."""

    def read(self, size: int, /) -> bytes:
        """Return `size` bytes, fewer only at the end."""


class PacketRecord(NamedTuple):
    """One packet of a capture file, with its link-layer header."""

    time_ns: int
    """Nanoseconds since 1970."""
    link_type: int
    data: memoryview
    complete: bool
    """False if the snapshot length of the capture cut the packet."""
    direction: int = UNKNOWN


@dataclass(slots=True)
class FileStatistics:
    """The counts that a file contains; its reader fills them in."""

    dropped: int = 0
    """Packets that the capture missed for lack of room, by the last statistics block."""


class CutShort(Exception):
    """The file ends in the middle of a header or block."""


class ByteReader:
    """A capture file, read from its start to its end a few bytes at a time."""

    def __init__(self, file: Readable, name: str) -> None:
        """`name`: the start of every error text."""
        self._file = file
        self._name = name
        self.offset = 0
        """Bytes read so far."""

    def read_or_end(self, size: int) -> bytes:
        """Return the next `size` bytes, or none at the end of the file. Raises `CutShort` and `EndpointError`."""
        try:
            data = self._file.read(size)
        except OSError as error:
            raise EndpointError(error.errno or errno.EPROTO, f"{self._name}: {error.strerror or error}") from None
        self.offset += len(data)
        if 0 < len(data) < size:
            raise CutShort
        return data

    def read(self, size: int) -> bytes:
        """Return the next `size` bytes. Raises `CutShort` if there are fewer, and `EndpointError`."""
        if size and not (data := self.read_or_end(size)):
            raise CutShort
        return data if size else b""

    def skip(self, size: int) -> None:
        """Skip `size` bytes, in little memory. Raises as `read` does."""
        while size:
            size -= len(self.read(min(size, _CHUNK)))

    def error(self, problem: str, offset: int | None = None) -> EndpointError:
        """Return the error for a `problem` with the bytes at `offset` of the file, or with all of it."""
        place = "" if offset is None else f" at byte {offset}"
        return EndpointError(errno.EPROTO, f"{self._name}: {problem}{place}")
