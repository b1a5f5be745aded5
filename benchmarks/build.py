"""Prepares the contenders: compiles into `benchmarks/build/`, and finds out which contender is not available.

A function that prepares takes the contender's Python, a command, and returns why the contender is not available, or
an empty string. Run as a program, this module builds the other WireGuard devices, which `make soak` tests with too.
"""

import shutil
import sys
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

from benchmarks.processes import Failed, output

__all__ = [
    "BORINGTUN",
    "GOTATUN",
    "LOOP",
    "TUN_RS",
    "TUN_RS_LOCK",
    "WIREGUARD_GO",
    "Prepare",
    "always_there",
    "c_loop",
    "crate",
    "debian_wireguard_go",
    "newest_wireguard_go",
    "python_package",
    "threepipe",
    "tun_rs",
]

Prepare = Callable[[Sequence[str]], str]

_HERE = Path(__file__).parent
_BUILD = _HERE / "build"
_SOURCE = _HERE / "forwarders" / "loop.c"
_CARGO = _HERE / "tun_rs" / "Cargo.toml"
_BIN = _BUILD / "bin"
"""Programs built from the newest sources of that day; remove this folder to build newer ones."""
_BUILD_SECONDS = 600.0
_CRATE_SECONDS = 1800.0

# The module that chose the core is found by its constant, because checkouts differ in its name.
_DESCRIBE = """
import sys, threepipe.session
print(threepipe.__file__)
print(any(getattr(module, "NATIVE", False) for module in list(sys.modules.values())))
"""

LOOP = _BUILD / "loop"
TUN_RS = _BUILD / "tun_rs" / "release" / "tun_rs_forwarder"
TUN_RS_LOCK = _CARGO.with_name("Cargo.lock")
BORINGTUN = _BIN / "boringtun-cli"
GOTATUN = _BIN / "gotatun"
WIREGUARD_GO = _BIN / "wireguard"


def always_there(_: Sequence[str]) -> str:
    return ""


def c_loop(_: Sequence[str]) -> str:
    return _compile("gcc", "-O2", "-Wall", "-pthread", "-o", str(LOOP), str(_SOURCE))


def tun_rs(_: Sequence[str]) -> str:
    target = str(_BUILD / "tun_rs")
    return _compile(
        "cargo", "build", "--quiet", "--release", "--locked", "--manifest-path", str(_CARGO), "--target-dir", target
    )


def crate(name: str, program: Path) -> Prepare:
    return lambda _: _install(program, "cargo", "install", "--quiet", "--locked", "--root", str(_BUILD), name)


def newest_wireguard_go(_: Sequence[str]) -> str:
    return _install(
        WIREGUARD_GO, "env", f"GOBIN={_BIN}", "go", "install", "golang.zx2c4.com/wireguard@latest", needs="go"
    )


def debian_wireguard_go(_: Sequence[str]) -> str:
    return "" if shutil.which("wireguard-go") else "not installed (Debian: wireguard-go)"


def python_package(module: str) -> Prepare:
    return lambda _: "" if find_spec(module) else "not installed"


def threepipe(*, native: bool, checkout: Path | None = None) -> Prepare:
    """Return a check that a Python has threepipe with that core, from `checkout` if one is given."""

    def check(python: Sequence[str]) -> str:
        try:
            file, core = output([*python, "-c", _DESCRIBE], _BUILD_SECONDS).split("\n")[:2]
        except Failed as failure:
            return f"threepipe is not installed: {failure}"
        if checkout and not Path(file).is_relative_to(checkout):
            return f"{checkout}/.venv imports {file}; make a .venv there by: make .venv/native"
        return "" if core == str(native) else "the native core is not installed"

    return check


def _install(program: Path, *command: str, needs: str = "") -> str:
    """Run the command unless `program` exists already."""
    return "" if program.exists() else _compile(*command, needs=needs, seconds=_CRATE_SECONDS)


def _compile(tool: str, *arguments: str, needs: str = "", seconds: float = _BUILD_SECONDS) -> str:
    if shutil.which(needs or tool) is None:
        return f"needs {needs or tool}"
    _BUILD.mkdir(exist_ok=True)
    try:
        output([tool, *arguments], seconds)
    except Failed as error:
        return f"does not build: {error}"
    return ""


if __name__ == "__main__":
    wireguard = (newest_wireguard_go, crate("boringtun-cli", BORINGTUN), crate("gotatun-cli", GOTATUN))
    for reason in filter(None, (prepare(()) for prepare in wireguard)):
        print(reason, file=sys.stderr)  # noqa: T201
