"""Filter expressions of pcap-filter(7), which libpcap compiles and runs; it is loaded only for them.

threepipe has no compiler of its own, so a filter needs libpcap here (Npcap on Windows). tcpdump, Wireshark and this
module have the same one, so an expression means the same to all of them.
"""

import ctypes
from ctypes.util import find_library
from typing import Any

from threepipe.backend import CapturedBundle
from threepipe.errors import InvalidSetting

__all__ = ["PacketFilter"]

_LIBRARIES = ("pcap", "wpcap")  # The latter is Npcap's.
_LONGEST = 65535
_UNKNOWN_NETMASK = 0xFFFFFFFF  # PCAP_NETMASK_UNKNOWN; a netmask is for `ip broadcast` alone.


class _Program(ctypes.Structure):
    """struct bpf_program of <pcap/bpf.h>."""

    _fields_ = (("length", ctypes.c_uint), ("instructions", ctypes.c_void_p))


class PacketFilter:
    """A compiled expression: call it with a packet, which begins with its IP header, to learn if it matches."""

    def __init__(self, expression: str) -> None:
        """Compile the expression. Raises `InvalidSetting` if it is wrong, or if this system has no libpcap."""
        self._library = library = _load()
        kind = library.pcap_datalink_name_to_val(b"RAW")  # The number differs between systems.
        handle = library.pcap_open_dead(kind, _LONGEST)
        if not handle:
            raise MemoryError
        self._program = _Program()
        try:
            text = expression.encode(errors="surrogatepass")  # libpcap refuses these with a reason.
            compiled = library.pcap_compile(handle, ctypes.byref(self._program), text, 1, _UNKNOWN_NETMASK)
            if compiled != 0:
                reason = library.pcap_geterr(handle).decode(errors="replace")
                raise InvalidSetting(f"filter {expression!r}: {reason}; pcap-filter(7) describes filters")
        finally:
            library.pcap_close(handle)

    def __call__(self, packet: bytes | bytearray | memoryview) -> bool:
        data = bytes(packet)
        return bool(self._library.bpf_filter(self._program.instructions, data, len(data), len(data)))

    def keep(self, bundles: list[CapturedBundle]) -> list[CapturedBundle]:
        """Return the bundles with the packets that match, and without those that have none."""
        kept = [bundle._replace(packets=[each for each in bundle.packets if self(each)]) for bundle in bundles]
        return [bundle for bundle in kept if bundle.packets]

    def __del__(self) -> None:
        if getattr(self, "_program", None) is not None and self._program.instructions:
            self._library.pcap_freecode(ctypes.byref(self._program))


def _load() -> Any:
    """Load libpcap and declare its functions. Raises `InvalidSetting`."""
    names = [name for name in map(find_library, _LIBRARIES) if name]
    if not names:
        raise InvalidSetting(
            "filters need libpcap, which this system lacks; install it (Debian: libpcap0.8, Windows: Npcap), or filter"
            " the output: threepipe capture NAME | tcpdump -r - EXPRESSION"
        )
    library = ctypes.CDLL(names[0])
    pointer, text, program = ctypes.c_void_p, ctypes.c_char_p, ctypes.POINTER(_Program)
    for name, result, *arguments in (
        ("pcap_datalink_name_to_val", ctypes.c_int, text),
        ("pcap_open_dead", pointer, ctypes.c_int, ctypes.c_int),
        ("pcap_compile", ctypes.c_int, pointer, program, text, ctypes.c_int, ctypes.c_uint32),
        ("pcap_geterr", text, pointer),
        ("pcap_close", None, pointer),
        ("pcap_freecode", None, program),
        ("bpf_filter", ctypes.c_uint, pointer, text, ctypes.c_uint, ctypes.c_uint),
    ):
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library
