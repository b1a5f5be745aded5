"""The command line on a Windows console: its output and Ctrl-C.

Wine turns a terminal of this system into a console: Python writes to it with Windows' console functions, as in
a window, and Wine sends the result to the terminal.
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
    """A program on a console, and the text that its window has shown."""

    def __init__(self, program: "subprocess.Popen[bytes]", terminal: int) -> None:
        self.program = program
        self._terminal = terminal
        self.shown = ""

    @property
    def text(self) -> str:
        """Return all text shown, without colours, and with spaces where only the cursor moved."""
        return ESCAPES.sub("", MOVES.sub(lambda move: " " * int(move[1]), self.shown))

    def type(self, keys: str) -> None:
        os.write(self._terminal, keys.encode())

    def until(self, what: str) -> None:
        """Wait until the window has shown the text."""
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
            if error.errno != errno.EIO:  # EIO is the end of a terminal.
                raise
            return False
        self.shown += data.decode(errors="replace")
        return bool(data)


@contextmanager
def console(*arguments: str) -> Iterator[Console]:
    """Run a Python on Windows with `arguments` on a console of its own."""
    terminal, streams = pty.openpty()
    try:
        fcntl.ioctl(streams, termios.TIOCSWINSZ, struct.pack("4H", ROWS, COLUMNS, 0, 0))
        program = subprocess.Popen(
            [
                "setsid",
                "--ctty",
                *windows_command("-W", "error", *arguments),
            ],  # Ctrl-C goes to the session that owns the terminal.
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


def test_doctor_prints_in_colours() -> None:
    with console("-m", "threepipe", "doctor") as window:
        window.until("native core")
        assert window.end() == 1  # There is no DLL.
    assert "\x1b[32m" in window.shown  # Green marks what works.
    lines = window.text.splitlines()
    assert any(line.startswith("system") and "yes" in line and "Windows 10" in line for line in lines)
    assert any(line.startswith("wintun.dll") and "no" in line for line in lines)


def test_text_that_is_not_ascii_is_shown() -> None:
    with console("-m", "threepipe", "pipe", "--help") as window:
        assert window.end() == 0
    assert re.search(r"[╭┌]─ Options ─", window.text)  # The corners are round if the console supports it.
    assert "Traceback" not in window.shown


def test_demo_runs_on_a_console() -> None:
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
