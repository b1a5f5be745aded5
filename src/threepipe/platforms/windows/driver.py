"""The driver that adapters need on Windows: getting Wintun's signed DLL, and taking it away again.

Owns what is on the disk. Nothing is unpacked, written or given out unless its SHA-256 is a pinned one.
`platforms/windows` finds and loads it; this runs anywhere, for the DLL can be fetched for another machine.
"""

import errno
import hashlib
import http.client
import io
import os
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from threepipe.errors import AdapterUnavailable, InvalidSetting, PermissionDenied
from threepipe.platforms.windows import library, release, running
from threepipe.platforms.windows.release import DLL_NAME
from threepipe.platforms.windows.winerror import (
    ERROR_ACCESS_DENIED,
    ERROR_INVALID_IMAGE_HASH,
    windows_error,
)

__all__ = ["HOME_PAGE", "LICENCE_NAME", "Found", "Package", "found", "obtain", "remove"]

HOME_PAGE = "https://www.wintun.net"
LICENCE_NAME = "LICENSE.txt"

_MAX_SIZE = 16 << 20  # Bytes of a download, some ten times those of the release.
_CHUNK = 1 << 16
_SECONDS_FOR_ANSWER = 30

Progress = Callable[[int, int | None], None]
"""Called with the bytes that have come and, where it is known, how many there will be."""


@dataclass(frozen=True, slots=True)
class Package:
    """A DLL that was found right, and the licence that came with it (empty where none did)."""

    version: str
    architecture: str
    dll: bytes
    licence: str

    def install(self, folder: Path | None = None) -> Path:
        """Put the DLL, with its licence, into `folder`, by default the user's own, and return its path.

        Whoever looks meanwhile sees all of the old file or all of the new one. Raises
        `PermissionDenied`, also where a program has the old one loaded, and `AdapterUnavailable`.
        """
        folder = folder or library.user_folder(self.architecture)
        files = {LICENCE_NAME: self.licence.encode(), DLL_NAME: self.dll}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for name, content in files.items():
                if content:
                    _write(folder / name, content)
        except PermissionError:
            raise _in_the_way(folder) from None
        return folder / DLL_NAME


def obtain(
    source: Path | None = None, *, architecture: str | None = None, progress: Progress = lambda done, total: None
) -> Package:
    """The pinned release, from a zip or a DLL on the disk, or without `source` from its home page.

    `architecture`: amd64, arm64, x86 or arm, by default this Python's. Raises `AdapterUnavailable` for
    what is not that release or cannot be had, and `InvalidSetting` for an architecture it is not built for.
    """
    pinned = release.RELEASE
    architecture = architecture or release.process_architecture()
    if architecture not in pinned.dll_hashes:
        raise InvalidSetting(f"architecture {architecture!r}: give one of {', '.join(pinned.dll_hashes)}")
    name = str(source or pinned.url)
    content = source.read_bytes() if source else _download(pinned.url, progress)
    licence = b""
    if content[:2] != b"MZ":
        if hashlib.sha256(content).hexdigest() != pinned.zip_hash:
            text = f"{name} is not the zip of Wintun {pinned.version}: its SHA-256 is another, so it is not opened"
            raise windows_error(AdapterUnavailable, ERROR_INVALID_IMAGE_HASH, f"{text}; get it from {pinned.url}")
        content, licence = _unpacked(content, architecture)
    pinned.check(content, architecture, name)
    return Package(pinned.version, architecture, content, licence.decode())


class Found(NamedTuple):
    """A DLL on the disk; `version` is that of the pinned release, or None where it is another file."""

    path: Path
    sha256: str
    version: str | None


def found() -> Found:
    """The DLL that would be loaded. Raises `AdapterUnavailable` where there is none."""
    path = library.find_library()
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    known = sha256 in release.RELEASE.dll_hashes.values()
    return Found(path, sha256, release.RELEASE.version if known else None)


def remove(delete: Callable[[], None] = running.delete_driver) -> list[Path]:
    """Take the driver out of Windows by `delete`, then what `install` put into the user's folder.

    Returns the files removed; others stay, also in that folder. WintunDeleteDriver refuses while any
    program has an adapter: then nothing is removed. Raises what it raises, and `PermissionDenied`.
    """
    folder = library.user_folder(release.process_architecture())
    delete()
    removed = [path for path in (folder / DLL_NAME, folder / LICENCE_NAME) if path.is_file()]
    try:
        for path in removed:
            path.unlink()
        if removed and not any(folder.iterdir()):
            folder.rmdir()
    except PermissionError:
        raise _in_the_way(folder) from None
    return removed


def _download(url: str, progress: Progress) -> bytes:
    import urllib.error
    import urllib.request

    content = bytearray()
    try:
        with urllib.request.urlopen(url, timeout=_SECONDS_FOR_ANSWER) as answer:
            length = answer.headers.get("Content-Length")
            while (chunk := answer.read(_CHUNK)) and len(content) <= _MAX_SIZE:
                content += chunk
                progress(len(content), int(length) if length else None)
    except (OSError, http.client.HTTPException) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        text = f"{url} cannot be fetched: {reason}; fetch it by other means, and give the file with --from"
        raise AdapterUnavailable(getattr(error, "errno", None) or errno.EIO, text) from None
    return bytes(content)


def _unpacked(content: bytes, architecture: str) -> tuple[bytes, bytes]:
    """The DLL for `architecture` and the licence, from a zip whose hash was right."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        folder = DLL_NAME.removesuffix(".dll")
        return archive.read(f"{folder}/bin/{architecture}/{DLL_NAME}"), archive.read(f"{folder}/{LICENCE_NAME}")


def _write(path: Path, content: bytes) -> None:
    """Have `path` be a file of `content`, all at once."""
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f"{path.name}.", delete=False) as file:
        try:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            file.close()
            os.chmod(file.name, 0o644)  # It was its maker's alone until it was whole.
            os.replace(file.name, path)
        except BaseException:
            file.close()
            os.unlink(file.name)
            raise


def _in_the_way(folder: Path) -> PermissionDenied:
    text = f"{folder} cannot be written by this user, or a program uses the {DLL_NAME} there; end it first"
    return windows_error(PermissionDenied, ERROR_ACCESS_DENIED, text)
