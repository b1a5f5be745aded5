"""Bundle: ordered packets handed over in one call; and Arena, the memory that received ones lie in.

A bundle keeps *records*, the units in which it was handed over, apart from *packets*, what a program
looks at: one record may stand for many packets, which only this file and `offload` know. Pure data:
no I/O and no platform.
"""

import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import Self, overload

from threepipe.core.fast import measure, split
from threepipe.core.packet import Packet, check_packets, is_packet
from threepipe.core.superpacket import MAX_RECORD
from threepipe.errors import InvalidPacket

__all__ = ["Arena", "Bundle"]

# The exchange format of Wintun's first driver (March 2019, commit 03479ca): one record is a native
# u32 size, 12 bytes of padding and the packet, and is padded to a multiple of 16.
_RECORD = struct.Struct("=I12x")
_ALIGNMENT = 16
_MAX_RECORD = 0xF000
_MAX_PACKED_PACKETS = 256
_MAX_PACKED_BYTES = _MAX_PACKED_PACKETS * _MAX_RECORD
_MAX_PACKED_PACKET = _MAX_RECORD - _RECORD.size

_SINGLE_BYTES = frozenset({bytes, bytearray})
"""Types whose views are of single bytes in a row."""


class Bundle(Sequence[memoryview]):
    """An immutable sequence of packets, each a `memoryview` of bytes.

    The views of a received bundle are writable: a program may answer in place and send the bundle
    back. Their memory is never given to later packets while the bundle or a view of it is held.
    `release()`, or leaving a `with bundle:` block, lets it be used again at once; the views are
    invalid from then on (using one raises ValueError), slices that were taken of them stay good.

    What a kernel hands over as superpackets stays whole until somebody looks at single packets
    (iterating, indexing, slicing); counting and checking is not looking.
    """

    __slots__ = ("_given", "_measure", "_packets", "_records")

    def __init__(self, packets: Iterable[Packet] = ()) -> None:
        """Hold `packets`, an iterable of bytes-like objects, without copying or checking them.

        Raises TypeError where `packets` is one packet instead of an iterable of them, or one of them
        is not bytes-like, or not in one piece.
        """
        if isinstance(packets, (bytes, bytearray, memoryview)):
            raise TypeError("a Bundle takes an iterable of packets; wrap a single one in a list")
        packets = list(packets)
        # Most are bytes, which need no look at each, and no views before somebody looks at packets.
        types = set(map(type, packets))
        as_given = types <= {bytes}
        as_bytes = memoryview if types <= _SINGLE_BYTES else _as_bytes
        self._given: Sequence[Packet] | None = packets if as_given else None
        self._packets: Sequence[memoryview] | None = None if as_given else list(map(as_bytes, packets))
        self._records: Sequence[memoryview] | None = None
        self._measure: tuple[int, int, bool] | None = None  # Of the records, once somebody asked.

    @classmethod
    def of_views(cls, views: Sequence[memoryview]) -> "Bundle":
        """A bundle of packets, views of single bytes, taken as they are: the short way for platforms."""
        bundle = cls.__new__(cls)
        bundle._given, bundle._packets, bundle._records, bundle._measure = None, views, None, None
        return bundle

    @classmethod
    def of_records(cls, records: Sequence[memoryview]) -> "Bundle":
        """A bundle of records with a virtio header each, as `threepipe.core.superpacket` describes them."""
        bundle = cls.__new__(cls)
        bundle._given, bundle._packets, bundle._records, bundle._measure = None, None, records, None
        return bundle

    @property
    def records(self) -> Sequence[memoryview] | None:
        """The records it was made of, to be passed on whole; None once somebody looked at packets.

        For a packet that was looked at may have been changed.
        """
        return self._records

    @property
    def buffers(self) -> Sequence[Packet]:
        """The packets as they are sent: views, or the bytes that nobody has looked at since they were given."""
        return self._split() if self._given is None else self._given

    @property
    def nbytes(self) -> int:
        """Bytes of all packets together, headers included."""
        if self._records is not None:
            return self._measured()[1]
        return sum(map(len, self.buffers))

    def check(self) -> None:
        """Raise `InvalidPacket` for the first packet that is none; whole records stay whole where all are well."""
        measured = measure(self.buffers, vnet_header=False) if self._records is None else self._measured()
        if not measured[2]:
            check_packets(self.buffers)

    def __len__(self) -> int:
        if self._records is not None:
            return self._measured()[0]
        return len(self.buffers)

    def __iter__(self) -> Iterator[memoryview]:
        return iter(self._split())

    @overload
    def __getitem__(self, index: int) -> memoryview: ...
    @overload
    def __getitem__(self, index: slice) -> "Bundle": ...
    def __getitem__(self, index: int | slice) -> "memoryview | Bundle":
        """One packet, or for a slice a bundle of those packets: the same memory, to be released apart."""
        packets = self._split()
        return Bundle(packets[index]) if isinstance(index, slice) else packets[index]

    def _measured(self) -> tuple[int, int, bool]:
        """Packets, their bytes, and whether all are IP packets."""
        if self._measure is None:
            self._measure = measure(self._records or ())
        return self._measure

    def _split(self) -> Sequence[memoryview]:
        """The packets; from here on they are what the bundle is made of."""
        if self._records is not None:
            records, self._records = self._records, None
            self._packets = split(records)
        elif self._given is not None:
            given, self._given = self._given, None
            self._packets = [memoryview(packet) for packet in given]
        if self._packets is None:
            raise ValueError("this bundle was released")
        return self._packets

    def __repr__(self) -> str:
        if self._packets is None and self._records is None and self._given is None:
            return "<Bundle released>"
        return f"<Bundle of {len(self)} packets, {self.nbytes} bytes>"

    def release(self) -> None:
        """Give the memory back early; harmless when repeated.

        Memory that something else still exports (a slice, a NumPy array) is left alone: it comes
        free when its last holder lets go.
        """
        views = self._packets or self._records or ()
        self._packets = self._records = self._given = None
        for view in views:
            try:
                view.release()
            except BufferError:
                continue  # A holder exports this very view; the others can still be freed.

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def pack(self) -> bytes:
        """The byte layout of Wintun's first driver, in this machine's byte order.

        At most 256 packets (ValueError; pack slices of the bundle then) of at most 61424 bytes
        (`InvalidPacket`, as for bytes that are no packet).
        """
        if len(self) > _MAX_PACKED_PACKETS:
            raise ValueError(f"{len(self)} packets; an exchange holds {_MAX_PACKED_PACKETS}: pack slices")
        parts: list[Packet] = []
        for index, packet in enumerate(self):
            size = len(packet)
            if size > _MAX_PACKED_PACKET or not is_packet(packet):
                raise InvalidPacket(index, f"is no IP packet of at most {_MAX_PACKED_PACKET} bytes")
            parts += (_RECORD.pack(size), packet, bytes(-size % _ALIGNMENT))
        return b"".join(parts)

    @classmethod
    def unpack(cls, data: Packet) -> "Bundle":
        """The packets of a packed bundle (see `pack`): `unpack_from` without the count."""
        return cls.unpack_from(data)[0]

    @classmethod
    def unpack_from(cls, data: Packet) -> tuple["Bundle", int]:
        """The packets at the start of `data`, and how many bytes they took, as the driver's write did.

        Stops before a record that is cut short or too long and after 256 records; what is left
        of a stream is the start of its next exchange. Records that are not IP packets are skipped.
        Raises ValueError for more than 15,728,640 bytes. The packets lie in `data`, not in a copy.
        """
        view = memoryview(data).cast("B")
        if len(view) > _MAX_PACKED_BYTES:
            raise ValueError(f"{len(view)} bytes; an exchange holds at most {_MAX_PACKED_BYTES}")
        packets, offset = [], 0
        for _ in range(_MAX_PACKED_PACKETS):
            if offset + _RECORD.size > len(view):
                break
            (size,) = _RECORD.unpack_from(view, offset)
            start, end = offset + _RECORD.size, offset + _RECORD.size + size + -size % _ALIGNMENT
            if end - offset > _MAX_RECORD or end > len(view):
                break
            if is_packet(packet := view[start : start + size]):
                packets.append(packet)
            offset = end
        return cls.of_views(packets), offset


def _as_bytes(packet: Packet) -> memoryview:
    """`packet` as single bytes in a row; TypeError where its memory is not in one piece."""
    view = memoryview(packet)
    return view if view.format == "B" and view.ndim == 1 and view.c_contiguous else view.cast("B")


class Arena:
    """One buffer that bundles are received into, one behind the other; not thread-safe.

    It starts again at its beginning once nobody holds a view of it, and is replaced by a new one
    when it is used up before: so memory is never overwritten under its holder.
    """

    def __init__(self, size: int = 0x100000) -> None:
        """`size` bytes, by default 1 MiB: 15 superpackets, or 256 packets of 1500 bytes, and room to spare."""
        self._buffer = bytearray(size)
        self._used = 0

    def free(self) -> memoryview:
        """The unused rest: room for the longest record at least, all of it when nothing is held."""
        if self._used:
            try:
                # A bytearray refuses to be resized while a view of it exists: that is how we know.
                self._buffer.append(self._buffer.pop())
                self._used = 0
            except BufferError:
                if len(self._buffer) - self._used < MAX_RECORD:
                    self._buffer, self._used = bytearray(len(self._buffer)), 0
        return memoryview(self._buffer)[self._used :]

    def take(self, size: int) -> None:
        """Mark the first `size` bytes of what `free()` gave as used."""
        self._used += size
