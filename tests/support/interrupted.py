"""Programs whose start a signal interrupts at the worst moment: the program runs, and nobody has its handle yet."""

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

__all__ = ["interrupted_starts"]


@contextmanager
def interrupted_starts(
    monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> Iterator[list["subprocess.Popen[bytes]"]]:
    """Raise the signal in each start of a program, and yield the list of the programs; kill them after the block."""
    programs: list[subprocess.Popen[bytes]] = []

    class Popen(subprocess.Popen):  # type: ignore[type-arg]
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            programs.append(self)
            signal.raise_signal(number)

    try:
        with monkeypatch.context() as patch:
            patch.setattr(subprocess, "Popen", Popen)
            yield programs
    finally:
        for program in programs:
            program.kill()
            program.wait()
