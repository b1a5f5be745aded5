"""StateMachine: the decisions of the protocol: when to begin a handshake, send a keepalive, switch keys and wipe them.

`tunnel` explains the theory and calls these methods, always with its lock held. They seal only the few messages that
no bundle of the caller pays for: keepalives, and packets that waited for a handshake.
"""

import itertools
import random
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

from threepipe.core import fast
from threepipe.wireguard.constants import JITTER, MAX_STAGED, Timing
from threepipe.wireguard.handshakes import CookieReply, Established, Handshakes, Outdated
from threepipe.wireguard.next_hops import NextHopRouting
from threepipe.wireguard.noise import Identity
from threepipe.wireguard.peer import NEVER, Keypair, Peer
from threepipe.wireguard.peer_endpoint import PeerEndpoint
from threepipe.wireguard.peer_table import PeerTable
from threepipe.wireguard.schedule import Schedule
from threepipe.wireguard.settings import Change, PeerChange, PeerStatus, Status
from threepipe.wireguard.tai64n import Timestamps
from threepipe.wireguard.values import KEY_SIZE

__all__ = ["Event", "Outgoing", "Runs", "Sealing", "StateMachine"]

Runs = list[tuple[memoryview, int, int]]
"""Runs of datagrams: the memory, the size of each datagram in it but the last, which may be shorter, and their ECN."""

_KEEPALIVE = [memoryview(b"")]
_DISPLAY_TOLERANCE = 1.0  # Seconds: more than two clocks drift apart in days.


class Event(NamedTuple):
    """An event of the peer with `public_key`."""

    name: str
    """`handshake`: one is complete; `roamed`: the peer has a new `endpoint`; `expired`: its keys were wiped;
    `outdated`: an initiation from it was refused for its timestamp, reported once until one is accepted."""
    public_key: bytes
    endpoint: PeerEndpoint | None = None
    seconds: float = 0.0
    """The age of an `outdated` timestamp, in seconds before the last one accepted."""


class Outgoing(NamedTuple):
    """Datagrams to send to `endpoint`, from the local address `local`; None lets the system choose one."""

    endpoint: PeerEndpoint
    local: bytes | None
    runs: Runs


class Sealing(NamedTuple):
    """Records for one peer, with `packets` reserved counters from `counter` on, that are ready to be sealed."""

    peer: Peer
    keypair: Keypair
    counter: int
    packets: int
    records: Sequence[memoryview]
    vnet_header: bool

    def seal(self, mtu: int) -> Runs:
        """Return the messages; none if the keypair was wiped meanwhile. Needs no lock."""
        return self.keypair.transport.seal(self.counter, self.packets, self.records, self.vnet_header, mtu)


class StateMachine:
    """The state of a device and its transitions."""

    def __init__(self, timing: Timing, wall_clock: Callable[[], float], routing: NextHopRouting | None = None) -> None:
        """`wall_clock` returns seconds since 1970. It may jump, and decides nothing but timestamps and display."""
        self.timing = timing
        self.mtu = 0
        self.rejected: Counter[str] = Counter()
        self.events: deque[Event] = deque(maxlen=1024)
        self.peers = PeerTable(routing)
        self.schedule = Schedule()
        self.outgoing: list[Outgoing] = []
        self._wall_clock = wall_clock
        self.timestamps = Timestamps(wall_clock)
        self._display_offset = 0.0
        self.private_key = bytes(KEY_SIZE)
        self.handshakes: Handshakes | None = None

    # Settings.

    def configure(self, change: Change, now: float) -> None:
        """Carry out `change`."""
        if change.private_key is not None and change.private_key != self.private_key:
            self._set_private_key(change.private_key)
        if change.replace_peers:
            firsts = {peer.public_key: peer for peer in reversed(change.peers)}
            for peer in self.peers:
                first = firsts.get(peer.public_key)
                if first is not None and not first.update_only:
                    self._reset(peer, first)
                else:
                    self._remove(peer)
        for peer_change in change.peers:
            self._configure_peer(peer_change, now)

    def _set_private_key(self, private_key: bytes) -> None:
        self.private_key = private_key
        identity = Identity(private_key) if any(private_key) else None
        self.handshakes = Handshakes(identity, self.timestamps) if identity else None
        for peer in self.peers:
            self.peers.forget_keys(peer)
            peer.attempts_since, peer.retry_at, peer.initiation_sent = None, NEVER, -NEVER
            peer.static_static = identity.shared(peer.public_key) if identity else None
        if identity and (own := self.peers.by_key.get(identity.public)):
            self._remove(own)

    def _configure_peer(self, change: PeerChange, now: float) -> None:
        peer = self._existing_or_new(change)
        if peer is None:
            return
        self.peers.note_change(peer)
        if change.preshared_key is not None:
            peer.preshared_key = change.preshared_key
        if change.endpoint is not None and change.endpoint != peer.endpoint:
            peer.endpoint, peer.local = change.endpoint, None
        allowed = self.peers.allowed
        if change.replace_allowed_ips:
            allowed.remove_all(peer)
        for network in change.removed_ips:
            allowed.remove(network, peer)
        for network in change.allowed_ips:
            allowed.insert(network, peer)
        if change.persistent_keepalive is not None:
            switched_on = change.persistent_keepalive and not peer.persistent_keepalive
            peer.persistent_keepalive = change.persistent_keepalive
            if switched_on and self.handshakes:
                self.send_keepalive(peer, now)
            self.schedule.check_by(peer, peer.due(self.timing))
        if peer.staged:
            self.send_staged(peer, now)

    def _reset(self, peer: Peer, change: PeerChange) -> None:
        """Take from the peer the settings that `change` does not have, as for a new peer; its sessions stay."""
        if change.preshared_key is None:
            peer.preshared_key = bytes(KEY_SIZE)
        if change.endpoint is None:
            peer.endpoint = peer.local = None
        if change.persistent_keepalive is None:
            peer.persistent_keepalive = 0
        self.peers.allowed.remove_all(peer)
        self.peers.note_change(peer)

    def _existing_or_new(self, change: PeerChange) -> Peer | None:
        """Return the peer to change; None if it was to be removed, or is not to be added."""
        peer = self.peers.by_key.get(change.public_key)
        if change.remove:
            if peer is not None:
                self._remove(peer)
            return None
        if peer is None:
            identity = self.handshakes.identity if self.handshakes else None
            if change.update_only or (identity and identity.public == change.public_key):
                return None  # As wg(8), ignore the device's own key.
            peer = self.peers.add(change.public_key)
            peer.static_static = identity.shared(change.public_key) if identity else None
        return peer

    def _remove(self, peer: Peer) -> None:
        self.peers.remove(peer)
        self.schedule.cancel(peer)

    def status(self, now: float) -> Status:
        """Return the state of the device, without the port and the mark."""
        self._follow_wall_clock(now)
        return Status(
            self.private_key,
            self.handshakes.identity.public if self.handshakes else bytes(KEY_SIZE),
            peers=tuple(
                PeerStatus(
                    peer.public_key, peer.preshared_key, peer.endpoint, self.peers.allowed.of(peer),
                    peer.persistent_keepalive, self._displayed(peer.handshake_at), peer.traffic.rx_bytes,
                    peer.traffic.tx_bytes, NEVER if peer.handshake_at is None else now - peer.handshake_at,
                    peer.current is not None and now < peer.current.expires_at(self.timing),
                )
                for peer in self.peers
            ),
        )  # fmt: skip

    def _follow_wall_clock(self, now: float) -> None:
        """Note the difference between the clocks, for display, unless it has hardly changed: times shown stay equal."""
        offset = self._wall_clock() - now
        if abs(offset - self._display_offset) > _DISPLAY_TOLERANCE:
            self._display_offset = offset

    def _displayed(self, at: float | None) -> float:
        """Return seconds since 1970 for `at`, 1 at least, as 0 means never."""
        return 0.0 if at is None else max(at + self._display_offset, 1.0)

    # Sending.

    def reserve(
        self, peer: Peer, records: Sequence[memoryview], vnet_header: bool, packets: int, now: float, *, data: bool
    ) -> Sealing | None:
        """Reserve counters for the `packets` of `records`; None if there is no keypair for them."""
        keypair = peer.current
        if keypair is None or now >= keypair.expires_at(self.timing):
            return None
        if (counter := keypair.transport.reserve(packets)) is None:
            return None
        self.note_traffic(peer, now, peer.traffic.sent(now, data, 0))
        return Sealing(peer, keypair, counter, packets, records, vnet_header)

    def queue(self, sealing: Sealing, runs: Runs, now: float) -> None:
        """Queue the messages that were sealed; renew their keypair if it is time."""
        peer, keypair = sealing.peer, sealing.keypair
        peer.traffic.count_sent(sum([len(memory) for memory, _, _ in runs]))
        if peer.endpoint is not None:
            self.outgoing.append(Outgoing(peer.endpoint, peer.local, runs))
        if keypair is peer.current and keypair.needs_renewal(now, self.timing):  # Not if it was wiped meanwhile.
            self.initiate(peer, now)

    def stage(self, peer: Peer, records: Sequence[memoryview], vnet_header: bool) -> None:
        """Keep copies of records until there is a keypair; the oldest make room for new ones."""
        for record in records:
            if len(peer.staged) >= MAX_STAGED:
                peer.staged.popleft()
                self.rejected["too many packets wait for a handshake"] += 1
            peer.staged.append((memoryview(bytearray(record)), vnet_header))

    def send_staged(self, peer: Peer, now: float) -> bool:
        """Send the staged records. Return True if there were any."""
        staged, peer.staged = peer.staged, deque()
        for vnet_header, group in itertools.groupby(staged, lambda item: item[1]):
            records = [record for record, _ in group]
            packets, _, _ = fast.measure(records, vnet_header)
            sealing = self.reserve(peer, records, vnet_header, packets, now, data=True)
            if sealing is None:
                self.stage(peer, records, vnet_header)
                self.initiate(peer, now)
            else:
                self.queue(sealing, sealing.seal(self.mtu), now)
        return bool(staged)

    def send_keepalive(self, peer: Peer, now: float) -> None:
        """Send an empty message or, if there is no keypair, begin a handshake, which shows as well that we are here."""
        if sealing := self.reserve(peer, _KEEPALIVE, False, 1, now, data=False):
            self.queue(sealing, sealing.seal(self.mtu), now)
        else:
            self.initiate(peer, now)

    # Receiving.

    def received(self, peer: Peer, keypair: Keypair, data: bool, size: int, now: float) -> None:
        """Note that authentic messages of `size` bytes in all were opened with the keypair."""
        self.note_traffic(peer, now, peer.traffic.received(now, data, size))
        if keypair is peer.next:
            self.peers.confirm(peer)
            self._complete_handshake(peer, now)
            self.send_staged(peer, now)
        self.renew_last_minute(peer, keypair, now)

    def renew_last_minute(self, peer: Peer, keypair: Keypair, now: float) -> None:
        """Begin a handshake if this keypair, which was received with, is near its end (section 6.2)."""
        if (
            keypair is peer.current
            and now >= keypair.renew_on_receive_at(self.timing)
            and not peer.sent_last_minute_handshake
        ):
            peer.sent_last_minute_handshake = True
            self.initiate(peer, now)

    def follow(self, peer: Peer, endpoint: PeerEndpoint, local: bytes | None) -> None:
        """Send to `endpoint` from now on, from the address `local`: an authentic message came that way."""
        if endpoint != peer.endpoint:
            if peer.endpoint is not None:
                self.events.append(Event("roamed", peer.public_key, endpoint))
            peer.endpoint = endpoint
            self.peers.note_change(peer)
        peer.local = local

    # Handshakes.

    def receive_handshake(self, message: memoryview, endpoint: PeerEndpoint, local: bytes | None, now: float) -> None:
        """Receive a datagram that is not a transport message, whatever it is."""
        if self.handshakes is None:
            self.rejected["no private key"] += 1
            return
        result = self.handshakes.receive(message, endpoint, now, self.peers)
        if isinstance(result, Established):
            self.follow(result.peer, endpoint, local)
            self.note_traffic(result.peer, now, result.peer.traffic.received(now, False, len(message)))
            self._use(*result, now)
        elif isinstance(result, CookieReply):
            self._send_message(endpoint, local, result.message)
        elif isinstance(result, Outdated):
            self._refuse(*result, endpoint)
        elif result:
            self.rejected[result] += 1

    def _refuse(self, peer: Peer, seconds: float, endpoint: PeerEndpoint) -> None:
        """Count an initiation that is not newer than the last. Report it, except one that merely came twice."""
        self.rejected["initiation replayed"] += 1
        if seconds and not peer.refusal_told:
            peer.refusal_told = True
            self.events.append(Event("outdated", peer.public_key, endpoint, seconds))

    def _use(self, peer: Peer, keypair: Keypair, response: bytes, now: float) -> None:
        """Use the keypair of a new handshake; there is a response to send if the peer initiated it."""
        peer.keys_since = now
        if response:
            self.peers.use_as_responder(peer, keypair)
            self._send_handshake(peer, response, now)
        else:
            self.peers.use_as_initiator(peer, keypair)
            self._complete_handshake(peer, now)
            if not self.send_staged(peer, now):
                self.send_keepalive(peer, now)  # The responder sends nothing before it has received a message.
        self.schedule.check_by(peer, peer.due(self.timing))

    def _complete_handshake(self, peer: Peer, now: float) -> None:
        peer.complete_handshake(now)
        self.events.append(Event("handshake", peer.public_key, peer.endpoint))

    def initiate(self, peer: Peer, now: float) -> None:
        """Begin a handshake, or repeat it, if the last attempt is REKEY_TIMEOUT ago and one is possible at all."""
        if self.handshakes is None or peer.endpoint is None or peer.static_static is None:
            return
        if now - peer.initiation_sent < self.timing.rekey_timeout:
            return
        self.peers.forget_handshake(peer)
        message = self.handshakes.initiate(peer, self.peers.indices)
        if message is None:
            return
        if peer.attempts_since is None:
            peer.attempts_since = now
        peer.initiation_sent = now
        peer.retry_at = now + self.timing.rekey_timeout + random.uniform(0, min(JITTER, self.timing.rekey_timeout))
        self._send_handshake(peer, message, now)
        self.schedule.check_by(peer, peer.retry_at)

    def _send_handshake(self, peer: Peer, message: bytes, now: float) -> None:
        message = peer.cookie_generator.add_macs(message, now)
        self.note_traffic(peer, now, peer.traffic.sent(now, False, len(message)))
        assert peer.endpoint is not None
        self._send_message(peer.endpoint, peer.local, message)

    def _send_message(self, endpoint: PeerEndpoint, local: bytes | None, message: bytes) -> None:
        self.outgoing.append(Outgoing(endpoint, local, [(memoryview(message), len(message), 0)]))

    # Time.

    def note_traffic(self, peer: Peer, now: float, unscheduled: bool) -> None:
        """Schedule a check of the peer, if it is `unscheduled`, for the timers that its traffic may start."""
        if unscheduled:
            self.schedule.check_by(peer, now + self.timing.keepalive)

    def handle_timers(self, now: float) -> None:
        """Do everything that is due."""
        for peer in self.schedule.due(now):
            peer.traffic.check_scheduled = False  # First, as traffic noted after this is not checked here.
            self._check(peer, now)
            self.schedule.check_by(peer, peer.due(self.timing))

    def _check(self, peer: Peer, now: float) -> None:
        timing, traffic = self.timing, peer.traffic
        if now >= peer.wipe_due(timing):  # First, and not a handshake of now: both may be due after a suspension.
            self.peers.forget_keypairs(peer)
            if now - peer.initiation_sent >= timing.rekey_timeout:
                self.peers.forget_handshake(peer)
            self.events.append(Event("expired", peer.public_key, peer.endpoint))
        if now >= peer.retry_at:
            self.retry(peer, now)
        if now >= peer.new_handshake_due(timing):
            traffic.unanswered_since = None
            self.initiate(peer, now)
        if now >= peer.keepalive_due(timing):
            another, traffic.need_another_keepalive, traffic.keepalive_owed_since = (
                traffic.need_another_keepalive,
                False,
                None,
            )
            self.send_keepalive(peer, now)
            if another:
                traffic.keepalive_owed_since = now  # As Linux, answer later what arrived since the first data.
        if now >= peer.persistent_keepalive_due():
            traffic.last_traversal = now  # Even if nothing can be sent.
            self.send_keepalive(peer, now)

    def retry(self, peer: Peer, now: float) -> None:
        """Repeat a handshake that got no answer or, after REKEY_ATTEMPT_TIME, give up until there is data to send."""
        peer.retry_at = NEVER
        assert peer.attempts_since is not None
        if now - peer.attempts_since < self.timing.rekey_attempt:
            peer.initiation_sent = -NEVER
            self.initiate(peer, now)
            return
        peer.attempts_since = None
        self.rejected["no answer to handshakes"] += len(peer.staged)
        peer.staged.clear()
        if peer.keys_since is None:
            peer.keys_since = now
