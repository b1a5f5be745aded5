"""Handling of signals while a block runs. For the main thread, in which Python handles them."""

import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import FrameType
from typing import Any

__all__ = ["ENDINGS", "defer_signals", "exit_once", "handle_signals", "ignore_repeated"]

ENDINGS = ("SIGTERM", "SIGHUP", "SIGBREAK")
"""Requests to end other than Ctrl-C: by kill and service managers, by a terminal that is gone, by Windows' console."""


@contextmanager
def handle_signals(names: Iterable[str], handle: Callable[[int], None]) -> Iterator[None]:
    """Call `handle` with the number of each signal of `names` that arrives while the block runs.

    Names that the system does not have are left out, and so is SIGHUP if it is ignored: that is how nohup(1) has a
    program outlive its terminal.
    """

    def call(number: int, _: FrameType | None) -> None:
        handle(number)

    known: list[signal.Signals] = [getattr(signal, name) for name in names if hasattr(signal, name)]
    numbers = [number for number in known if not _outlives_terminal(number)]
    before: list[tuple[int, Any]] = []
    try:
        # One by one, as a handler of before may raise in between.
        before.extend((number, signal.signal(number, call)) for number in numbers)
        yield
    finally:
        for number, handler in before:
            if signal.getsignal(number) is not signal.SIG_IGN:  # See `ignore_repeated`.
                signal.signal(number, signal.SIG_DFL if handler is None else handler)  # None: not set by Python.


def _outlives_terminal(number: signal.Signals) -> bool:
    return number.name == "SIGHUP" and signal.getsignal(number) == signal.SIG_IGN


def ignore_repeated(number: int) -> bool:
    """Ignore SIGHUP from now on, until this process ends; return False for another signal.

    For handlers: a terminal that is gone may send it twice, and the second must not break off the end of the program.
    """
    if signal.Signals(number).name != "SIGHUP":
        return False
    signal.signal(number, signal.SIG_IGN)
    return True


def exit_once() -> AbstractContextManager[None]:
    """Raise SystemExit for the first signal of `ENDINGS` while the block runs.

    Only the first raises, as another one must not break off the cleanup; a terminal that is gone may send two. The
    status is the one that shells give a command ended by a signal: 128 plus its number.
    """
    raised = False

    def handle(number: int) -> None:
        nonlocal raised
        ignore_repeated(number)
        if not raised:
            raised = True
            raise SystemExit(128 + number)

    return handle_signals(ENDINGS, handle)


@contextmanager
def defer_signals() -> Iterator[None]:
    """Let signals that end a program, and arrive while the block runs, have their effect right after it.

    For a deed together with the note of how to undo it: an exception of a signal handler between the two would leave
    the deed for ever. Keep the block short. Ignored signals stay ignored, so that programs started in the block
    inherit that. Python handles signals in the main thread alone, so for other threads there is nothing to do.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    arrived: list[int] = []
    known = [name for name in ("SIGINT", *ENDINGS) if hasattr(signal, name)]
    heeded = [name for name in known if signal.getsignal(getattr(signal, name)) != signal.SIG_IGN]
    try:
        with handle_signals(heeded, arrived.append):
            yield
    finally:
        for number in arrived:
            signal.raise_signal(number)
