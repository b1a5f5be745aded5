"""Handshakes: the messages that lead to keypairs, checked, opened and made for the peers of one device.

Between `noise` and `cookie`, which know no peers, and `tunnel`, which decides when there is to be a handshake and
what becomes of its keypair. Keeps no list of peers.
"""

import ipaddress
import secrets
from collections.abc import Container, Mapping

from threepipe.wireguard.constants import MIN_INITIATION_INTERVAL
from threepipe.wireguard.cookie import Checker, Load
from threepipe.wireguard.message import (
    RESPONSE,
    TYPE_COOKIE_REPLY,
    TYPE_INITIATION,
    TYPE_RESPONSE,
    kind_of,
)
from threepipe.wireguard.noise import Identity, initiate, read_initiation, read_response, read_timestamp, respond
from threepipe.wireguard.peer import Keypair, Peer
from threepipe.wireguard.settings import Endpoint
from threepipe.wireguard.tai64n import timestamp

__all__ = ["Handshakes"]

Taken = tuple[Peer, Keypair, bytes]
"""Whom there is a keypair with now, and the response to be sent, nothing at the initiator."""
Indices = Mapping[int, tuple[Peer, Keypair | None]]


class Handshakes:
    """Of one device."""

    def __init__(self, identity: Identity) -> None:
        self.identity = identity
        self._checker = Checker(identity.public)
        self._load = Load()

    def initiate(self, peer: Peer, indices: "dict[int, tuple[Peer, Keypair | None]]", unix: float) -> bytes | None:
        """An initiation for `peer`, whose index is noted in `indices`; None where its key is none."""
        assert peer.static_static is not None
        index = _unused(indices)
        begun = initiate(self.identity, peer.public_key, peer.static_static, index, timestamp(unix))
        if begun is None:
            return None
        peer.handshake, message = begun
        peer.handshake_index = index
        indices[index] = (peer, None)
        return message

    def take(
        self, message: memoryview, endpoint: Endpoint, now: float, peers: Mapping[bytes, Peer], indices: Indices
    ) -> Taken | bytes | str:
        """A keypair; or a cookie reply to be sent back; or why the message is dropped, nothing if it was of use."""
        kind = kind_of(message)
        if kind == TYPE_COOKIE_REPLY:
            return self._take_cookie(message, now, indices)
        if kind not in (TYPE_INITIATION, TYPE_RESPONSE):
            return "no message"
        if not self._checker.has_mac1(message):
            return "wrong mac1"
        if self._load.is_high(now):
            address, source = _packed(endpoint)
            if not self._checker.has_mac2(message, source, now):
                return self._checker.reply(message, int.from_bytes(message[4:8], "little"), source, now)
            if self._load.is_too_much_of(address):
                return "too many handshakes of one address"
        if kind == TYPE_INITIATION:
            return self._take_initiation(message, now, peers, indices)
        return self._take_response(message, now, indices)

    def _take_initiation(
        self, message: memoryview, now: float, peers: Mapping[bytes, Peer], indices: Indices
    ) -> Taken | str:
        received = read_initiation(self.identity, message)
        if received is None:
            return "initiation does not open"
        peer = peers.get(received.static)
        if peer is None or peer.static_static is None:
            return "initiation of a stranger"
        if (opened := read_timestamp(received, peer.static_static)) is None:
            return "initiation does not open"
        handshake, at = opened
        if at <= peer.greatest_timestamp:
            return "initiation replayed"
        if now - peer.taken_initiation < MIN_INITIATION_INTERVAL:
            return "too many initiations of one peer"
        peer.greatest_timestamp, peer.taken_initiation = at, now
        index = _unused(indices)
        responded = respond(handshake, peer.public_key, peer.preshared_key, index, received.sender_index)
        if responded is None:
            return "initiation does not open"
        keys, response = responded
        return peer, Keypair(keys, index, received.sender_index, now, initiator=False), response

    def _take_response(self, message: memoryview, now: float, indices: Indices) -> Taken | str:
        _, remote_index, index, _, _ = RESPONSE.unpack_from(message)
        peer = _initiator(index, indices)
        if peer is None or peer.handshake is None:
            return "response to no handshake"
        keys = read_response(self.identity, peer.handshake, peer.preshared_key, message)
        if keys is None:
            return "response does not open"
        return peer, Keypair(keys, index, remote_index, now, initiator=True), b""

    def _take_cookie(self, message: memoryview, now: float, indices: Indices) -> str:
        peer = _initiator(int.from_bytes(message[4:8], "little"), indices)
        if peer is None:
            # A cookie may also answer a response, which has the index of a keypair.
            peer = indices.get(int.from_bytes(message[4:8], "little"), (None, None))[0]
        return "" if peer is not None and peer.maker.take(message, now) else "cookie for no message"


def _initiator(index: int, indices: Indices) -> Peer | None:
    """Whose handshake, begun here, has `index`."""
    peer, keypair = indices.get(index, (None, None))
    return peer if keypair is None else None


def _unused(indices: Container[int]) -> int:
    while (index := secrets.randbits(32)) in indices:
        continue
    return index


def _packed(endpoint: Endpoint) -> tuple[bytes, bytes]:
    """The address as bytes, and with its port, as cookies are made of."""
    address = ipaddress.ip_address(endpoint[0].partition("%")[0]).packed
    return address, address + endpoint[1].to_bytes(2, "big")
