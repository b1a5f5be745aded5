"""PeerTable: the peers of a device, found by public key, number, index or address, and the order of their keypairs.

Sends nothing and knows no time. A peer has up to three keypairs (see the theory in `tunnel`); this file alone moves
them between `next`, `current` and `previous`, and wipes those that leave.
"""

import itertools
from collections.abc import Iterator

from threepipe.wireguard.allowed_ips import AllowedIPs
from threepipe.wireguard.keys import link_local
from threepipe.wireguard.next_hops import NextHopRouting, NextHops
from threepipe.wireguard.peer import Keypair, Peer

__all__ = ["PeerTable"]


class PeerTable:
    """The peers, in the order in which they were added."""

    def __init__(self, routing: NextHopRouting | None = None) -> None:
        self.by_key: dict[bytes, Peer] = {}
        self.next_hops: NextHops[Peer] | None = None if routing is None else NextHops(routing)
        self.allowed: AllowedIPs[Peer] | NextHops[Peer] = AllowedIPs() if self.next_hops is None else self.next_hops
        """The table that finds the peer of a packet, and the sources that a peer may use; of a type for `routing`."""
        self.indices: dict[int, tuple[Peer, Keypair | None]] = {}
        """Local index -> its peer and keypair; no keypair for an own handshake that has no answer yet."""
        self.changed: set[Peer] | None = None
        """Peers whose endpoint, keypairs or allowed IPs changed since this was cleared; None if nobody asks."""
        self._by_number: dict[int, Peer] = {}
        self._numbers = itertools.count()

    def __iter__(self) -> Iterator[Peer]:
        return iter(list(self.by_key.values()))

    def add(self, public_key: bytes) -> Peer:
        """Return a new peer with that key."""
        peer = self.by_key[public_key] = Peer(public_key, next(self._numbers))
        self._by_number[peer.number] = peer
        if self.next_hops is not None:
            self.next_hops.add(peer, link_local(public_key).packed)
        return peer

    def numbered(self, number: int) -> Peer | None:
        """Return the peer with that number."""
        return self._by_number.get(number)

    def keypair(self, index: int) -> tuple[Peer, Keypair] | None:
        """Return the keypair with that local index, and its peer."""
        peer, keypair = self.indices.get(index, (None, None))
        return None if peer is None or keypair is None else (peer, keypair)

    def remove(self, peer: Peer) -> None:
        """Remove the peer, with its allowed IPs and keys."""
        del self.by_key[peer.public_key], self._by_number[peer.number]
        self.allowed.remove_all(peer)
        if self.next_hops is not None:
            self.next_hops.discard(peer)
        self.forget_keys(peer)

    def note_change(self, peer: Peer) -> None:
        """Note that the peer's endpoint, keypairs or allowed IPs have changed."""
        if self.changed is not None:
            self.changed.add(peer)

    def use_as_responder(self, peer: Peer, keypair: Keypair) -> None:
        """Keep the responder's new keypair as `next`, until the initiator has used it."""
        self._index(peer, keypair)
        for old in (peer.next, peer.previous):
            self._drop(old)
        peer.next, peer.previous = keypair, None

    def use_as_initiator(self, peer: Peer, keypair: Keypair) -> None:
        """Make the initiator's new keypair the current one at once."""
        self._index(peer, keypair)
        self._drop(peer.previous)
        peer.previous = peer.current
        if peer.next is not None:  # The other end may begin to use this one.
            self._drop(peer.previous)
            peer.previous, peer.next = peer.next, None
        peer.current = keypair
        peer.handshake = None

    def confirm(self, peer: Peer) -> None:
        """Make `next` the current keypair: the initiator has used it."""
        self._drop(peer.previous)
        peer.previous, peer.current, peer.next = peer.current, peer.next, None
        self.note_change(peer)

    def forget_keys(self, peer: Peer) -> None:
        """Wipe all keypairs of the peer, and drop its handshake."""
        self.forget_keypairs(peer)
        self.forget_handshake(peer)

    def forget_keypairs(self, peer: Peer) -> None:
        """Wipe all keypairs of the peer."""
        for keypair in peer.keypairs:
            self._drop(keypair)
        peer.current = peer.previous = peer.next = None
        peer.keys_since = None
        self.note_change(peer)

    def forget_handshake(self, peer: Peer) -> None:
        """Drop the own handshake that has no answer yet."""
        if peer.handshake is not None:
            self.indices.pop(peer.handshake_index, None)
            peer.handshake = None

    def _index(self, peer: Peer, keypair: Keypair) -> None:
        self.indices[keypair.transport.local_index] = (peer, keypair)
        self.note_change(peer)

    def _drop(self, keypair: Keypair | None) -> None:
        if keypair is not None:
            self.indices.pop(keypair.transport.local_index, None)
            keypair.transport.wipe()
