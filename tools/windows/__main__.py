"""Run Windows' Python under Wine; without options, run the tests with it.

    python tools/windows [arguments of pytest]
    python tools/windows --across [arguments of pytest]
    python tools/windows --python [arguments of Python]
    python tools/windows --native [any of these]

The first form runs tests on Windows' Python. The second runs tests on this system whose other end is a program on
Windows' Python. With --native, that Python has the native core. Without arguments everything runs: all tests without
the core, then the tests of the core with it.

The first run sets everything up. The exit status is that of the tests or of Python; 1 if the setup failed; 77 if
something is not available on this machine. A last line says so. If only the core is not available, the last line says
that and the status is 0.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping

from cache import Cache, NotAvailable, SetupFailed
from installation import Windows, installed
from libraries import library_settings
from wine import ROOT, Hung, environment, keep_server, python_command, run_python

from native import native_core

NOT_AVAILABLE = 77  # The usual status of a tool that ran no test.
HUNG = 124  # The status of timeout(1).

SILENCE = 300.0
"""Seconds without output after which tests under Wine are taken to hang. A test has a minute, and prints at its end."""

PORTABLE = [
    "-m",
    "not soak and not kernel and not wine",
    "-p",
    "no:cacheprovider",
    "-n",
    str(max(2, os.cpu_count() or 1)),
    "-o",
    "faulthandler_timeout=100",
]
"""Options for every test that needs no Linux, in at least two processes: a test that kills its own spares the others.

Pytest's cache is off, because it belongs to this system's Python. The stacks of a test that outlives its minute are
printed without the help of Python's lock, which it may hold.
"""

ACROSS = ["-m", "wine"]

CORE_TESTS = [
    f"tests/{name}"
    for name in (
        "core/differential",
        "contract/test_import.py",
        "core/test_sealing.py",
        "contract/session",
        "wireguard/test_tunnel.py",
        "windows/adapter",
        "windows/test_rings.py",
        "cli/test_doctor.py",
    )
]


def main(arguments: list[str]) -> int:
    with_core = arguments[:1] == ["--native"]
    arguments = arguments[with_core:]
    try:
        with (cache := Cache()).locked():
            windows = installed(cache)
            keep_server(windows)
            settings = library_settings(cache)
            if with_core:
                windows = windows._replace(native=native_core(cache))
    except SetupFailed as failure:
        return _print_failure(f"NOTHING WAS RUN ON WINDOWS' PYTHON: {failure}", failure)
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
    except SetupFailed as failure:
        status = _print_failure(f"WINDOWS' PYTHON RAN, BUT WITHOUT THE NATIVE CORE: {failure}", failure)
        return 0 if status == NOT_AVAILABLE else status
    return run_portable(windows, CORE_TESTS, settings)


def _print_failure(text: str, failure: SetupFailed) -> int:
    """Print the last line and return the exit status."""
    print(f"\n*** {text}. ***", file=sys.stderr)
    return NOT_AVAILABLE if isinstance(failure, NotAvailable) else 1


def run_portable(windows: Windows, arguments: list[str], settings: Mapping[str, str], silence: float = SILENCE) -> int:
    """Run the tests that need no Linux on Windows' Python. The status is 124 if they hang."""
    try:
        return run_python(windows, ["-X", "faulthandler", "-m", "pytest", *PORTABLE, *arguments], settings, silence)
    except Hung as hang:
        print(f"\n*** {hang} and was killed. ***", file=sys.stderr)
        return HUNG


def run_across(windows: Windows, arguments: list[str], settings: Mapping[str, str]) -> int:
    """Run the tests on this system that start programs on Windows' Python, by the command in a variable."""
    starter = {"command": python_command(windows, []), "environment": environment(windows, settings)}
    command = [sys.executable, "-m", "pytest", *ACROSS, *arguments]
    return subprocess.call(command, cwd=ROOT, env=os.environ | {"THREEPIPE_WINDOWS_PYTHON": json.dumps(starter)})


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
