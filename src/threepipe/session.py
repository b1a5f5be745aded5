"""The packet traffic of one adapter, the same on every system.

A `Session` does the work that all systems have in common: checking, counting, time-outs, threads, closing and
asyncio. Its `Port`, which the platform supplies, never blocks. One lock per direction serialises the port's calls. A
waiting thread holds no lock; after closing, the last waiter to leave disposes of the port. `pump.py` is for two
sessions.
"""

import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple, Protocol, Self

from threepipe.backend import Port, Waitable
from threepipe.bundle import EMPTY, Bundle
from threepipe.core.packet import Packet, is_packet
from threepipe.core.pump import BUNDLES, BYTES, DROPPED, PACKETS, End, new_counts
from threepipe.errors import SessionClosed
from threepipe.net.forks import call_in_child

if TYPE_CHECKING:
    from threepipe.net.doorbell import Doorbell

__all__ = ["Session", "SessionStatistics", "close_with"]


class SessionStatistics(NamedTuple):
    """The counts of a session since its start; bytes are those of the packets alone."""

    received_packets: int = 0
    received_bytes: int = 0
    received_bundles: int = 0
    sent_packets: int = 0
    sent_bytes: int = 0
    sent_bundles: int = 0
    sent_dropped: int = 0
    """Packets not sent: ring full, link down, or invalid and sent with `drop_invalid`."""


class Closeable(Protocol):
    """Anything with `close`."""

    def close(self) -> None:
        """Close it."""


class Session:
    """Packet traffic on an adapter. `Adapter.start_session` makes it; `close` or `with` ends it.

    Every method may be called from any thread, and from several at once. Iterating yields bundles
    until the session is closed: `for bundle in session`, `async for bundle in session`.
    """

    def __init__(self, port: Port) -> None:
        self._port = port
        self._receive_lock = threading.Lock()
        self._send_lock = threading.Lock()
        self._close_lock = threading.Lock()
        self._state_lock = threading.Lock()
        self._unused = threading.Condition(self._state_lock)
        self._closed = False
        self._fileno_given = False
        self._waited = True  # True if the last receive_async had to wait.
        self._present = 1  # Waiters, and the session itself until it is closed.
        self._received, self._sent = new_counts(), new_counts()
        self._kept: deque[memoryview] = deque()  # Received from the port, not handed out yet.
        self._bells: list[Doorbell] = []  # One for each loop that uses the port.
        self._interrupted = False
        self._ends: list[End] = []  # All ends that the port has lent, with their counts.
        self._companions: list[Closeable] = []  # Closed with the session.
        self._left_behind = False
        call_in_child(self, Session._leave_behind)

    def receive(self, timeout: float | None = None) -> Bundle:
        """Wait for at least one packet and return all that are ready, in order, about 256 records at most.

        After `timeout` seconds (None: forever; 0: do not wait) the bundle is empty, which is false.
        Raises `SessionClosed`, also when closed while it waits, and `AdapterGone`.
        """
        deadline = _deadline(timeout)
        while not (bundle := self._try_receive()):
            if not self._wait(self._port.readable, deadline):
                break
        return bundle

    def receive_packet(self, timeout: float | None = None) -> bytes:
        """Wait for one packet and return a copy; empty bytes after `timeout` seconds. Raises as `receive` does."""
        deadline = _deadline(timeout)
        while not (packet := self._try_receive_packet()):
            if not self._wait(self._port.readable, deadline):
                break
        return packet

    def send(self, packets: Iterable[Packet], timeout: float | None = 0, *, drop_invalid: bool = False) -> int:
        """Send a `Bundle` or any iterable of bytes-like packets; return how many were accepted.

        If there is no room for all, wait for it up to `timeout` seconds (None: as long as it takes; by default not at
        all). The rest is counted as dropped. It is the end of the bundle, except that packets merged into one
        superpacket are accepted or dropped together. To have all packets sent, give a timeout.

        Raises `InvalidPacket` before any is sent or, if `drop_invalid`, drops and counts the packets that are not IP
        packets, for programs that forward packets of others. Raises `SessionClosed`, `AdapterGone` and `LinkDown`.
        """
        rest = self._without_invalid(_bundle(packets)) if drop_invalid else _checked(packets)
        total = len(rest)
        deadline = _deadline(timeout)
        try:
            while rest := self._try_send(rest):
                if not self._wait(self._port.writable, deadline):
                    break
        finally:
            self._count_dropped(len(rest))
        return total - len(rest)

    def send_packet(self, packet: Packet, timeout: float | None = 0) -> bool:
        """Send one packet; return False if there was no room for it. Raises as `send` does."""
        return self.send([packet], timeout) == 1

    async def receive_async(self) -> Bundle:
        """`receive` for asyncio: waits without a thread, and can be cancelled without losing packets."""
        if not self._waited:
            await _asyncio().sleep(0)  # A session that is always ready must not have the loop to itself.
        self._waited = False
        while not (bundle := self._try_receive()):
            await self._wait_async(self._port.readable)
            self._waited = True
        return bundle

    async def send_async(self, packets: Iterable[Packet], *, drop_invalid: bool = False) -> int:
        """`send` for asyncio: waits until every packet is accepted; returns the count.

        When cancelled, the packets accepted so far are sent and the rest is counted as dropped.
        """
        rest = self._without_invalid(_bundle(packets)) if drop_invalid else _checked(packets)
        total = len(rest)
        try:
            while rest := self._try_send(rest):
                await self._wait_async(self._port.writable)
        finally:
            self._count_dropped(len(rest))
        return total - len(rest)

    def fileno(self) -> int:
        """Return a descriptor that is readable while `receive` has packets or raises.

        It is for waiting only, by select, poll, epoll or an event loop. It stays open, and readable, after
        the session was closed, until this object is gone. For an adapter on Windows it is the handle of an auto-reset
        event, for WaitForMultipleObjects and its like: before each wait receive until nothing is left, and wait a
        second at most, as drivers up to 0.14.1 sometimes lose a wake-up. Raises `SessionClosed`.
        """
        if not self._fileno_given:
            self._enter()  # The caller may wait from now on, and never says when it has stopped.
            self._fileno_given = True
        self._check_open()
        return self._port.readable.fileno()

    @property
    def closed(self) -> bool:
        """True once `close` was called."""
        return self._closed

    @property
    def statistics(self) -> SessionStatistics:
        """The counts so far, also after the session was closed."""
        with self._state_lock:
            received = [self._received, *[end.received for end in self._ends]]
            sent = [self._sent, *[end.sent for end in self._ends]]
        totals = [sum(counts[index] for counts in received) for index in (PACKETS, BYTES, BUNDLES)]
        totals += [sum(counts[index] for counts in sent) for index in (PACKETS, BYTES, BUNDLES, DROPPED)]
        return SessionStatistics(*totals)

    def close(self) -> None:
        """End the traffic and take the link down; every waiter gets `SessionClosed`. May be repeated.

        Packets that were received and not yet handed out are lost, as when a cable is pulled.
        """
        with self._close_lock:  # A second caller returns when the session is closed, not before.
            if self._closed:
                return
            self._closed = True
            self._port.wake()
            with self._unused:
                for bell in self._bells:
                    bell.ring()
                self._unused.wait_for(lambda: not self._bells)
            with self._receive_lock, self._send_lock:
                self._kept.clear()
                self._port.stop()
            self._leave()
        while self._companions:  # Without the lock, as an adapter closes its session in turn.
            self._companions.pop().close()

    def __repr__(self) -> str:
        counts = self.statistics
        state = "closed" if self._closed else "open"
        return f"<Session {state}: {counts.received_packets} packets received, {counts.sent_packets} sent>"

    def __del__(self) -> None:
        if self._closed and self._fileno_given:
            self._port.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[Bundle]:
        try:
            while True:
                yield self.receive()
        except SessionClosed:
            return

    async def __aiter__(self) -> AsyncIterator[Bundle]:
        try:
            while True:
                yield await self.receive_async()
        except SessionClosed:
            return

    def _try_receive(self) -> Bundle:
        """Return the packets that `receive_packet` kept, or else those that the port has ready."""
        with self._receive_lock:
            self._check_open()
            if self._kept:
                bundle = Bundle.of_views(list(self._kept))
                self._kept.clear()
                self._port.readable.hold(False)
            else:
                bundle = self._port.receive()
            if bundle is not EMPTY:
                packets, size, _ = bundle.measured()
                self._received[PACKETS] += packets
                self._received[BYTES] += size
                self._received[BUNDLES] += bool(packets)
        return bundle

    def _try_receive_packet(self) -> bytes:
        """Return a copy of the first packet that is ready, and keep the others."""
        with self._receive_lock:
            self._check_open()
            kept = self._kept
            if not kept:
                kept.extend(self._port.receive())
                if not kept:
                    return b""
            packet = bytes(kept.popleft())
            self._port.readable.hold(bool(kept))
            self._received[PACKETS] += 1
            self._received[BYTES] += len(packet)
            self._received[BUNDLES] += 1
        return packet

    def _try_send(self, bundle: Bundle) -> Bundle:
        """Send the packets that the port has room for and return the rest."""
        with self._send_lock:
            self._check_open()
            packets, size, _ = bundle.measured()
            rest = self._port.send(bundle)
            if rest is not EMPTY:
                packets, size = packets - len(rest), size - rest.nbytes
            if packets:
                self._sent[PACKETS] += packets
                self._sent[BYTES] += size
                self._sent[BUNDLES] += 1
        return rest

    def _count_dropped(self, packets: int) -> None:
        if packets:
            with self._send_lock:
                self._sent[DROPPED] += packets

    def _without_invalid(self, bundle: Bundle) -> Bundle:
        """Return a bundle of the IP packets alone, and count the others as dropped."""
        packets, _, all_valid = bundle.measured()
        if all_valid:
            return bundle
        valid = [packet for packet in bundle if is_packet(packet)]
        self._count_dropped(packets - len(valid))
        return Bundle.of_views(valid)

    def _wait(self, waitable: Waitable, deadline: float | None) -> bool:
        """Wait for a change; return False if `deadline` (of the monotonic clock, in seconds) has passed."""
        remaining = None if deadline is None else deadline - time.monotonic()
        if remaining is not None and remaining <= 0:
            return False
        self._enter()
        try:
            waitable.wait(remaining)
        finally:
            self._leave()
        return True

    async def _wait_async(self, waitable: Waitable) -> None:
        asyncio = _asyncio()
        ready = asyncio.Event()
        self._enter()
        try:
            forget = waitable.notify(asyncio.get_running_loop(), ready.set)
            try:
                await ready.wait()
            finally:
                forget()
        finally:
            self._leave()

    def _check_open(self) -> None:
        if self._closed:
            if self._left_behind:
                raise SessionClosed("the session belongs to the process that this one was forked from; start one here")
            raise SessionClosed("the session is closed")

    def _leave_behind(self) -> None:
        """Close this copy in a forked child: release nothing that the parent uses, and wait for no thread of it."""
        self._receive_lock, self._send_lock, self._close_lock = threading.Lock(), threading.Lock(), threading.Lock()
        self._state_lock = threading.Lock()
        self._unused = threading.Condition(self._state_lock)
        self._closed = self._left_behind = True
        self._kept.clear()
        self._bells.clear()
        self._companions.clear()

    def _enter(self) -> None:
        with self._state_lock:
            self._check_open()
            self._present += 1

    def _leave(self) -> None:
        with self._state_lock:
            self._present -= 1
            last = not self._present
        if last:
            self._port.dispose()


def close_with(session: Session, companion: Closeable) -> None:
    """Have `companion` closed after the session, such as an adapter that serves one session only."""
    session._companions.append(companion)


def _bundle(packets: Iterable[Packet]) -> Bundle:
    return packets if isinstance(packets, Bundle) else Bundle(packets)


def _checked(packets: Iterable[Packet]) -> Bundle:
    bundle = _bundle(packets)
    bundle.check()
    return bundle


def _asyncio() -> ModuleType:
    """Return asyncio, loaded when used: a program without it should not pay for its import."""
    import asyncio

    return asyncio


def _deadline(timeout: float | None) -> float | None:
    return None if timeout is None else time.monotonic() + timeout
