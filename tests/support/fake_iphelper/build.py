"""The builder of the fake IP Helper: a DLL for Windows or a shared library for Linux, from the same sources.

Run as a program, it builds one and prints its path: `python tests/support/fake_iphelper/build.py windows FOLDER`.
"""

import shutil
import subprocess
import sys
from pathlib import Path

__all__ = ["COMPILERS", "build", "compiler"]

COMPILERS = {"linux": ("gcc", "libfake_iphelper.so"), "windows": ("x86_64-w64-mingw32-gcc", "fake_iphelper.dll")}
"""The compiler and the file name of each target."""

_OPTIONS = ["-std=c11", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
_HERE = Path(__file__).resolve().parent


def compiler(target: str) -> str | None:
    """Return the path of the compiler for `target`, or None if it is not installed."""
    return shutil.which(COMPILERS[target][0])


def build(target: str, folder: Path) -> Path:
    """Build the library for `target` into `folder`. Raises RuntimeError with the output of the compiler."""
    name, file = COMPILERS[target]
    static = ["-static-libgcc"] if target == "windows" else []
    command = [name, *_OPTIONS, *static, *map(str, sorted(_HERE.glob("*.c"))), "-o", str(folder / file)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise RuntimeError(f"the fake IP Helper was not built for {target}:\n{done.stdout}")
    return folder / file


if __name__ == "__main__":
    print(build(sys.argv[1], Path(sys.argv[2])))  # noqa: T201
