"""Hosts behind an adapter that answer pings and send UDP datagrams back."""

import socket
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from threepipe import Session
from threepipe.core.packet import Packet

ECHO_REPLY = {8: 0, 128: 129}
"""The type of an echo reply by the type of its request, for ICMP and ICMPv6."""


def answers(packets: Iterable[Packet]) -> list[bytes]:
    """Return the answers of hosts behind an adapter: replies to pings, and UDP datagrams sent back."""
    return [answer for packet in packets if (answer := _answer(bytes(packet)))]


@contextmanager
def answering(session: Session) -> Iterator[None]:
    """Answer packets in a thread. Close the session at the end."""

    def answer() -> None:
        for bundle in session:
            session.send(answers(bundle))

    thread = threading.Thread(target=answer)
    thread.start()
    try:
        yield
    finally:
        session.close()
        thread.join()


def _answer(packet: bytes) -> bytes:
    source, size, start, protocol = (12, 4, 20, 9) if packet[0] >> 4 == 4 else (8, 16, 40, 6)
    message = bytearray(packet[start:])
    if packet[protocol] == socket.IPPROTO_UDP:
        message[:4] = message[2:4] + message[:2]  # Swap the ports, which keeps the checksum right.
    elif message[0] in ECHO_REPLY:
        request, message[0] = message[0], ECHO_REPLY[message[0]]
        checksum = int.from_bytes(message[2:4], "big") + ((request - message[0]) << 8)
        message[2:4] = (checksum % 0xFFFF).to_bytes(2, "big")  # Updated as in RFC 1624.
    else:
        return b""  # The kernel sends such packets on its own, to routers and multicast groups.
    middle, end = source + size, source + 2 * size
    return packet[:source] + packet[middle:end] + packet[source:middle] + packet[end:start] + message
