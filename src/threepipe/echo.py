"""ICMP echo of both families: making a request, and turning one into its reply. Pure functions.

RFC 792 (type 8 and 0) and RFC 4443 (type 128 and 129).
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
    """An ICMP echo request of the addresses' family, both numbers 16 bits, with right checksums.

    Raises ValueError where the addresses are none, or not of one family.
    """
    own, other = ipaddress.ip_address(source), ipaddress.ip_address(destination)
    if own.version != other.version:
        raise ValueError(f"{source} and {destination} are not of one family")
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
    """The reply to an echo request, or None for any other packet: also for fragments and damaged ones.

    Bytes of one whole IPv4 or IPv6 packet in and out; IPv6 requests behind extension headers get None.
    """
    view = memoryview(packet)
    if not (place := _find_echo(view)):
        return None
    start, source, size = place
    destination = source + size
    kind = _KINDS[view[0] >> 4]
    # The addresses are part of ICMPv6's checksum (RFC 8200, section 8.1), but not their order.
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
    """How a family carries echo: IP protocol, the two types of message."""

    protocol: int
    request: int
    reply: int


_KINDS = {4: _Kind(_ICMP, 8, 0), 6: _Kind(_ICMPV6, 128, 129)}


def _find_echo(view: memoryview) -> tuple[int, int, int] | None:
    """Offsets of the ICMP message and of the source address, and an address's size; None if unfit."""
    if not is_packet(view):
        return None
    if view[0] >> 4 == 4:
        start, source, size = (view[0] & 0x0F) * 4, 12, 4
        fragment = int.from_bytes(view[6:8], "big") & 0x3FFF  # More-fragments flag and offset.
        fit = start >= 20 and not fragment and view[9] == _ICMP and not internet_checksum(view[:start])
        length = int.from_bytes(view[2:4], "big")
    else:
        start, source, size = 40, 8, 16
        fit = view[6] == _ICMPV6
        length = start + int.from_bytes(view[4:6], "big")
    return (start, source, size) if fit and length == len(view) >= start + 8 else None


def _with_checksum(data: bytes, offset: int, initial: int) -> bytes:
    """`data` with the checksum put in its two zero bytes at `offset`."""
    return data[:offset] + internet_checksum(data, initial).to_bytes(2, "big") + data[offset + 2 :]
