"""Hosts behind an adapter that answer pings and send UDP datagrams back."""

import socket
from collections.abc import Iterable

from threepipe.core.packet import Packet

ECHO_REPLY = {8: 0, 128: 129}
"""ICMP and ICMPv6: type of an echo request -> type of its reply."""


def answers(packets: Iterable[Packet]) -> list[bytes]:
    """What hosts behind an adapter would answer: pings are replied to, UDP datagrams come back."""
    return [answer for packet in packets if (answer := _answer(bytes(packet)))]


def _answer(packet: bytes) -> bytes:
    source, size, start, protocol = (12, 4, 20, 9) if packet[0] >> 4 == 4 else (8, 16, 40, 6)
    message = bytearray(packet[start:])
    if packet[protocol] == socket.IPPROTO_UDP:
        message[:4] = message[2:4] + message[:2]  # The ports. Swapping leaves a checksum as it is.
    elif message[0] in ECHO_REPLY:
        request, message[0] = message[0], ECHO_REPLY[message[0]]
        checksum = int.from_bytes(message[2:4], "big") + ((request - message[0]) << 8)
        message[2:4] = (checksum % 0xFFFF).to_bytes(2, "big")  # Brought up to date as in RFC 1624.
    else:
        return b""  # What the kernel says of its own accord, to routers and multicast groups.
    middle, end = source + size, source + 2 * size
    return packet[:source] + packet[middle:end] + packet[source:middle] + packet[end:start] + message
