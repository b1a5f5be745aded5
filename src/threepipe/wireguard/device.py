"""Device: where WireGuard does its I/O. It joins a `Tunnel` to UDP sockets, and makes a session of it.

What peers send is received from `session`, and what is sent there goes to them: with an adapter it is
`threepipe.pipe(adapter_session, device.session)`. Packets pass in the threads of whoever uses the session; one thread
of the device's own does what is due by time. Knows no adapter, no files and no tools.
"""

import errno
import logging
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import replace
from types import TracebackType
from typing import Self

from threepipe import hot
from threepipe.bundle import Arena, Bundle
from threepipe.datagrams import Datagrams
from threepipe.descriptor import FULL
from threepipe.doorbell import Doorbell
from threepipe.endpoints.port import EndpointPort
from threepipe.offload import MAX_RECORD
from threepipe.session import Session
from threepipe.wireguard.constants import Timing
from threepipe.wireguard.message import SHORTEST_TRANSPORT, TYPE_TRANSPORT
from threepipe.wireguard.peer import NEVER
from threepipe.wireguard.settings import Change, Endpoint, PeerChange, Status
from threepipe.wireguard.sockets import endpoint_of, mark, open_sockets
from threepipe.wireguard.tunnel import Event, Outgoing, Tunnel

__all__ = ["Device"]

log = logging.getLogger("threepipe")

_ARENA = 1 << 22  # Bytes: some 60 runs of datagrams.
_MOST_UNSENT = 4096  # Runs; a bundle is some hundreds at most.
_TYPE = TYPE_TRANSPORT.to_bytes(4, "little")


class Device:
    """A WireGuard device; `close` or `with` ends it. Thread-safe.

    ```
    with wireguard.Device(private_key=key, listen_port=51820, peers=[PeerChange(...)]) as device:
        threepipe.pipe(adapter.start_session(), device.session)
    ```
    """

    def __init__(
        self,
        *,
        private_key: bytes | None = None,
        listen_port: int = 0,
        fwmark: int = 0,
        peers: Iterable[PeerChange] = (),
        mtu: int = 0,
        timing: Timing | None = None,
        on_event: Callable[[Event], None] | None = None,
    ) -> None:
        """`listen_port` 0 is one that the system chooses. `mtu`, in bytes, is beyond what packets are not padded.

        `on_event` is called, in a thread of the device's, with what happens to peers; it has to be quick. Raises
        `EndpointError` where a port or a mark cannot be had, and `InvalidSetting`.
        """
        asked = Change(private_key, listen_port, fwmark, peers=tuple(peers))
        asked.check()
        self._tunnel = Tunnel(timing=timing, unix_offset=time.time() - time.monotonic())
        self._tunnel.mtu = mtu
        self._on_event = on_event
        self._lock = threading.Lock()
        self._port = _Port(self._tunnel, self._lock, self._look_at_timer)
        self._fwmark = 0
        self._bell = Doorbell()
        self._asleep_until = NEVER
        self._closed = False
        self.session = Session(self._port)
        """The inside: an endpoint, whose packets are those of the peers."""
        self.session.also_close(self)
        self._thread = threading.Thread(target=self._run, name="threepipe-wireguard", daemon=True)
        try:
            self._port.use(open_sockets(listen_port, fwmark))
            self._fwmark = fwmark
            self.configure(replace(asked, listen_port=None))
        except BaseException:
            self._port.wake()
            self._port.stop()
            self._port.dispose()
            self._bell.close()
            raise
        self._thread.start()

    def configure(self, change: Change) -> None:
        """Carry out `change`, while packets go on passing. Raises as the constructor, and nothing is done then.

        A listen port of 0 is another one that the system chooses, as with wg(8).
        """
        change.check()
        fwmark = self._fwmark if change.fwmark is None else change.fwmark
        if change.listen_port is not None and change.listen_port != self._port.listen_port:
            self._port.use(open_sockets(change.listen_port, fwmark))
        elif fwmark != self._fwmark:
            mark(self._port.datagrams, fwmark)
        self._fwmark = fwmark
        with self._lock:
            self._tunnel.configure(change, time.monotonic())
        self._port.flush()
        self._look_at_timer()

    def status(self) -> Status:
        """What it is set to, and how its peers are."""
        with self._lock:
            status = self._tunnel.status()
        return Status(status.private_key, status.public_key, self._port.listen_port, self._fwmark, status.peers)

    @property
    def rejected(self) -> dict[str, int]:
        """How many datagrams and packets were dropped, by reason."""
        with self._lock:
            return dict(self._tunnel.rejected)

    def close(self) -> None:
        """End all traffic, wipe all keys, and close the sockets. May be repeated."""
        with self._lock:
            closed, self._closed = self._closed, True
        if closed:
            return
        self._bell.ring(for_ever=True)
        self.session.close()
        if self._thread is not threading.current_thread() and self._thread.is_alive():
            self._thread.join()
        with self._lock:
            self._tunnel.configure(Change(bytes(32), replace_peers=True), time.monotonic())
        self._bell.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _look_at_timer(self) -> None:
        """Have the thread look when it is to do something, where that is earlier than it thinks; and tell events."""
        with self._lock:
            wanted = self._tunnel.timer < self._asleep_until or (self._tunnel.events and self._on_event)
        if wanted:
            self._bell.ring()

    def _run(self) -> None:
        while not self._closed:
            with self._lock:
                self._tunnel.handle_timers(time.monotonic())
                self._asleep_until = self._tunnel.timer
                events = list(self._tunnel.events)
                self._tunnel.events.clear()
            self._port.flush()
            if self._on_event is not None:
                for event in events:
                    self._tell(self._on_event, event)
            if self._closed:
                return  # By who was told of an event, for one.
            timeout = self._asleep_until - time.monotonic()
            self._bell.wait(None if timeout == NEVER else max(timeout, 0))
            self._bell.clear()

    @staticmethod
    def _tell(listener: Callable[[Event], None], event: Event) -> None:
        try:
            listener(event)
        except Exception:
            log.exception("on_event raised, for %s", event.name)  # What is due by time goes on.


class _Port(EndpointPort):
    """The session's traffic: seals what is sent, and opens what comes."""

    def __init__(self, tunnel: Tunnel, lock: threading.Lock, told: Callable[[], None]) -> None:
        super().__init__()
        self.datagrams: list[Datagrams] = []
        self.listen_port = 0
        self._tunnel, self._lock, self._told = tunnel, lock, told
        self._arena = Arena(_ARENA)
        self._kept: list[memoryview] = []  # Packets that came with others when fewer were asked for.
        self._unsent: deque[tuple[Datagrams, memoryview, int, object]] = deque()  # Sealed, and there was no room.
        self._targets: dict[Endpoint, tuple[Datagrams, object]] = {}
        self._full: Datagrams | None = None  # The socket that is waited for.
        self._sending = threading.Lock()  # Who holds it may take the other one, and not the other way round.
        self.writable.ring()

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

    def receive(self, limit: int) -> Bundle:
        packets = self._kept
        self._keep([])
        now = time.monotonic()
        for datagrams in self.datagrams:
            for _ in range(limit):  # And not until there are so many: who sends no packets is not to have it all.
                if len(packets) >= limit:
                    break
                memory = self._arena.free()
                if packets and len(memory) < 2 * MAX_RECORD:
                    break  # What is in the arena is not to be left behind for so little.
                try:
                    used, size, source = datagrams.receive_run(memory)
                except OSError:
                    break  # Nothing more; or what became of a datagram that was sent, after which there may be more.
                if size:
                    packets += self._open(memory[:used], size, endpoint_of(source), now)
                    self._arena.take(used)
        self.flush()
        self._told()
        if len(packets) > limit:
            self._keep(packets[limit:])
            del packets[limit:]
        return Bundle.of_views(packets)

    def _keep(self, packets: list[memoryview]) -> None:
        if packets:
            self.readable.ring()
        elif self._kept:
            self.readable.clear()
        self._kept = packets

    def _open(self, memory: memoryview, size: int, endpoint: Endpoint, now: float) -> list[memoryview]:
        """The packets of datagrams that came from `endpoint` in one run."""
        packets: list[memoryview] = []
        tunnel = self._tunnel
        while memory:
            if memory[:4] != _TYPE or min(size, len(memory)) < SHORTEST_TRANSPORT:
                with self._lock:
                    tunnel.take_handshake(memory[:size], endpoint, now)
                memory = memory[size:]
                continue
            index = int.from_bytes(memory[4:8], "little")
            with self._lock:
                found = tunnel.keypair(index, now)
            if found is None:
                memory = memory[size:]
                continue
            peer, keypair = found
            opened = hot.unseal(keypair.receive_key, index, keypair.window, memory, size)
            with self._lock:
                packets += tunnel.accept(peer, keypair, opened, size, endpoint, now)
            memory = memory[opened[2] :]
        return packets

    def send(self, bundle: Bundle) -> Bundle:
        with self._sending:
            if not self._send_unsent():
                return bundle
        records = bundle.records
        headed = records is not None
        with self._lock:
            sealings = self._tunnel.prepare(records if records is not None else list(bundle), headed, time.monotonic())
        for sealing in sealings:
            runs = sealing.seal(self._tunnel.mtu)
            with self._lock:
                sealing.peer.tx_bytes += sum([len(memory) for memory, _ in runs])
            if (endpoint := sealing.peer.endpoint) is not None:
                self._send(Outgoing(endpoint, runs))
        self.flush()
        self._told()
        return Bundle()

    def flush(self) -> None:
        """Send what the tunnel has to be sent besides."""
        with self._lock:
            outgoing = self._tunnel.outgoing()
        for item in outgoing:
            self._send(item)

    def _send(self, outgoing: Outgoing) -> None:
        if (target := self._target(outgoing.endpoint)) is None:
            return
        datagrams, address = target
        with self._sending:
            for memory, size in outgoing.runs:
                if len(self._unsent) >= _MOST_UNSENT:
                    self._reject("no room to send", -(-len(memory) // size))
                elif self._unsent:  # Behind what waits, for messages are to keep their order.
                    self._unsent.append((datagrams, memory, size, address))
                elif rest := self._try(datagrams, memory, size, address):
                    self._unsent.append((datagrams, rest, size, address))
                    self._wait_for_room(datagrams)

    def _try(self, datagrams: Datagrams, memory: memoryview, size: int, address: object) -> memoryview:
        """Send a run; what of it there was no room for."""
        try:
            return memory[datagrams.send_run(memory, size, address) :]
        except OSError as error:
            if error.errno in FULL:
                return memory
            self._reject(f"not sent: {errno.errorcode.get(error.errno or 0, error.errno)}", -(-len(memory) // size))
            return memory[:0]

    def _reject(self, reason: str, datagrams: int) -> None:
        with self._lock:
            self._tunnel.rejected[reason] += datagrams

    def _send_unsent(self) -> bool:
        """Send what there was no room for; whether there is none of that any more."""
        while self._unsent:
            datagrams, memory, size, address = self._unsent[0]
            if rest := self._try(datagrams, memory, size, address):
                self._unsent[0] = (datagrams, rest, size, address)
                self._wait_for_room(datagrams)
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
                    if len(self._targets) >= 1 << 16:
                        self._targets.clear()
                    self._targets[endpoint] = known = (datagrams, address)
                    break
        return known

    def stop(self) -> None:
        for datagrams in self.datagrams:
            datagrams.socket.close()
