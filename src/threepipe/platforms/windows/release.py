"""The release of Wintun that threepipe drives: its address and hashes, and the architecture of a DLL.

Pure data and parsing; opens and loads nothing.
"""

import errno
import hashlib
import struct
from typing import NamedTuple

from threepipe.errors import AdapterUnavailable
from threepipe.platforms.windows.winerror import ERROR_BAD_EXE_FORMAT, ERROR_INVALID_IMAGE_HASH, windows_error

__all__ = ["DLL_NAME", "MACHINES", "RELEASE", "Release", "architecture_of", "process_architecture"]

DLL_NAME = "wintun.dll"

MACHINES = {0x8664: "amd64", 0xAA64: "arm64", 0x014C: "x86", 0x01C4: "arm"}
"""The release's names of architectures, by IMAGE_FILE_MACHINE_AMD64, _ARM64, _I386 and _ARMNT of <winnt.h>."""

_PLATFORMS = {"win-amd64": "amd64", "win-arm64": "arm64", "win32": "x86", "win-arm32": "arm"}
"""The same names, by the platform names of `sysconfig`."""

_NEW_HEADER = 0x3C  # The offset in the DOS header of the offset of the PE header (e_lfanew).


class Release(NamedTuple):
    """A version, and the SHA-256 (hexadecimal) of its zip and of the DLL for each architecture."""

    version: str
    url: str
    zip_hash: str
    dll_hashes: dict[str, str]

    def check(self, content: bytes, architecture: str, name: str) -> None:
        """Raise `AdapterUnavailable` unless `content`, called `name`, is this release's DLL for `architecture`."""
        if hashlib.sha256(content).hexdigest() == self.dll_hashes[architecture]:
            return
        found = architecture_of(content)
        if found and found != architecture:
            text = f"{name} is for {found}, not for {architecture}"
            code = ERROR_BAD_EXE_FORMAT
        else:
            text = f"{name} was not used: its SHA-256 is not that of the {DLL_NAME} of Wintun {self.version}"
            code = ERROR_INVALID_IMAGE_HASH
        raise windows_error(AdapterUnavailable, code, f"{text}; to get the right one, run: threepipe driver install")


RELEASE = Release(
    version="0.14.1",
    url="https://www.wintun.net/builds/wintun-0.14.1.zip",
    zip_hash="07c256185d6ee3652e09fa55c0b673e2624b565e02c4b9091c79ca7d2f24ef51",
    dll_hashes={
        "amd64": "e5da8447dc2c320edc0fc52fa01885c103de8c118481f683643cacc3220dafce",
        "arm64": "f7ba89005544be9d85231a9e0d5f23b2d15b3311667e2dad0debd344918a3f80",
        "x86": "d694fa46ab4cfebcb2632d094c7aa97278eef2f8052438621766d863ae98a931",
        "arm": "daad267411ecdc70a0535e274d2c3e9da3d0084bdac7662cb8424dd4a031b4d9",
    },
)
"""The newest release, of 2021. The hash of the zip is from its home page."""


def architecture_of(content: bytes) -> str | None:
    """Return the architecture of a DLL, from the machine field of its header; None for any other content."""
    try:
        (start,) = struct.unpack_from("<I", content, _NEW_HEADER)
        signature, machine = struct.unpack_from("<4sH", content, start)
    except struct.error:
        return None
    return MACHINES.get(machine) if content[:2] == b"MZ" and signature == b"PE\0\0" else None


def process_architecture() -> str:
    """Return the architecture of this Python, which its DLLs must have; that of the system may differ.

    Raises `AdapterUnavailable` if Wintun has no build for it.
    """
    import sysconfig

    platform = sysconfig.get_platform()
    if architecture := _PLATFORMS.get(platform):
        return architecture
    text = f"this Python is for {platform}, and {DLL_NAME} is for Windows on {', '.join(MACHINES.values())}"
    advice = "to get it for such a machine, run: threepipe driver install --architecture NAME --to FOLDER"
    raise AdapterUnavailable(errno.ENOSYS, f"{text}; {advice}")
