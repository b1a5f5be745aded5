"""The short way for single packets to a file descriptor, and what every such way has. Knows no platform."""

import io
import threading

from threepipe.core.packet import MAX_PACKET, SHORTEST, Packet
from threepipe.core.superpacket import PLAIN_HEADER
from threepipe.core.tunnel import FILLER

__all__ = ["CountingSender", "PacketSender"]


class CountingSender:
    """A `threepipe.backend.PacketSender` but for `send`, which counts while it holds the lock, unless it is stopped."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stopped = False
        self._packets = self._bytes = 0  # Faster than an array.

    @property
    def sent(self) -> tuple[int, int]:
        """The packets sent, and their bytes."""
        return self._packets, self._bytes

    def stop(self) -> None:
        """Have `send` return False from now on, after the packets that other threads send now."""
        with self._lock:
            self._stopped = True


class PacketSender(CountingSender):
    """A `threepipe.backend.PacketSender` for a non-blocking file, which must stay open until `stop`."""

    def __init__(self, file: io.FileIO, vnet_header: bool, wide: bool = False) -> None:
        """With `vnet_header`, a virtio header is written in front of each packet, one that is `wide` if so."""
        super().__init__()
        self._write = file.write
        self._header = PLAIN_HEADER + (FILLER if wide else b"") if vnet_header else b""

    def send(self, packet: Packet) -> bool:
        """Write a valid packet. Return False, and write nothing, if it is invalid, or if an error occurs.

        Only bytes are written. The native core's sender writes bytes-like packets of every type.
        """
        if type(packet) is not bytes or not packet or not SHORTEST[packet[0]] <= (size := len(packet)) <= MAX_PACKET:
            return False
        try:
            with self._lock:
                if self._stopped or self._write(self._header + packet) is None:
                    return False
                self._packets += 1
                self._bytes += size
        except OSError:
            return False
        return True
