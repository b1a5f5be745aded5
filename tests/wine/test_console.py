"""The command line on a Windows console: what people see there, and Ctrl-C.

Wine makes a console of a terminal of this system: Python writes to it by Windows' console functions, as it does in
a window, and what Wine makes of that arrives at the terminal.
"""

import errno
import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.windows_python import ON_CONTRACT, windows_command, windows_environment

pytestmark = [pytest.mark.wine, pytest.mark.timeout(180)]

SECONDS = 60.0
ESCAPES = re.compile(r"\x1b\[[?\d;]*[A-Za-z]|\x1b\][^\x07]*\x07|\r")
MOVES = re.compile(r"\x1b\[(\d+)C")
ROWS, COLUMNS = 50, 160


class Console:
    """A program on a console, and what its window has shown."""

    def __init__(self, program: "subprocess.Popen[bytes]", terminal: int) -> None:
        self.program = program
        self._terminal = terminal
        self.shown = ""

    @property
    def text(self) -> str:
        """All that was shown, without colours; where the cursor only moved on there are spaces."""
        return ESCAPES.sub("", MOVES.sub(lambda move: " " * int(move[1]), self.shown))

    def type(self, keys: str) -> None:
        os.write(self._terminal, keys.encode())

    def until(self, what: str) -> None:
        """Wait until the window has shown that."""
        deadline = time.monotonic() + SECONDS
        while what not in self.text:
            assert self._read(deadline - time.monotonic()), f"it has not shown {what!r}, but {self.shown!r}"

    def end(self) -> int:
        """Wait for the program to end, and return its status."""
        deadline = time.monotonic() + SECONDS
        while self._read(deadline - time.monotonic()):
            pass
        return self.program.wait(SECONDS)

    def _read(self, seconds: float) -> bool:
        if not select.select([self._terminal], [], [], max(0.0, seconds))[0]:
            return False
        try:
            data = os.read(self._terminal, 1 << 16)
        except OSError as error:
            if error.errno != errno.EIO:  # Which is the end of a terminal.
                raise
            return False
        self.shown += data.decode(errors="replace")
        return bool(data)


@contextmanager
def console(*arguments: str) -> Iterator[Console]:
    """A Python on Windows with `arguments`, on a console of its own."""
    terminal, streams = pty.openpty()
    try:
        fcntl.ioctl(streams, termios.TIOCSWINSZ, struct.pack("4H", ROWS, COLUMNS, 0, 0))
        program = subprocess.Popen(
            ["setsid", "--ctty", *windows_command("-W", "error", *arguments)],  # Ctrl-C is for whose terminal it is.
            env=windows_environment(TERM="xterm"),
            stdin=streams,
            stdout=streams,
            stderr=streams,
        )
    finally:
        os.close(streams)
    try:
        with program:
            yield Console(program, terminal)
            program.kill()
    finally:
        program.kill()
        os.close(terminal)


def test_the_doctor_speaks_in_colours() -> None:
    with console("-m", "threepipe", "doctor") as window:
        window.until("native core")
        assert window.end() == 1  # There is no DLL.
    assert "\x1b[32m" in window.shown  # Green: what is well.
    lines = window.text.splitlines()
    assert any(line.startswith("system") and "yes" in line and "Windows 10" in line for line in lines)
    assert any(line.startswith("wintun.dll") and "no" in line for line in lines)


def test_text_that_is_not_ascii_arrives() -> None:
    with console("-m", "threepipe", "pipe", "--help") as window:
        assert window.end() == 0
    assert re.search(r"[╭┌]─ Options ─", window.text)  # Round corners or not, as the console can.
    assert "Traceback" not in window.shown


def test_the_demonstration_runs() -> None:
    with console("-m", "threepipe", "demo", "--size", "1M") as window:
        assert window.end() == 0
    assert "SHA-256" in window.shown


def test_ctrl_c_ends_a_program_that_waits_for_packets() -> None:
    example = Path(__file__).parents[2] / "examples" / "echo.py"
    with console(ON_CONTRACT, str(example), "echo0") as window:
        window.until("echo0 answers ping in")
        window.type("\x03")
        assert window.end() == 0
    assert "Traceback" not in window.shown
