"""Programs at the other end of a stream: one that is started (`exec`), and this one's own standard input and output."""

import errno
import io
import os
import shlex
import subprocess

from threepipe.endpoints.relay import stream_of_files
from threepipe.endpoints.stream import Stream
from threepipe.errors import InvalidSetting
from threepipe.net.connect import explained
from threepipe.platforms import COMMAND_ESCAPE, enlarge_pipe

__all__ = ["split_command", "standard_stream", "start_program"]

_GRACE = 2.0  # Seconds a program gets to end by itself once its input has ended, and again when asked to.


def split_command(command: str) -> list[str]:
    """The words of `command`, with quotes as a shell has them; on Windows a backslash is just that, for paths.

    Raises `InvalidSetting` where a quote is not closed.
    """
    lexer = shlex.shlex(command, posix=True, punctuation_chars=False)
    lexer.whitespace_split, lexer.commenters = True, ""
    lexer.escape = COMMAND_ESCAPE
    try:
        return list(lexer)
    except ValueError as error:
        raise InvalidSetting(f"command {command!r}: {error}") from None


def start_program(command: str) -> Stream:
    """Run `command`, split into words as a shell does, but by none. Closing the stream ends it.

    Raises `InvalidSetting`, `EndpointError`.
    """
    if not (words := split_command(command)):
        raise InvalidSetting("exec needs a command, as in exec:'ssh host threepipe pipe tun:t0 -'")
    with explained(f"starting {words[0]}", {errno.ENOENT: "is it installed?", errno.EACCES: "may it be run?"}):
        process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
    assert isinstance(process.stdin, io.FileIO)
    assert isinstance(process.stdout, io.FileIO)
    _widen(process.stdin, process.stdout)
    return stream_of_files(process.stdout, process.stdin, lambda: _status(process), lambda: _end(process))


def _status(process: "subprocess.Popen[bytes]") -> str:
    """What to say of how it ended; nothing where it has only closed its output."""
    try:
        status = process.wait(_GRACE)
    except subprocess.TimeoutExpired:
        return ""
    return f"ended with status {status}" if status > 0 else ""


def _end(process: "subprocess.Popen[bytes]") -> None:
    for ask in (process.terminate, process.kill):
        try:
            process.wait(_GRACE)
            return
        except subprocess.TimeoutExpired:
            ask()
    process.wait()


def standard_stream() -> Stream:
    """This program's standard input and output; they stay open. Raises `InvalidSetting` for a terminal."""
    for number, name in ((0, "input"), (1, "output")):
        if os.isatty(number):
            raise InvalidSetting(f"standard {name} is a terminal; packets are not for people: give it a file or a pipe")
    reader, writer = io.FileIO(os.dup(0), "r"), io.FileIO(os.dup(1), "w")
    _widen(reader, writer)
    return stream_of_files(reader, writer)


def _widen(*files: io.FileIO) -> None:
    for file in files:
        enlarge_pipe(file.fileno())
