"""The table of what is measured. A new contender is a row here, and a program in `forwarders/`."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import build

__all__ = ["CONTENDERS", "PYTHON_PEERS", "WIREGUARD_PEERS", "Contender"]


@dataclass(frozen=True, slots=True)
class Contender:
    """Something that carries packets between two networks."""

    key: str
    title: str
    prepare: Callable[[Mapping[str, str]], str]
    """Builds it where that is needed; a text says why it cannot be had. Is given `environment`."""
    command: tuple[str, ...] = ()
    """Its forwarder (the harness appends role and networks); none where the kernel joins the networks itself."""
    environment: Mapping[str, str] = field(default_factory=dict)
    uses_netns: bool = False
    """Makes its interfaces in the two networks by itself; the harness moves those of others."""
    statement: str = ""
    """How a program imports it."""
    device: tuple[str, ...] = ()
    """Its WireGuard device, which stays in the foreground (the harness appends the interface's name)."""
    kinds: tuple[str, ...] = ("forwarder",)
    """What it is: the workloads of these kinds are measured with it."""
    cannot: Mapping[str, str] = field(default_factory=dict)
    """Workloads of its kinds that make no sense for it, and why."""


_NOT_PYTHON = {"import": "no Python package", "create": "no Python package"}
_FORWARDS_ONLY = {"look": "only forwards", **_NOT_PYTHON}
_EVERY_KIND = ("forwarder", "pipe", "wireguard")


def _python(module: str) -> tuple[str, ...]:
    return (sys.executable, "-m", f"benchmarks.forwarders.{module}")


def _wireguard(key: str, title: str, prepare: Callable[[Mapping[str, str]], str], *device: str) -> Contender:
    return Contender(key, title, prepare, device=device, kinds=("wireguard",))


# Else they want to become the user who logged in, and end where nobody has.
_AS_ROOT = "--disable-drop-privileges"
_DEVICE = (str(Path(sys.executable).with_name("threepipe-wg")), "-f")

_ROWS = (
    Contender(
        "threepipe-native",
        "threepipe native",
        build.native_core,
        _python("with_threepipe"),
        {"THREEPIPE_PURE": ""},
        uses_netns=True,
        statement="import threepipe",
        device=_DEVICE,
        kinds=_EVERY_KIND,
    ),
    Contender(
        "threepipe-pure",
        "threepipe pure",
        build.python_package("threepipe"),
        _python("with_threepipe"),
        {"THREEPIPE_PURE": "1"},
        uses_netns=True,
        statement="import threepipe",
        device=_DEVICE,
        kinds=_EVERY_KIND,
    ),
    Contender("c-offload", "C loop offload", build.c_loop, (str(build.LOOP), "offload"), cannot=_NOT_PYTHON),
    Contender("c-plain", "C loop plain", build.c_loop, (str(build.LOOP), "plain"), cannot=_FORWARDS_ONLY),
    Contender(
        "python-pytun",
        "python-pytun",
        build.python_package("pytun"),
        _python("with_pytun"),
        statement="from pytun import TunTapDevice",
    ),
    Contender(
        "pytun-pmd3",
        "pytun-pmd3",
        build.python_package("pytun_pmd3"),
        _python("with_pytun_pmd3"),
        statement="from pytun_pmd3 import TunTapDevice",
    ),
    Contender(
        "scapy",
        "scapy",
        build.python_package("scapy"),
        _python("with_scapy"),
        statement="from scapy.layers.tuntap import TunTapInterface",
    ),
    Contender("tun-rs", "tun-rs, in Rust", build.rust_forwarder, (str(build.TUN_RS),), cannot=_FORWARDS_ONLY),
    Contender("veth", "veth, no program", lambda _: "", cannot={"look": "no program", **_NOT_PYTHON}),
    Contender("socat", "socat", lambda _: "", kinds=("pipe",)),
    _wireguard("wireguard-go", "wireguard-go, newest", build.newest_wireguard_go, str(build.WIREGUARD_GO), "-f"),
    _wireguard("wireguard-go-debian", "wireguard-go, Debian's", build.debian_wireguard_go, "wireguard-go", "-f"),
    _wireguard(
        "boringtun",
        "boringtun-cli",
        build.crate("boringtun-cli", build.BORINGTUN),
        str(build.BORINGTUN),
        "-f",
        _AS_ROOT,
    ),
    _wireguard("gotatun", "gotatun", build.crate("gotatun-cli", build.GOTATUN), str(build.GOTATUN), "-f", _AS_ROOT),
)

CONTENDERS = {row.key: row for row in _ROWS}
PYTHON_PEERS = ("python-pytun", "pytun-pmd3", "scapy")
WIREGUARD_PEERS = ("wireguard-go", "wireguard-go-debian", "boringtun", "gotatun")
