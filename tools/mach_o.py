"""The oldest macOS that a library runs on, as its header says."""

import struct

_HEADER = 32  # Bytes of a mach_header_64; the number of commands is at 16.
_VERSION_AT = {0x24: 8, 0x32: 12}
"""LC_VERSION_MIN_MACOSX and LC_BUILD_VERSION, which name the version -> where in the command; see <mach-o/loader.h>."""


def oldest_system(library: bytes) -> str:
    """Return the version, such as "11.0". Raises `ValueError` if the library names none."""
    (commands,) = struct.unpack_from("<I", library, 16)
    place = _HEADER
    for _ in range(commands):
        command, size = struct.unpack_from("<2I", library, place)
        if command in _VERSION_AT:
            (version,) = struct.unpack_from("<I", library, place + _VERSION_AT[command])
            return f"{version >> 16}.{version >> 8 & 0xFF}"
        place += size
    raise ValueError("the library does not say for which macOS it is")
