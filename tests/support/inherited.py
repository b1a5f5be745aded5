"""Descriptors that a child process inherits and pipes, and packets for them."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from threepipe.echo import echo_request

__all__ = ["PACKETS", "child", "is_open"]

SECONDS = 10.0
PACKETS = [echo_request("10.1.1.1", "10.1.1.2", 7, number, bytes(number)) for number in (1, 2, 1400)]

CHILD = """
import sys, threading, threepipe
left, right = (threepipe.open_endpoint(address) for address in sys.argv[1:])
def watch():
    sys.stdin.read()
    left.close()
threading.Thread(target=watch, daemon=True).start()
threepipe.pipe(left, right)
"""
"""A program that pipes two addresses until its input ends."""


@contextmanager
def child(*addresses: str, pass_fds: tuple[int, ...]) -> Iterator[None]:
    """Run a process that inherits these descriptors and pipes the addresses; it must end without error."""
    command = [sys.executable, "-W", "error", "-c", CHILD, *addresses]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True, pass_fds=pass_fds
    ) as process:
        try:
            yield
        finally:
            _, complaint = process.communicate(timeout=SECONDS)
    assert (process.returncode, complaint) == (0, "")


def is_open(number: int) -> bool:
    return os.path.exists(f"/proc/self/fd/{number}")
