"""Build the native core into src/threepipe, where an editable installation finds it, if cargo is new enough.

Without cargo, or with an old one, print why and succeed: threepipe runs in pure Python. A core that fails to build is
an error.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
CRATE = ROOT / "native"
FILE_NAME = "_native.pyd" if sys.platform == "win32" else "_native.abi3.so"
"""The name under which Python finds an extension module of the stable ABI."""


def obstacle() -> str:
    """Return why the core cannot be built on this machine for this Python, or an empty string."""
    if sys.implementation.name != "cpython" or sysconfig.get_config_var("Py_GIL_DISABLED"):
        return "it needs CPython with its global interpreter lock"
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


def artifacts(command: Sequence[str] = ("cargo", "build"), *options: str, **flags: str) -> list[dict[str, Any]]:
    """Compile the core and return what cargo tells of each crate: `package_id`, `manifest_path` and `filenames`.

    `flags` are variables of the environment. Raises `CalledProcessError`; cargo has printed why.
    """
    options = ("--quiet", "--release", "--locked", "--config", "profile.release.strip=true", *options)
    crate = ["--package", "threepipe-native", "--manifest-path", str(CRATE / "Cargo.toml")]
    # The stable ABI is the same for every Python: PyO3 need not ask one, nor link with it.
    settings = os.environ | {"PYO3_BUILD_EXTENSION_MODULE": "1", "PYO3_NO_PYTHON": "1"} | flags
    done = subprocess.run(
        [*command, *options, *crate, "--message-format=json-render-diagnostics"],
        env=settings,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    messages = map(json.loads, done.stdout.splitlines())
    return [message for message in messages if message["reason"] == "compiler-artifact"]


def library(compiled: Iterable[dict[str, Any]]) -> Path:
    """Return the core's file among those artifacts."""
    files = [file for artifact in compiled for file in artifact["filenames"] if "threepipe_native" in file]
    return next(Path(file) for file in files if file.endswith((".so", ".dylib", ".dll")))


def install(core: Path) -> None:
    """Put the core into src/threepipe. Processes that use an older one go on with it."""
    target = ROOT / "src" / "threepipe" / FILE_NAME
    unfinished = target.with_suffix(f".{os.getpid()}")
    shutil.copyfile(core, unfinished)
    unfinished.replace(target)


def main() -> None:
    if reason := obstacle():
        (ROOT / "src" / "threepipe" / FILE_NAME).unlink(missing_ok=True)  # It may be older than these sources.
        print(f"The native core is not built: {reason}. threepipe runs in pure Python.")
        return
    print("Building the native core; the first build takes a minute.", flush=True)
    try:
        install(library(artifacts()))
    except subprocess.CalledProcessError:
        sys.exit("The native core did not build. To go on in pure Python, remove cargo from PATH.")


if __name__ == "__main__":
    main()
