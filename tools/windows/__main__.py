"""Runs Windows' Python under Wine, with the tests unless told otherwise.

    python tools/windows [arguments of pytest]
    python tools/windows --across [arguments of pytest]
    python tools/windows --python [arguments of Python]
    python tools/windows --native [any of these]

The first runs tests on it, the second those on this system that have programs run on it at the other end. With --native
it has the native core, which it lacks otherwise. Without arguments all of that is run, with the core those tests
that look at what it does. What it takes is set up first, where it is not there yet. Exits with the status of what it
ran, with 1 where setting up failed, and with 77 where something is not to be had here; a last line says so. For want
of the core alone it does not fail, but says so all the same.
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

from native import native_core

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


OF_THE_CORE = [
    f"tests/{room}/test_{name}.py"
    for room, name in (
        ("core", "differential"),
        ("contract", "import"),
        ("core", "sealing"),
        ("contract", "session"),
        ("wireguard", "tunnel"),
        ("windows", "adapter"),
        ("windows", "exchange"),
        ("cli", "doctor"),
    )
]


def main(arguments: list[str]) -> int:
    with_core = arguments[:1] == ["--native"]
    arguments = arguments[with_core:]
    try:
        with (cache := Cache()).locked():
            windows = installed(cache)
            settings = library_settings(cache)
            if with_core:
                windows = windows._replace(native=native_core(cache))
    except CannotSetUp as lack:
        return _lacking(f"NOTHING WAS RUN ON WINDOWS' PYTHON: {lack}", lack)
    if arguments[:1] == ["--python"]:
        return run_python(windows, arguments[1:], settings)
    if arguments[:1] == ["--across"]:
        return run_across(windows, arguments[1:], settings)
    if arguments or with_core:
        return run_portable(windows, arguments, settings)
    if status := run_portable(windows, [], settings) or run_across(windows, [], settings):
        return status
    try:
        with cache.locked():
            windows = windows._replace(native=native_core(cache))
    except CannotSetUp as lack:
        status = _lacking(f"WINDOWS' PYTHON RAN WITHOUT THE NATIVE CORE ALONE: {lack}", lack)
        return 0 if status == NOT_TO_BE_HAD else status
    return run_portable(windows, OF_THE_CORE, settings)


def _lacking(text: str, lack: CannotSetUp) -> int:
    """Say it, as the last line; the status to end with."""
    print(f"\n*** {text}. ***", file=sys.stderr)
    return NOT_TO_BE_HAD if isinstance(lack, NotToBeHad) else 1


def run_portable(windows: Windows, arguments: list[str], settings: Mapping[str, str]) -> int:
    """Run the tests there that need no Linux."""
    return run_python(windows, ["-X", "faulthandler", "-m", "pytest", *PORTABLE, *arguments], settings)


def run_across(windows: Windows, arguments: list[str], settings: Mapping[str, str]) -> int:
    """Run the tests on this system that start programs on the other, which they are told how to do."""
    order = {"command": python_command(windows, []), "environment": environment(windows, settings)}
    command = [sys.executable, "-m", "pytest", *ACROSS, *arguments]
    return subprocess.call(command, cwd=ROOT, env=os.environ | {"THREEPIPE_WINDOWS_PYTHON": json.dumps(order)})


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
