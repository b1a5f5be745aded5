"""Bundles of packets, and the memory that received ones lie in. Pure data: no I/O and no platform.

A bundle keeps *records*, the units in which a kernel handed it over, until a program looks at *packets*: one record
may stand for many packets.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Self, overload

from threepipe.core.fast import extract, measure, split
from threepipe.core.packet import Packet, check_packets
from threepipe.core.packing import pack, unpack_from
from threepipe.core.superpacket import HEADER_SIZE, are_plain
from threepipe.core.tunnel import MAX_WIDE_RECORD

__all__ = ["EMPTY", "Arena", "Bundle"]

_SINGLE_BYTES = frozenset({bytes, bytearray})
"""Types whose memoryview is one of single bytes."""


class Bundle(Sequence[memoryview]):
    """An immutable sequence of packets, each a `memoryview` of bytes.

    The views of a received bundle are writable: a program may answer in place and send the bundle
    back. Their memory is not used for later packets while the bundle or a view of it is held.
    `release()`, or leaving a `with bundle:` block, frees it at once: the views become invalid (using
    one raises ValueError), while slices that were taken of them stay valid.

    Superpackets of a kernel stay whole until the program looks at single packets (iterates, indexes or
    slices); counting and checking keeps them whole.
    """

    __slots__ = ("_given", "_look", "_measure", "_packets", "_plain", "_records")

    def __init__(self, packets: Iterable[Packet] = ()) -> None:
        """Hold `packets`, an iterable of bytes-like objects, without copying or checking them.

        Raises TypeError if `packets` is one packet instead of an iterable of them, or if one of them
        is not bytes-like and contiguous.
        """
        if isinstance(packets, (bytes, bytearray, memoryview)):
            raise TypeError("a Bundle takes an iterable of packets; wrap a single one in a list")
        packets = list(packets)
        # Most packets are bytes: they need no check each, and no views before the program looks at packets.
        types = set(map(type, packets))
        as_given = types <= {bytes}
        as_bytes = memoryview if types <= _SINGLE_BYTES else _as_bytes
        self._given: Sequence[Packet] | None = packets if as_given else None
        self._packets: Sequence[memoryview] | None = None if as_given else list(map(as_bytes, packets))
        self._records: Sequence[memoryview] | None = None
        self._measure: tuple[int, int, bool] | None = None  # The last answer of `measured`.
        self._look: Callable[[], None] | None = None
        self._plain: Sequence[memoryview] | None = None

    @classmethod
    def of_views(cls, views: Sequence[memoryview]) -> "Bundle":
        """Make a bundle of packets, views of single bytes, without checking them: the quick way for ports."""
        if not views:
            return EMPTY
        bundle = cls.__new__(cls)
        bundle._given, bundle._packets, bundle._records, bundle._measure = None, views, None, None
        bundle._look = bundle._plain = None
        return bundle

    @classmethod
    def of_records(cls, records: Sequence[memoryview], look: Callable[[], None] | None = None) -> "Bundle":
        """Make a bundle of records with a virtio header each; see `threepipe.core.superpacket`.

        `look` is called when they are split, as the program looks at single packets.
        """
        if not records:
            return EMPTY
        bundle = cls.__new__(cls)
        bundle._given, bundle._packets, bundle._records, bundle._measure = None, None, records, None
        bundle._look, bundle._plain = look, records if look and are_plain(records) else None
        return bundle

    @property
    def records(self) -> Sequence[memoryview] | None:
        """The records, to be passed on whole; None once the program looked at packets, as it may have changed them."""
        return self._records

    @property
    def looked_at(self) -> bool:
        """True if records of a port that follows looks were split."""
        return self._look is not None and self._records is None

    @property
    def plain(self) -> Sequence[memoryview] | None:
        """The records if each is a packet as it is, also once the program looked; only of ports that follow looks."""
        return self._plain

    @property
    def buffers(self) -> Sequence[Packet]:
        """The packets to send: views, or the bytes objects that were given if the program has not looked at them."""
        return self._split() if self._given is None else self._given

    @property
    def nbytes(self) -> int:
        """Bytes of all packets together, headers included."""
        if self._records is not None:
            _, size = self.sizes()
            return size
        return sum(map(len, self.buffers))

    def measured(self) -> tuple[int, int, bool]:
        """Return the number of packets, their bytes, and True if all are IP packets. Splits nothing.

        Packets that the program looked at are checked anew each time, as it may change them.
        """
        if self._records is None:
            self._measure = measure(self.buffers, vnet_header=False)
        elif self._measure is None:
            self._measure = measure(self._records)
        return self._measure

    def sizes(self) -> tuple[int, int]:
        """Return the number of packets and their bytes, which stay as they are once they are known."""
        if self._plain is not None:
            return len(self._plain), sum(map(len, self._plain)) - HEADER_SIZE * len(self._plain)
        packets, size, _ = self._measure or self.measured()
        return packets, size

    def check(self) -> None:
        """Raise `InvalidPacket` for the first packet that is not an IP packet. If all are, records stay whole."""
        _, _, valid = self.measured()
        if not valid:
            check_packets(self.buffers)

    def __len__(self) -> int:
        if self._records is not None:
            packets, _ = self.sizes()
            return packets
        return len(self.buffers)

    def __iter__(self) -> Iterator[memoryview]:
        return iter(self._split())

    @overload
    def __getitem__(self, index: int) -> memoryview: ...
    @overload
    def __getitem__(self, index: slice) -> "Bundle": ...
    def __getitem__(self, index: int | slice) -> "memoryview | Bundle":
        """Return one packet, or for a slice a bundle of those packets in the same memory, to be released separately."""
        packets = self._split()
        return Bundle(packets[index]) if isinstance(index, slice) else packets[index]

    def copies(self) -> list[bytes]:
        """Return a copy of each packet."""
        if self._records is not None:
            return extract(self._records)  # Needs no views of them.
        return list(map(bytes, self.buffers))

    def _split(self) -> Sequence[memoryview]:
        """Return the packets, which replace the records from now on."""
        if self._records is not None:
            records, self._records, self._measure = self._records, None, None
            if self._look is not None:
                self._look()
            self._packets = split(records) if self._plain is None else [record[HEADER_SIZE:] for record in records]
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
        """Free the memory early; harmless when repeated.

        Memory that something else still exports (a slice, a NumPy array) is freed when that lets go of it.
        """
        if self is EMPTY:
            return
        views = self._packets or self._records or ()
        self._packets = self._records = self._plain = self._given = self._measure = None
        for view in views:
            try:
                view.release()
            except BufferError:
                continue  # Something exports this very view; the others can still be freed.

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def pack(self) -> bytes:
        """Return the packets in the byte layout of Wintun's first driver; see `threepipe.core.packing`.

        Raises ValueError for more than 256 packets (pack slices of the bundle then) and `InvalidPacket` for one that
        is not an IP packet of at most 61424 bytes.
        """
        return pack(self)

    @classmethod
    def unpack(cls, data: Packet) -> "Bundle":
        """Return the packets of a packed bundle. `unpack_from` also tells where the next one starts."""
        return cls.unpack_from(data)[0]

    @classmethod
    def unpack_from(cls, data: Packet) -> tuple["Bundle", int]:
        """Return the packets at the start of `data`, as views of it, and how many bytes they took.

        Stops before a record that is cut short or too long, and after 256 records. Skips records that are not IP
        packets. Raises ValueError for more than 15,728,640 bytes.
        """
        packets, used = unpack_from(data)
        return cls.of_views(packets), used


def _as_bytes(packet: Packet) -> memoryview:
    """Return a view of `packet` as single bytes. Raise TypeError if its memory is not contiguous."""
    view = memoryview(packet)
    return view if view.format == "B" and view.ndim == 1 and view.c_contiguous else view.cast("B")


EMPTY = Bundle()
"""A bundle without packets, which ports need after most calls."""


class Arena:
    """One buffer that bundles are received into, end to end. Not thread-safe.

    It starts again at its beginning once no view of it is held, and is replaced by a new one if it is full
    before that: so memory is never overwritten under its holder.
    """

    def __init__(self, size: int = 0x100000) -> None:
        """Use `size` bytes, by default 1 MiB: 15 superpackets, or 256 packets of 1500 bytes with room to spare.

        They are allocated at the first use, as that takes milliseconds, and a native loop uses none.
        """
        self._size = size
        self._buffer = bytearray()
        self._used = 0

    def free(self) -> memoryview:
        """Return the unused rest, with room for the longest record at least; all of it when no view is held."""
        if self._used:
            try:
                # A bytearray cannot be resized while a view of it exists, which shows if one does.
                self._buffer.append(self._buffer.pop())
                self._used = 0
            except BufferError:
                if len(self._buffer) - self._used < MAX_WIDE_RECORD:
                    self._buffer, self._used = bytearray(self._size), 0
        elif not self._buffer:
            self._buffer = bytearray(self._size)
        return memoryview(self._buffer)[self._used :]

    def take(self, size: int) -> None:
        """Mark the first `size` bytes of the memory from `free()` as used."""
        self._used += size
