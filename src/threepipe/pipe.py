"""The pump: moves bundles both ways between two sessions. Knows no platform and no addresses."""

import threading

from threepipe.errors import LinkDown, SessionClosed, ThreepipeError
from threepipe.session import Session

__all__ = ["pipe"]


def pipe(a: Session, b: Session) -> None:
    """Move bundles both ways until one session ends, then close both and return.

    One direction runs in this thread, the other in one of its own. Where the far end has no room the
    near end waits for it, and its own ring fills up: loss happens there, and is counted there. While
    a link is down what is for it is dropped and counted. Raises `AdapterGone` where an adapter was
    removed; closing a session is the ordinary end.
    """
    failures: list[ThreepipeError] = []
    other = threading.Thread(target=_move, args=(b, a, failures), name="threepipe-pipe")
    other.start()
    try:
        _move(a, b, failures)
    finally:
        a.close()
        b.close()
        other.join()
    if failures:
        raise failures[0]


def _move(source: Session, target: Session, failures: list[ThreepipeError]) -> None:
    try:
        for bundle in source:
            with bundle:
                try:
                    target.forward(bundle)
                except LinkDown:
                    continue  # Counted by the target; it may come up again.
    except SessionClosed:
        pass  # The target's: iterating over the source ends by itself.
    except ThreepipeError as error:
        failures.append(error)
    finally:
        source.close()
        target.close()
