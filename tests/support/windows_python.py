"""Windows' Python under Wine, for tests on Linux that run programs there.

Owns the command and the environment to start it, which tools/windows gives; the tests choose the programs.
"""

import json
import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

__all__ = ["ON_CONTRACT", "free_ports", "on_windows", "windows_command", "windows_environment"]

ON_CONTRACT = str(Path(__file__).parent / "programs" / "on_contract.py")
"""The program that runs another with adapters of the contract library."""

_ORDER = json.loads(os.environ.get("THREEPIPE_WINDOWS_PYTHON", "{}"))


def windows_command(*arguments: str) -> list[str]:
    """Return the command `python arguments`; skip a test that tools/windows did not start."""
    if not _ORDER:
        pytest.skip("make test-windows runs this")
    return [*_ORDER["command"], *arguments]


def windows_environment(**more: str) -> dict[str, str]:
    """Return the environment of such a command, with `more`."""
    return {**_ORDER["environment"], **more}


@contextmanager
def on_windows(*arguments: str, **environment: str) -> Iterator["subprocess.Popen[str]"]:
    """Run a Python on Windows, and kill it at the end. Its streams are pipes; standard error goes to its output."""
    with subprocess.Popen(
        windows_command("-W", "error", *arguments),
        env=windows_environment(**environment),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as program:
        try:
            yield program
        finally:
            program.kill()


def free_ports(number: int) -> list[int]:
    """Return `number` UDP ports of 127.0.0.1 that are free now."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) for _ in range(number)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
