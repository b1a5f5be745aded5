"""Running the command line: in a process of its own, or faster in this one."""

import logging
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
    """Return a Python program as a command for `exec` and `--run`, which exists on every system."""
    return shlex.join([sys.executable, "-c", code])


CAT = python("import os\nwhile data := os.read(0, 1 << 16): os.write(1, data)")
"""A command that writes its input to its output at once."""


@dataclass(frozen=True)
class Done:
    """The result of a command."""

    status: int
    printed: str
    complaint: str

    @property
    def plain(self) -> str:
        """Return all output, without the colours of help and wrong usage, which some CI enables."""
        return re.sub(r"\x1b\[[\d;]*m", "", self.printed + self.complaint)


def run(*arguments: str, prefix: tuple[str, ...] = (), **environment: str) -> Done:
    """Run `threepipe` with `arguments`, after `prefix`; warnings of Python are errors there."""
    command = [*prefix, sys.executable, "-W", "error", "-m", "threepipe", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | environment, timeout=50)
    return Done(done.returncode, done.stdout, done.stderr)


def run_here(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], *arguments: str) -> Done:
    """Call `main` in this process, as the installed command does. The library's log is afterwards as it was."""
    monkeypatch.setattr(sys, "argv", ["threepipe", *arguments])
    capfd.readouterr()
    log = logging.getLogger("threepipe")
    level = log.level
    with pytest.raises(SystemExit) as ended:
        cli.main()
    log.setLevel(level)
    printed, complaint = capfd.readouterr()
    assert isinstance(ended.value.code, int)
    return Done(ended.value.code, printed, complaint)
