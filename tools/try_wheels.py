"""Install the wheels of dist/ into fresh environments, without compiler and network, and use them there.

    make test-wheels
    python tools/try_wheels.py aarch64 none-any    (only wheels with one of these in their names)

Each wheel that can run here is installed into a new virtual environment of every CPython from 3.11 on that this machine
has. pip sees a folder with the wheels of the dependencies, and a network namespace without a network; PATH has the
environment's programs alone. tools/installed_wheel.py checks the library, and `threepipe demo` must end with 0. The
wheel for aarch64 is used in the same way by an emulated Python. That for Windows runs under Wine if tools/windows has
set it up.

The exit status is 0 if every wheel passed, 77 if some could not be run here (the text says which), and 1 for a failure.
"""

import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

from emulated import NotAvailable, emulated_python

ROOT = Path(__file__).resolve().parent.parent
DIST = ROOT / "dist"
CHECK = ROOT / "tools" / "installed_wheel.py"
WINDOWS = ROOT / "tools" / "windows"
LACKS = {"musllinux": "a system with musl, such as Alpine", "macosx": "a Mac"}
"""Wheels, by a part of their names -> what they need; .github/workflows/wheels.yml has it."""
PASSED, FAILED, NOT_AVAILABLE = 0, 1, 77
PYENV = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
FOLDERS = [*map(Path, os.environ.get("PATH", os.defpath).split(os.pathsep)), *sorted(PYENV.glob("*/bin"))]


def main(names: Sequence[str]) -> int:
    wheels = [path for path in sorted(DIST.glob("*.whl")) if any(name in path.name for name in names or [""])]
    if not wheels:
        sys.exit("dist/ has no such wheels; run: make wheels")
    if os.geteuid():
        print("NOT RUN: a network namespace without a network needs root")
        return NOT_AVAILABLE
    missing: list[str] = []
    failed: list[str] = []
    for minor in range(11, 15):
        if python := found_python(minor):
            failed += [text for wheel, core in suited(wheels) if (text := tried(python, wheel, core))]
        else:
            missing.append(f"CPython 3.{minor} is not installed")
    suits = {wheel for wheel, _ in suited(wheels)}
    for wheel in wheels:
        if wheel in suits:
            continue
        if "manylinux2014_aarch64" in wheel.name:
            try:
                failed += filter(None, [tried_emulated(wheel)])
            except NotAvailable as reason:
                missing.append(f"{wheel.name}: {reason}")
        elif "win_amd64" in wheel.name:
            status = tried_on_windows(wheel)
            (failed if status == FAILED else missing if status else []).append(f"{wheel.name}: on Windows' Python")
        else:
            lack = next((LACKS[kind] for kind in LACKS if kind in wheel.name), "a machine of another kind")
            missing.append(f"{wheel.name}: it needs {lack}")
    print("", *(f"NOT RUN: {text}" for text in missing), *(f"FAILED: {text}" for text in failed), sep="\n")
    return FAILED if failed else NOT_AVAILABLE if missing else PASSED


def found_python(minor: int) -> str:
    """Return a CPython of that version with a global interpreter lock, or an empty string."""
    probe = (
        "import sys, sysconfig; sys.exit(sys.implementation.name != 'cpython'"
        f" or sys.version_info[:2] != (3, {minor}) or bool(sysconfig.get_config_var('Py_GIL_DISABLED')))"
    )
    for folder in FOLDERS:
        for path in (folder / f"python3.{minor}", folder / "python3"):
            if path.exists() and not subprocess.run([path, "-c", probe], stderr=subprocess.DEVNULL).returncode:
                return str(path)
    return ""


def suited(wheels: Sequence[Path]) -> list[tuple[Path, str]]:
    """Return the wheels that this machine's Python accepts, and the core that each has."""
    machine = f"manylinux2014_{os.uname().machine}.whl"
    cores = {machine: "native", "none-any.whl": "pure"}
    return [(wheel, core) for wheel in wheels for end, core in cores.items() if wheel.name.endswith(end)]


def tried(python: str, wheel: Path, core: str) -> str:
    """Install and use a wheel in a new environment. Return the failed step, or an empty string."""
    with tempfile.TemporaryDirectory() as name:
        house, home = Path(name, "house"), Path(name, "home")
        pip = [str(home / "bin" / "python"), "-m", "pip", "--disable-pip-version-check"]
        locked = ["--require-hashes", "--only-binary=:all:", "--requirement", str(ROOT / "locks" / "run.txt")]
        for command in (
            [python, "-m", "venv", str(home)],
            [*pip, "download", "--quiet", "--dest", str(house), *locked],
        ):
            subprocess.run(command, check=True)
        settings = {"PATH": str(home / "bin"), "HOME": name}
        alone = ["/usr/bin/unshare", "--net"]
        for command in (
            [*pip, "install", "--quiet", "--no-index", "--find-links", str(house), f"{wheel}[all]"],
            [str(home / "bin" / "python"), str(CHECK), core],
            [str(home / "bin" / "threepipe"), "demo", "--size", "16M"],
        ):
            done = subprocess.run([*alone, *command], env=settings, cwd=name, capture_output=True, text=True)
            if done.returncode:
                print(done.stdout, done.stderr)
                return f"{wheel.name}: {' '.join(command)}"
            if str(CHECK) in command:
                print(f"{wheel.name}: {done.stdout}", end="", flush=True)
    return ""


def tried_emulated(wheel: Path) -> str:
    """Use a wheel for aarch64 as `tried` does, in an emulated Python. Raises `NotAvailable`."""
    with tempfile.TemporaryDirectory() as name:
        return tried(emulated_python(Path(name)), wheel, "native")


def tried_on_windows(wheel: Path) -> int:
    """Use a wheel on Windows' Python under Wine. Return PASSED, FAILED or NOT_AVAILABLE."""
    with tempfile.TemporaryDirectory() as name:
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(name)
        # The sources of this checkout come first in Windows' Python's path, so the folder is put before them.
        program = f"import sys, runpy; sys.path.insert(0, r'Z:{name}'); sys.argv = ['check', 'native']"
        program += f"; runpy.run_path(r'Z:{CHECK}', run_name='__main__')"
        return subprocess.run([sys.executable, str(WINDOWS), "--python", "-c", program]).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
