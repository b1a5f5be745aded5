"""Session: the packet traffic of one adapter, the same on every system.

Owns what the systems have in common: checking, counting, time-outs, threads, closing and asyncio.
A platform gives it a `Port`, which never blocks. One lock a direction serialises the port's calls;
whoever waits holds none, and what is waited on is disposed of by the last one to leave.
"""

import threading
import time
from array import array
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import NamedTuple, Protocol, Self

from threepipe.backend import Counts, Port, Waitable
from threepipe.bundle import Bundle
from threepipe.core.descriptor import MAX_BUNDLE
from threepipe.core.packet import Packet, is_packet
from threepipe.errors import InvalidPacket, SessionClosed

__all__ = ["Session", "SessionStatistics"]


class SessionStatistics(NamedTuple):
    """What went through a session since its start; bytes are those of the packets alone."""

    received_packets: int = 0
    received_bytes: int = 0
    received_bundles: int = 0
    sent_packets: int = 0
    sent_bytes: int = 0
    sent_bundles: int = 0
    sent_dropped: int = 0
    """Packets not sent, for there was no room for them, or no network; and what `forward` refused."""


class Closeable(Protocol):
    def close(self) -> None: ...


class Session:
    """Packet traffic on an adapter; `Adapter.start_session` makes it, `close` or `with` ends it.

    Every method may be called from any thread, and from several at once. Iterating gives bundles
    until the session is closed: `for bundle in session`, `async for bundle in session`.
    """

    def __init__(self, port: Port) -> None:
        self._port = port
        self._receive_lock = threading.Lock()
        self._send_lock = threading.Lock()
        self._close_lock = threading.Lock()
        self._state_lock = threading.Lock()
        self._pumps_left = threading.Condition(self._state_lock)
        self._closed = False
        self._fileno_given = False
        self._waited = True  # Whether the last receive_async had to wait.
        self._present = 1  # Waiters, and the session itself until it is closed.
        self._pumps = 0  # How many use the port apart from the locks.
        self._others: list[Closeable] = []  # What is closed with it.
        self._past_pumps = _new_counts()
        self._counts = [_new_counts(), self._past_pumps]  # The session's own, and those of its pumps.
        self._received, self._sent = self._counts[0]

    def receive(self, timeout: float | None = None) -> Bundle:
        """Wait for at least one packet and return all that are ready, in order, 256 records at most.

        After `timeout` seconds (None: never; 0: do not wait) the bundle is empty, which is false.
        Raises `SessionClosed`, also when closed while it waits, and `AdapterGone`.
        """
        return self._receive(MAX_BUNDLE, timeout)

    def receive_packet(self, timeout: float | None = None) -> bytes:
        """Wait for one packet and return a copy; empty when `timeout` seconds are over.

        The easy way to start, at the price of a bundle for every packet. Raises as `receive` does.
        """
        with self._receive(1, timeout) as bundle:
            return bytes(bundle[0]) if bundle else b""

    def send(self, packets: Iterable[Packet], timeout: float | None = 0) -> int:
        """Send a `Bundle` or any iterable of bytes-like packets; return how many were accepted.

        Where there is no room for all, wait up to `timeout` seconds for it (None: as long as it takes;
        by default not at all). The others are counted as dropped. They are the last ones, but for superpackets
        made of packets that lie further apart: to have all of them sent, give a timeout.
        Raises `InvalidPacket` before any is sent, `SessionClosed`, `AdapterGone` and `LinkDown`.
        """
        rest = _checked(packets)
        total = len(rest)
        deadline = _deadline(timeout)
        try:
            while rest := self._try_send(rest):
                if not self._wait(self._port.writable, deadline):
                    break
        finally:
            self._count_dropped(len(rest))
        return total - len(rest)

    def forward(self, bundle: Bundle, timeout: float | None = None) -> int:
        """`send` for packets of strangers: those that are no IP packets are dropped and counted.

        Waits for room (`timeout` seconds, by default as long as it takes). Raises as `send` does, but
        never `InvalidPacket`.
        """
        try:
            return self.send(bundle, timeout)
        except InvalidPacket:
            valid = [packet for packet in bundle if is_packet(packet)]
            self._count_dropped(len(bundle) - len(valid))
            return self.send(valid, timeout)

    def send_packet(self, packet: Packet, timeout: float | None = 0) -> bool:
        """Send one packet; False where there was no room for it. Raises as `send` does."""
        return self.send([packet], timeout) == 1

    async def receive_async(self) -> Bundle:
        """`receive` for asyncio: waits without a thread, and can be cancelled without losing packets."""
        if not self._waited:
            await _asyncio().sleep(0)  # A session that is always ready must not have the loop to itself.
        self._waited = False
        while not (bundle := self._try_receive(MAX_BUNDLE)):
            await self._wait_async(self._port.readable)
            self._waited = True
        return bundle

    async def send_async(self, packets: Iterable[Packet]) -> int:
        """`send` for asyncio: waits until there was room for all, and returns how many that were.

        When cancelled, the packets accepted so far are sent and the rest counted as dropped.
        """
        rest = _checked(packets)
        total = len(rest)
        try:
            while rest := self._try_send(rest):
                await self._wait_async(self._port.writable)
        finally:
            self._count_dropped(len(rest))
        return total - len(rest)

    def fileno(self) -> int:
        """A descriptor that is readable when `receive` has something to say: packets, or an end.

        For select, poll, epoll and event loops, only to be waited on. It stays open, and readable,
        after the session was closed, until this object goes. For an adapter on Windows it is the handle of
        an auto-reset event, for WaitForMultipleObjects and its like: receive until there is nothing before
        each wait, and wait a second at most, for drivers up to 0.14.1 lose a wake-up now and then.
        Raises `SessionClosed`.
        """
        if not self._fileno_given:
            self._enter()  # Somebody may wait from now on, and nobody says when he has left.
            self._fileno_given = True
        self._check_open()
        return self._port.readable.fileno()

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    @property
    def statistics(self) -> SessionStatistics:
        """The counts so far, also after the session was closed."""
        with self._state_lock:
            counts = [[*received, *sent] for received, sent in self._counts]
        return SessionStatistics(*map(sum, zip(*counts, strict=True)))

    @property
    def direct(self) -> "Session":
        """Itself, for nothing stands between: see `threepipe.endpoint`."""
        return self

    def pump(self, other: "Session") -> bool:
        """Move all that comes both ways until one of the two is closed, is interrupted, or has packets kept.

        False where these two cannot; `threepipe.pipe` is for all. Raises `SessionClosed` and `AdapterGone`.
        """
        counts, other_counts = _new_counts(), _new_counts()
        with self._pumping(counts), other._pumping(other_counts):
            return self._port.pump(other._port, counts, other_counts)

    def interrupt(self) -> None:
        """Have `pump` return, the one that runs now or the next one."""
        with self._state_lock:
            if not self._closed:
                self._port.interrupt()

    def also_close(self, other: Closeable) -> None:
        """Hand `other` over, which is then closed with this: for an adapter that serves one session only."""
        self._others.append(other)

    def close(self) -> None:
        """End the traffic and take the link down; every waiter gets `SessionClosed`. May be repeated.

        What was received and not yet asked for is lost, as when a cable is pulled.
        """
        with self._close_lock:  # Who closes second returns when the session is closed, not before.
            if self._closed:
                return
            self._closed = True
            self._port.wake()
            with self._receive_lock, self._send_lock:
                with self._pumps_left:
                    self._pumps_left.wait_for(lambda: not self._pumps)
                self._port.stop()
            self._leave()
        while self._others:  # Without the lock, for an adapter closes its session in turn.
            self._others.pop().close()

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

    def _receive(self, limit: int, timeout: float | None) -> Bundle:
        deadline = _deadline(timeout)
        while not (bundle := self._try_receive(limit)):
            if not self._wait(self._port.readable, deadline):
                break
        return bundle

    def _try_receive(self, limit: int) -> Bundle:
        with self._receive_lock:
            self._check_open()
            bundle = self._port.receive(limit)
            if bundle:
                counts = self._received
                counts[0] += len(bundle)
                counts[1] += bundle.nbytes
                counts[2] += 1
        return bundle

    def _try_send(self, bundle: Bundle) -> Bundle:
        """Send what there is room for and return the rest."""
        with self._send_lock:
            self._check_open()
            packets, size = len(bundle), bundle.nbytes
            rest = self._port.send(bundle)
            if accepted := packets - len(rest):
                counts = self._sent
                counts[0] += accepted
                counts[1] += size - rest.nbytes
                counts[2] += 1
        return rest

    def _count_dropped(self, packets: int) -> None:
        if packets:
            with self._send_lock:
                self._sent[3] += packets

    def _wait(self, waitable: Waitable, deadline: float | None) -> bool:
        """Wait for a change; False when `deadline` (of the monotonic clock, in seconds) has passed."""
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

    @contextmanager
    def _pumping(self, counts: tuple[Counts, Counts]) -> Iterator[None]:
        """Keep the port for a loop that works on it by itself: closing wakes the loop and waits for its end."""
        with self._state_lock:
            self._check_open()
            self._pumps += 1
            self._counts.append(counts)
        try:
            yield
        finally:
            with self._pumps_left:
                for total, count in zip(self._past_pumps, counts, strict=True):
                    total[:] = array("Q", map(sum, zip(total, count, strict=True)))
                self._counts = [other for other in self._counts if other is not counts]
                self._pumps -= 1
                self._pumps_left.notify_all()

    def _check_open(self) -> None:
        if self._closed:
            raise SessionClosed("the session is closed")

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


def _new_counts() -> tuple[Counts, Counts]:
    """Of what was received: packets, bytes, bundles; of what was sent the same, and dropped packets."""
    return array("Q", bytes(3 * 8)), array("Q", bytes(4 * 8))


def _checked(packets: Iterable[Packet]) -> Bundle:
    bundle = packets if isinstance(packets, Bundle) else Bundle(packets)
    bundle.check()
    return bundle


def _asyncio() -> ModuleType:
    """Loaded when used, for a program without asyncio should not pay for its import."""
    import asyncio

    return asyncio


def _deadline(timeout: float | None) -> float | None:
    return None if timeout is None else time.monotonic() + timeout
