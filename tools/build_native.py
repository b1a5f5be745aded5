"""Build the native core and install it into this Python's environment, if cargo is new enough.

Without cargo, or with an old one, print why and succeed: threepipe runs in pure Python. A core that fails to build is
an error.
"""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

CRATE = Path(__file__).resolve().parent.parent / "native"


def obstacle() -> str:
    """Return why the core cannot be built on this machine, or an empty string."""
    if not (cargo := shutil.which("cargo")):
        return "cargo is not installed"
    wanted = tomllib.loads((CRATE / "Cargo.toml").read_text())["workspace"]["package"]["rust-version"]
    printed = subprocess.run([cargo, "--version"], capture_output=True, text=True).stdout
    found = re.search(r"\d+\.\d+", printed)
    if not found or version(found[0]) < version(wanted):
        return f"it needs Rust {wanted} or newer, and this is {printed.strip() or 'a cargo that does not run'}"
    return ""


def version(text: str) -> list[int]:
    """Return the first two numbers of a version."""
    return [int(part) for part in text.split(".")[:2]]


def build_settings() -> dict[str, str]:
    """Return an environment in which the locked maturin is found; with build isolation pip would fetch the newest."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    return os.environ | {"PATH": path}


def main() -> None:
    if reason := obstacle():
        print(f"The native core is not built: {reason}. threepipe runs in pure Python.")
        return
    print("Building the native core; the first build takes a minute.", flush=True)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    if subprocess.run([*command, "--no-build-isolation", str(CRATE)], env=build_settings()).returncode:
        sys.exit("The native core did not build. To go on in pure Python, remove cargo from PATH.")


if __name__ == "__main__":
    main()
