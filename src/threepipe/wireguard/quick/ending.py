"""The signals that end a device. They interrupt it only where it waits, so that no deed is left half-done.

For the main thread, in which Python handles signals.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Self

from threepipe.net.signals import handle_signals

__all__ = ["SIGNALS", "Ended", "Ending"]

SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")


class Ended(KeyboardInterrupt):
    """A signal has ended the device before it was up; `status` is the exit status by which shells tell that."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.status = 128 + number


class Ending:
    """Handles signals while the block runs, even a SIGINT that a shell has the program ignore in the background.

    SIGHUP stays ignored if it was, as under nohup(1). Only the first signal counts. Programs that are run meanwhile get
    all of them.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        """The number of the signal that has arrived."""
        self._interrupting = False
        self._handlers = ExitStack()

    def __enter__(self) -> Self:
        self._handlers.enter_context(handle_signals(SIGNALS, self._handle))
        return self

    def __exit__(self, *_: object) -> None:
        self._handlers.close()

    def check(self) -> None:
        """Raise `Ended` if a signal has arrived."""
        if self.number is not None:
            raise Ended(self.number)

    @contextmanager
    def interrupting(self) -> Iterator[None]:
        """Raise `Ended` as soon as a signal arrives while the block runs, or if one has arrived before."""
        self._interrupting = True
        try:
            self.check()
            yield
        finally:
            self._interrupting = False

    def _handle(self, number: int) -> None:
        if self.number is None:
            self.number = number
            if self._interrupting:
                raise Ended(number)
