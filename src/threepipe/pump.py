"""The pump: one loop that moves bundles between two sessions, and the checks that no session can make by itself.

It uses both ports under the locks and rules of closing of `session.py`, which are private to these two files: closing a
session rings the bells of its loops, and waits until they have left.
"""

import errno
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from threepipe.backend import LateLender, OncePort, Port
from threepipe.bundle import EMPTY, Bundle
from threepipe.core import fast
from threepipe.core.ends import BUNDLES, DatagramsEnd, End, RecordsEnd, TunEnd
from threepipe.core.pump import PAUSE, forward
from threepipe.errors import AdapterError, LinkDown, ThreepipeError
from threepipe.session import Session
from threepipe.singles import count

if TYPE_CHECKING:
    from threepipe.net.doorbell import Doorbell

__all__ = ["give_kept", "interrupt", "kept", "pause", "pump", "resume", "wait_until_idle", "wait_until_pumped"]

_ALWAYS_ROOM_SOON = ("tun", "peers")
"""The kinds of ends whose room no other program decides on."""


def pump(left: Session, right: Session) -> bool:
    """Move bundles both ways in this thread until a session is closed or interrupted, or the native loop can go on.

    Uses the native loop if both ports lend descriptors that it can join, else Python's loop over the two sessions.
    Returns False at once if a port has no descriptor to wait for. Packets that can never be sent are dropped and
    counted. Packets that wait for room at an interruption stay in the session that received them, except that with the
    native loop, those for a stream or for peers are sent by its port later. Raises what `receive` and `send` do, and
    `EndpointEnded` half a second after an end.
    """
    with _idle(left), _idle(right):
        for session in (left, right):
            session._wait_until_resumed()
    with _pumped(left, right) as bell:
        if left._paused or right._paused:
            return True  # That was just now, and `pause` has not waited for this call.
        if left._ready or right._ready:
            with _joined(left, right, bell) as ends:
                if ends is not None:
                    _move_kept((left, right), ends, bell)
        # Lent anew: a port that has sent a part of a packet lends nothing until it has sent the rest.
        with _joined(left, right, bell) as ends:
            if ends is not None and not (left._ready or right._ready):
                _pump_natively((left, right), ends, bell)
            elif _has_descriptors(left._port) and _has_descriptors(right._port):
                sides = _Side(left), _Side(right)
                leave = None if ends is None else lambda: not (left._ready or right._ready)
                waits = forward(*sides, bell, leave)
                for source, target, waiting in zip(sides, sides[::-1], waits, strict=True):
                    if waiting:
                        source.take_back(waiting, target)
            else:
                return False
    return True


def interrupt(session: Session) -> None:
    """Have `pump` return, the call that runs now or the next one, and wait until one that runs has returned."""
    with session._unused:
        bells = list(session._bells)
        session._interrupted = not bells
        for bell in bells:
            bell.ring()
        session._unused.wait_for(lambda: not any(bell in session._bells for bell in bells))


def pause(session: Session) -> None:
    """Have `pump` and `Session.receive` wait until `resume`; wait until a call of `pump` that runs has returned.

    Then all packets that it received are sent, dropped or kept (see `kept`), and no further ones are received. For
    sessions that a pipe uses, and no task.
    """
    with session._unused:
        session._paused = True
        for bell in session._bells:
            bell.ring()
        session._unused.wait_for(lambda: not session._bells)
    _wake(session)


def wait_until_idle(session: Session, timeout: float) -> bool:
    """Wait `timeout` seconds at most until a thread waits for the paused session. Return True if one does.

    A thread of a pipe has sent all that it has received then.
    """
    with session._unused:
        idle = session._unused.wait_for(lambda: session._closed or session._idle > 0, timeout)
        return idle and not session._closed


def resume(session: Session) -> None:
    """Have `pump` and `Session.receive` go on after `pause`."""
    with session._unused:
        session._paused = False
        session._unused.notify_all()
    _wake(session)


def kept(session: Session) -> list[bytes]:
    """Return the packets that the session keeps, as their target had no room for them."""
    with session._receive_lock:
        return list(session._ready)


def give_kept(session: Session, packets: list[bytes]) -> None:
    """Have a new session keep the packets that another one kept."""
    with session._receive_lock:
        count(session._received, len(packets), sum(map(len, packets)), len(packets))
        session._ready.extend(packets)
        session._hold()


def wait_until_pumped(session: Session, timeout: float) -> bool:
    """Wait until a loop uses the session, `timeout` seconds at most. Return True if one does."""
    with session._unused:
        return session._unused.wait_for(lambda: bool(session._bells), timeout)


def _wake(session: Session) -> None:
    """Have a thread that waits for packets look whether the session is paused."""
    with session._receive_lock:
        if not session._closed:
            session._hold()


@contextmanager
def _idle(session: Session) -> Iterator[None]:
    with session._unused:
        session._idle += 1
        session._unused.notify_all()
    try:
        yield
    finally:
        with session._unused:
            session._idle -= 1


@contextmanager
def _pumped(*sessions: Session) -> Iterator["Doorbell"]:
    """Let a loop use the ports. Closing a session rings the bell and waits until the loop has left."""
    from threepipe.net.doorbell import Doorbell  # Loads socket, which a program without a pump does not need.

    with ExitStack() as stack:
        bell = Doorbell()
        stack.callback(bell.close)
        for session in sessions:
            stack.enter_context(_using(session, bell))
        yield bell


@contextmanager
def _using(session: Session, bell: "Doorbell") -> Iterator[None]:
    with session._state_lock:
        session._check_open()
        session._bells.append(bell)
        session._unused.notify_all()
        interrupted, session._interrupted = session._interrupted, False
    if interrupted:
        bell.ring()
    try:
        yield
    finally:
        with session._unused:
            session._bells.remove(bell)
            session._unused.notify_all()


@contextmanager
def _joined(left: Session, right: Session, bell: "Doorbell") -> Iterator[tuple[End, End] | None]:
    """Yield the ends that both ports lend, or None if the native loop cannot join them."""
    with _lent(left._port, bell) as left_end, _lent(right._port, bell) as right_end:
        if left_end is None or right_end is None or not fast.joins(left_end, right_end):
            yield None
        else:
            yield left_end, right_end


@contextmanager
def _lent(port: Port, bell: "Doorbell") -> Iterator[End | None]:
    """Yield the end that the port lends. If it lends one only later, ring the bell then."""
    end = port.lend()
    late = port if isinstance(port, LateLender) and end is None else None
    try:
        if late is not None:
            late.offer = bell.ring
        yield end
    finally:
        if late is not None:
            late.offer = None
        if end is not None:
            end.release()


def _pump_natively(sessions: tuple[Session, Session], ends: tuple[End, End], bell: "Doorbell") -> None:
    assert fast.pump is not None
    for session, end in zip(sessions, ends, strict=True):
        with session._state_lock:
            if all(end.received is not known.received for known in session._ends):
                session._ends.append(end)
    keep = False
    try:
        with _owned(sessions[0], ends[0]) as left, _owned(sessions[1], ends[1]) as right:
            if not (left and right):
                return
            error, failed = fast.pump(*ends, (bell, *ends[0].bells, *ends[1].bells))
        keep = failed is None
    finally:
        for source, target, end in zip(sessions, sessions[::-1], ends[::-1], strict=True):
            if isinstance(end, (TunEnd, DatagramsEnd)):
                _take_back_records(_Side(source), _Side(target), end, keep=keep)
    if failed is not None:
        raise failed.failure(error) if isinstance(failed, TunEnd) else OSError(error, os.strerror(error))


@contextmanager
def _owned(session: Session, end: End) -> Iterator[bool]:
    """Let a loop alone use the port of a stream, where records of several writers would mix.

    Another thread that uses the session interrupts the loop. Yield False if the end is out of date, because such a
    thread was quicker.
    """
    if not isinstance(end, RecordsEnd):
        yield True
        return
    with session._receive_lock, session._send_lock:
        session._regain()
        session._exclusive = True
    try:
        yield session._port.lend() is end
    finally:
        end.release()
        with session._unused:
            session._exclusive = False
            session._unused.notify_all()


def _take_back_records(source: "_Side", target: "_Side", end: TunEnd | DatagramsEnd, *, keep: bool) -> None:
    """Have `source` take back, or drop, the packets for `end` that waited for room when the native loop ended."""
    kept, end.kept = end.kept, []
    if kept:
        records = [memoryview(record) for record in kept]
        bundle = Bundle.of_records(records) if end.vnet_header else Bundle.of_views(records)
        source.take_back(bundle, target, keep=keep)


def _move_kept(sessions: tuple[Session, Session], ends: tuple[End, End], bell: "Doorbell") -> None:
    """Move packets that sessions keep, as the native loop receives from descriptors alone.

    They stay if their target has no room and another program decides when it has; the opposite direction must go on.
    """
    for source, target, end in zip(sessions, sessions[::-1], ends[::-1], strict=True):
        if source._ready:
            if end.kind in _ALWAYS_ROOM_SOON:
                _move_all(_Side(source), _Side(target), bell)
            elif rest := _Side(target).send((side := _Side(source)).receive()):
                side.take_back(rest, _Side(target))


def _move_all(source: "_Side", target: "_Side", bell: "Doorbell") -> None:
    """Move one bundle, and wait for room until the bell is rung; then `source` takes back the rest."""
    import selectors

    bundle = target.send(source.receive())
    if not bundle:
        return
    with selectors.DefaultSelector() as selector:
        selector.register(bell, selectors.EVENT_READ)
        selector.register(target.writable, selectors.EVENT_READ)
        waited = 0
        while bundle and all(key.fileobj is not bell for key, _ in selector.select()):
            if len(bundle) == waited:
                time.sleep(PAUSE)
            waited = len(bundle)
            bundle = target.send(bundle)
    if bundle:
        source.take_back(bundle, target)


def _has_descriptors(port: Port) -> bool:
    try:
        return port.readable.fileno() >= 0 and port.writable.fileno() >= 0
    except OSError:
        return False


def _is_refusal(error: ThreepipeError) -> bool:
    """Return True if the kernel refused one packet, and may accept others."""
    return isinstance(error, AdapterError) and error.errno == errno.EINVAL


class _Side:
    """A session as one side of Python's loop: nothing waits, and packets that can never be sent are dropped."""

    def __init__(self, session: Session) -> None:
        port = session._port
        self._session = session
        self._receive_once = port.receive_once if isinstance(port, OncePort) else None
        self._send_packet = session._try_send_packet if session._sender is None else session._sender.send
        self.readable, self.writable = port.readable, port.writable

    def receive(self) -> Bundle:
        return self._session._try_receive()

    def send(self, bundle: Bundle) -> Bundle:
        session = self._session
        bundle = session._without_invalid(bundle)
        try:
            return session._try_send(bundle)
        except LinkDown:
            self.drop(bundle)  # It may come up again.
            return EMPTY
        except ThreepipeError as error:
            if _is_refusal(error):
                self.drop(bundle[:1])  # Ports raise only if they accepted none, so it is the first one.
                return bundle[1:]
            self.drop(bundle)
            raise

    def drop(self, bundle: Bundle) -> None:
        self._session._count_dropped(len(bundle))

    def pass_on(self, target: "_Side") -> bool:
        session = self._session
        if self._receive_once is None:
            return False
        with session._receive_lock:
            if session._ready or session._held or session._paused or session._closed or session._exclusive:
                return False
            packets = self._receive_once()
            if len(packets) != 1:
                count(session._received, len(packets), sum(map(len, packets)), len(packets))
                session._ready.extend(packets)
                return False
            packet = packets[0]
            count(session._received, 1, len(packet), 1)
        try:
            if target._send_packet(packet):
                return True
        except ThreepipeError as error:  # The session has counted the packet.
            if isinstance(error, LinkDown) or _is_refusal(error):
                return True
            raise
        self.take_back(Bundle(packets), target)
        return False

    def take_back(self, bundle: Bundle, target: "_Side", *, keep: bool = True) -> None:
        """Keep packets received here that `target` had no room for; drop them if not, or if one of both is closed."""
        session = self._session
        with session._receive_lock:
            if kept := keep and not (session._closed or target._session._closed):
                packets = bundle.copies()
                session._received[BUNDLES] += len(packets) - 1  # Each may be handed out alone.
                session._ready.extendleft(reversed(packets))
                session._hold()
        if not kept:
            target.drop(bundle)
