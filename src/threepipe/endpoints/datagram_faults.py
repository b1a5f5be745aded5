"""Faults of datagrams, in sentences: errors of sending, datagrams without an IP packet, and routing loops.

Pure functions on numbers and bytes; nothing here knows a socket.
"""

import errno
import ipaddress
import os
from typing import Any

from threepipe.core.packet import Packet, is_packet

__all__ = ["OwnDatagrams", "not_a_packet", "undeliverable"]

_SAMPLE = 20  # Bytes of a datagram that a warning shows.

_UNDELIVERABLE = {
    "ECONNREFUSED": "nothing listens there (yet)",
    "ECONNRESET": "nothing listens there (yet)",  # On Windows.
    "ENOENT": "nothing listens there (yet)",  # A Unix socket whose file is gone.
    "ENOTCONN": "the other end closed its socket",
    "EPERM": "a firewall on this machine forbids it; allow UDP to that address and port in its rules for output",
    "EACCES": "this machine forbids it: the address is a broadcast address, or a route or a security module prohibits"
    " it; check 'ip route get ADDRESS'",
    "ENETUNREACH": "this machine has no route there; check its network, its routes, and that it has the IP version of"
    " the address",
    "EHOSTUNREACH": "there is no way to that host: it does not answer, or a router rejects the datagrams; check that it"
    " is up, and the routes on the way",
    "EHOSTDOWN": "the host does not answer on its network; check that it is up",
    "ENETDOWN": "the interface there is down; take it up",
    "ENONET": "a router says that the host is not on its network; check the address",
    "EADDRNOTAVAIL": "the address to send from is not one of this machine (any more); check bind=",
    "EINVAL": "the system refuses the way: the address to send from is gone, or a blackhole route leads there; check"
    " bind= and 'ip route get ADDRESS'",
    "ENODEV": "the interface is gone; check interface= and the zone behind the % of the address",
    "ENXIO": "the interface is gone; check interface= and the zone behind the % of the address",
    "EAFNOSUPPORT": "this machine lacks the IP version of that address; give an address of the other version",
    "ENOPROTOOPT": "the host has no UDP (ICMP protocol unreachable); check the address",
    "EMSGSIZE": "a packet is longer than the longest datagram; set mtu= on the adapters of both ends",
}
"""Name of an errno -> the reason, and advice."""
_BY_NUMBER = {getattr(errno, name): text for name, text in _UNDELIVERABLE.items() if hasattr(errno, name)}

_ETHER_TYPES = {b"\x08\x00": "IPv4", b"\x86\xdd": "IPv6", b"\x08\x06": "ARP", b"\x81\x00": "VLAN"}
_PACKET_INFORMATION = {b"\x08\x00": 4, b"\x86\xdd": 6}
_ETHERNET = 14  # Bytes of an Ethernet header.
_UDP = 17


def undeliverable(error: int) -> str:
    """Return the reason of the errno `error` of sending datagrams, and advice."""
    return f"{_BY_NUMBER.get(error) or os.strerror(error)} ({errno.errorcode.get(error, f'error {error}')})"


def not_a_packet(data: Packet) -> str:
    """Return a description of a datagram that is not an IP packet: its first bytes, its kind, and advice."""
    sample = f"{bytes(data[:_SAMPLE]).hex(' ')}{' ...' if len(data) > _SAMPLE else ''}"
    text = f"a datagram of {len(data)} bytes that is not an IP packet ({sample})"
    if bytes(data[2:4]) in _PACKET_INFORMATION and _is_version(data[4:], _PACKET_INFORMATION[bytes(data[2:4])]):
        return f"{text}: there are 4 bytes of packet information before it; give iff-no-pi (IFF_NO_PI) to TUN there"
    kind = _ETHER_TYPES.get(bytes(data[12:_ETHERNET]))
    if kind and (kind in ("ARP", "VLAN") or is_packet(data[_ETHERNET:])):
        return f"{text}: it is an Ethernet frame ({kind}); use a TUN device there, not TAP or a bridge"
    return f"{text}; check that threepipe, or another program that sends bare IP packets, runs there"


def _is_version(data: Packet, version: int) -> bool:
    return is_packet(data) and data[0] >> 4 == version


class OwnDatagrams:
    """The datagrams of a socket, as IP packets: the socket is asked to send one of them if the route is a loop."""

    def __init__(self, own_port: int, remote: tuple[Any, ...]) -> None:
        """`remote` is the address and port that they are sent to, as the socket module has them."""
        address = ipaddress.ip_address(remote[0].partition("%")[0])
        if isinstance(address, ipaddress.IPv6Address):
            address = address.ipv4_mapped or address
        self.host, self.port = str(address), remote[1]
        self._key = address.packed + own_port.to_bytes(2, "big") + self.port.to_bytes(2, "big")
        # Destination and ports are next to each other in packets without options or extension headers, and the
        # system's own datagrams have none (RFC 791, section 3.1; RFC 8200, section 3; RFC 768).
        self._start, self._protocol = (16, 9) if address.version == 4 else (24, 6)
        self._end = self._start + len(self._key)

    @property
    def key_and_offsets(self) -> tuple[bytes, int, int]:
        """The bytes of addresses and ports, their offset, and that of the protocol."""
        return self._key, self._start, self._protocol

    def include(self, packet: bytes) -> bool:
        """Return True if the packet is one of these datagrams."""
        return packet[self._start : self._end] == self._key and packet[self._protocol] == _UDP

    def without(self, packets: list[memoryview]) -> list[memoryview]:
        """Return the packets except these datagrams."""
        start, end, key, protocol = self._start, self._end, self._key, self._protocol
        return [packet for packet in packets if packet[start:end] != key or packet[protocol] != _UDP]
