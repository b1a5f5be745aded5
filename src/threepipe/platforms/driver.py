"""The driver that adapters need on Windows: installing Wintun's signed DLL and removing it again.

This module owns the files on the disk, and unpacks, writes and returns nothing unless its SHA-256 is a pinned one.
It runs on every system, as the DLL can be fetched for another machine; `platforms/windows` finds and loads it.
"""

import errno
import hashlib
import http.client
import io
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from threepipe.errors import AdapterUnavailable, InvalidSetting, PermissionDenied
from threepipe.platforms.files import write_atomically
from threepipe.platforms.windows import library, release, running
from threepipe.platforms.windows.release import DLL_NAME
from threepipe.platforms.windows.running import running_version
from threepipe.platforms.windows.winerror import (
    ERROR_ACCESS_DENIED,
    ERROR_INVALID_IMAGE_HASH,
    windows_error,
)

__all__ = [
    "HOME_PAGE",
    "LICENCE_NAME",
    "InstalledLibrary",
    "Package",
    "get_package",
    "installed_library",
    "running_version",
    "uninstall",
]

HOME_PAGE = "https://www.wintun.net"
LICENCE_NAME = "LICENSE.txt"

_MAX_SIZE = 16 << 20  # Bytes of a download; the release has about a tenth.
_CHUNK = 1 << 16
_SECONDS_FOR_ANSWER = 30

Progress = Callable[[int, int | None], None]
"""Called with the number of bytes received and, if known, the total."""


@dataclass(frozen=True, slots=True)
class Package:
    """A verified DLL, and the licence from its archive (empty without an archive)."""

    version: str
    architecture: str
    dll: bytes
    licence: str

    def install(self, folder: Path | None = None) -> Path:
        """Write the DLL and its licence into `folder`, by default the user's, and return the path of the DLL.

        Other programs see either the whole old file or the whole new one. Raises `PermissionDenied`, also while a
        program has the old DLL loaded, and `AdapterUnavailable`.
        """
        folder = folder or library.user_folder(self.architecture)
        files = {LICENCE_NAME: self.licence.encode(), DLL_NAME: self.dll}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for name, content in files.items():
                if content:
                    write_atomically(folder / name, content, 0o644)
        except PermissionError:
            raise _write_refused(folder) from None
        return folder / DLL_NAME


def get_package(
    source: Path | None = None, *, architecture: str | None = None, progress: Progress = lambda done, total: None
) -> Package:
    """Return the DLL of the pinned release, from a zip or DLL on the disk, or without `source` from its home page.

    `architecture`: amd64, arm64, x86 or arm, by default this Python's. Raises `AdapterUnavailable` for another
    release's file or a failed download, and `InvalidSetting` for an architecture without a build.
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
            text = f"{name} was not opened: its SHA-256 is not that of the zip of Wintun {pinned.version}"
            raise windows_error(AdapterUnavailable, ERROR_INVALID_IMAGE_HASH, f"{text}; get it from {pinned.url}")
        content, licence = _unpack(content, architecture)
    pinned.check(content, architecture, name)
    return Package(pinned.version, architecture, content, licence.decode())


class InstalledLibrary(NamedTuple):
    """A DLL on the disk."""

    path: Path
    sha256: str
    version: str | None
    """The version of the pinned release; None for any other file."""


def installed_library() -> InstalledLibrary:
    """Return the DLL that adapters would load. Raises `AdapterUnavailable` if there is none."""
    path = library.find_library()
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    known = sha256 in release.RELEASE.dll_hashes.values()
    return InstalledLibrary(path, sha256, release.RELEASE.version if known else None)


def uninstall(delete: Callable[[], None] = running.delete_driver) -> list[Path]:
    """Remove the driver from Windows with `delete`, then the files that `install` put into the user's folder.

    Returns the removed files; other files stay. While any program has an adapter, `delete` raises and nothing is
    removed. Raises as `delete` does, and `PermissionDenied`.
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
        raise _write_refused(folder) from None
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
        text = f"{url} cannot be downloaded: {reason}; download it another way and name the file with --from"
        raise AdapterUnavailable(getattr(error, "errno", None) or errno.EIO, text) from None
    return bytes(content)


def _unpack(content: bytes, architecture: str) -> tuple[bytes, bytes]:
    """Return the DLL for `architecture` and the licence, from a zip whose hash has been checked."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        folder = DLL_NAME.removesuffix(".dll")
        return archive.read(f"{folder}/bin/{architecture}/{DLL_NAME}"), archive.read(f"{folder}/{LICENCE_NAME}")


def _write_refused(folder: Path) -> PermissionDenied:
    text = f"{folder} is not writable by this user, or a program uses its {DLL_NAME}; end that program first"
    return windows_error(PermissionDenied, ERROR_ACCESS_DENIED, text)
