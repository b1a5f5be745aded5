"""The build of the native core for Windows, by cargo, mingw-w64's linker and Rust's standard library for Windows.

If this Rust lacks that library, rustup fetches it. Python's import library is not needed.
"""

import shutil
from pathlib import Path

from cache import Cache, NotAvailable, run
from wine import ROOT

__all__ = ["native_core"]

TARGET = "x86_64-pc-windows-gnu"
CRATE = ROOT / "native"
SOURCES = ("*.toml", "Cargo.lock", "build.rs", "src/**/*.rs", "core/*.toml", "core/src/**/*.rs")

# Messages of a cargo that cannot fetch a crate or is too old.
NO_CRATE = r"[Ff]ailed to (fetch|download|get)|Could(n't| not) resolve|requires rustc|lock file version"
ANY_FAILURE = "."

# A wheel has the core in the folder of the package, which is that of the sources here.
FINDER = """\
import importlib.util, os, sys

class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == "threepipe._native":
            file = os.path.join(os.path.dirname(__file__), "_native.pyd")
            return importlib.util.spec_from_file_location(name, file)

sys.meta_path.append(Finder)
"""


def native_core(cache: Cache) -> Path:
    """Return the folder of the core, built if necessary. Raises `SetupFailed` or its subclass `NotAvailable`."""
    files = [path for pattern in SOURCES for path in sorted(CRATE.glob(pattern))]
    sources = [path.read_text() for path in (*files, ROOT / "src" / "threepipe" / "_version.py")]
    return cache.part("native", "".join([*sources, FINDER]), lambda folder: _build(folder, cache.folder / "cargo"))


def _build(folder: Path, made: Path) -> None:
    if not (cargo := shutil.which("cargo")):
        raise NotAvailable("the native core needs cargo, which is not installed")
    _install_target()
    command = [cargo, "build", "--quiet", "--release", "--locked", "--target", TARGET]
    command += ["--package", "threepipe-native", "--manifest-path", str(CRATE / "Cargo.toml")]
    run(command, "building the native core for Windows", NO_CRATE, CARGO_TARGET_DIR=str(made))
    shutil.copyfile(made / TARGET / "release" / "threepipe_native.dll", folder / "_native.pyd")
    (folder / "sitecustomize.py").write_text(FINDER)


def _install_target() -> None:
    """Fetch Rust's standard library for Windows, if this Rust lacks it."""
    libraries = run(["rustc", "--print", "target-libdir", "--target", TARGET], "asking rustc for its libraries")
    if Path(libraries.strip()).is_dir():
        return
    if not shutil.which("rustup"):
        raise NotAvailable(f"this Rust has no standard library for {TARGET}; install rustup to fetch it")
    run(["rustup", "target", "add", TARGET], f"rustup target add {TARGET}", ANY_FAILURE)
