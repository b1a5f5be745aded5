"""Standard output and error of the programs that a pipe starts, kept apart from packets and from JSON.

Packets and JSON have standard output to themselves. If packets use it, JSON goes to standard error, and lines that
programs write there become events.
"""

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

__all__ = ["Relay", "relayed_errors", "streams_of_command"]

_LONGEST = 1 << 16  # Bytes of a line.
_STANDARD_ERROR = 2


def streams_of_command(*, packets: bool, json: bool) -> dict[str, Any]:
    """Return the arguments of `Popen` for the command of a pipe whose standard output has packets or JSON."""
    if packets:
        return {"stdin": subprocess.DEVNULL, "stdout": sys.stderr}
    return {"stdout": sys.stderr} if json else {}


@contextmanager
def relayed_errors() -> Iterator["Relay"]:
    """Relay the lines that this process and its programs write to standard error while the block runs."""
    relay = Relay()
    try:
        yield relay
    finally:
        relay.stop()
        relay.stream.close()


class Relay:
    """Standard error in two parts: a `stream` for this program alone, and the lines that all programs write there.

    The lines go to the function given to `start`, in a thread, until `stop` has relayed the last one.
    """

    def __init__(self) -> None:
        sys.stderr.flush()
        self.stream: TextIO = open(os.dup(_STANDARD_ERROR), "w", encoding="utf-8")  # noqa: SIM115  # Until the end.
        reader, self._writer = os.pipe()
        self._lines = open(reader, "rb")  # noqa: SIM115
        self._end = b"\0" + os.urandom(16).hex().encode() + b"\n"  # A line; programs may live on, with the pipe open.
        self._thread: threading.Thread | None = None
        os.dup2(self._writer, _STANDARD_ERROR)

    def start(self, relay: Callable[[str], None]) -> None:
        self._thread = threading.Thread(
            target=_relay, args=(self._lines, self._end, relay), name="threepipe-output", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Give standard error back. May be repeated."""
        if self._lines.closed:
            return
        sys.stderr.flush()
        os.dup2(self.stream.fileno(), _STANDARD_ERROR)
        if self._thread is not None:
            os.write(self._writer, b"\n" + self._end)  # The last line may be unfinished.
            self._thread.join()
        os.close(self._writer)
        self._lines.close()


def _relay(lines: Any, end: bytes, relay: Callable[[str], None]) -> None:
    """Relay lines, and pieces of longer ones, until the line `end`."""
    while (line := lines.readline(_LONGEST)) != end:
        if text := line.decode(errors="replace").rstrip("\r\n"):
            with suppress(OSError):  # Nobody reads it any more, but programs must not wait for room.
                relay(text)
