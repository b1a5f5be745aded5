"""The pump between two endpoints. Knows no platform, no kinds and no addresses."""

import threading

from threepipe.core.pump import LINGER
from threepipe.endpoint import Endpoint, direct_session
from threepipe.errors import EndpointEnded, LinkDown, SessionClosed
from threepipe.session import pump

__all__ = ["pipe"]

_SLICE = 0.2  # Seconds; Python runs signal handlers between waits, and on Windows only there.


def pipe(a: Endpoint, b: Endpoint) -> None:
    """Move bundles both ways until one endpoint ends, and half a second longer; then close both and return.

    Other threads move the packets while the caller's waits: closing an endpoint ends the pipe, and so does an exception
    in the caller's thread, such as KeyboardInterrupt. While one end has no room, the other is not read; its ring fills
    up, and drops and counts packets. Packets for a link that is down are dropped and counted, as are invalid ones.
    `a.statistics` and `b.statistics` are up to date all the time.

    Returns normally when an endpoint was closed at either of its ends. Raises `AdapterGone` if an adapter was
    removed, `EndpointError` if a connection broke, and any other exception of an endpoint.
    """
    failures: list[Exception] = []
    thread = threading.Thread(target=_run, args=(a, b, failures), name="threepipe-pipe")
    thread.start()
    try:
        while thread.is_alive():
            thread.join(_SLICE)
    finally:
        a.close()
        b.close()
        thread.join()
    if failures:
        raise failures[0]


def _run(a: Endpoint, b: Endpoint, failures: list[Exception]) -> None:
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
    except Exception as error:
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


def _move(source: Endpoint, target: Endpoint, failures: list[Exception], ended: threading.Event) -> None:
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
    except Exception as error:
        failures.append(error)
    finally:
        ended.set()
        source.close()
        target.close()
