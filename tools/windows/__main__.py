"""Runs Windows' Python under Wine, with the tests unless told otherwise.

    python tools/windows [arguments of pytest]
    python tools/windows --across [arguments of pytest]
    python tools/windows --python [arguments of Python]

The first runs tests on it, the second those on this system that have programs run on it at the other end; without
arguments both are run. What it takes is set up first, where it is not there yet. Exits with the status of what it
ran, with 1 where setting up failed, and with 77 where something is not to be had here; a last line says so.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping

from cache import Cache, CannotSetUp, NotToBeHad
from installation import Windows, installed
from libraries import library_settings
from wine import ROOT, environment, python_command, run_python

NOT_TO_BE_HAD = 77  # As other tools say it who have not run a test.

PORTABLE = [
    "-m",
    "not soak and not kernel and not wine",
    "-p",
    "no:cacheprovider",
    "-n",
    str(max(2, os.cpu_count() or 1)),
]
"""Every test that needs no Linux, in two processes at least; a test that kills its own takes no others along.

The cache of pytest belongs to the other Python.
"""

ACROSS = ["-m", "wine"]


def main(arguments: list[str]) -> int:
    try:
        with (cache := Cache()).locked():
            windows = installed(cache)
            settings = library_settings(cache)
    except CannotSetUp as lack:
        print(f"\n*** NOTHING WAS RUN ON WINDOWS' PYTHON: {lack}. ***", file=sys.stderr)
        return NOT_TO_BE_HAD if isinstance(lack, NotToBeHad) else 1
    if arguments[:1] == ["--python"]:
        return run_python(windows, arguments[1:], settings)
    if arguments[:1] == ["--across"]:
        return run_across(windows, arguments[1:], settings)
    status = run_python(windows, ["-X", "faulthandler", "-m", "pytest", *PORTABLE, *arguments], settings)
    return status or (0 if arguments else run_across(windows, [], settings))


def run_across(windows: Windows, arguments: list[str], settings: Mapping[str, str]) -> int:
    """Run the tests on this system that start programs on the other, which they are told how to do."""
    order = {"command": python_command(windows, []), "environment": environment(windows, settings)}
    command = [sys.executable, "-m", "pytest", *ACROSS, *arguments]
    return subprocess.call(command, cwd=ROOT, env=os.environ | {"THREEPIPE_WINDOWS_PYTHON": json.dumps(order)})


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
