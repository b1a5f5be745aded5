"""Runs Windows' Python under Wine, with pytest on the tests unless told otherwise.

    python tools/windows [arguments of pytest]
    python tools/windows --python [arguments of Python]

What it takes is set up first, where it is not there yet. Exits with the status of what it ran, and with 0
and a line that cannot be overlooked where it cannot be set up.
"""

import sys

from cache import Cache, CannotSetUp
from installation import installed
from libraries import library_settings
from wine import run_python

PORTABLE = ["-m", "not soak and not kernel", "--ignore-glob=*test_linux_*", "-p", "no:cacheprovider", "-n", "2"]
"""Every test that needs no Linux, in two processes; a test that kills its own takes no others along.

The cache of pytest belongs to the other Python.
"""


def main(arguments: list[str]) -> int:
    try:
        with (cache := Cache()).locked():
            windows = installed(cache)
            settings = library_settings(cache)
    except CannotSetUp as lack:
        print(f"\n*** NOTHING WAS RUN ON WINDOWS' PYTHON: {lack}. ***\n", file=sys.stderr)
        return 0
    if arguments[:1] == ["--python"]:
        return run_python(windows, arguments[1:], settings)
    return run_python(windows, ["-X", "faulthandler", "-m", "pytest", *PORTABLE, *arguments], settings)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
