"""Reading capture files: the IP packets in a pcap or pcapng file, of whatever link, with their times.

A reader of our own, for those there are read only a part: dpkt's of pcapng takes the first interface and the
first section's byte order for all, has times as floats, and asks for as much memory as a block claims;
python-pcapng does not read pcap. Knows no files, but only what can be read from.
"""

from collections.abc import Iterator
from typing import NamedTuple

from threepipe.capture import pcap, pcapng
from threepipe.capture.cursor import Cursor, CutOff, Readable, Told
from threepipe.capture.links import ip_packet

__all__ = ["CaptureReader", "Captured"]

_PCAPNG = pcapng.SECTION.to_bytes(4)


class Captured(NamedTuple):
    """An IP packet, as `Seen` has several."""

    time_ns: int
    packet: memoryview
    direction: int


class CaptureReader:
    """Iterating gives the packets, once. Memory is bounded, whatever the file says.

    A file that ends in the middle of a block gives what is whole before.
    """

    def __init__(self, file: Readable, name: str) -> None:
        """`name`: what errors begin with. Raises `EndpointError` for what is no capture file."""
        self.not_ip = 0
        """Frames with something else in them."""
        self.snapped = 0
        """Packets of which only the beginning was captured."""
        self.cut_off = False
        """Whether the file ended in the middle of a block."""
        self._told = Told()
        cursor = Cursor(file, name)
        try:
            magic = cursor.take(4)
            if magic == _PCAPNG:
                self._frames = pcapng.open_pcapng(cursor, self._told)
            elif magic in pcap.MAGIC:
                self._frames = pcap.open_pcap(cursor, magic)
            else:
                raise cursor.wrong(f"neither pcap nor pcapng, but {magic.hex()}", 0)
        except CutOff:
            raise cursor.wrong("the end of the file, which is too short for a capture,", cursor.at) from None

    @property
    def dropped(self) -> int:
        """Packets that the file says were not captured, as far as was read."""
        return self._told.dropped

    def __iter__(self) -> Iterator[Captured]:
        """Raises `EndpointError` at something that cannot be: `NAME: what is wrong at byte N`."""
        try:
            for frame in self._frames:
                if not frame.whole:
                    self.snapped += 1
                elif (packet := ip_packet(frame.link, frame.data)) is None:
                    self.not_ip += 1
                else:
                    yield Captured(frame.time_ns, packet, frame.direction)
        except CutOff:
            self.cut_off = True
