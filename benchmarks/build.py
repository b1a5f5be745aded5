"""Makes the contenders ready: compiles what is compiled, into `benchmarks/build/`, and finds what is missing.

Each function says why its contender cannot be had, or nothing. Run by itself, it builds others' WireGuard devices,
which tests are made with too.
"""

import shutil
import sys
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path

from benchmarks.network import Failed, output

__all__ = [
    "BORINGTUN",
    "GOTATUN",
    "LOOP",
    "TUN_RS",
    "TUN_RS_LOCK",
    "WIREGUARD_GO",
    "c_loop",
    "crate",
    "debian_wireguard_go",
    "native_core",
    "newest_wireguard_go",
    "python_package",
    "rust_forwarder",
]

_HERE = Path(__file__).parent
_BUILD = _HERE / "build"
_SOURCE = _HERE / "forwarders" / "loop.c"
_CARGO = _HERE / "tun_rs" / "Cargo.toml"
_BIN = _BUILD / "bin"
"""Programs that were built from others' sources as they were then; to have newer ones, remove it."""
_BUILD_SECONDS = 600.0
_CRATE_SECONDS = 1800.0
_ASK = """
try:
    from threepipe.core import fast
except ImportError:
    print(False)
else:
    print(fast.NATIVE)
"""

LOOP = _BUILD / "loop"
TUN_RS = _BUILD / "tun_rs" / "release" / "tun_rs_forwarder"
TUN_RS_LOCK = _CARGO.with_name("Cargo.lock")
BORINGTUN = _BIN / "boringtun-cli"
GOTATUN = _BIN / "gotatun"
WIREGUARD_GO = _BIN / "wireguard"


def c_loop(_: Mapping[str, str]) -> str:
    return _compiled("gcc", "-O2", "-Wall", "-pthread", "-o", str(LOOP), str(_SOURCE))


def rust_forwarder(_: Mapping[str, str]) -> str:
    target = str(_BUILD / "tun_rs")
    return _compiled(
        "cargo", "build", "--quiet", "--release", "--locked", "--manifest-path", str(_CARGO), "--target-dir", target
    )


def crate(name: str, program: Path) -> Callable[[Mapping[str, str]], str]:
    return lambda _: _installed(program, "cargo", "install", "--quiet", "--locked", "--root", str(_BUILD), name)


def newest_wireguard_go(_: Mapping[str, str]) -> str:
    return _installed(
        WIREGUARD_GO, "env", f"GOBIN={_BIN}", "go", "install", "golang.zx2c4.com/wireguard@latest", needs="go"
    )


def debian_wireguard_go(_: Mapping[str, str]) -> str:
    return "" if shutil.which("wireguard-go") else "not installed (Debian: wireguard-go)"


def python_package(module: str) -> Callable[[Mapping[str, str]], str]:
    return lambda _: "" if find_spec(module) else "not installed"


def native_core(environment: Mapping[str, str]) -> str:
    """Asked in a process of its own, for the choice is made once, when threepipe is imported."""
    command = ["env", *(f"{name}={value}" for name, value in environment.items()), sys.executable, "-c", _ASK]
    return "" if output(command, _BUILD_SECONDS).strip() == "True" else "not installed"


def _installed(program: Path, *command: str, needs: str = "") -> str:
    """Nothing is done where the program is there already."""
    return "" if program.exists() else _compiled(*command, needs=needs, seconds=_CRATE_SECONDS)


def _compiled(tool: str, *arguments: str, needs: str = "", seconds: float = _BUILD_SECONDS) -> str:
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
    for reason in filter(None, (prepare({}) for prepare in wireguard)):
        print(reason, file=sys.stderr)  # noqa: T201
