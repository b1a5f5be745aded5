"""The port of a WireGuard device: the I/O of its tunnel, by UDP sockets. Knows no adapter.

What is sent is sealed, and what comes is opened, in the threads of whoever uses the session; with an adapter that
lends its descriptors, in the native core's, or in one, which is quicker than two that want the GIL.
"""

import errno
import selectors
import socket
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from threepipe.bundle import Arena, Bundle
from threepipe.core.descriptor import FULL, MAX_BUNDLE
from threepipe.core.pump import End, PeersEnd
from threepipe.core.superpacket import MAX_RECORD
from threepipe.net.datagrams import Datagrams
from threepipe.net.watch import EndpointPort
from threepipe.wireguard.message import SHORTEST_TRANSPORT, TYPE_TRANSPORT
from threepipe.wireguard.routing import Handler, Routing
from threepipe.wireguard.settings import Endpoint
from threepipe.wireguard.sockets import endpoint_of
from threepipe.wireguard.tunnel import Outgoing, Tunnel

if TYPE_CHECKING:
    pass

__all__ = ["DevicePort"]

_ARENA = 1 << 22  # Bytes: some 60 runs of datagrams.
_MOST_KNOWN = 1 << 16  # Endpoints.
_MOST_UNSENT = 4096  # Runs; a bundle is some hundreds at most.
_TYPE = TYPE_TRANSPORT.to_bytes(4, "little")


class DevicePort(EndpointPort):
    """The session's traffic: seals what is sent, and opens what comes."""

    def __init__(self, tunnel: Tunnel, lock: threading.Lock, told: Callable[[], None]) -> None:
        super().__init__()
        self.datagrams: list[Datagrams] = []
        self.listen_port = 0
        self._tunnel, self._lock, self._told = tunnel, lock, told
        self._arena = Arena(_ARENA)
        self._unsent: deque[tuple[Endpoint, memoryview, int]] = deque()  # Sealed, and there was no room.
        self._targets: dict[Endpoint, tuple[Datagrams, object]] = {}
        self._origins: dict[Endpoint, bytes] = {}  # Whose messages are answered from which address here.
        self._full: Datagrams | None = None  # The socket that is waited for.
        self._sending = threading.Lock()  # Who holds it may take the other one, and not the other way round.
        self._routing = Routing.of(tunnel)
        self._end = self._native_end()
        self.writable.ring()

    def _native_end(self) -> PeersEnd | None:
        if self._routing is None:
            return None
        handler = Handler(self._seal, self._take, self._attend)
        return PeersEnd(self._routing.router, handler)

    def use(self, datagrams: list[Datagrams]) -> None:
        """Send and receive by these sockets from now on."""
        for old in self.datagrams:
            self.readable.watch(old.socket, 0)
        with self._sending:
            olds, self.datagrams = self.datagrams, datagrams
            self._targets = {}
            self._unsent.clear()
            self._wait_no_more()
        for new in datagrams:
            self.readable.watch(new.socket, selectors.EVENT_READ)
        self.listen_port = datagrams[0].socket.getsockname()[1]
        for old in olds:
            old.socket.close()

    def set_mtu(self, mtu: int) -> None:
        """Bytes beyond which packets are not padded; 0 for no limit."""
        self._tunnel.mtu = mtu
        if self._routing is not None:
            self._routing.router.set_mtu(mtu)

    def rejected(self) -> Counter[str]:
        """What was dropped beside what the tunnel dropped."""
        return Counter() if self._routing is None else self._routing.rejected()

    def receive(self) -> Bundle:
        """Open the datagrams that are ready and return the packets in them."""
        packets: list[memoryview] = []
        now = time.monotonic()
        for datagrams in self.datagrams:
            for _ in range(
                MAX_BUNDLE
            ):  # Bounded by reads, not packets: a flood of invalid datagrams must not starve others.
                memory = self._arena.free()
                if len(packets) >= MAX_BUNDLE or (packets and len(memory) < 2 * MAX_RECORD):
                    break  # Stop while the arena has room; replacing it for one more read costs more.
                try:
                    used, size, source = datagrams.receive_run(memory)
                except OSError:
                    break  # Nothing more; or what became of a datagram that was sent, after which there may be more.
                if size:
                    packets += self._open(memory[:used], size, endpoint_of(source), datagrams.arrived_at, now)
                    self._arena.take(used)
        self.flush()
        self._told()
        return Bundle.of_views(packets)

    def _open(
        self, memory: memoryview, size: int, endpoint: Endpoint, local: bytes | None, now: float
    ) -> list[memoryview]:
        """The packets of datagrams that came from `endpoint` to the address `local` in one run."""
        packets: list[memoryview] = []
        tunnel = self._tunnel
        while memory:
            if memory[:4] != _TYPE or min(size, len(memory)) < SHORTEST_TRANSPORT:
                self._take_handshake(memory[:size], endpoint, local, now)
                memory = memory[size:]
                continue
            index = int.from_bytes(memory[4:8], "little")
            with self._lock:
                found = tunnel.keypair(index, now)
            if found is None:
                memory = memory[size:]
                continue
            peer, keypair = found
            opened = keypair.transport.open(memory, size)
            if opened[3]:
                self._answer_from(local, endpoint)
            with self._lock:
                packets += tunnel.accept(peer, keypair, opened, size, endpoint, now)
            memory = memory[opened[2] :]
        return packets

    def _take_handshake(self, message: memoryview, endpoint: Endpoint, local: bytes | None, now: float) -> None:
        before = self._origins.get(endpoint)
        self._answer_from(local, endpoint)
        with self._lock:
            authentic = self._tunnel.take_handshake(message, endpoint, now)
        if not authentic:
            self.flush()  # A cookie is from the address that was asked, but who asks for one proves nothing.
            self._answer_from(before, endpoint)

    def _answer_from(self, local: bytes | None, endpoint: Endpoint) -> None:
        """From now on messages to `endpoint` are from that address here; None for one that the system chooses."""
        if local is None:
            self._origins.pop(endpoint, None)
        elif self._origins.get(endpoint) != local:
            if len(self._origins) >= _MOST_KNOWN:
                self._origins.clear()
            self._origins[endpoint] = local

    def send(self, bundle: Bundle) -> Bundle:
        with self._sending:
            if not self._send_unsent():
                return bundle
        records = bundle.records
        if records is not None:
            self._seal(records, True)
        else:
            self._seal(list(bundle), False)
        return Bundle()

    def _seal(self, records: Sequence[memoryview], vnet_header: bool) -> None:
        """Seal records and send them."""
        with self._lock:
            sealings = self._tunnel.prepare(records, vnet_header, time.monotonic())
        for sealing in sealings:
            runs = sealing.seal(self._tunnel.mtu)
            if (endpoint := sealing.peer.endpoint) is not None:
                self._send(Outgoing(endpoint, runs))
        self.flush()
        self._told()

    def flush(self) -> None:
        """Send what the tunnel has to be sent besides."""
        with self._lock:
            outgoing = self._tunnel.outgoing()
            if self._routing is not None:
                self._routing.update(self._origins)
            else:
                self._tunnel.changed.clear()
        for item in outgoing:
            self._send(item)

    def _send(self, outgoing: Outgoing) -> None:
        endpoint, runs = outgoing
        with self._sending:
            self._send_unsent()
            for memory, size in runs:
                if len(self._unsent) >= _MOST_UNSENT:
                    self._reject("no room to send", -(-len(memory) // size))
                elif self._unsent:  # Behind what waits, for messages are to keep their order.
                    self._unsent.append((endpoint, memory, size))
                elif rest := self._try(endpoint, memory, size):
                    self._unsent.append((endpoint, rest, size))

    def _try(self, endpoint: Endpoint, memory: memoryview, size: int) -> memoryview:
        """Send a run; what of it there was no room for, which is waited for then."""
        rest = memory[:0]
        if (target := self._target(endpoint)) is None:
            return rest
        datagrams, address = target
        datagrams.leaves_from = self._origins.get(endpoint)
        try:
            rest = memory[datagrams.send_run(memory, size, address) :]
        except OSError as error:
            if error.errno in FULL:
                rest = memory
            else:
                self._reject(f"not sent: {errno.errorcode.get(error.errno or 0, error.errno)}", -(-len(memory) // size))
        if datagrams.leaves_from is None:
            self._origins.pop(endpoint, None)
        if rest:
            self._wait_for_room(datagrams)
        return rest

    def _reject(self, reason: str, datagrams: int) -> None:
        with self._lock:
            self._tunnel.rejected[reason] += datagrams

    def _send_unsent(self) -> bool:
        """Send what there was no room for; whether there is none of that any more."""
        while self._unsent:
            endpoint, memory, size = self._unsent[0]
            if rest := self._try(endpoint, memory, size):
                self._unsent[0] = (endpoint, rest, size)
                return False
            self._unsent.popleft()
        self._wait_no_more()
        return True

    def _wait_no_more(self) -> None:
        if self._full is not None:
            self.writable.watch(self._full.socket, 0)
            self._full = None
            self.writable.ring()

    def _wait_for_room(self, datagrams: Datagrams) -> None:
        if self._full is not datagrams:
            if self._full is not None:
                self.writable.watch(self._full.socket, 0)
            self._full = datagrams
            self.writable.watch(datagrams.socket, selectors.EVENT_WRITE)
            self.writable.clear()

    def _target(self, endpoint: Endpoint) -> tuple[Datagrams, object] | None:
        """By which socket `endpoint` is reached, and its address there."""
        if (known := self._targets.get(endpoint)) is None:
            try:
                family, _, _, _, address = socket.getaddrinfo(
                    *endpoint, 0, socket.SOCK_DGRAM, 0, socket.AI_NUMERICHOST
                )[0]
            except OSError:
                return None
            for datagrams in self.datagrams:
                if datagrams.socket.family == family:
                    if len(self._targets) >= _MOST_KNOWN:
                        self._targets.clear()
                    self._targets[endpoint] = known = (datagrams, address)
                    break
        return known

    def lend(self) -> End | None:
        """Lend the router and duplicates of the sockets, if there is a native core."""
        if self._end is not None:
            with self._sending:  # The present sockets may be closed as soon as there are others.
                self._end.sockets = [datagrams.socket.dup() for datagrams in self.datagrams]
        return self._end

    def _take(self, memory: memoryview, size: int, endpoint: Endpoint, local: bytes | None) -> list[memoryview]:
        packets = self._open(memory, size, endpoint, local, time.monotonic())
        self.flush()
        self._told()
        return packets

    def _attend(self, number: int, sending: bool) -> float:
        with self._lock:
            again_at = self._tunnel.attend(number, time.monotonic(), sending=sending)
        self.flush()
        self._told()
        return again_at

    def stop(self) -> None:
        for datagrams in self.datagrams:
            datagrams.socket.close()
