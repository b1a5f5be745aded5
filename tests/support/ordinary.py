"""Commands of threepipe as an ordinary user, who may not look into root's folders, where Python may be."""

import os
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.support.kernel import STRANGER, Network

__all__ = ["PYTHON", "as_user", "processes", "running", "threepipe_as_user"]

_PLACE = "/mnt"
PYTHON = f"{_PLACE}/0/bin/python{sys.version_info[0]}.{sys.version_info[1]}"
"""Python's path for programs of `as_user`."""
_ROOT = Path(__file__).parents[2]
_MARK = f"THREEPIPE_TESTS={os.getpid()}"
"""A variable of the environment by which processes of these tests differ from those of tests that run beside them."""


def threepipe_as_user(network: Network, *arguments: str, user: int = STRANGER, mounts: str = "") -> list[str]:
    """Return the command that runs `threepipe` as that user in `network`, after the shell commands `mounts`."""
    return as_user(network, "-W", "error", "-m", "threepipe", *arguments, user=user, mounts=mounts)


def as_user(network: Network, *arguments: str, user: int = STRANGER, mounts: str = "") -> list[str]:
    """Return the command that runs Python with these arguments as that user, in a mount namespace of its own."""
    folders = [Path(sys.base_prefix), _ROOT, Path(sysconfig.get_path("purelib"))]
    binds = [f"mkdir {_PLACE}/{n}; mount --bind '{each}' {_PLACE}/{n}" for n, each in enumerate(folders)]
    tun = "mount -t tmpfs none /dev/net; mknod -m 0666 /dev/net/tun c 10 200"
    script = "; ".join(["set -e", f"mount -t tmpfs none {_PLACE}", *binds, tun, *([mounts] if mounts else [])])
    path = os.pathsep.join(f"{_PLACE}/{each}" for each in ("1/src", "1", "2"))
    ids = [f"--reuid={user}", f"--regid={user}", "--clear-groups"]
    program = [
        "setpriv",
        *ids,
        "env",
        _MARK,
        f"PYTHONPATH={path}",
        "HOME=/",
        f"LD_LIBRARY_PATH={_PLACE}/0/lib",
        PYTHON,
        *arguments,
    ]
    return network.command("unshare", "--mount", "sh", "-c", f'{script}; exec "$@"', "sh", *program)


def processes() -> list[int]:
    """Return the ids of the processes that `as_user` has started, and of all that those have."""
    found = []
    for each in filter(str.isdecimal, os.listdir("/proc")):
        with suppress(OSError):  # It has just ended.
            if _MARK.encode() in Path(f"/proc/{each}/environ").read_bytes().split(b"\0"):
                found.append(int(each))
    return found


@contextmanager
def running(command: Sequence[str]) -> Iterator["subprocess.Popen[str]"]:
    """Run a command that prints a line `here` once it runs, and kill it at the end of the block."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "here\n"
            yield process
        finally:
            process.kill()
