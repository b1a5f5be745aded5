"""Handling of signals while a block runs. For the main thread, in which Python handles them."""

import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["handle_signals", "interrupt_once"]


@contextmanager
def handle_signals(names: Iterable[str], handle: Callable[[int], None]) -> Iterator[None]:
    """Call `handle` with the number of each signal of `names` that arrives while the block runs.

    Names that the system does not have are left out.
    """

    def call(number: int, _: FrameType | None) -> None:
        handle(number)

    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    before = [(number, signal.signal(number, call)) for number in numbers]
    try:
        yield
    finally:
        for number, handler in before:
            signal.signal(number, signal.SIG_DFL if handler is None else handler)  # None: not set by Python.


@contextmanager
def interrupt_once() -> Iterator[None]:
    """Raise KeyboardInterrupt for the first SIGINT, SIGTERM or SIGHUP, even if a shell has the program ignore them.

    Only the first raises, as another one must not break off the cleanup. Programs that are run meanwhile do get it.
    """
    interrupted = False

    def interrupt(number: int) -> None:
        nonlocal interrupted
        if not interrupted:
            interrupted = True
            raise KeyboardInterrupt

    with handle_signals(("SIGINT", "SIGTERM", "SIGHUP"), interrupt):
        yield
