"""The pump: moves bundles both ways between two endpoints. Knows no platform, no kinds and no addresses."""

import threading

from threepipe.endpoint import Endpoint
from threepipe.errors import EndpointEnded, LinkDown, SessionClosed, ThreepipeError

__all__ = ["pipe"]

_LOOK = 0.2  # Seconds; a signal that comes as a wait begins, or on Windows at all, is only looked at after it.
_LINGER = 0.5  # Seconds, as with socat, in which the answers to the last packets of an end that is over may come.


def pipe(a: Endpoint, b: Endpoint) -> None:
    """Move bundles both ways until one endpoint ends, and half a second for answers; then close both and return.

    It works in threads of its own, and this one waits for their end: closing an endpoint ends it, and so
    does an exception here, such as KeyboardInterrupt. Where the far end has no room the near end waits for
    it, and its own ring fills up: loss happens there, and is counted there. While a link is down what is
    for it is dropped and counted, as are packets that are none. `a.statistics` and `b.statistics` tell all
    along what went through. Raises `AdapterGone` where an adapter was removed, and `EndpointError` where a
    connection broke; that an endpoint was closed, at either end of it, is the ordinary end.
    """
    failures: list[ThreepipeError] = []
    thread = threading.Thread(target=_run, args=(a, b, failures), name="threepipe-pipe")
    thread.start()
    try:
        while thread.is_alive():
            thread.join(_LOOK)
    finally:
        a.close()
        b.close()
        thread.join()
    if failures:
        raise failures[0]


def _run(a: Endpoint, b: Endpoint, failures: list[ThreepipeError]) -> None:
    """The short way, if these two have one, else by bundles with a thread for each direction."""
    try:
        _pump(a, b)
    except SessionClosed:
        pass
    except ThreepipeError as error:
        failures.append(error)
    else:
        over = threading.Event()
        back = threading.Thread(target=_move, args=(b, a, failures, over), name="threepipe-pipe-back")
        back.start()
        _move(a, b, failures, over)
        back.join()
    finally:
        a.close()
        b.close()


def _pump(a: Endpoint, b: Endpoint) -> None:
    """As long as there is a short way, go it. Raises `SessionClosed` at the end of all."""
    while (left := a.direct) and (right := b.direct):
        try:
            _forward(left, right, 0)  # What one of them kept from before, which is not in its descriptor any more.
            _forward(right, left, 0)
        except EndpointEnded:
            return  # There is no short way to what has an end, and on the other it is heard of again.
        if not left.pump(right):
            return


def _move(source: Endpoint, target: Endpoint, failures: list[ThreepipeError], over: threading.Event) -> None:
    """One direction; whichever sets `over` first ends the other as well."""
    try:
        while True:
            _forward(source, target, None)
    except EndpointEnded:
        over.wait(_LINGER)
    except SessionClosed:
        pass
    except ThreepipeError as error:
        failures.append(error)
    finally:
        over.set()
        source.close()
        target.close()


def _forward(source: Endpoint, target: Endpoint, timeout: float | None) -> None:
    """One bundle, after waiting for it."""
    with source.receive(timeout) as bundle:
        try:
            if bundle:
                target.forward(bundle)
        except LinkDown:
            pass  # Counted by the target; it may come up again.
