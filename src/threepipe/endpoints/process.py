"""Streams to programs: one that this program starts (`exec`), or its own standard input and output (`stdio`)."""

import atexit
import errno
import io
import os
import subprocess
from collections.abc import Sequence
from contextlib import ExitStack

from threepipe.endpoints.relay import stream_of_files
from threepipe.endpoints.stream import Stream
from threepipe.errors import InvalidSetting
from threepipe.net.connect import endpoint_errors
from threepipe.net.signals import defer_signals
from threepipe.platforms import enlarge_pipe

__all__ = ["end_program", "failure_of", "fill_in", "standard_stream", "start_program"]

_GRACE = 2.0  # Seconds a program gets to end after the end of its input, and again after SIGTERM.


def start_program(words: list[str]) -> Stream:
    """Start a program without a shell, and return a stream of its output and input. Closing the stream ends it.

    The end of this process ends it too, except by a signal that Python does not handle. Raises `EndpointError`.
    """
    advice = {errno.ENOENT: "check that it is installed", errno.EACCES: "make it executable"}
    with endpoint_errors(f"starting {words[0]}", advice), defer_signals(), ExitStack() as undo:
        process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
        undo.enter_context(process)
        undo.callback(process.kill)
        assert isinstance(process.stdin, io.FileIO)
        assert isinstance(process.stdout, io.FileIO)
        _enlarge(process.stdin, process.stdout)

        owner = os.getpid()

        def end_at_exit() -> None:
            if os.getpid() == owner:  # The program is not that of a forked process.
                stream.close()

        def closed() -> None:
            end_program(process)
            atexit.unregister(end_at_exit)

        stream = stream_of_files(process.stdout, process.stdin, lambda: failure_of(process), closed)
        atexit.register(end_at_exit)
        undo.pop_all()
    return stream


def fill_in(words: Sequence[str], number: int) -> list[str]:
    """Return the words of a command with `{fd}` replaced by the number of a descriptor that it inherits."""
    return [word.replace("{fd}", str(number)) for word in words]


def failure_of(process: "subprocess.Popen[bytes]") -> str:
    """Return how the program failed; "" if it succeeded, or still runs with its output closed."""
    try:
        status = process.wait(_GRACE)
    except subprocess.TimeoutExpired:
        return ""
    if status < 0:
        return f"was ended by signal {-status}"
    return f"ended with status {status}" if status else ""


def end_program(process: "subprocess.Popen[bytes]", patience: float = _GRACE) -> None:
    """Have a program end: `patience` seconds for it to do so by itself, then SIGTERM, and SIGKILL in the end."""
    for ask in (process.terminate, process.kill):
        try:
            process.wait(patience)
            return
        except subprocess.TimeoutExpired:
            ask()
            patience = _GRACE
    process.wait()


def standard_stream() -> Stream:
    """Return a stream of copies of standard input and output. Raise `InvalidSetting` if either is a terminal."""
    for number, name in ((0, "input"), (1, "output")):
        if os.isatty(number):
            raise InvalidSetting(f"standard {name} is a terminal, which cannot show packets; use a file or a pipe")
    reader, writer = io.FileIO(os.dup(0), "r"), io.FileIO(os.dup(1), "w")
    _enlarge(reader, writer)
    return stream_of_files(reader, writer)


def _enlarge(*files: io.FileIO) -> None:
    for file in files:
        enlarge_pipe(file.fileno())
