"""Install the wheels of dist/ into fresh environments, without compiler and network, and use them there.

    make test-wheels

Each wheel that can run here is installed into a new virtual environment of every CPython from 3.11 on that this machine
has. pip sees a folder with the wheels of the dependencies, and a network namespace without a network; PATH has the
environment's programs alone. tools/installed_wheel.py checks the library, and `threepipe demo` must end with 0. The
wheel for Windows runs under Wine if tools/windows has set it up.

The exit status is 0 if every wheel passed, 77 if some could not be run here (the text says which), and 1 for a failure.
"""

import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DIST = ROOT / "dist"
CHECK = ROOT / "tools" / "installed_wheel.py"
WINDOWS = ROOT / "tools" / "windows"
PASSED, FAILED, NOT_AVAILABLE = 0, 1, 77
PYENV = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
FOLDERS = [*map(Path, os.environ.get("PATH", os.defpath).split(os.pathsep)), *sorted(PYENV.glob("*/bin"))]


def main() -> int:
    wheels = sorted(DIST.glob("*.whl"))
    if not wheels:
        sys.exit("dist/ has no wheels; run: make wheels")
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
        if "win_amd64" in wheel.name:
            status = tried_on_windows(wheel)
            (failed if status == FAILED else missing if status else []).append(f"{wheel.name}: on Windows' Python")
        elif wheel not in suits:
            missing.append(f"{wheel.name}: this machine is of another kind")
    print("", *(f"NOT RUN: {text}" for text in missing), *(f"FAILED: {text}" for text in failed), sep="\n")
    return FAILED if failed else NOT_AVAILABLE if missing else PASSED


def found_python(minor: int) -> str:
    """Return a CPython of that version, or an empty string."""
    probe = f"import sys; sys.exit(sys.implementation.name != 'cpython' or sys.version_info[:2] != (3, {minor}))"
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
    sys.exit(main())
