"""The pump: moves bundles both ways between two sessions. Knows no platform and no addresses."""

import threading

from threepipe.errors import LinkDown, SessionClosed, ThreepipeError
from threepipe.session import Session

__all__ = ["pipe"]


def pipe(a: Session, b: Session) -> None:
    """Move bundles both ways until one session ends, then close both and return.

    A thread for each direction, and this one waits for their end: closing a session ends it, and so does
    an exception here, such as KeyboardInterrupt. Where the far end has no room the near end waits for it,
    and its own ring fills up: loss happens there, and is counted there. While a link is down what is for
    it is dropped and counted, as are packets that are none. `a.statistics` and `b.statistics` tell all
    along what went through. Raises `AdapterGone` where an adapter was removed; closing a session is the
    ordinary end.
    """
    failures: list[ThreepipeError] = []
    directions = [
        threading.Thread(target=_move, args=(source, target, failures), name=f"threepipe-pipe-{name}")
        for name, source, target in (("forth", a, b), ("back", b, a))
    ]
    try:
        for direction in directions:
            direction.start()
        for direction in directions:
            direction.join()
    finally:
        a.close()
        b.close()
        for direction in directions:
            if direction.ident is not None:
                direction.join()
    if failures:
        raise failures[0]


def _move(source: Session, target: Session, failures: list[ThreepipeError]) -> None:
    try:
        without_python = True
        for bundle in source:
            with bundle:
                try:
                    target.forward(bundle)
                except LinkDown:
                    continue  # Counted by the target; it may come up again.
            without_python = without_python and source.pump(target)
    except SessionClosed:
        pass  # The target's: iterating over the source ends by itself.
    except ThreepipeError as error:
        failures.append(error)
    finally:
        source.close()
        target.close()
