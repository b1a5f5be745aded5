"""Windows' Python under Wine, for tests on Linux that want a program of theirs to run there.

Knows how it is started, which tools/windows says; what runs is the tests' own.
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
"""A program that runs another with adapters of the contract library."""

_ORDER = json.loads(os.environ.get("THREEPIPE_WINDOWS_PYTHON", "{}"))


def windows_command(*arguments: str) -> list[str]:
    """`python arguments`. Skips the test that was not started by tools/windows."""
    if not _ORDER:
        pytest.skip("make test-windows runs this")
    return [*_ORDER["command"], *arguments]


def windows_environment(**more: str) -> dict[str, str]:
    """What the environment of such a command has to be, and `more`."""
    return {**_ORDER["environment"], **more}


@contextmanager
def on_windows(*arguments: str, **environment: str) -> Iterator["subprocess.Popen[str]"]:
    """A Python on Windows that runs; it is killed at the end. Its streams are pipes, the last two of them one."""
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
    """So many UDP ports of 127.0.0.1 that nobody has now."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) for _ in range(number)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
