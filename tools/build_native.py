"""Builds the native core and installs it into the environment this runs in, where there is a Rust for it.

Without cargo, or with one that is too old, it says so and all goes on in pure Python; a core that does
not build is an error.
"""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

CRATE = Path(__file__).resolve().parent.parent / "native"


def lack() -> str:
    """Why the core cannot be built here, or nothing."""
    if not (cargo := shutil.which("cargo")):
        return "there is no cargo"
    wanted = tomllib.loads((CRATE / "Cargo.toml").read_text())["workspace"]["package"]["rust-version"]
    told = subprocess.run([cargo, "--version"], capture_output=True, text=True).stdout
    found = re.search(r"\d+\.\d+", told)
    if not found or numbers(found[0]) < numbers(wanted):
        return f"it takes Rust {wanted} or newer, and {told.strip() or 'cargo does not run'}"
    return ""


def numbers(version: str) -> list[int]:
    return [int(part) for part in version.split(".")[:2]]


def main() -> None:
    if reason := lack():
        print(f"The native core is not built, for {reason}: going on in pure Python.")
        return
    print("Building the native core; once, this takes a minute.", flush=True)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", str(CRATE)]
    if subprocess.run(command).returncode:
        sys.exit(
            "The native core did not build; THREEPIPE_PURE=1 does not help with that, removing cargo from PATH does."
        )


if __name__ == "__main__":
    main()
