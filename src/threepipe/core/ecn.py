"""Explicit congestion notification (ECN) of packets that pass a tunnel. Pure functions on bytes.

The field has two bits: the last ones of the second byte of an IPv4 header, and of the traffic class of IPv6 (RFC 3168,
section 5). A tunnel copies it to the outer header, and combines both at the other end (RFC 6040).
"""

import itertools
import operator
import struct
from collections.abc import Sequence

from threepipe.core.packet import Packet

__all__ = ["by_ecn", "combine_ecn", "ecn_of"]

_SHIFTS = {4: 0, 6: 4}
"""IP version -> bits of the second byte behind the field."""
_POSSIBLE = 0b11_0011
"""The bits of the second byte that the field can be, in either version."""
_NOT_ECT, _ECT_1, _ECT_0, _CE = range(4)
_DROP = -1
_COMBINED = (
    (_NOT_ECT, _NOT_ECT, _NOT_ECT, _DROP),
    (_ECT_1, _ECT_1, _ECT_1, _CE),
    (_ECT_0, _ECT_1, _ECT_0, _CE),
    (_CE, _CE, _CE, _CE),
)
"""Inner field, outer field -> field of the packet that goes on (RFC 6040, section 4.2, figure 4)."""
_SECOND_BYTE = operator.itemgetter(1)
_WORD = struct.Struct("!H")
_CHECKSUM = 10  # Offset in an IPv4 header.


def ecn_of(packet: Packet) -> int:
    """Return the ECN field of an IP packet; 0 for anything else."""
    if len(packet) < 2 or (shift := _SHIFTS.get(packet[0] >> 4)) is None:
        return _NOT_ECT
    return packet[1] >> shift & 3


def by_ecn(packets: Sequence[memoryview]) -> list[tuple[int, Sequence[memoryview]]]:
    """Return the packets in order, in groups of one ECN field each. Makes no call per packet if none can have any."""
    try:
        possible = any(byte & _POSSIBLE for byte in set(map(_SECOND_BYTE, packets)))
    except IndexError:
        possible = True  # A keepalive is empty.
    if not possible:
        return [(_NOT_ECT, packets)]
    return [(field, list(group)) for field, group in itertools.groupby(packets, ecn_of)]


def combine_ecn(packets: Sequence[memoryview], outer: int) -> list[memoryview]:
    """Combine the ECN field of each packet with `outer`, that of the header it came in. Return the packets that go on.

    Changes the packets, which are whole IP packets, in place, with the checksum of IPv4. Leaves out those that met
    congestion although they are not ECN-capable: their sender learns of it only if they are lost.
    """
    kept = []
    for packet in packets:
        inner = ecn_of(packet)
        combined = _COMBINED[inner][outer]
        if combined == _DROP:
            continue
        if combined != inner:
            _replace(packet, combined - inner)
        kept.append(packet)
    return kept


def _replace(packet: memoryview, difference: int) -> None:
    """Add `difference` to the ECN field, which has room for it."""
    version = packet[0] >> 4
    (old,) = _WORD.unpack_from(packet)
    new = old + (difference << _SHIFTS[version])
    _WORD.pack_into(packet, 0, new)
    if version == 4:
        (checksum,) = _WORD.unpack_from(packet, _CHECKSUM)
        # RFC 1624, equation 3. Sums are modulo 0xFFFF, and never zero, as the word includes the version.
        total = (checksum ^ 0xFFFF) + (old ^ 0xFFFF) + new
        _WORD.pack_into(packet, _CHECKSUM, 0xFFFF - (total - 1) % 0xFFFF - 1)
