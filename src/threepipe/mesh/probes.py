"""Probes between the agents, inside the tunnel: the round trip to a node, and the endpoint that it sees of this one.

A probe is a datagram of 8 random bytes to the port 51821 of a node; the answer has the same bytes and, if the probe
came from a peer's link-local address, the endpoint of that peer. The socket is bound to the interface of the mesh, so
that only members reach it.
"""

import asyncio
import os
import socket
from collections.abc import Callable
from ipaddress import IPv6Address
from typing import Any, Self

from threepipe import platforms
from threepipe.mesh.records import check_endpoint
from threepipe.net.connect import HostPort
from threepipe.wireguard.fields import parse_endpoint
from threepipe.wireguard.peer_endpoint import PeerEndpoint

__all__ = ["PORT", "Probes"]

PORT = 51821
_SIZE = 8


class Probes(asyncio.DatagramProtocol):
    """Sends probes, and answers those of others."""

    def __init__(self, interface: str, seen: Callable[[IPv6Address], PeerEndpoint | None]) -> None:
        """Use an interface. `seen` returns the endpoint of the peer with a link-local address."""
        self._interface, self._seen = interface, seen
        self._waiting: dict[bytes, asyncio.Future[bytes]] = {}
        self._transport: Any = None

    async def __aenter__(self) -> Self:
        bound = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        try:
            bound.setblocking(False)
            platforms.bind_to_interface(bound, self._interface)
            bound.bind(("::", PORT))
            self._scope = socket.if_nametoindex(self._interface)
            self._transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(lambda: self, sock=bound)
        except BaseException:
            bound.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        self._transport.close()

    async def probe(self, address: IPv6Address, seconds: float) -> tuple[float, PeerEndpoint | None] | None:
        """Return the round trip to a node in seconds, and the endpoint that it sees; None for no answer in time."""
        token, loop = os.urandom(_SIZE), asyncio.get_running_loop()
        answer = self._waiting[token] = loop.create_future()
        begin = loop.time()
        try:
            self._transport.sendto(token, (str(address), PORT, 0, self._scope if address.is_link_local else 0))
            async with asyncio.timeout(seconds):
                text = await answer
            trip = loop.time() - begin
            return trip, _parse(text.decode(errors="replace"))
        except TimeoutError:
            return None
        finally:
            del self._waiting[token]

    def datagram_received(self, data: bytes, addr: Any) -> None:
        """Answer a probe, or take an answer."""
        token, rest = data[:_SIZE], data[_SIZE:]
        if (waiting := self._waiting.get(token)) is not None and rest:
            if not waiting.done():
                waiting.set_result(rest[1:])
        elif len(data) == _SIZE:
            address = IPv6Address(addr[0].partition("%")[0])
            endpoint = self._seen(address) if address.is_link_local else None
            text = "" if endpoint is None else str(HostPort(*endpoint))
            self._transport.sendto(token + b"=" + text.encode(), addr)

    def error_received(self, exc: Exception) -> None:
        """Ignore an unreachable node: its probe gets no answer."""


def _parse(text: str) -> PeerEndpoint | None:
    try:
        return check_endpoint(*parse_endpoint(text))
    except ValueError:
        return None
