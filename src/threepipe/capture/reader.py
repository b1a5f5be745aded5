"""Reading a capture file: its IP packets with their times, from pcap or pcapng, also compressed by gzip.

This reader exists because the available ones read less. dpkt applies the first interface and byte order of a pcapng
file to all of it, has times as floats, and allocates as much as a block claims; python-pcapng does not read pcap.
"""

from collections.abc import Iterator
from typing import NamedTuple

from threepipe.capture import pcap, pcapng
from threepipe.capture.compressed import GZIP, NOT_READ, GzipReader
from threepipe.capture.link_types import ip_packet
from threepipe.capture.records import ByteReader, CutShort, FileStatistics, PacketRecord, Readable
from threepipe.capture.repair import Repairer, Repairs
from threepipe.core.packet import MAX_PACKET

__all__ = ["CaptureReader", "CapturedPacket"]

_MAGIC_SIZE = 4
_PCAPNG = pcapng.SECTION_HEADER.to_bytes(_MAGIC_SIZE)


class CapturedPacket(NamedTuple):
    """An IP packet of a file; a `CapturedBundle` has several."""

    time_ns: int
    packet: memoryview
    direction: int


class CaptureReader:
    """The IP packets of a capture file. Iterate once; memory is bounded, whatever the file claims.

    If the file ends in the middle of a block, the packets before it are yielded.
    """

    def __init__(self, file: Readable, name: str, *, repair: bool = False) -> None:
        """`name`: the start of every error text. Raises `EndpointError` if `file` is not a capture file.

        With `repair`, packets that their sender left to its network card to complete are yielded complete.
        """
        self.not_ip = 0
        """Frames without an IP packet."""
        self.truncated = 0
        """Packets that the snapshot length of the capture cut."""
        self.cut_short = False
        """True once the file has ended in the middle of a block."""
        self._statistics = FileStatistics()
        self._repairer = Repairer() if repair else None
        reader = ByteReader(file, name)
        try:
            magic = reader.read(_MAGIC_SIZE)
            if magic.startswith(GZIP):
                reader = ByteReader(GzipReader(file, magic), name)
                magic = reader.read(_MAGIC_SIZE)
            if magic == _PCAPNG:
                self._records = pcapng.read_pcapng(reader, self._statistics)
            elif magic in pcap.MAGIC:
                self._records = pcap.read_pcap(reader, magic)
            else:
                for start, format in NOT_READ.items():
                    if magic.startswith(start):
                        raise reader.error(f"the file is {format}")
                raise reader.error(f"neither pcap nor pcapng, but {magic.hex()}", 0)
        except CutShort:
            raise reader.error("the file is too short for a capture: it ends", reader.offset) from None

    @property
    def dropped(self) -> int:
        """Packets that the capture missed, as far as the file was read."""
        return self._statistics.dropped

    @property
    def repairs(self) -> Repairs:
        """The counts of repairs in the part of the file that was read."""
        return self._repairer.repairs if self._repairer is not None else Repairs()

    def __iter__(self) -> Iterator[CapturedPacket]:
        """Yield the packets. Raises `EndpointError` for invalid content: `NAME: problem at byte N`."""
        try:
            for record in self._records:
                if not record.complete:
                    self.truncated += 1
                elif packets := self._packets(record):
                    for packet in packets:
                        yield CapturedPacket(record.time_ns, packet, record.direction)
                else:
                    self.not_ip += 1
        except CutShort:
            self.cut_short = True

    def _packets(self, record: PacketRecord) -> list[memoryview]:
        packet = ip_packet(record.link_type, record.data)
        if packet is not None and self._repairer is not None:
            return self._repairer.complete(packet)
        return [packet] if packet is not None and len(packet) <= MAX_PACKET else []
