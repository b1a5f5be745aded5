"""Pipes that one process hands over to another, both in this process."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.assemblies import running
from threepipe.assembly import Assembly, Plan, assemble
from threepipe.capture.server import serve_captures
from threepipe.capture.tap import Taps
from threepipe.endpoints.takeover import Running, Taking, handing_over

__all__ = ["NAME", "go_on", "run"]

NAME = f"pipe:{os.getpid()}"
"""The name of the pipe of a folder."""


@contextmanager
def run(plan: Plan, folder: Path) -> Iterator[Assembly]:
    """Run a pipe that `Taking` finds in `folder`, until another one has taken it over or the block ends."""
    with running(plan) as assembly, _served(plan, assembly, folder):
        yield assembly


@contextmanager
def go_on(plan: Plan, old: Path, new: Path | None = None) -> Iterator[Assembly]:
    """Take over the pipe in the folder `old`, and run it until the block ends; `Taking` finds it in `new` then.

    Raises the error of a failed takeover, after the end of the new pipe.
    """
    ready = threading.Event()
    with Taking(NAME, old) as taking:
        taking.ask(plan.left, plan.right, plan.capture)
        with assemble(plan, taking.take()) as assembly, taking.begun(assembly.ends, ready.set, assembly.close):
            thread = threading.Thread(target=assembly.run)
            thread.start()
            try:
                while thread.is_alive() and not ready.wait(0.01):
                    pass
                if ready.is_set():
                    with _served(plan, assembly, new or old / "nowhere"):
                        yield assembly
            finally:
                assembly.close()
                thread.join()


@contextmanager
def _served(plan: Plan, assembly: Assembly, folder: Path) -> Iterator[None]:
    left, right = plan.left.text, plan.right.text
    running = Running((left, right), assembly.ends, assembly.delayed, lambda pid: assembly.close(), plan.capture)
    with serve_captures(Taps(), left, right, folder), handing_over(running, folder):
        yield
