"""The WireGuard protocol without I/O: packets in and datagrams out, datagrams in and packets out.

Rules:

- This file and the modules it uses (`machine`, `handshakes`, `peer_table`, `peer`, `schedule`, `noise`, `cookie`) hold
  the whole protocol. They alone decide which datagrams to send to a peer, and which to accept from it.
- They know no socket, thread or clock. `now` is an argument, in seconds of a clock that does not jump and counts the
  time in suspend. The wall clock is a function that the caller gives; only `tai64n` and displayed times depend on it.
- A `Tunnel` has a lock but no threads. Its methods take the lock themselves, and seal and open bundles without it, so
  any number of threads may send and receive at once. Only keepalives and staged packets are sealed with the lock held.
- In a forked child a tunnel has no keys and no peers, as two processes must never seal with one key and counter.
- Hostile datagrams never raise. They are dropped, and counted in `rejected` by reason.

Theory, in the order of a peer's life; sections are those of wireguard.com/papers/wireguard.pdf:

*Handshake* (5.4). The first packet for a peer begins a handshake, and waits for it (it is staged). The initiator sends
an initiation, the responder answers with a response; then both can compute two new keys, one for each direction. An
initiation carries a timestamp that has to grow, so a replayed one is dropped. The wall clock is read for each, but a
timestamp is never below the last one sent. Without an answer, the initiation is repeated after REKEY_TIMEOUT (5 s) and
a jitter, for REKEY_ATTEMPT_TIME (90 s); then the staged packets are dropped.

*Keypairs* (6.1 to 6.3). The two keys are a keypair. The initiator makes it the *current* one at once. The responder
keeps it as *next*, as its response may be lost, and makes it the current one when the first message sealed with it
arrives. So the initiator sends something right away: the staged packets, or else a keepalive. The current keypair
becomes the *previous* one, which only opens messages that are still on their way. Every message of a keypair has its
own counter; the receiver accepts each counter once (5.4.6).

*Age.* Only the initiator renews a keypair: when it sends after REKEY_AFTER_TIME (120 s) or 2^60 messages, or, if it
only receives, when it receives 15 s before the end (the last-minute handshake). After REJECT_AFTER_TIME (180 s) a
keypair neither sends nor receives. All keys are wiped three times that long after the newest keypair was made.

*Silence* (6.5). If data was received and nothing was sent for KEEPALIVE_TIMEOUT (10 s), a keepalive, an empty message,
answers it. So if data was sent and nothing came back for 15 s, the peer is gone or has lost its keys: a new handshake
begins. Persistent keepalives are sent at their interval to keep the mappings of NATs.

*Timers.* For each bundle, a peer's `Traffic` only notes a time. A check of the peer is scheduled for the first moment
at which something may be due; the check finds out whether it is. `timer` is the time of the earliest check.

*Roaming* (2.1). A peer's endpoint is the source of the last authentic message from it, and it is answered from the
local address to which that message was sent.

*Cookies* (5.3, 5.4.7). Under load, an initiation or response whose sender has not shown that it receives at its address
gets a cookie reply, which costs little, instead of being opened.
"""

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

from threepipe.core import fast
from threepipe.core.superpacket import HEADER_SIZE
from threepipe.core.transport import Traffic, Transport
from threepipe.net.forks import call_in_child
from threepipe.settings import Network
from threepipe.wireguard.constants import Timing
from threepipe.wireguard.machine import Event, Outgoing, Sealing, StateMachine
from threepipe.wireguard.message import SHORTEST_TRANSPORT, TYPE_TRANSPORT, index_of
from threepipe.wireguard.next_hops import EVERYONE, Everyone, NextHopRouting
from threepipe.wireguard.peer import NEVER, Keypair, Peer
from threepipe.wireguard.peer_endpoint import PeerEndpoint
from threepipe.wireguard.settings import Change, Status
from threepipe.wireguard.state import Reader, Writer, read_machine, write_machine
from threepipe.wireguard.values import EndpointLike, to_endpoint, to_kind

__all__ = ["Event", "Outgoing", "Route", "RouteKeypair", "Tunnel"]

_TRANSPORT = TYPE_TRANSPORT.to_bytes(4, "little")


class RouteKeypair(NamedTuple):
    """A keypair for a router: it may be used before `expires_at`; from `attend_at` on, its use calls `attend`."""

    transport: Transport
    expires_at: float
    attend_at: float


class Route(NamedTuple):
    """The part of a peer's state that a router needs to seal, open and forward in the tunnel's place."""

    number: int
    networks: tuple[Network, ...]
    """Its allowed IPs or, with routing by next hops, the networks that it may send from."""
    link_local: bytes | None
    """Its link-local address, if it is a next hop."""
    traffic: Traffic
    endpoint: PeerEndpoint | None
    local: bytes | None
    sending: RouteKeypair | None
    receiving: list[RouteKeypair]
    """Without any, the router passes everything for the peer up to the tunnel."""


class Tunnel:
    """A device's side of the protocol: its peers, and everything that passes between them and it. Thread-safe.

    Send with `send`, then send `datagrams_to_send()`, which `receive`, `handle_timers` and `configure` fill too. Call
    `handle_timers` at `timer`, which every call may change.
    """

    def __init__(
        self,
        *,
        timing: Timing | None = None,
        wall_clock: Callable[[], float] = time.time,
        routing: NextHopRouting | None = None,
    ) -> None:
        """`wall_clock` returns seconds since 1970, for timestamps, which must grow over restarts, and for display.

        Without `routing`, the allowed IPs of the peers decide for which of them a packet is.
        """
        self._machine = StateMachine(timing or Timing(), wall_clock, routing)
        self._peers = self._machine.peers
        self._lock = threading.Lock()
        call_in_child(self, Tunnel._abandon)
        self.events: deque[Event] = self._machine.events
        """Events, the oldest first, 1024 at most. The caller removes them."""

    # Settings.

    def configure(self, change: Change, now: float) -> None:
        """Carry out `change`, except for the port and the mark, which are those of sockets."""
        to_kind(change, Change, "configure", "give a Change")
        with self._lock:
            self._machine.configure(change, now)

    def status(self, now: float) -> Status:
        """Return the state of the device, without the port and the mark."""
        with self._lock:
            return self._machine.status(now)

    @property
    def private_key(self) -> bytes:
        """The device's key; zeros for none."""
        return self._machine.private_key

    @property
    def mtu(self) -> int:
        """Padding never makes a packet longer than this many bytes; 0 for no limit."""
        return self._machine.mtu

    @mtu.setter
    def mtu(self, mtu: int) -> None:
        self._machine.mtu = mtu

    @property
    def rejected(self) -> Counter[str]:
        """The numbers of dropped datagrams and packets, by reason."""
        with self._lock:
            return Counter(self._machine.rejected)

    def reject(self, reason: str, count: int) -> None:
        """Count datagrams that the caller dropped."""
        with self._lock:
            self._machine.rejected[reason] += count

    @property
    def routes_by_next_hops(self) -> bool:
        """True if packets are for their next hops; false if allowed IPs decide."""
        return self._peers.next_hops is not None

    def change_routes(self, networks: Sequence[Network]) -> None:
        """Note that the routes to these networks have changed; does nothing without routing by next hops."""
        with self._lock:
            if self._peers.next_hops is not None:
                self._peers.next_hops.forget(networks)

    def _abandon(self) -> None:
        """Wipe all keypairs and forget all peers in a forked child, else two processes would seal with one counter.

        Takes no lock, and relies on no order between tables: other threads of the parent may have been at work.
        """
        self._lock = threading.Lock()
        keypairs = [keypair for _, keypair in list(self._peers.indices.values()) if keypair is not None]
        for peer in self._peers:
            keypairs += peer.keypairs
        for keypair in keypairs:
            keypair.transport.wipe()
        self._machine = StateMachine(self._machine.timing, time.time)
        self._peers, self.events = self._machine.peers, self._machine.events

    # From the adapter to the network.

    def send(self, records: Sequence[memoryview], vnet_header: bool, now: float) -> None:
        """Seal records for the peers that they are for, or stage them until there is a keypair.

        With `vnet_header` they have a virtio header (see `threepipe.core.superpacket`), else they are IP packets.
        """
        with self._lock:
            sealings = self._prepare(records, vnet_header, now)
        mtu = self.mtu
        sealed = [(sealing, sealing.seal(mtu)) for sealing in sealings]
        with self._lock:
            for sealing, runs in sealed:
                self._machine.queue(sealing, runs, now)

    @property
    def has_datagrams(self) -> bool:
        """True while `datagrams_to_send` has any. Takes no lock, as one look at the list is enough."""
        return bool(self._machine.outgoing)

    def datagrams_to_send(self) -> list[Outgoing]:
        """Return the datagrams that are ready to be sent; each only once.

        To keep their order, a caller with several threads calls this and sends them with a lock of its own held.
        """
        with self._lock:
            outgoing, self._machine.outgoing = self._machine.outgoing, []
            return outgoing

    def forget_local_address(self, endpoint: EndpointLike) -> None:
        """Let the system choose the local address for `endpoint`, as sending from the known one failed."""
        endpoint = _inside(endpoint)
        with self._lock:
            for peer in self._peers:
                if peer.endpoint == endpoint:
                    peer.local = None

    def _prepare(self, records: Sequence[memoryview], vnet_header: bool, now: float) -> list[Sealing]:
        """Reserve counters for the records that can be sealed now; stage or drop the others."""
        sealings = []
        for peer, group in self._by_peer(records, HEADER_SIZE if vnet_header else 0):
            packets, _, _ = fast.measure(group, vnet_header)
            if peer is EVERYONE:
                sealings += self._copies(group, vnet_header, packets, now)
            elif peer is None or peer.endpoint is None:
                self._machine.rejected["no peer for the destination" if peer is None else "no endpoint"] += packets
            elif sealing := self._machine.reserve(peer, group, vnet_header, packets, now, data=True):
                sealings.append(sealing)
            else:
                self._machine.stage(peer, group, vnet_header)
                self._machine.initiate(peer, now)
        return sealings

    def _copies(self, records: list[memoryview], vnet_header: bool, packets: int, now: float) -> list[Sealing]:
        """Reserve counters for the records once for each peer.

        Without a keypair for them, only the first waits for one: routing daemons repeat what they send, and a mesh
        has peers that are away for long.
        """
        sealings = []
        for peer in self._peers:
            if sealing := self._machine.reserve(peer, records, vnet_header, packets, now, data=True):
                sealings.append(sealing)
            elif peer.endpoint is None or peer.staged:
                self._machine.rejected["multicast to a peer without a session"] += packets
            else:
                self._machine.stage(peer, records[:1], vnet_header)
                self._machine.initiate(peer, now)
        return sealings

    def _by_peer(
        self, records: Sequence[memoryview], offset: int
    ) -> list[tuple[Peer | Everyone | None, list[memoryview]]]:
        """Group records in a row that are for the same peer."""
        groups: list[tuple[Peer | Everyone | None, list[memoryview]]] = []
        allowed = self._peers.allowed
        find = allowed.find
        key4, key6 = allowed.KEYS[offset]
        for record in records:
            peer = find(record[key4 if record[offset] >> 4 == 4 else key6].tobytes())
            if groups and groups[-1][0] is peer:
                groups[-1][1].append(record)
            else:
                groups.append((peer, [record]))
        return groups

    # From the network to the adapter.

    def receive(
        self,
        datagrams: memoryview,
        size: int,
        endpoint: EndpointLike,
        now: float,
        local: bytes | None = None,
        ecn: int = 0,
    ) -> list[memoryview]:
        """Receive datagrams from `endpoint`, and return the packets in them, as views of the same memory.

        The datagrams lie end to end; all have `size` bytes, but the last may be shorter. `local` is the local address
        that they were sent to, if known, and `ecn` the ECN field of their IP headers.
        """
        endpoint = _inside(endpoint)
        packets: list[memoryview] = []
        while datagrams:
            if datagrams[:4] != _TRANSPORT or min(size, len(datagrams)) < SHORTEST_TRANSPORT:
                with self._lock:
                    self._machine.receive_handshake(datagrams[:size], endpoint, local, now)
                datagrams = datagrams[size:]
                continue
            with self._lock:
                found = self._keypair(index_of(datagrams), now)
            if found is None:
                datagrams = datagrams[size:]
                continue
            peer, keypair = found
            opened, sources, used, authentic, authentic_size = keypair.transport.open(datagrams, size)
            with self._lock:
                if forged := -(-used // size) - authentic:
                    self._machine.rejected["not authentic, or not new"] += forged
                if authentic and self._peers.keypair(keypair.transport.local_index) == found:  # Else wiped meanwhile.
                    self._machine.follow(peer, endpoint, local)
                    self._machine.received(peer, keypair, bool(opened), authentic_size, now)
                    allowed = self._allowed(peer, opened, sources)
                    packets += self._combined(allowed, ecn) if ecn else allowed
            datagrams = datagrams[used:]
        return packets

    def _keypair(self, index: int, now: float) -> tuple[Peer, Keypair] | None:
        """Return the keypair that opens messages for `index`, and its peer."""
        found = self._peers.keypair(index)
        if found is None or now >= found[1].expires_at(self._machine.timing):
            self._machine.rejected["no keypair"] += 1
            return None
        return found

    def _allowed(self, peer: Peer, packets: list[memoryview], sources: list[tuple[bytes, int]]) -> Sequence[memoryview]:
        """Return the packets whose sources are among the peer's allowed IPs."""
        allows = self._peers.allowed.allows
        if all(allows(source, peer) for source, _ in sources):
            return packets
        allowed, start = [], 0
        for source, count in sources:
            if allows(source, peer):
                allowed += packets[start : start + count]
            else:
                self._machine.rejected["source is not among the peer's allowed IPs"] += count
            start += count
        return allowed

    def _combined(self, packets: Sequence[memoryview], ecn: int) -> Sequence[memoryview]:
        """Combine the ECN field of the datagrams with those of their packets. Return the packets that go on."""
        combined = fast.combine_ecn(packets, ecn)
        if dropped := len(packets) - len(combined):
            self._machine.rejected["marked for congestion, but not ECN-capable"] += dropped
        return combined

    # Time.

    @property
    def timer(self) -> float:
        """When to call `handle_timers`; infinite if there is nothing to wait for."""
        with self._lock:
            return self._machine.schedule.earliest

    def handle_timers(self, now: float) -> None:
        """Do everything that is due."""
        with self._lock:
            self._machine.handle_timers(now)

    # For a tunnel in another process, which goes on in place of this one.

    def write_state(self, writer: Writer) -> None:
        """Write the whole state, except datagrams that are ready to be sent.

        The caller calls no other method until `forget_sessions`, or until it knows that no other tunnel goes on.
        """
        with self._lock:
            writer.number(self._machine.mtu)
            write_machine(writer, self._machine)

    def read_state(self, reader: Reader) -> None:
        """Go on from a state; call this on a new tunnel. Raises ValueError; the tunnel is of no use then."""
        with self._lock:
            self._machine.mtu = reader.number()
            read_machine(reader, self._machine)

    def forget_sessions(self) -> None:
        """Wipe all keypairs and drop all handshakes and datagrams, as another tunnel goes on with them."""
        with self._lock:
            self._machine.outgoing.clear()
            for peer in self._peers:
                self._peers.forget_keys(peer)
                peer.attempts_since, peer.retry_at = None, NEVER

    def renew_sessions(self, now: float) -> None:
        """Begin a handshake with each peer that there was one with before, after `forget_sessions`."""
        with self._lock:
            for peer in self._peers:
                if peer.handshake_at is not None or peer.staged:
                    peer.initiation_sent = -NEVER
                    self._machine.initiate(peer, now)

    # For a router, which seals and opens in the tunnel's place.

    def track_changes(self) -> None:
        """Have `changed_routes` return the peers that change from now on."""
        with self._lock:
            self._peers.changed = set(self._peers)
            if self._peers.next_hops is not None:
                self._peers.next_hops.track()

    def changed_routes(self) -> list[Route]:
        """Return the new routes of the peers that changed since the last call, those of removed peers without networks.

        A caller with several threads holds a lock of its own until the router knows them.
        """
        with self._lock:
            if not self._peers.changed:
                return []
            changed, self._peers.changed = self._peers.changed, set()
            return [self._route(peer) for peer in changed]

    def changed_next_hops(self) -> tuple[list[Network], list[tuple[bytes, int]]]:
        """Return the destinations to forget since the last call, and what is known since: keys and peers' numbers.

        A key is the bytes of a header that `NextHops.find` takes. As for `changed_routes`, a caller holds a lock.
        """
        if not self.routes_by_next_hops:
            return [], []
        with self._lock:
            if self._peers.next_hops is None:  # Forked meanwhile.
                return [], []
            forgotten, learned = self._peers.next_hops.changes()
            return forgotten, [(key, peer.number) for key, peer in learned.items()]

    def _route(self, peer: Peer) -> Route:
        timing, current, previous = self._machine.timing, peer.current, peer.previous
        sending, receiving = None, []
        if current is not None:
            expires_at = current.expires_at(timing)
            sending = RouteKeypair(current.transport, expires_at, current.renew_on_send_at(timing))
            receiving.append(RouteKeypair(current.transport, expires_at, current.renew_on_receive_at(timing)))
        if previous is not None:
            receiving.append(RouteKeypair(previous.transport, previous.expires_at(timing), NEVER))
        networks, link_local = self._peers.allowed.of(peer), None
        if (next_hops := self._peers.next_hops) is not None:
            networks, link_local = next_hops.sources(peer), next_hops.address(peer)
        return Route(peer.number, networks, link_local, peer.traffic, peer.endpoint, peer.local, sending, receiving)

    def attend(self, number: int, now: float, *, sending: bool) -> float:
        """Schedule the checks of a peer that a router is `sending` to, or else receives from; renew its keypair if due.

        Returns when to call again, unless the router finds earlier that no check of the peer is scheduled.
        """
        with self._lock:
            peer = self._peers.numbered(number)
            if peer is None or (keypair := peer.current) is None:
                return NEVER
            machine, timing = self._machine, self._machine.timing
            machine.note_traffic(peer, now, unscheduled=True)
            if not sending:
                machine.renew_last_minute(peer, keypair, now)
                renew_at = keypair.renew_on_receive_at(timing)
                return renew_at if now < renew_at else NEVER
            if keypair.needs_renewal(now, timing):
                machine.initiate(peer, now)
                return now + timing.rekey_timeout
            return keypair.renew_on_send_at(timing)


def _inside(endpoint: EndpointLike) -> PeerEndpoint:
    """Return the endpoint in the form that it has inside, quickly if it has that already."""
    if type(endpoint) is tuple and len(endpoint) == 2 and isinstance(endpoint[0], str):
        return endpoint[0], endpoint[1]
    return to_endpoint(endpoint)
