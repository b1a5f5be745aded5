"""The start of Windows' Python under Wine: its environment, its paths, and standard streams that it can use."""

import os
import select
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from installation import PREFIX_SETTINGS, Windows

__all__ = ["Hung", "environment", "keep_server", "python_command", "run_python", "windows_path"]

ROOT = Path(__file__).resolve().parent.parent.parent


class Hung(Exception):
    """Windows' Python printed nothing for so long that it was killed; the text says how long."""


def windows_path(path: Path) -> str:
    r"""Return `path` as Windows programs name it: Wine shows the whole file system as drive Z."""
    return "Z:" + str(path.absolute()).replace("/", "\\")


def environment(windows: Windows, more: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment: this process's, with Wine's and Python's variables and `more`."""
    paths = [ROOT / "src", ROOT, windows.packages, *([windows.native] if windows.native else [])]
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))},
        **PREFIX_SETTINGS,
        "WINEPREFIX": str(windows.prefix),
        "PYTHONHOME": windows_path(windows.python),
        "PYTHONPATH": ";".join(map(windows_path, paths)),
        "PYTHONPYCACHEPREFIX": windows_path(windows.packages.with_suffix(".bytecode")),
        "PYTHONUTF8": "1",
        **(more or {}),
    }


def keep_server(windows: Windows) -> None:
    """Start Wine's server so that it stays for a minute without programs.

    The server that a program starts ends with its programs, and resets the connection of one that starts then.
    """
    _tell_server(windows, "--persistent=60")


def _tell_server(windows: Windows, option: str) -> None:
    """Run the program of Wine's server with an option. It exits with 2 if a server runs already, or if none runs."""
    command = [str(windows.wine.with_name("wineserver")), option]
    # It may stay in the background and must not hold this process's output open.
    subprocess.call(command, env=environment(windows), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def python_command(windows: Windows, arguments: Sequence[str]) -> list[str]:
    """Return the command that runs Python with these arguments.

    Start it with `environment`, and with pipes or files as standard streams. The kernel kills it when the thread that
    started it ends.
    """
    return ["setpriv", "--pdeathsig", "KILL", str(windows.wine), str(windows.python / "python.exe"), *arguments]


def run_python(
    windows: Windows, arguments: Sequence[str], more: Mapping[str, str] | None = None, silence: float | None = None
) -> int:
    """Run Python to its end, copy its output to this process's, and return its exit status.

    If it prints nothing for `silence` seconds, kill it with all other programs of this Wine prefix, and raise `Hung`.
    """
    # Pipes each way: Wine does not accept /dev/null as a standard stream.
    with subprocess.Popen(
        python_command(windows, arguments),
        cwd=ROOT,
        env=environment(windows, more),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()
        try:
            _copy_until_ended(process.pid, process.stdout.fileno(), silence)
        except Hung:
            _tell_server(windows, "--kill")
            process.kill()
            raise
        return process.wait()


def _copy_until_ended(pid: int, output: int, silence: float | None) -> None:
    """Copy the output until the process ends: Wine's services keep the pipe open longer."""
    ended = os.pidfd_open(pid)
    try:
        while output in (ready := select.select([output, ended], [], [], silence)[0]) or ended not in ready:
            if not ready:
                raise Hung(f"Windows' Python printed nothing for {silence:g} seconds")
            if not (data := os.read(output, 1 << 16)):
                return
            sys.stdout.buffer.write(data)
            sys.stdout.flush()
    finally:
        os.close(ended)
