"""Handshakes: the handshake messages of one device, made, checked and opened.

Lies between `noise` and `cookie`, which know no peers, and `machine`, which decides when to begin a handshake and how
to use its keypair. Keeps no list of peers.
"""

import secrets
from collections.abc import Container
from typing import NamedTuple

from threepipe.wireguard.constants import MIN_INITIATION_INTERVAL
from threepipe.wireguard.cookie import CookieChecker, Load
from threepipe.wireguard.message import (
    RESPONSE,
    TYPE_COOKIE_REPLY,
    TYPE_INITIATION,
    TYPE_RESPONSE,
    index_of,
    type_of,
)
from threepipe.wireguard.noise import Identity, initiate, read_initiation, read_response, read_timestamp, respond
from threepipe.wireguard.peer import Keypair, Peer
from threepipe.wireguard.peer_endpoint import PeerEndpoint, cookie_sources
from threepipe.wireguard.peer_table import PeerTable
from threepipe.wireguard.tai64n import Timestamps, seconds_between

__all__ = ["CookieReply", "Established", "Handshakes", "Outdated"]

Indices = dict[int, tuple[Peer, Keypair | None]]


class Established(NamedTuple):
    """A new keypair with a peer, and the response to send; nothing at the initiator."""

    peer: Peer
    keypair: Keypair
    response: bytes


class CookieReply(NamedTuple):
    """A cookie reply to send to the sender of a message."""

    message: bytes


class Outdated(NamedTuple):
    """An authentic initiation that was refused, as its timestamp is not above the last one accepted."""

    peer: Peer
    seconds: float
    """The seconds by which its timestamp is older than that one."""


class Handshakes:
    """The handshakes of the device with one private key."""

    def __init__(self, identity: Identity, timestamps: Timestamps) -> None:
        self.identity = identity
        self._timestamps = timestamps
        self.checker = CookieChecker(identity.public)
        self._load = Load()

    def initiate(self, peer: Peer, indices: Indices) -> bytes | None:
        """Return an initiation for `peer`, without MACs, and add its index to `indices`; None if its key is invalid."""
        assert peer.static_static is not None
        index = _unused_index(indices)
        sent_at = self._timestamps.after(peer.last_timestamp)
        begun = initiate(self.identity, peer.public_key, peer.static_static, index, sent_at)
        if begun is None:
            return None
        peer.last_timestamp = sent_at
        peer.handshake, message = begun
        peer.handshake_index = index
        indices[index] = (peer, None)
        return message

    def receive(
        self, message: memoryview, endpoint: PeerEndpoint, now: float, peers: PeerTable
    ) -> Established | CookieReply | Outdated | str:
        """Receive a datagram that is not a transport message. Return its result, or the reason to drop it.

        The reason is empty for a cookie reply that was accepted.
        """
        kind = type_of(message)
        if kind == TYPE_COOKIE_REPLY:
            return self._receive_cookie(message, now, peers.indices)
        if kind not in (TYPE_INITIATION, TYPE_RESPONSE):
            return "not a message"
        if not self.checker.has_mac1(message):
            return "wrong mac1"
        if self._load.is_high(now):
            limited_by, source = cookie_sources(endpoint)
            if not self.checker.has_mac2(message, source, now):
                return CookieReply(self.checker.reply(message, index_of(message), source, now))
            if self._load.is_too_high_from(limited_by):
                return "too many handshakes from one source"
        if kind == TYPE_INITIATION:
            return self._receive_initiation(message, now, peers)
        return self._receive_response(message, now, peers.indices)

    def _receive_initiation(self, message: memoryview, now: float, peers: PeerTable) -> Established | Outdated | str:
        received = read_initiation(self.identity, message)
        if received is None:
            return "initiation does not open"
        peer = peers.by_key.get(received.static)
        if peer is None or peer.static_static is None:
            return "initiation from an unknown peer"
        if (opened := read_timestamp(received, peer.static_static)) is None:
            return "initiation does not open"
        handshake, sent_at = opened
        if sent_at <= peer.greatest_timestamp:
            return Outdated(peer, seconds_between(sent_at, peer.greatest_timestamp))
        if now - peer.initiation_received < MIN_INITIATION_INTERVAL:
            return "too many initiations from one peer"
        peer.greatest_timestamp, peer.initiation_received, peer.refusal_told = sent_at, now, False
        index = _unused_index(peers.indices)
        responded = respond(handshake, peer.public_key, peer.preshared_key, index, received.sender_index)
        if responded is None:
            return "initiation does not open"
        keys, response = responded
        return Established(peer, Keypair(keys, index, received.sender_index, now, initiator=False), response)

    def _receive_response(self, message: memoryview, now: float, indices: Indices) -> Established | str:
        _, remote_index, index, _, _ = RESPONSE.unpack_from(message)
        peer, keypair = indices.get(index, (None, None))
        if peer is None or keypair is not None or peer.handshake is None:
            return "response to no handshake"
        keys = read_response(self.identity, peer.handshake, peer.preshared_key, message)
        if keys is None:
            return "response does not open"
        return Established(peer, Keypair(keys, index, remote_index, now, initiator=True), b"")

    def _receive_cookie(self, message: memoryview, now: float, indices: Indices) -> str:
        # It may answer an own initiation or an own response; the response's index belongs to a keypair.
        peer, _ = indices.get(index_of(message), (None, None))
        return "" if peer is not None and peer.cookie_generator.receive(message, now) else "cookie for no message"


def _unused_index(indices: Container[int]) -> int:
    while (index := secrets.randbits(32)) in indices:
        continue
    return index
