"""Clamp: keeps TCP from sending segments that are longer than a path carries, by the MSS both ends tell each other.

Owns where the option is and how it is changed, in place and without splitting superpackets. RFC 9293,
section 3.7.1 (the option), RFC 8200, section 4 (extension headers), RFC 1624 (the checksum).
"""

import struct
from collections.abc import Iterator

from threepipe.bundle import Bundle
from threepipe.core.superpacket import CHECKSUM_OFFSET, GSO_NONE, HEADER, HEADER_SIZE, NEEDS_CSUM, TCP
from threepipe.endpoint import Endpoint, Filter
from threepipe.settings import check_mtu

__all__ = ["Clamp", "clamp_mss"]

_HEADERS = {4: 40, 6: 60}
"""IP version -> bytes of its header and TCP's, both without options, which the MSS does not count."""
_TCP_HEADER = 20
_SYN = 0x02
_END, _NO_OPERATION, _MSS = 0, 1, 2  # Kinds of TCP options.
_MSS_SIZE = 4
_FRAGMENT = 44
_EXTENSIONS = frozenset((0, 43, _FRAGMENT, 60))  # Hop-by-hop, routing, fragment, destination options.
_MOST_EXTENSIONS = 8  # More than anyone sends; where there are more, the packet passes as it is.


class Clamp(Filter):
    """An endpoint whose TCP connections fit an MTU: in SYNs received from it the MSS is lowered where it is higher.

    For both ends of connections to know, there is one around each end of a pipe. A SYN without the option
    stays without: its sender is to be sent 536 or 1220 bytes at most (RFC 9293, section 3.7.1).
    """

    def __init__(self, inner: Endpoint, mtu: int) -> None:
        """`mtu`: bytes of the longest packet that passes. Raises `InvalidSetting`."""
        super().__init__(inner)
        self._mtu = check_mtu(mtu, ipv6=False)

    def receive(self, timeout: float | None = None) -> Bundle:
        return clamp_mss(self.inner.receive(timeout), self._mtu)


def clamp_mss(bundle: Bundle, mtu: int) -> Bundle:
    """`bundle` with no MSS above `mtu` - 40 bytes (IPv4) or `mtu` - 60 (IPv6) in any TCP SYN.

    Memory is changed in place and the bundle is the same one, unless a packet in it cannot be written
    to: then the one returned has a copy in its place. Superpackets stay whole, as none is a SYN. Checksums
    are corrected for the change alone: a wrong one stays wrong.
    """
    records = bundle.records
    views = bundle if records is None else records
    base = 0 if records is None else HEADER_SIZE
    copies: dict[int, memoryview] = {}
    for index, view in enumerate(views):
        if (transport := _find_syn(view, base)) and (places := _high_options(view, base, transport, mtu)):
            if view.readonly:
                copies[index] = view = memoryview(bytearray(view))
            for place in places:
                _lower(view, base, transport, place, mtu)
    if not copies:
        return bundle
    changed = [copies.get(index, view) for index, view in enumerate(views)]
    return Bundle.of_views(changed) if records is None else Bundle.of_records(changed)


def _find_syn(view: memoryview, base: int) -> int:
    """Offset in `view` of the TCP header of a SYN, or 0. The packet begins at `base`.

    This is asked for every packet: it makes no slices, and leaves most at the first byte or two.
    """
    if base and view[1] != GSO_NONE:
        return 0
    size = len(view)
    if size < base + 20 + _TCP_HEADER:
        return 0
    first = view[base]
    if first >> 4 == 4:
        # A fragment other than the first has no header of TCP's, whatever its data looks like.
        if view[base + 9] != TCP or view[base + 7] or view[base + 6] & 0x1F or first & 0x0F < 5:
            return 0
        transport = base + (first & 0x0F) * 4
    elif first >> 4 == 6 and size >= base + 40 + _TCP_HEADER:
        transport = base + 40
        if (protocol := view[base + 6]) != TCP and (
            protocol not in _EXTENSIONS or not (transport := _behind_extensions(view, transport, protocol))
        ):
            return 0
    else:
        return 0
    return transport if transport + _TCP_HEADER <= size and view[transport + 13] & _SYN else 0


def _behind_extensions(view: memoryview, place: int, kind: int) -> int:
    """Offset of the TCP header behind IPv6 extension headers, the first of which, a `kind`, is at `place`; or 0."""
    for _ in range(_MOST_EXTENSIONS):
        if place + 8 > len(view):
            return 0
        if kind == _FRAGMENT and (view[place + 2] or view[place + 3] & 0xF8):
            return 0
        size = 8 if kind == _FRAGMENT else 8 + view[place + 1] * 8
        kind = view[place]
        place += size
        if kind == TCP:
            return place
        if kind not in _EXTENSIONS:
            return 0
    return 0


def _high_options(view: memoryview, base: int, transport: int, mtu: int) -> list[int]:
    """Offsets of the values that are too high; there may be several, and receivers differ in which one they take."""
    most = mtu - _HEADERS[view[base] >> 4]
    return [place for place in _mss_values(view, transport) if view[place] << 8 | view[place + 1] > most]


def _mss_values(view: memoryview, transport: int) -> Iterator[int]:
    """Offsets of the values of MSS options; ends where the options make no sense."""
    place = transport + _TCP_HEADER
    end = min(transport + (view[transport + 12] >> 4) * 4, len(view))
    while place < end and (kind := view[place]) != _END:
        if kind == _NO_OPERATION:
            place += 1
            continue
        size = view[place + 1] if place + 1 < end else 0
        if size < 2 or place + size > end:
            return
        if kind == _MSS and size == _MSS_SIZE:
            yield place + 2
        place += size


def _lower(view: memoryview, base: int, transport: int, place: int, mtu: int) -> None:
    """Write the highest allowed value at `place`, and correct the checksum for it."""
    (old,) = struct.unpack_from("!H", view, place)
    new = mtu - _HEADERS[view[base] >> 4]
    struct.pack_into("!H", view, place, new)
    if base and _is_partial(view, transport - base):
        return
    if (place - transport) % 2:
        # At an odd place its two bytes are in two words of the sum, each in the other half.
        old, new = _swapped(old), _swapped(new)
    field = transport + CHECKSUM_OFFSET[TCP]
    (checksum,) = struct.unpack_from("!H", view, field)
    # RFC 1624, equation 3: HC' = ~(~HC + ~m + m').
    total = (checksum ^ 0xFFFF) + (old ^ 0xFFFF) + new
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    struct.pack_into("!H", view, field, total ^ 0xFFFF)


def _is_partial(record: memoryview, transport: int) -> bool:
    """Whether the checksum is still to be made: the field then holds the pseudo-header's sum, which stays the same."""
    flags, _, _, _, start, offset = HEADER.unpack_from(record)
    return bool(flags & NEEDS_CSUM and start == transport and offset == CHECKSUM_OFFSET[TCP])


def _swapped(word: int) -> int:
    return (word & 0xFF) << 8 | word >> 8
