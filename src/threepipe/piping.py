"""The pump between two endpoints. Knows no platform, no kinds and no addresses."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from threepipe.core.pump import LINGER
from threepipe.endpoint import Endpoint, direct_session
from threepipe.errors import EndpointEnded, LinkDown, SessionClosed
from threepipe.net.notify import call_soon
from threepipe.pump import pump
from threepipe.session import Session

__all__ = ["pipe", "pipe_async"]

_SLICE = 0.2  # Seconds; Python runs signal handlers between waits, and on Windows only there.


def pipe(a: Endpoint, b: Endpoint) -> None:
    """Move bundles both ways until one endpoint ends, and half a second longer; then close both and return.

    Other threads move the packets while the caller's waits: closing an endpoint ends the pipe, and so does an exception
    in the caller's thread, such as KeyboardInterrupt. While one end has no room, the other is not read; its ring fills
    up, and drops and counts packets. Packets for a link that is down are dropped and counted, as are invalid ones.
    `a.statistics` and `b.statistics` are up to date all the time.

    Returns normally when an endpoint was closed at either of its ends. Raises `AdapterGone` if an adapter was
    removed, `EndpointError` if a connection broke, and any other exception of an endpoint. Raises TypeError for an
    object that is not an endpoint, and ValueError if both are the same; then nothing is closed.
    """
    _check(a, b)
    failures: list[BaseException] = []
    thread = threading.Thread(target=_run, args=(a, b, failures), name="threepipe-pipe")
    with _running(thread, a, b):
        while thread.is_alive():
            thread.join(_SLICE)
    if failures:
        raise failures[0]


async def pipe_async(a: Endpoint, b: Endpoint) -> None:
    """`pipe` for asyncio: move bundles in the event loop if both ends are sessions, else in threads.

    When cancelled, it closes both endpoints; packets that wait for room are dropped and counted. Returns and raises as
    `pipe` does.
    """
    _check(a, b)
    if isinstance(a, Session) and isinstance(b, Session):
        with a, b:
            await _move_both_ways(a, b)
    else:
        await _run_in_thread(a, b)


@contextmanager
def _running(thread: threading.Thread, a: Endpoint, b: Endpoint) -> Iterator[None]:
    """Start `thread`, which uses the endpoints; after the block, close both and wait for the thread.

    Raises RuntimeError, with both closed, if the system allows no further thread.
    """
    try:
        thread.start()
        yield
    finally:
        a.close()
        b.close()
        if thread.ident is not None:
            thread.join()


def _check(*ends: object) -> None:
    for end in ends:
        if not all(callable(getattr(end, method, None)) for method in ("receive", "send", "close")):
            raise TypeError(
                f"a pipe joins sessions and other endpoints, not {type(end).__name__}; give a session of it, "
                "such as adapter.start_session()"
            )
    if ends[0] is ends[1]:
        raise ValueError("both ends of the pipe are the same object; give two sessions")


async def _move_both_ways(a: Session, b: Session) -> None:
    import asyncio

    directions = [asyncio.ensure_future(_move_async(a, b)), asyncio.ensure_future(_move_async(b, a))]
    try:
        await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for direction in directions:
            direction.cancel()
        await asyncio.wait(directions)
    for direction in directions:
        if not direction.cancelled():
            direction.result()


async def _move_async(source: Session, target: Session) -> None:
    """Move bundles in one direction until a session ends."""
    import asyncio

    try:
        while True:
            with await source.receive_async() as bundle:
                try:
                    await target.send_async(bundle, drop_invalid=True)
                except LinkDown:
                    pass  # The target counted them; it may come up again.
    except EndpointEnded:
        await asyncio.sleep(LINGER)
    except SessionClosed:
        pass


async def _run_in_thread(a: Endpoint, b: Endpoint) -> None:
    import asyncio

    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    failures: list[BaseException] = []

    def run() -> None:
        _run(a, b, failures)
        call_soon(loop, ended.set)

    thread = threading.Thread(target=run, name="threepipe-pipe")
    with _running(thread, a, b):
        await ended.wait()
    if failures:
        raise failures[0]


def _run(a: Endpoint, b: Endpoint, failures: list[BaseException]) -> None:
    """Loop over both sessions while both endpoints allow it; else run a thread for each direction."""
    try:
        _pump(a, b)
        ended = threading.Event()
        back = threading.Thread(target=_move, args=(b, a, failures, ended), name="threepipe-pipe-back")
        back.start()
        _move(a, b, failures, ended)
        back.join()
    except (SessionClosed, EndpointEnded):
        pass
    except BaseException as error:
        failures.append(error)
    finally:
        a.close()
        b.close()


def _pump(a: Endpoint, b: Endpoint) -> None:
    """Loop over the two sessions while both endpoints let packets pass unseen and have descriptors.

    Raises `SessionClosed` or `EndpointEnded` at the end.
    """
    while (left := direct_session(a)) and (right := direct_session(b)):
        if not pump(left, right):
            return


def _move(source: Endpoint, target: Endpoint, failures: list[BaseException], ended: threading.Event) -> None:
    """Move bundles in one direction until either direction sets `ended`."""
    try:
        while True:
            with source.receive() as bundle:
                try:
                    target.send(bundle, None, drop_invalid=True)
                except LinkDown:
                    pass  # The target counted them; it may come up again.
    except EndpointEnded:
        ended.wait(LINGER)
    except SessionClosed:
        pass
    except BaseException as error:
        failures.append(error)
    finally:
        ended.set()
        source.close()
        target.close()
