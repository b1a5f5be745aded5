"""The packet traffic of one adapter, the same on every system.

A `Session` does the work that all systems have in common: checking, counting, time-outs, threads, closing and
asyncio. Its `Port`, which the platform supplies, never blocks. One lock per direction serialises the port's calls. A
waiting thread holds no lock; after closing, the last waiter to leave disposes of the port. `pump.py` is for two
sessions.

Packets for `receive_packet` are fetched by the bundle, and the others wait here as bytes. Taking one of them needs no
lock, as a deque has its own. They are counted when they are fetched, and `statistics` leaves out those that wait.
"""

import threading
import time
from array import array
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator, Sized
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple, Protocol, Self

from threepipe.backend import PacketPort, Port, SenderPort, SinglePort, Waitable
from threepipe.bundle import EMPTY, Bundle
from threepipe.core.ends import BUNDLES, BYTES, DROPPED, PACKETS, End, new_counts
from threepipe.core.packet import MAX_PACKET, SHORTEST, Packet, is_packet
from threepipe.core.pump import PAUSE
from threepipe.errors import SessionClosed
from threepipe.net.forks import call_in_child
from threepipe.singles import ByBundles, count, popped, taken

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
        self._received = array("q", new_counts())  # Signed: packets that a native loop counted may be forgotten here.
        self._sent = new_counts()
        self._ready: deque[bytes] = deque()  # Fetched from the port and counted, not handed out yet.
        self._held = False  # True while `readable` is held because packets are ready for others.
        self._packet_port = port if isinstance(port, PacketPort) else ByBundles(port)
        self._single_port = port if isinstance(port, SinglePort) else ByBundles(port)
        self._counting_sender = port.sender if isinstance(port, SenderPort) else None
        self._sender = self._counting_sender  # The counts stay when it is not used any more.
        self._sent_alone = self._sent_alone_bytes = 0  # Of `_try_send_packet`: faster than an array.
        self._bells: list[Doorbell] = []  # One for each loop that uses the port.
        self._interrupted = False
        self._paused = False  # True while loops wait for another process, which may go on in their place.
        self._idle = 0  # Threads that wait until the session is resumed.
        self._exclusive = False  # True while a native loop has the port to itself.
        self._ends: list[End] = []  # The ends that the port has lent; one for those that have the same counts.
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
            if not self._wait(self._port.readable, deadline, self._ready):
                break
        return bundle

    def receive_packet(self, timeout: float | None = None) -> bytes:
        """Wait for one packet and return a copy; empty bytes after `timeout` seconds. Raises as `receive` does."""
        if not self._held:
            try:
                return self._ready.popleft()
            except IndexError:
                pass
        deadline = _deadline(timeout)
        while not (packet := self._try_receive_packet()):
            if not self._wait(self._port.readable, deadline, self._ready):
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
        waited = 0
        try:
            while rest := self._try_send(rest):
                if len(rest) == waited:
                    time.sleep(PAUSE)
                if not self._wait(self._port.writable, deadline):
                    break
                waited = len(rest)
        finally:
            self._count_dropped(len(rest))
        return total - len(rest)

    def send_packet(self, packet: Packet, timeout: float | None = 0) -> bool:
        """Send one packet; return False if there was no room for it. Raises as `send` does."""
        sent = self._try_send_packet(packet) if self._sender is None else self._sender.send(packet)
        return sent or self.send([packet], timeout) == 1

    async def receive_async(self) -> Bundle:
        """`receive` for asyncio: waits without a thread, and can be cancelled without losing packets."""
        await self._give_way()
        while not (bundle := self._try_receive()):
            await self._wait_async(self._port.readable, self._ready)
            self._waited = True
        return bundle

    async def receive_packet_async(self) -> bytes:
        """`receive_packet` for asyncio. Packets that are ready are returned at once, without a turn of other tasks.

        Others get a turn before each new bundle is received from the system.
        """
        if not self._held:
            try:
                return self._ready.popleft()
            except IndexError:
                pass
        await self._give_way()
        while not (packet := self._try_receive_packet()):
            await self._wait_async(self._port.readable, self._ready)
            self._waited = True
        return packet

    async def send_async(self, packets: Iterable[Packet], *, drop_invalid: bool = False) -> int:
        """`send` for asyncio: waits until every packet is accepted; returns the count.

        When cancelled, the packets accepted so far are sent and the rest is counted as dropped.
        """
        rest = self._without_invalid(_bundle(packets)) if drop_invalid else _checked(packets)
        total = len(rest)
        waited = 0
        try:
            while rest := self._try_send(rest):
                if len(rest) == waited:
                    await _asyncio().sleep(PAUSE)
                await self._wait_async(self._port.writable)
                waited = len(rest)
        finally:
            self._count_dropped(len(rest))
        return total - len(rest)

    async def send_packet_async(self, packet: Packet) -> None:
        """`send_packet` for asyncio: waits until the packet is accepted."""
        sent = self._try_send_packet(packet) if self._sender is None else self._sender.send(packet)
        if not sent:
            await self.send_async([packet])

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
            with self._receive_lock:
                self._hold()
        self._check_open()
        return self._port.readable.fileno()

    @property
    def closed(self) -> bool:
        """True once `close` was called."""
        return self._closed

    @property
    def statistics(self) -> SessionStatistics:
        """The counts so far, also after the session was closed."""
        # Without a lock, as a signal handler may ask while its thread receives.
        ready = self._ready.copy()  # First: more may be counted meanwhile, but never fewer than wait.
        own, alone = array("q", self._received), new_counts()
        count(own, -len(ready), -sum(map(len, ready)), -len(ready))
        sender = self._counting_sender
        packets, size = (self._sent_alone, self._sent_alone_bytes) if sender is None else sender.sent
        count(alone, packets, size, packets)
        with self._state_lock:
            received = [own, *[end.received for end in self._ends]]
            sent = [self._sent, alone, *[end.sent for end in self._ends]]
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
                self._unused.notify_all()  # A loop may wait until the session is resumed.
                self._unused.wait_for(lambda: not self._bells)
            with self._receive_lock, self._send_lock:
                self._forget_ready()
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
        """Return the packets that wait for `receive_packet`, or else those that the port has ready."""
        with self._receive_lock:
            self._check_open()
            if self._paused:
                return EMPTY
            if self._ready and (ready := taken(self._ready)):
                bundle = Bundle.of_views([memoryview(bytearray(packet)) for packet in ready])
                count(self._received, 0, 0, 1 - len(ready))
            else:
                self._regain()
                bundle = self._port.receive()
                if bundle is not EMPTY:
                    packets, size = bundle.sizes()
                    count(self._received, packets, size, bool(packets))
            self._hold()
        return bundle

    def _try_receive_packet(self) -> bytes:
        """Return the next packet that waits here, or else the first that the port has ready; keep the others."""
        ready = self._ready
        with self._receive_lock:
            self._check_open()
            if not ready:
                self._regain()
                packets = self._packet_port.receive_packets()
                count(self._received, len(packets), sum(map(len, packets)), len(packets))
                ready.extend(packets)
            packet = popped(ready)
            self._hold()
        return packet

    def _hold(self) -> None:
        """Keep `readable` set while packets wait here for others than the thread that fetched them.

        Another thread enters before it looks at `_ready`. This one fills `_ready` before it looks for others. So one of
        the two sees the other. Call with the receive lock held.
        """
        held = self._paused  # To wake a thread that waits for packets.
        if self._ready and not held:
            with self._state_lock:
                held = self._present > 1 or bool(self._bells)
        if held or self._held:
            self._held = held
            self._port.readable.hold(held)

    def _forget_ready(self) -> None:
        forgotten = taken(self._ready)
        count(self._received, -len(forgotten), -sum(map(len, forgotten)), -len(forgotten))

    def _try_send(self, bundle: Bundle) -> Bundle:
        """Send the packets that the port has room for and return the rest."""
        with self._send_lock:
            self._check_open()
            packets, size = bundle.sizes()
            self._regain()
            rest = self._port.send(bundle)
            if rest is not EMPTY:
                packets, size = packets - len(rest), size - rest.nbytes
            if packets:
                count(self._sent, packets, size, 1)
        return rest

    def _try_send_packet(self, packet: Packet) -> bool:
        """Send a packet without a bundle. Return False if that is not possible, or if there is no room for it."""
        if type(packet) is not bytes or not packet or not SHORTEST[packet[0]] <= len(packet) <= MAX_PACKET:
            return False
        with self._send_lock:
            try:
                if self._closed:
                    self._check_open()
                self._regain()
                if not self._single_port.send_packet(packet):
                    return False
            except BaseException:
                self._sent[DROPPED] += 1
                raise
            self._sent_alone += 1
            self._sent_alone_bytes += len(packet)
        return True

    def _regain(self) -> None:
        """Interrupt a native loop that has the port to itself. Call with the lock of a direction held, before the port.

        A loop takes the port only with the locks of both, so it does not start again meanwhile.
        """
        if self._exclusive:
            with self._unused:
                for bell in self._bells:
                    bell.ring()
                self._unused.wait_for(lambda: not self._exclusive)

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

    async def _give_way(self) -> None:
        """Let other tasks run: a session that is always ready must not have the loop to itself."""
        if not self._waited:
            await _asyncio().sleep(0)
        self._waited = False

    def _wait(self, waitable: Waitable, deadline: float | None, ready: Sized = ()) -> bool:
        """Wait for a change, unless something is `ready`.

        Return False if `deadline` (of the monotonic clock, in seconds) has passed.
        """
        remaining = None if deadline is None else deadline - time.monotonic()
        if remaining is not None and remaining <= 0:
            return False
        self._enter()
        try:
            if self._paused and waitable is self._port.readable:
                self._wait_until_resumed(remaining)
            elif not ready:
                waitable.wait(remaining)
        finally:
            self._leave()
        return True

    def _wait_until_resumed(self, timeout: float | None = None) -> None:
        with self._unused:
            self._idle += 1
            self._unused.notify_all()
            self._unused.wait_for(lambda: self._closed or not self._paused, timeout)
            self._idle -= 1

    async def _wait_async(self, waitable: Waitable, ready: Sized = ()) -> None:
        asyncio = _asyncio()
        changed = asyncio.Event()
        self._enter()
        try:
            if ready:
                return
            forget = waitable.notify(asyncio.get_running_loop(), changed.set)
            try:
                await changed.wait()
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
        self._sender = None
        self._exclusive = False
        self._forget_ready()
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
