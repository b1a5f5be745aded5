"""The builder of the contract library: a DLL for Windows, a shared library for Linux, or one with AddressSanitizer.

Owns the compilers' command lines and the cache; knows nothing of the library's work. Run as a program, it
builds one and prints its path: `python tests/support/contract_dll/build.py windows FOLDER`.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Literal, NamedTuple

__all__ = ["TARGETS", "Target", "build", "compiler", "sanitizer"]

Target = Literal["linux", "linux-asan", "windows"]


class Toolchain(NamedTuple):
    """The compiler, options and file name of a target."""

    compiler: str
    options: tuple[str, ...]
    file: str
    portable: str
    libraries: tuple[str, ...] = ()


_HERE = Path(__file__).resolve().parent
_COMMON = ("-std=c17", "-O2", "-g", "-Wall", "-Wextra", "-Werror", "-shared", "-fvisibility=hidden")
_LINUX = ("-D_GNU_SOURCE", "-fPIC", "-pthread")
_SANITIZE = ("-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-fno-omit-frame-pointer")

TARGETS: dict[Target, Toolchain] = {
    "linux": Toolchain("gcc", _LINUX, "libcontract.so", "portable_linux.c"),
    "linux-asan": Toolchain("gcc", (*_LINUX, *_SANITIZE), "libcontract.so", "portable_linux.c"),
    "windows": Toolchain(
        "x86_64-w64-mingw32-gcc",
        ("-static-libgcc",),
        "contract.dll",
        "portable_windows.c",
        ("-lws2_32", "-ladvapi32"),
    ),
}


def compiler(target: Target) -> str | None:
    """Return the path of the compiler for `target`, or None if it is not installed."""
    return shutil.which(TARGETS[target].compiler)


def sanitizer() -> Path | None:
    """Return the library for LD_PRELOAD of a program, such as Python, that loads the library of `linux-asan`.

    Return None without a gcc that has AddressSanitizer.
    """
    if not compiler("linux-asan"):
        return None
    path = Path(subprocess.check_output(["gcc", "-print-file-name=libasan.so"], text=True).strip())
    return path if path.is_absolute() else None


def build(target: Target, folder: Path) -> Path:
    """Return the library for `target` in a folder of its own below `folder`; build it if its sources have changed.

    Raises RuntimeError with the output of the compiler.
    """
    toolchain = TARGETS[target]
    sources = [path for path in sorted(_HERE.glob("*.c")) if not path.name.startswith("portable_")]
    sources.append(_HERE / toolchain.portable)
    output = folder / f"{target}-{_fingerprint(toolchain, sources)}" / toolchain.file
    if output.exists():
        return output
    output.parent.mkdir(parents=True, exist_ok=True)
    unfinished = output.with_suffix(f".{os.getpid()}")  # Renamed when complete: another process may build the same.
    command: list[str | Path] = [
        toolchain.compiler,
        *_COMMON,
        *toolchain.options,
        "-o",
        unfinished,
        *sources,
        *toolchain.libraries,
    ]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise RuntimeError(f"the contract library was not built for {target}:\n{done.stdout}")
    unfinished.replace(output)
    return output


def _fingerprint(toolchain: Toolchain, sources: list[Path]) -> str:
    version = subprocess.check_output([toolchain.compiler, "--version"])
    digest = hashlib.sha256(repr(toolchain).encode() + repr(_COMMON).encode() + version)
    for path in [*sorted(_HERE.glob("*.h")), *sources]:
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:16]


if __name__ == "__main__":
    wanted = [target for target in TARGETS if target == sys.argv[1]]
    print(build(wanted[0], Path(sys.argv[2])))  # noqa: T201
