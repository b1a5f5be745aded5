"""DevicePort: the port of a WireGuard device, which does the I/O of its tunnel on UDP sockets. Knows no adapter.

Packets are sealed and opened in the threads that use the session. With an adapter that lends its descriptors, the
native core's threads do it; in pure Python one thread does, as two would compete for the GIL at each system call.
"""

import errno
import selectors
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import NamedTuple
from weakref import WeakSet

from threepipe.bundle import Arena, Bundle
from threepipe.core.descriptor import FULL, MAX_BUNDLE
from threepipe.core.ends import End, PeersEnd, new_counts
from threepipe.core.superpacket import MAX_RECORD
from threepipe.errors import SessionClosed
from threepipe.net.datagrams import Datagrams
from threepipe.net.watch import EndpointPort
from threepipe.wireguard import clock
from threepipe.wireguard.peer_endpoint import PeerEndpoint, from_socket, to_socket
from threepipe.wireguard.routing import Handler, Routing
from threepipe.wireguard.tunnel import Outgoing, Tunnel

__all__ = ["DevicePort"]

_ARENA = 1 << 22  # Bytes: some 60 runs of datagrams.
_MAX_TARGETS = 1 << 16
_MAX_UNSENT = 4096  # Runs; a bundle has some hundreds at most.


class _Run(NamedTuple):
    """Datagrams that wait for room; all have `size` bytes, but the last may be shorter."""

    endpoint: PeerEndpoint
    local: bytes | None
    memory: memoryview
    size: int
    ecn: int


class DevicePort(EndpointPort):
    """The session's traffic: seals packets to send, and opens received datagrams."""

    def __init__(self, tunnel: Tunnel, timer_changed: Callable[[], None]) -> None:
        """`timer_changed` is called whenever the tunnel may have a new timer or event."""
        super().__init__()
        self.datagrams: list[Datagrams] = []
        self.listen_port = 0
        self.offer: Callable[[], None] | None = None
        self._stopped = False
        self._failure: BaseException | None = None
        self._tunnel, self._timer_changed = tunnel, timer_changed
        self._arena = Arena(_ARENA)
        self._unsent: deque[_Run] = deque()  # Sealed, and there was no room.
        self._targets: dict[PeerEndpoint, tuple[Datagrams, object]] = {}
        self._full: Datagrams | None = None  # The socket whose room is waited for.
        # Held while datagrams are taken from the tunnel and sent, which keeps their order.
        self._sending = threading.Lock()
        self._routing = Routing.of(tunnel)
        self._received, self._sent = new_counts(), new_counts()  # By native loops.
        self._lent: WeakSet[PeersEnd] = WeakSet()
        self.writable.ring()

    def use(self, datagrams: list[Datagrams]) -> None:
        """Send and receive by these sockets from now on; close the old ones.

        Raises `SessionClosed`, and closes these, if the port was stopped meanwhile.
        """
        with self._sending:
            if self._stopped:
                for new in datagrams:
                    new.socket.close()
                raise SessionClosed("the device is closed; make a new one")
            self._unsent.clear()
            self._stop_waiting()
            replaced, self.datagrams = self.datagrams, datagrams
            self._targets = {}
            for old in replaced:
                self.readable.watch(old.socket, 0)
            for new in datagrams:
                self.readable.watch(new.socket, selectors.EVENT_READ)
            self.listen_port = datagrams[0].socket.getsockname()[1]
        for old in replaced:
            old.socket.close()

    def fail(self, error: BaseException) -> None:
        """Raise `error` to everyone who uses the session from now on."""
        self._failure = error
        self.wake()

    def set_mtu(self, mtu: int) -> None:
        """Set the number of bytes beyond which padding never makes a packet longer; 0 for no limit."""
        self._tunnel.mtu = mtu
        if self._routing is not None:
            self._routing.router.set_mtu(mtu)

    def rejected(self) -> Counter[str]:
        """Return how many datagrams and packets were dropped, by reason."""
        by_router: Counter[str] = Counter() if self._routing is None else self._routing.rejected()
        return self._tunnel.rejected + by_router

    def receive(self) -> Bundle:
        """Open the datagrams that are ready and return the packets in them."""
        self._check()
        packets: list[memoryview] = []
        now = clock.now()
        for datagrams in self.datagrams:
            # Bounded by reads, not packets: a flood of invalid datagrams must not starve others.
            for _ in range(MAX_BUNDLE):
                memory = self._arena.free()
                if len(packets) >= MAX_BUNDLE or (packets and len(memory) < 2 * MAX_RECORD):
                    break  # Stop while the arena has room; replacing it for one more read costs more.
                try:
                    used, size, source = datagrams.receive_run(memory)
                except OSError:
                    break  # Nothing is ready; or an ICMP error of a datagram that was sent, after which more may be.
                if size:
                    packets += self._tunnel.receive(
                        memory[:used], size, from_socket(source), now, datagrams.received_local, datagrams.received_ecn
                    )
                    self._arena.take(used)
        self.flush()
        return Bundle.of_views(packets)

    def send(self, bundle: Bundle) -> Bundle:
        """Seal and send all packets, or none while sealed ones wait for room."""
        self._check()
        with self._sending:
            if not self._send_unsent():
                return bundle
        records = bundle.records
        if records is not None:
            self._tunnel.send(records, True, clock.now())
        else:
            self._tunnel.send(list(bundle), False, clock.now())
        self.flush()
        return Bundle()

    def flush(self) -> None:
        """Tell the router what changed, send the tunnel's datagrams, and report a changed timer."""
        if self._routing is not None:
            self._routing.update()
        if self._unsent or self._tunnel.has_datagrams:  # Else a receiving thread would wait here for one that sends.
            with self._sending:
                self._send_unsent()
                for endpoint, local, runs in self._tunnel.datagrams_to_send():
                    for memory, size, ecn in runs:
                        self._send_run(_Run(endpoint, local, memory, size, ecn))
        if self.offer is not None and self._routing is not None and not self._unsent:
            offer, self.offer = self.offer, None
            if offer is not None:  # Else another thread was quicker.
                offer()
        self._timer_changed()

    def _send_run(self, run: _Run) -> None:
        """Send a run behind those that wait for room, as messages are to keep their order."""
        if len(self._unsent) >= _MAX_UNSENT:
            self._tunnel.reject("no room to send", -(-len(run.memory) // run.size))
        elif self._unsent:
            self._unsent.append(run)
        elif rest := self._try(run):
            self._unsent.append(run._replace(memory=rest))

    def _send_unsent(self) -> bool:
        """Send the runs that wait for room. Return True if none is left."""
        while self._unsent:
            run = self._unsent[0]
            if rest := self._try(run):
                self._unsent[0] = run._replace(memory=rest)
                return False
            self._unsent.popleft()
        self._stop_waiting()
        return True

    def _try(self, run: _Run) -> memoryview:
        """Send a run. Return the part of it for which there is no room, and wait for room then."""
        endpoint, local, memory, size, ecn = run
        rest = memory[:0]
        if (target := self._target(endpoint)) is None:
            return rest
        datagrams, address = target
        datagrams.send_local, datagrams.send_ecn = local, ecn
        try:
            rest = memory[datagrams.send_run(memory, size, address) :]
        except OSError as error:
            if error.errno in FULL:
                rest = memory
            else:
                name = errno.errorcode.get(error.errno or 0, error.errno)
                self._tunnel.reject(f"not sent: {name}", -(-len(memory) // size))
        if local is not None and datagrams.send_local is None:
            self._tunnel.forget_local_address(endpoint)
        if rest:
            self._wait_for_room(datagrams)
        return rest

    def _target(self, endpoint: PeerEndpoint) -> tuple[Datagrams, object] | None:
        """Return the socket that reaches `endpoint`, and its address there; None if none does."""
        if (known := self._targets.get(endpoint)) is None:
            if (found := to_socket(endpoint)) is None:
                return None
            family, address = found
            for datagrams in self.datagrams:
                if datagrams.socket.family == family:
                    if len(self._targets) >= _MAX_TARGETS:
                        self._targets.clear()
                    self._targets[endpoint] = known = (datagrams, address)
                    break
        return known

    def _wait_for_room(self, datagrams: Datagrams) -> None:
        """Wake senders when the socket has room; and receivers, which flush, as there may be nothing more to send."""
        if self._full is not datagrams:
            self._stop_watching()
            self._full = datagrams
            self.readable.watch(datagrams.socket, selectors.EVENT_READ | selectors.EVENT_WRITE)
            self.writable.watch(datagrams.socket, selectors.EVENT_WRITE)
            self.writable.clear()

    def _stop_waiting(self) -> None:
        if self._full is not None:
            self._stop_watching()
            self._full = None
            self.writable.ring()

    def _stop_watching(self) -> None:
        if self._full is not None:
            self.readable.watch(self._full.socket, selectors.EVENT_READ)
            self.writable.watch(self._full.socket, 0)

    def unsent(self) -> list[Outgoing]:
        """Return the datagrams that wait for room. Nothing else may use the port meanwhile."""
        return [Outgoing(run.endpoint, run.local, [(run.memory, run.size, run.ecn)]) for run in self._unsent]

    def give_unsent(self, unsent: Iterable[Outgoing]) -> None:
        """Have these datagrams wait for room, in place of those that do."""
        with self._sending:
            self._unsent = deque(
                _Run(endpoint, local, memory, size, ecn)
                for endpoint, local, runs in unsent
                for memory, size, ecn in runs
            )

    def _keep(self, unsent: Outgoing) -> None:
        """Have datagrams wait for room behind those that do; none do once the port is stopped."""
        with self._sending:
            if not self._stopped:
                endpoint, local, runs = unsent
                self._unsent.extend(_Run(endpoint, local, memory, size, ecn) for memory, size, ecn in runs)

    def lend(self) -> End | None:
        """Lend the router and duplicates of the sockets, if there is a native core. Each loop has an end of its own.

        While datagrams of an earlier loop wait for room, lend nothing yet (see `LateLender`).
        """
        self._check()
        if self._routing is None:
            return None
        with self._sending, ExitStack() as undo:  # `use` may replace and close the present sockets.
            if not self._send_unsent():
                return None  # The native loop would send later messages before those.
            sockets = [undo.enter_context(datagrams.socket.dup()) for datagrams in self.datagrams]
            undo.pop_all()
        handler = Handler(self._tunnel, self.flush, self._keep)
        end = PeersEnd(self._routing.router, handler, sockets, self._received, self._sent)
        self._lent.add(end)
        return end

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure

    def abandon(self) -> None:
        """Close this process's copies of the sockets in a forked child. Takes no lock."""
        self._sending = threading.Lock()
        self._stopped, self._routing = True, None  # The router's locks may be held by threads of the parent.
        self._unsent.clear()
        for datagrams in self.datagrams:
            datagrams.socket.close()
        for end in self._lent:
            end.release()

    def stop(self) -> None:
        """Close the sockets."""
        with self._sending:  # The device's thread may flush until the device is closed.
            self._stopped = True
            self._unsent.clear()
            self._stop_waiting()
            for datagrams in self.datagrams:
                datagrams.socket.close()
