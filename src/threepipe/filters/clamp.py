"""MSS clamping: a filter that lowers the MSS option of TCP SYNs, so that segments fit the path.

It changes packets in place and never splits a superpacket. RFC 9293, section 3.7.1 (the option), RFC 8200, section 4
(extension headers), RFC 1624 (the checksum).
"""

import struct
from collections.abc import Iterator

from threepipe.bundle import Bundle
from threepipe.core.superpacket import CHECKSUM_OFFSET, GSO_NONE, HEADER, HEADER_SIZE, NEEDS_CSUM, TCP
from threepipe.endpoint import Endpoint, Filter
from threepipe.settings import check_mtu

__all__ = ["Clamp", "clamp_mss", "mss_values"]

_HEADERS = {4: 40, 6: 60}
"""IP version -> bytes of the IP and TCP headers without options, which the MSS does not count."""
_GSO_TYPE = 1  # Offset in a record, <linux/virtio_net.h>.
_IPV4_HEADER, _IPV6_HEADER, _TCP_HEADER = 20, 40, 20  # Bytes without options.
_IPV4_FRAGMENT, _IPV4_PROTOCOL, _IPV6_NEXT_HEADER = 6, 9, 6  # Offsets in the IP header.
_TCP_DATA_OFFSET, _TCP_FLAGS = 12, 13  # Offsets in the TCP header.
_SYN = 0x02
_END, _NO_OPERATION, _MSS = 0, 1, 2  # Kinds of TCP options.
_MSS_SIZE = 4
_FRAGMENT = 44
_EXTENSIONS = frozenset((0, 43, _FRAGMENT, 60))  # Hop-by-hop, routing, fragment, destination options.
_MAX_EXTENSIONS = 8  # More than any real packet has. A packet with more of them stays unchanged.


class Clamp(Filter):
    """An endpoint whose TCP connections fit an MTU: in SYNs received from it, a higher MSS is lowered.

    A pipe needs one around each end, so that both ends of a connection learn the MSS. A SYN without the option stays
    unchanged, as its sender gets segments of 536 or 1220 bytes at most (RFC 9293, section 3.7.1).
    """

    def __init__(self, inner: Endpoint, mtu: int) -> None:
        """`mtu`: bytes of the longest packet that fits. Raises `InvalidSetting`."""
        super().__init__(inner)
        self._mtu = check_mtu(mtu, ipv6=False)

    def receive(self, timeout: float | None = None) -> Bundle:
        """Receive from the inner endpoint and lower the MSS."""
        return clamp_mss(self.inner.receive(timeout), self._mtu)


def clamp_mss(bundle: Bundle, mtu: int) -> Bundle:
    """Lower the MSS in every TCP SYN to `mtu` - 40 bytes (IPv4) or `mtu` - 60 (IPv6), and return the bundle.

    Packets are changed in place; if a packet is read-only, a new bundle with a copy of it is returned. Superpackets
    stay whole, as none is a SYN. Checksums are only updated for the change: a wrong one stays wrong.
    """
    records = bundle.records
    views = bundle if records is None else records
    base = 0 if records is None else HEADER_SIZE
    copies: dict[int, memoryview] = {}
    for index, view in enumerate(views):
        if (transport := _find_syn(view, base)) and (offsets := _high_values(view, base, transport, mtu)):
            if view.readonly:
                copies[index] = view = memoryview(bytearray(view))
            for offset in offsets:
                _lower(view, base, transport, offset, mtu)
    if not copies:
        return bundle
    changed = [copies.get(index, view) for index, view in enumerate(views)]
    return Bundle.of_views(changed) if records is None else Bundle.of_records(changed)


def _find_syn(view: memoryview, base: int) -> int:
    """Return the offset in `view` of the TCP header of a SYN, or 0. The packet starts at `base`, behind a vnet header.

    This runs for every packet. So it makes no slices, and decides most cases by a byte or two.
    """
    if base and view[_GSO_TYPE] != GSO_NONE:
        return 0
    size = len(view)
    if size < base + _IPV4_HEADER + _TCP_HEADER:
        return 0
    first = view[base]
    if first >> 4 == 4:
        # Only the first fragment, with offset 0, has a TCP header.
        fragment = base + _IPV4_FRAGMENT
        if view[base + _IPV4_PROTOCOL] != TCP or view[fragment + 1] or view[fragment] & 0x1F or first & 0x0F < 5:
            return 0
        transport = base + (first & 0x0F) * 4
    elif first >> 4 == 6 and size >= base + _IPV6_HEADER + _TCP_HEADER:
        transport = base + _IPV6_HEADER
        if (protocol := view[base + _IPV6_NEXT_HEADER]) != TCP and (
            protocol not in _EXTENSIONS or not (transport := _skip_extensions(view, transport, protocol))
        ):
            return 0
    else:
        return 0
    return transport if transport + _TCP_HEADER <= size and view[transport + _TCP_FLAGS] & _SYN else 0


def _skip_extensions(view: memoryview, offset: int, kind: int) -> int:
    """Return the offset of the TCP header behind IPv6 extension headers, or 0.

    The first extension header is at `offset` and has the type `kind`.
    """
    for _ in range(_MAX_EXTENSIONS):
        if offset + 8 > len(view):
            return 0
        if kind == _FRAGMENT and (view[offset + 2] or view[offset + 3] & 0xF8):
            return 0
        size = 8 if kind == _FRAGMENT else 8 + view[offset + 1] * 8
        kind = view[offset]
        offset += size
        if kind == TCP:
            return offset
        if kind not in _EXTENSIONS:
            return 0
    return 0


def _high_values(view: memoryview, base: int, transport: int, mtu: int) -> list[int]:
    """Return the offsets of all values that are too high: receivers differ in which of several options they use."""
    limit = mtu - _HEADERS[view[base] >> 4]
    return [offset for offset in mss_values(view, transport) if view[offset] << 8 | view[offset + 1] > limit]


def mss_values(view: memoryview, transport: int) -> Iterator[int]:
    """Yield the offsets in `view` of the values of MSS options, up to the first malformed option.

    The TCP header, of at least 20 bytes, is at `transport`.
    """
    offset = transport + _TCP_HEADER
    end = min(transport + (view[transport + _TCP_DATA_OFFSET] >> 4) * 4, len(view))
    while offset < end and (kind := view[offset]) != _END:
        if kind == _NO_OPERATION:
            offset += 1
            continue
        size = view[offset + 1] if offset + 1 < end else 0
        if size < 2 or offset + size > end:
            return
        if kind == _MSS and size == _MSS_SIZE:
            yield offset + 2
        offset += size


def _lower(view: memoryview, base: int, transport: int, offset: int, mtu: int) -> None:
    """Write the highest allowed value at `offset`, and update the checksum."""
    (old,) = struct.unpack_from("!H", view, offset)
    new = mtu - _HEADERS[view[base] >> 4]
    struct.pack_into("!H", view, offset, new)
    if base and _is_partial(view, transport - base):
        return
    if (offset - transport) % 2:
        # At an odd offset the two bytes belong to two words of the sum, in swapped halves.
        old, new = _swapped(old), _swapped(new)
    field = transport + CHECKSUM_OFFSET[TCP]
    (checksum,) = struct.unpack_from("!H", view, field)
    # RFC 1624, equation 3: HC' = ~(~HC + ~m + m').
    total = (checksum ^ 0xFFFF) + (old ^ 0xFFFF) + new
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    struct.pack_into("!H", view, field, total ^ 0xFFFF)


def _is_partial(record: memoryview, transport: int) -> bool:
    """Return True if the checksum covers the pseudo-header only, which an MSS does not change."""
    flags, _, _, _, start, offset = HEADER.unpack_from(record)
    return bool(flags & NEEDS_CSUM and start == transport and offset == CHECKSUM_OFFSET[TCP])


def _swapped(word: int) -> int:
    return (word & 0xFF) << 8 | word >> 8
