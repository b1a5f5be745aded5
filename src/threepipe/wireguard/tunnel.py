"""Tunnel: the protocol as a whole, without I/O: packets and datagrams go in and come out.

It reads no clock (`now` is in seconds, of a clock that does not jump) and has no sockets and threads; whoever uses it
from several threads holds a lock while it calls, but not while he seals and opens what it prepared:

- `prepare` takes packets, and gives what is to be sealed by whom; `Sealing.seal` does that.
- `keypair` says by what a datagram is opened; its transport does that; `accept` takes the outcome.
- `take_handshake` is for all other datagrams; `outgoing` gives what is to be sent besides.
- `handle_timers` is to be called at `timer`, which changes with every call.
- Where messages of a peer pass elsewhere, `attend` is to be told, and `changed` says whose ways are others now.

Sections are those of the paper, wireguard.com/papers/wireguard.pdf.
"""

import heapq
import itertools
import random
from collections import Counter, deque
from collections.abc import Sequence
from typing import NamedTuple

from threepipe.core import fast
from threepipe.core.superpacket import HEADER_SIZE
from threepipe.settings import Network
from threepipe.wireguard.allowed_ips import AllowedIPs
from threepipe.wireguard.constants import JITTER, MAX_STAGED, Timing
from threepipe.wireguard.handshakes import Handshakes
from threepipe.wireguard.noise import Identity
from threepipe.wireguard.peer import NEVER, Keypair, Peer
from threepipe.wireguard.settings import KEY_SIZE, Change, Endpoint, PeerChange, PeerStatus, Status

__all__ = ["Event", "Opened", "Outgoing", "Runs", "Sealing", "Tunnel"]

Runs = list[tuple[memoryview, int]]
"""Datagrams one behind the other, and how long each but the last of them is."""
Opened = tuple[list[memoryview], list[tuple[bytes, int]], int, int, int]
"""What `Transport.open` returns."""

_EMPTY = [memoryview(b"")]


class Event(NamedTuple):
    """Something that happened to the peer with `public_key`."""

    name: str
    """`handshake`: one is complete; `roamed`: it is reached at another `endpoint`; `expired`: its keys were wiped."""
    public_key: bytes
    endpoint: Endpoint | None = None


class Outgoing(NamedTuple):
    endpoint: Endpoint
    runs: Runs


class Sealing(NamedTuple):
    """Records of one peer, whose messages have the counters from `counter` on."""

    peer: Peer
    keypair: Keypair
    counter: int
    records: Sequence[memoryview]
    headed: bool

    def seal(self, mtu: int) -> Runs:
        """Nothing where the keypair was wiped meanwhile."""
        runs = self.keypair.transport.seal(self.counter, self.records, self.headed, mtu)
        self.peer.traffic.count_sent(sum([len(memory) for memory, _ in runs]))
        return runs


class Tunnel:
    """The peers of a device, and all that passes between them and it."""

    def __init__(self, *, timing: Timing | None = None, unix_offset: float = 0.0) -> None:
        """`unix_offset` is what makes seconds since 1970 of `now`, for timestamps, which have to grow over restarts."""
        self.timing = timing or Timing()
        self.mtu = 0
        """Bytes beyond which packets are not padded; 0 for no limit."""
        self.rejected: Counter[str] = Counter()
        """Datagrams and packets that were dropped, by reason."""
        self.events: deque[Event] = deque(maxlen=1024)
        self.changed: set[Peer] = set()
        """Whose endpoint, keypairs or allowed IPs are others since whoever wants to know cleared this."""
        self._unix_offset = unix_offset
        self._private_key = bytes(KEY_SIZE)
        self._peers: dict[bytes, Peer] = {}
        self._numbers: dict[int, Peer] = {}
        self._allowed: AllowedIPs[Peer] = AllowedIPs()
        self._indices: dict[int, tuple[Peer, Keypair | None]] = {}
        self._handshakes: Handshakes | None = None
        self._outgoing: list[Outgoing] = []
        self._checks: list[tuple[float, int, Peer]] = []
        self._order = itertools.count()

    # Settings.

    def configure(self, change: Change, now: float) -> None:
        """Carry out `change`, but for the port and the mark, which are the sockets'."""
        if change.private_key is not None and change.private_key != self._private_key:
            self._set_private_key(change.private_key)
        if change.replace_peers:
            kept = {peer.public_key for peer in change.peers}
            for peer in [peer for key, peer in self._peers.items() if key not in kept]:
                self._remove(peer)
        for peer_change in change.peers:
            self._configure_peer(peer_change, now)

    def _set_private_key(self, private_key: bytes) -> None:
        self._private_key = private_key
        identity = Identity(private_key) if any(private_key) else None
        self._handshakes = Handshakes(identity) if identity else None
        for peer in list(self._peers.values()):
            self._forget_keys(peer)
            peer.attempts_since, peer.try_again, peer.sent_initiation = None, NEVER, -NEVER
            peer.static_static = identity.shared(peer.public_key) if identity else None
        if identity and (own := self._peers.get(identity.public)):
            self._remove(own)

    def _configure_peer(self, change: PeerChange, now: float) -> None:
        peer = self._peers.get(change.public_key)
        if change.remove:
            if peer is not None:
                self._remove(peer)
            return
        identity = self._handshakes.identity if self._handshakes else None
        if peer is None:
            if change.update_only or (identity and identity.public == change.public_key):
                return  # One that is not to be made; or the device itself, which wg(8) ignores as well.
            peer = self._peers[change.public_key] = Peer(change.public_key, next(self._order))
            self._numbers[peer.number] = peer
            peer.static_static = identity.shared(change.public_key) if identity else None
        self.changed.add(peer)
        if change.preshared_key is not None:
            peer.preshared_key = change.preshared_key
        if change.endpoint is not None:
            peer.endpoint = change.endpoint
        if change.replace_allowed_ips:
            self._allowed.remove_all(peer)
        for network in change.removed_ips:
            self._allowed.remove(network, peer)
        for network in change.allowed_ips:
            self._allowed.insert(network, peer)
        if change.persistent_keepalive is not None:
            began = change.persistent_keepalive and not peer.persistent_keepalive
            peer.persistent_keepalive = change.persistent_keepalive
            if began and identity:
                self._send_keepalive(peer, now)
            self._look_again(peer, peer.due(self.timing))
        if peer.staged:
            self._send_staged(peer, now)

    def _remove(self, peer: Peer) -> None:
        del self._peers[peer.public_key], self._numbers[peer.number]
        self._allowed.remove_all(peer)
        self._forget_keys(peer)
        self.changed.add(peer)
        peer.check_at = NEVER  # No look that is still in the queue is meant.

    def status(self) -> Status:
        """All but the port and the mark."""
        return Status(
            self._private_key,
            self._handshakes.identity.public if self._handshakes else bytes(KEY_SIZE),
            peers=tuple(
                PeerStatus(
                    peer.public_key, peer.preshared_key, peer.endpoint, self._allowed.of(peer),
                    peer.persistent_keepalive, peer.last_handshake, peer.traffic.rx_bytes, peer.traffic.tx_bytes,
                )
                for peer in self._peers.values()
            ),
        )  # fmt: skip

    # Where messages pass elsewhere.

    def networks(self, peer: Peer) -> tuple[Network, ...]:
        """The allowed IPs of a peer; none where it was removed."""
        return self._allowed.of(peer)

    def attend(self, number: int, now: float, *, sending: bool) -> float:
        """Do what is due for the peer of that number as messages are sent to it, or come.

        Returns when to tell again, if it is not before that nobody is watching its traffic.
        """
        peer = self._numbers.get(number)
        if peer is None or (keypair := peer.current) is None:
            return NEVER
        self._watch(peer, now, True)
        if not sending:
            self._renew_near_end(peer, keypair, now)
            near_end = keypair.near_end(self.timing)
            return near_end if now < near_end else NEVER
        if keypair.is_stale(now, self.timing):
            self._initiate(peer, now)
            return now + self.timing.rekey_timeout
        return keypair.renew_at(self.timing)

    # From the adapter to the network.

    def prepare(self, records: Sequence[memoryview], headed: bool, now: float) -> list[Sealing]:
        """What is sealed for whom, by the destinations of packets; what has to wait, or has no peer, is not in it."""
        sealings = []
        for peer, group in self._by_peer(records, HEADER_SIZE if headed else 0):
            packets = fast.measure(group, headed)[0]
            if peer is None or (peer.endpoint is None and not peer.current):
                self.rejected["no peer for the destination" if peer is None else "no endpoint"] += packets
            elif sealing := self._sealing(peer, group, headed, packets, now, data=True):
                sealings.append(sealing)
            else:
                self._stage(peer, group, headed)
                self._initiate(peer, now)
        return sealings

    def _by_peer(self, records: Sequence[memoryview], offset: int) -> list[tuple[Peer | None, list[memoryview]]]:
        """Runs of records for the same peer, in order."""
        groups: list[tuple[Peer | None, list[memoryview]]] = []
        find = self._allowed.find
        for record in records:
            if record[offset] >> 4 == 4:
                peer = find(record[offset + 16 : offset + 20].tobytes())
            else:
                peer = find(record[offset + 24 : offset + 40].tobytes())
            if groups and groups[-1][0] is peer:
                groups[-1][1].append(record)
            else:
                groups.append((peer, [record]))
        return groups

    def _sealing(
        self, peer: Peer, records: Sequence[memoryview], headed: bool, packets: int, now: float, *, data: bool
    ) -> Sealing | None:
        """Take counters for `packets`; None where there is no keypair for them."""
        keypair = peer.current
        if keypair is None or not keypair.is_good(now, self.timing):
            return None
        if (counter := keypair.transport.reserve(packets)) is None:
            return None
        self._watch(peer, now, peer.traffic.sent(now, data, 0))
        if keypair.is_stale(now, self.timing):
            self._initiate(peer, now)
        return Sealing(peer, keypair, counter, records, headed)

    def _stage(self, peer: Peer, records: Sequence[memoryview], headed: bool) -> None:
        for record in records:
            if len(peer.staged) >= MAX_STAGED:
                peer.staged.popleft()
                self.rejected["too many packets wait for a handshake"] += 1
            peer.staged.append((memoryview(bytearray(record)), headed))

    def _send_staged(self, peer: Peer, now: float) -> bool:
        """Send what waited; whether something did."""
        staged, peer.staged = peer.staged, deque()
        for headed, group in itertools.groupby(staged, lambda item: item[1]):
            records = [record for record, _ in group]
            sealing = self._sealing(peer, records, headed, fast.measure(records, headed)[0], now, data=True)
            if sealing is None:
                self._stage(peer, records, headed)
                self._initiate(peer, now)
            else:
                self._send(sealing)
        return bool(staged)

    def _send_keepalive(self, peer: Peer, now: float) -> None:
        """Send an empty message; where there is no keypair for it, a handshake, which says that we are here as well."""
        if sealing := self._sealing(peer, _EMPTY, False, 1, now, data=False):
            self._send(sealing)
        else:
            self._initiate(peer, now)

    def _send(self, sealing: Sealing) -> None:
        runs = sealing.seal(self.mtu)
        if sealing.peer.endpoint is not None:
            self._outgoing.append(Outgoing(sealing.peer.endpoint, runs))

    def outgoing(self) -> list[Outgoing]:
        """What is to be sent now."""
        outgoing, self._outgoing = self._outgoing, []
        return outgoing

    # From the network to the adapter.

    def keypair(self, index: int, now: float) -> tuple[Peer, Keypair] | None:
        """By what a transport message for `index` is opened, and whose it is."""
        peer, keypair = self._indices.get(index, (None, None))
        if peer is None or keypair is None or now - keypair.created >= self.timing.reject_after:
            self.rejected["no keypair"] += 1
            return None
        return peer, keypair

    def accept(
        self, peer: Peer, keypair: Keypair, opened: Opened, size: int, endpoint: Endpoint, now: float
    ) -> list[memoryview]:
        """The packets of what was opened by `keypair` that are from where `peer` may send from.

        `size`: bytes of each datagram but the last, as `Transport.open` was told.
        """
        packets, sources, used, authentic, authentic_size = opened
        if forged := -(-used // size) - authentic:
            self.rejected["not authentic, or not new"] += forged
        if not authentic or self._indices.get(keypair.transport.local_index, (None, None))[1] is not keypair:
            return []  # Nothing; or the keypair was wiped meanwhile.
        self._reached(peer, endpoint)
        self._watch(peer, now, peer.traffic.received(now, bool(packets), authentic_size))
        if keypair is peer.next:
            self._confirm(peer, now)
        self._renew_near_end(peer, keypair, now)
        find = self._allowed.find
        if all(find(source) is peer for source, _ in sources):
            return packets
        good, start = [], 0
        for source, count in sources:
            if find(source) is peer:
                good += packets[start : start + count]
            else:
                self.rejected["source is not among the peer's allowed IPs"] += count
            start += count
        return good

    def _confirm(self, peer: Peer, now: float) -> None:
        """The initiator has shown that it has the keypair: from now on it is used here too."""
        if peer.previous is not None:
            self._drop(peer.previous)
        peer.previous, peer.current, peer.next = peer.current, peer.next, None
        self.changed.add(peer)
        self._complete(peer, now)
        self._send_staged(peer, now)

    def _renew_near_end(self, peer: Peer, keypair: Keypair, now: float) -> None:
        """For one that only receives a keypair would end; its initiator begins a new handshake before (section 6.2)."""
        if keypair is peer.current and now >= keypair.near_end(self.timing) and not peer.last_minute:
            peer.last_minute = True
            self._initiate(peer, now)

    def _reached(self, peer: Peer, endpoint: Endpoint) -> None:
        """An authentic message came from `endpoint`: there the peer is reached from now on (section 2.1)."""
        if endpoint != peer.endpoint:
            if peer.endpoint is not None:
                self.events.append(Event("roamed", peer.public_key, endpoint))
            peer.endpoint = endpoint
            self.changed.add(peer)

    # Handshakes.

    def take_handshake(self, message: memoryview, endpoint: Endpoint, now: float) -> bool:
        """Take a datagram that is no transport message; whatever it is, nothing is raised.

        Returns whether it led to a keypair, which only a peer can have it do.
        """
        if self._handshakes is None:
            self.rejected["no private key"] += 1
            return False
        answer = self._handshakes.take(message, endpoint, now, self._peers, self._indices)
        if isinstance(answer, str):
            if answer:
                self.rejected[answer] += 1
            return False
        if isinstance(answer, bytes):
            self._send_message(endpoint, answer)
            return False
        peer, keypair, response = answer
        self._reached(peer, endpoint)
        self._watch(peer, now, peer.traffic.received(now, False, len(message)))
        peer.derived(now)
        self.changed.add(peer)
        self._indices[keypair.transport.local_index] = (peer, keypair)
        if response:
            self._take_over(peer, keypair)
            self._send_handshake(peer, response, now)
        else:
            self._take_turn(peer, keypair)
            self._complete(peer, now)
            if not self._send_staged(peer, now):
                self._send_keepalive(peer, now)  # The responder sends nothing before it has seen the keypair in use.
        self._look_again(peer, peer.due(self.timing))
        return True

    def _take_over(self, peer: Peer, keypair: Keypair) -> None:
        """At the responder: the keypair waits until the initiator has used it."""
        for old in (peer.next, peer.previous):
            if old is not None:
                self._drop(old)
        peer.next, peer.previous = keypair, None

    def _take_turn(self, peer: Peer, keypair: Keypair) -> None:
        """At the initiator: the keypair is used at once."""
        if peer.previous is not None:
            self._drop(peer.previous)
        peer.previous = peer.current
        if peer.next is not None:  # One by which the other end perhaps begins to send.
            if peer.previous is not None:
                self._drop(peer.previous)
            peer.previous, peer.next = peer.next, None
        peer.current = keypair
        peer.handshake = None

    def _complete(self, peer: Peer, now: float) -> None:
        peer.completed(now + self._unix_offset)
        self.events.append(Event("handshake", peer.public_key, peer.endpoint))

    def _initiate(self, peer: Peer, now: float) -> None:
        """Begin a handshake, or try again; not within REKEY_TIMEOUT of the last try, and not where it cannot be."""
        if self._handshakes is None or peer.endpoint is None or peer.static_static is None:
            return
        if now - peer.sent_initiation < self.timing.rekey_timeout:
            return
        if peer.handshake is not None:
            self._indices.pop(peer.handshake_index, None)
            peer.handshake = None
        message = self._handshakes.initiate(peer, self._indices, now + self._unix_offset)
        if message is None:
            return
        if peer.attempts_since is None:
            peer.attempts_since = now
        peer.sent_initiation = now
        peer.try_again = now + self.timing.rekey_timeout + random.uniform(0, min(JITTER, self.timing.rekey_timeout))
        self._send_handshake(peer, message, now)
        self._look_again(peer, peer.try_again)

    def _send_handshake(self, peer: Peer, message: bytes, now: float) -> None:
        message = peer.maker.add_macs(message, now)
        self._watch(peer, now, peer.traffic.sent(now, False, len(message)))
        assert peer.endpoint is not None
        self._send_message(peer.endpoint, message)

    def _send_message(self, endpoint: Endpoint, message: bytes) -> None:
        self._outgoing.append(Outgoing(endpoint, [(memoryview(message), len(message))]))

    # Time.

    @property
    def timer(self) -> float:
        """When `handle_timers` is to be called; `NEVER` if there is nothing to wait for."""
        return self._checks[0][0] if self._checks else NEVER

    def handle_timers(self, now: float) -> None:
        """Do what is due."""
        while self._checks and self._checks[0][0] <= now:
            at, _, peer = heapq.heappop(self._checks)
            if at != peer.check_at:
                continue  # There was an earlier look, or the peer is gone.
            peer.check_at = NEVER
            peer.traffic.check_scheduled = False  # From now on, for what is noted after this is not looked at here.
            self._check(peer, now)
            self._look_again(peer, peer.due(self.timing))

    def _look_again(self, peer: Peer, at: float) -> None:
        """See that the peer is looked at, at the latest at `at`."""
        if at < peer.check_at:
            peer.check_at = at
            heapq.heappush(self._checks, (at, next(self._order), peer))

    def _watch(self, peer: Peer, now: float, nobody_does: bool) -> None:
        """See that the peer is looked at in time for whatever may come to be due by what was noted of its traffic."""
        if nobody_does:
            self._look_again(peer, now + self.timing.keepalive)

    def _check(self, peer: Peer, now: float) -> None:
        timing = self.timing
        if now >= peer.try_again:
            self._retry(peer, now)
        if now >= peer.handshake_due(timing):
            peer.traffic.unanswered_since = None
            self._initiate(peer, now)
        if now >= peer.keepalive_due(timing):
            traffic = peer.traffic
            more, traffic.need_another_keepalive, traffic.keepalive_owed_since = (
                traffic.need_another_keepalive,
                False,
                None,
            )
            self._send_keepalive(peer, now)
            if more:
                traffic.keepalive_owed_since = (
                    now  # What came since the first is answered later once more, as Linux does.
                )
        if now >= peer.persistent_due():
            peer.traffic.last_traversal = now  # Also where nothing can be sent.
            self._send_keepalive(peer, now)
        if now >= peer.wipe_due(timing):
            self._forget_keys(peer)
            self.events.append(Event("expired", peer.public_key, peer.endpoint))

    def _retry(self, peer: Peer, now: float) -> None:
        peer.try_again = NEVER
        assert peer.attempts_since is not None
        if now - peer.attempts_since < self.timing.rekey_attempt:
            peer.sent_initiation = -NEVER
            self._initiate(peer, now)
            return
        # Given up, until there is something to be sent again.
        peer.attempts_since = None
        self.rejected["no answer to handshakes"] += len(peer.staged)
        peer.staged.clear()
        if peer.keys_since is None:
            peer.keys_since = now

    def _forget_keys(self, peer: Peer) -> None:
        """Wipe all keys that were agreed on with the peer, and what is there of a handshake."""
        for keypair in peer.keypairs:
            self._drop(keypair)
        peer.current = peer.previous = peer.next = None
        self.changed.add(peer)
        if peer.handshake is not None:
            self._indices.pop(peer.handshake_index, None)
            peer.handshake = None
        peer.keys_since = None

    def _drop(self, keypair: Keypair) -> None:
        self._indices.pop(keypair.transport.local_index, None)
        keypair.transport.wipe()
