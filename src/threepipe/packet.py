"""Helpers for programs that look into packets or change them: flows, reply directions, checksums.

    from threepipe import packet

    for each in session.receive():
        if (flow := packet.flow(each)) and flow.destination_port == 53:
            ...

Fragments are not put together, and nothing here checks more than it needs.
"""

import ipaddress
from typing import NamedTuple

from threepipe.core.fast import flow_fields, internet_checksum
from threepipe.core.packet import Packet

__all__ = ["Flow", "fix_checksums", "flow", "swap"]

_ICMP, _TCP, _UDP, _ICMPV6 = 1, 6, 17, 58  # IP protocol numbers.
_CHECKSUMS = {_ICMP: 2, _TCP: 16, _UDP: 6, _ICMPV6: 2}
"""Protocol -> offset of the checksum in its header."""


class Flow(NamedTuple):
    """The addresses, protocol and ports of a packet. It can be a key of a dict."""

    source: bytes
    """4 or 16 bytes."""
    destination: bytes
    protocol: int
    """The IP protocol number behind IPv6 extension headers, such as 6 for TCP."""
    source_port: int = 0
    """0 if the protocol has no ports, and in a fragment that is not the first."""
    destination_port: int = 0
    fragment: bool = False
    """True for a part of a packet; an IPv6 packet that is its own only fragment is whole (RFC 6946)."""

    def __str__(self) -> str:
        source, destination = ipaddress.ip_address(self.source), ipaddress.ip_address(self.destination)
        ports = (
            f" ports {self.source_port} > {self.destination_port}" if self.source_port or self.destination_port else ""
        )
        return f"{source} > {destination} protocol {self.protocol}{ports}{' fragment' if self.fragment else ''}"


def flow(packet: Packet) -> Flow | None:
    """Return the flow of an IP packet; None if it is not an IP packet or its headers are cut off.

    IPv6 extension headers are skipped (RFC 8200, section 4), except ESP, which hides what follows.
    """
    fields = flow_fields(packet)
    return None if fields is None else Flow._make(fields[:6])


def swap(packet: Packet) -> bytearray:
    """Return a copy with source and destination swapped, addresses and ports, as in the reply direction.

    Checksums stay right, as the order of 16-bit words does not change their sum (RFC 1071, section 2). Raises
    ValueError if it is not an IP packet or its headers are cut off.
    """
    source, destination, _, source_port, destination_port, _, start = _fields(packet)
    copy = bytearray(packet)
    addresses = destination + source
    first = 12 if len(source) == 4 else 8
    copy[first : first + len(addresses)] = addresses
    if source_port or destination_port:
        copy[start : start + 4] = copy[start + 2 : start + 4] + copy[start : start + 2]
    return copy


def fix_checksums(packet: bytearray | memoryview) -> None:
    """Write the right checksums into a packet: IPv4's header, and TCP, UDP, ICMP or ICMPv6.

    Call it after changing a packet. A fragment gets that of its IPv4 header only, as the other covers all fragments.
    IPv4's UDP checksum 0 stays, which says that there is none (RFC 768). The packet may be longer than its IP length.
    Raises ValueError if it is not an IP packet, if its headers are cut off, or if it is shorter than its IP length.
    """
    source, destination, protocol, _, _, fragment, start = _fields(packet)
    ipv4 = len(source) == 4
    size = int.from_bytes(packet[2:4], "big") if ipv4 else 40 + int.from_bytes(packet[4:6], "big")
    if not start <= size <= len(packet):
        raise ValueError(f"the packet has {len(packet)} bytes, and its IP length is {size}")
    view = memoryview(packet)
    if ipv4:
        header = (view[0] & 0x0F) * 4
        _write_checksum(view[:header], 10, 0)
    offset = _CHECKSUMS.get(protocol)
    if fragment or offset is None or protocol == (_ICMPV6 if ipv4 else _ICMP):
        return
    body = view[start:size]
    if len(body) < offset + 2:
        raise ValueError(f"the packet ends before the checksum of protocol {protocol}")
    if ipv4 and protocol == _UDP and not any(body[offset : offset + 2]):
        return
    initial = 0
    if protocol != _ICMP:  # The pseudo-headers of RFC 9293, section 3.1, and RFC 8200, section 8.1, add up alike.
        pseudo_header = source + destination + len(body).to_bytes(4, "big") + protocol.to_bytes(4, "big")
        initial = 0xFFFF - internet_checksum(pseudo_header)
    _write_checksum(body, offset, initial)
    if protocol == _UDP and not any(body[offset : offset + 2]):
        body[offset : offset + 2] = b"\xff\xff"  # RFC 768: a computed 0 is sent as all ones.


def _fields(packet: Packet) -> tuple[bytes, bytes, int, int, int, bool, int]:
    fields = flow_fields(packet)
    if fields is None:
        raise ValueError("this is not a whole IP packet: its version is neither 4 nor 6, or its headers are cut off")
    return fields


def _write_checksum(data: memoryview, offset: int, initial: int) -> None:
    data[offset : offset + 2] = bytes(2)
    data[offset : offset + 2] = internet_checksum(data, initial).to_bytes(2, "big")
