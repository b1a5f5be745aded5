"""Running the command line for tests: in a process of its own, or in this one, which is quicker."""

import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass

import pytest

from threepipe import cli

__all__ = ["CAT", "Done", "python", "run", "run_here"]


def python(code: str) -> str:
    """A program in Python as `exec` and `--run` take it, which is there on every system."""
    return shlex.join([sys.executable, "-c", code])


CAT = python("import os\nwhile data := os.read(0, 1 << 16): os.write(1, data)")
"""Gives what it gets, at once."""


@dataclass(frozen=True)
class Done:
    """What became of a command."""

    status: int
    printed: str
    complaint: str

    @property
    def plain(self) -> str:
        """All it said, without the colours of help and wrong usage, which some CI asks for."""
        return re.sub(r"\x1b\[[\d;]*m", "", self.printed + self.complaint)


def run(*arguments: str, prefix: tuple[str, ...] = (), **environment: str) -> Done:
    """`threepipe` with `arguments`, started by `prefix`; a warning of Python's is an error in it."""
    command = [*prefix, sys.executable, "-W", "error", "-m", "threepipe", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | environment, timeout=50)
    return Done(done.returncode, done.stdout, done.stderr)


def run_here(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], *arguments: str) -> Done:
    """The same by `main`, as the installed command calls it."""
    monkeypatch.setattr(sys, "argv", ["threepipe", *arguments])
    capfd.readouterr()
    with pytest.raises(SystemExit) as ended:
        cli.main()
    printed, complaint = capfd.readouterr()
    assert isinstance(ended.value.code, int)
    return Done(ended.value.code, printed, complaint)
