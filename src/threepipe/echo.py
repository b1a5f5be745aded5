"""ICMP echo, the messages of ping, for IPv4 and IPv6. Pure functions on bytes.

RFC 792 (types 8 and 0) and RFC 4443 (types 128 and 129).
"""

import ipaddress
import struct
from typing import NamedTuple

from threepipe.core.fast import internet_checksum
from threepipe.core.packet import Packet, is_packet

__all__ = ["echo_reply", "echo_request"]

_ICMP, _ICMPV6 = 1, 58  # IP protocol numbers.
_HOP_LIMIT = 64  # RFC 1700's recommended default.


def echo_request(source: str, destination: str, identifier: int, sequence: int, payload: Packet = b"") -> bytes:
    """Return an ICMP echo request with correct checksums. `identifier` and `sequence` have 16 bits.

    Raises ValueError if an address is invalid, or one is IPv4 and the other IPv6.
    """
    own, other = ipaddress.ip_address(source), ipaddress.ip_address(destination)
    if own.version != other.version:
        raise ValueError(f"{source} and {destination} are of different families; give two of IPv4 or two of IPv6")
    echo = struct.pack("!BBHHH", 8 if own.version == 4 else 128, 0, 0, identifier, sequence) + payload
    addresses = own.packed + other.packed
    if own.version == 4:
        echo = _with_checksum(echo, 2, 0)
        header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(echo), 0, 0, _HOP_LIMIT, _ICMP, 0) + addresses
        return _with_checksum(header, 10, 0) + echo
    # The pseudo-header of RFC 8200, section 8.1: addresses, length, next header.
    pseudo_header = addresses + struct.pack("!II", len(echo), _ICMPV6)
    initial = 0xFFFF - internet_checksum(pseudo_header)
    header = struct.pack("!IHBB", 6 << 28, len(echo), _ICMPV6, _HOP_LIMIT) + addresses
    return header + _with_checksum(echo, 2, initial)


def echo_reply(packet: Packet) -> bytes | None:
    """Return the reply to an echo request, an IP packet; None for any other packet, a fragment or a damaged packet.

    Requests behind IPv6 extension headers get None too.
    """
    view = memoryview(packet)
    if not (layout := _find_echo(view)):
        return None
    start, source, size = layout
    destination = source + size
    kind = _KINDS[view[0] >> 4]
    # ICMPv6's checksum covers the addresses (RFC 8200, section 8.1). Swapping them does not change it.
    initial = 0
    if kind.protocol == _ICMPV6:
        pseudo_header = bytes(view[source:start]) + struct.pack("!II", len(view) - start, _ICMPV6)
        initial = 0xFFFF - internet_checksum(pseudo_header)
    echo = view[start:]
    if echo[0] != kind.request or internet_checksum(echo, initial):
        return None
    reply = bytearray(view)
    reply[source:destination] = view[destination : destination + size]
    reply[destination : destination + size] = view[source:destination]
    reply[start : start + 4] = bytes((kind.reply, 0, 0, 0))
    reply[start + 2 : start + 4] = internet_checksum(reply[start:], initial).to_bytes(2, "big")
    return bytes(reply)


class _Kind(NamedTuple):
    """The IP protocol and the message types of echo in one IP version."""

    protocol: int
    request: int
    reply: int


_KINDS = {4: _Kind(_ICMP, 8, 0), 6: _Kind(_ICMPV6, 128, 129)}


def _find_echo(view: memoryview) -> tuple[int, int, int] | None:
    """Return the offsets of the ICMP message and the source address, and an address's size; None if unsuitable."""
    if not is_packet(view):
        return None
    if view[0] >> 4 == 4:
        start, source, size = (view[0] & 0x0F) * 4, 12, 4
        fragment = int.from_bytes(view[6:8], "big") & 0x3FFF  # More-fragments flag and offset.
        suitable = start >= 20 and not fragment and view[9] == _ICMP and not internet_checksum(view[:start])
        length = int.from_bytes(view[2:4], "big")
    else:
        start, source, size = 40, 8, 16
        suitable = view[6] == _ICMPV6
        length = start + int.from_bytes(view[4:6], "big")
    return (start, source, size) if suitable and length == len(view) >= start + 8 else None


def _with_checksum(data: bytes, offset: int, initial: int) -> bytes:
    """Return `data` with its checksum in the two zero bytes at `offset`."""
    return data[:offset] + internet_checksum(data, initial).to_bytes(2, "big") + data[offset + 2 :]
