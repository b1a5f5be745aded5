"""Builds the native core for Windows, by cargo, mingw-w64's linker and the Windows half of Rust's standard library.

The last comes from rustup, where this Rust does not have it. Python's own import library is not needed.
"""

import shutil
from pathlib import Path

from cache import Cache, NotToBeHad, run
from wine import ROOT

__all__ = ["native_core"]

TARGET = "x86_64-pc-windows-gnu"
CRATE = ROOT / "native"
SOURCES = ("*.toml", "Cargo.lock", "src/*.rs", "core/*.toml", "core/src/*.rs")

# What cargo says that has asked the network in vain, or is too old.
NO_CRATE = r"[Ff]ailed to (fetch|download|get)|Could(n't| not) resolve|requires rustc|lock file version"
WHATEVER = "."


def native_core(cache: Cache) -> Path:
    """The folder to import it from, built if it is not yet. Raises `CannotSetUp`, or `NotToBeHad` of it."""
    sources = [path.read_text() for pattern in SOURCES for path in sorted(CRATE.glob(pattern))]
    return cache.part("native", "".join(sources), lambda folder: _build(folder, cache.folder / "cargo"))


def _build(folder: Path, made: Path) -> None:
    if not (cargo := shutil.which("cargo")):
        raise NotToBeHad("there is no cargo to build the native core with")
    _have_target()
    command = [cargo, "build", "--quiet", "--release", "--locked", "--target", TARGET]
    command += ["--package", "threepipe-native", "--manifest-path", str(CRATE / "Cargo.toml")]
    run(command, "building the native core for Windows", NO_CRATE, CARGO_TARGET_DIR=str(made))
    library = made / TARGET / "release" / "threepipe_native.dll"
    shutil.copyfile(library, folder / "threepipe_native.pyd")


def _have_target() -> None:
    """See that Rust's standard library for Windows is there."""
    libraries = run(["rustc", "--print", "target-libdir", "--target", TARGET], "asking rustc for its libraries")
    if Path(libraries.strip()).is_dir():
        return
    if not shutil.which("rustup"):
        raise NotToBeHad(f"this Rust has no standard library for {TARGET}, and there is no rustup to get it")
    run(["rustup", "target", "add", TARGET], f"rustup target add {TARGET}", WHATEVER)
