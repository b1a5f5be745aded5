"""Cursor: a capture file that is read from its start to its end, a few bytes at a time. Knows no format."""

import errno
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from threepipe.backend import UNKNOWN
from threepipe.errors import EndpointError

__all__ = ["MOST", "Cursor", "CutOff", "Frame", "Readable", "Told"]

_PIECE = 1 << 16  # Bytes that are read at a time of what is skipped.


class Readable(Protocol):
    def read(self, size: int, /) -> bytes:
        """`size` bytes, fewer only at the end."""


class CutOff(Exception):
    """The file ends in the middle of something."""


class Cursor:
    """Works on what cannot be sought in, too."""

    def __init__(self, file: Readable, name: str) -> None:
        self._file = file
        self._name = name
        self.at = 0
        """Bytes that were read so far."""

    def begin(self, size: int) -> bytes:
        """The next `size` bytes, or none at the end of the file. Raises `CutOff`, `EndpointError`."""
        try:
            data = self._file.read(size)
        except OSError as error:
            raise EndpointError(error.errno, f"{self._name}: {error.strerror or error}") from None
        self.at += len(data)
        if 0 < len(data) < size:
            raise CutOff
        return data

    def take(self, size: int) -> bytes:
        """The next `size` bytes, of which there have to be as many. Raises `CutOff`, `EndpointError`."""
        if size and not (data := self.begin(size)):
            raise CutOff
        return data if size else b""

    def skip(self, size: int) -> None:
        """Pass over `size` bytes, without room for all of them. Raises as `take`."""
        while size:
            size -= len(self.take(min(size, _PIECE)))

    def wrong(self, what: str, place: int) -> EndpointError:
        """The error for something that cannot be, `place` bytes behind the start."""
        return EndpointError(errno.EPROTO, f"{self._name}: {what} at byte {place}")


MOST = 1 << 20
"""Bytes of the longest frame that is read; there is room in it for any IP packet, its headers and comments."""


class Frame(NamedTuple):
    time_ns: int
    link: int
    data: memoryview
    whole: bool
    """Whether it is all there: who captured may have kept the beginning only."""
    direction: int = UNKNOWN


@dataclass(slots=True)
class Told:
    """What a file says about itself, filled in while it is read."""

    dropped: int = 0
    """Packets that were not captured since there was no room, as the last statistics say."""
