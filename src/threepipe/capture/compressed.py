"""Recognizing files that are not captures as they are: a compressed capture, or one of another format."""

import gzip
import zlib
from io import RawIOBase

from threepipe.capture.records import Readable

__all__ = ["GZIP", "NOT_READ", "GzipReader"]

GZIP = b"\x1f\x8b"
"""The first bytes of a file that gzip compressed (RFC 1952, section 2.3.1)."""

NOT_READ = {
    b"\x28\xb5\x2f\xfd": "compressed by zstd; decompress it first: zstd -d",
    b"\x04\x22\x4d\x18": "compressed by lz4; decompress it first: lz4 -d",
    b"\xfd7zX": "compressed by xz; decompress it first: xz -d",
    b"BZh": "compressed by bzip2; decompress it first: bzip2 -d",
    b"PK\x03\x04": "a zip archive; unpack it first: unzip",
    b"snoo": "in the format of Solaris' snoop; convert it first: editcap -F pcapng",
    b"GMBU": "in the format of Microsoft's Network Monitor; convert it first: editcap -F pcapng",
    b"\x34\xcd\xb2\xa1": "pcap as an old patch for Linux changed it; convert it first: editcap -F pcapng",
    b"\xa1\xb2\xcd\x34": "pcap as an old patch for Linux changed it; convert it first: editcap -F pcapng",
}  # fmt: skip
"""The first bytes of a file -> its format, and advice."""


class GzipReader:
    """The contents of a file that gzip compressed, which is read as they are."""

    def __init__(self, file: Readable, start: bytes) -> None:
        """`start`: the bytes of `file` that were read already."""
        self._file = gzip.GzipFile(fileobj=_Rejoined(start, file), mode="rb")

    def read(self, size: int, /) -> bytes:
        """Return `size` bytes, fewer only at the end. Raises `OSError` if the compressed data is damaged."""
        parts = []
        try:
            while size and (part := self._file.read1(size)):
                parts.append(part)
                size -= len(part)
        except EOFError:
            pass  # The file was cut off, so its contents end here.
        except zlib.error as error:
            raise gzip.BadGzipFile(str(error)) from None
        return b"".join(parts)


class _Rejoined(RawIOBase):
    """A file whose first bytes were read already."""

    def __init__(self, start: bytes, file: Readable) -> None:
        self._start = start
        self._rest = file

    def read(self, size: int = -1, /) -> bytes:
        start, self._start = self._start[:size], self._start[size:]
        return start or self._rest.read(size)
