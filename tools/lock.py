"""Renew locks/: the newest version of every package that make installs, with the hashes of its files.

    make lock

There is a file for the project's own dependencies, with all extras, and one for each dependency group of
pyproject.toml. One resolution serves them all, as make installs them into one environment. Each file is for every
Python and system that the project supports, except two for Windows' Python. If a version cannot be had, nothing is
changed.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCKS = ROOT / "locks"
PROJECT = ["pyproject.toml", "--all-extras"]
EVERYWHERE = ["--universal", "--python-version", "3.11"]
ON_WINDOWS = ["--python-platform", "x86_64-pc-windows-msvc", "--python-version", "3.12"]  # As in tools/windows.
KINDS = {"windows": [*PROJECT, *ON_WINDOWS], "peer": ON_WINDOWS}
"""The groups for Windows' Python; `windows` has the project's own dependencies too."""


def compile_lock(target: Path, *arguments: str) -> None:
    """Write the lock file `target`."""
    command = [
        str(Path(sys.executable).with_name("uv")),
        "pip",
        "compile",
        "--quiet",
        "--no-annotate",
        "--generate-hashes",
    ]
    settings = os.environ | {"UV_CUSTOM_COMPILE_COMMAND": "make lock"}  # The command that the file names as its source.
    subprocess.run([*command, "--output-file", target, *arguments], cwd=ROOT, env=settings, check=True)


def main() -> None:
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        everything = folder / "everything"
        compile_lock(everything, *PROJECT, *EVERYWHERE, *(f"--group={group}" for group in groups))
        same = ["--constraint", str(everything)]
        compile_lock(folder / "run.txt", *PROJECT, *EVERYWHERE, *same)
        for group in groups:
            compile_lock(folder / f"{group}.txt", *KINDS.get(group, EVERYWHERE), *same, f"--group={group}")
        shutil.rmtree(LOCKS, ignore_errors=True)
        LOCKS.mkdir()
        for lock in folder.glob("*.txt"):
            shutil.copyfile(lock, LOCKS / lock.name)


if __name__ == "__main__":
    main()
