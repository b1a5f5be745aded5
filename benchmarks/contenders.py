"""The table of contenders. A new contender is a row here, and a program in `forwarders/`."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import build
from benchmarks.processes import Failed, output

__all__ = ["CONTENDERS", "PYTHON_PEERS", "WIREGUARD_PEERS", "Contender", "counterpart", "described"]


@dataclass(frozen=True, slots=True)
class Contender:
    """A program, or the kernel, that carries packets between two networks."""

    key: str
    title: str
    prepare: build.Prepare
    """Builds the contender if necessary; is given `python` and returns why it is not available, or an empty string."""
    command: tuple[str, ...] = ()
    """The forwarder, to which the harness appends role and networks; empty if the kernel joins the networks itself."""
    python: tuple[str, ...] = (sys.executable,)
    """The command that starts this contender's Python."""
    uses_netns: bool = False
    """True if the forwarder makes its interfaces in the two networks; the harness moves those of the others."""
    statement: str = ""
    """The statement by which a program imports it."""
    device: tuple[str, ...] = ()
    """Its WireGuard device in the foreground, to which the harness appends the interface's name."""
    kinds: tuple[str, ...] = ("forwarder",)
    """The kinds of workload that measure it."""
    excluded: Mapping[str, str] = field(default_factory=dict)
    """Workloads of its kinds that make no sense for it, each with the reason."""


_NOT_PYTHON = {"import": "no Python package", "create": "no Python package"}
_FORWARDS_ONLY = {"look": "only forwards", **_NOT_PYTHON}
_PACKETS = ("forwarder", "answer")
_OTHER_CHECKOUT = "@"
"""Separates a contender's key from the commit of another checkout."""


def _threepipe(core: str, python: Path, *settings: str, checkout: Path | None = None, commit: str = "") -> Contender:
    """Return threepipe as that Python has it; `settings` are options and variables for env(1)."""
    native = core == "native"
    command = ("env", *settings, f"THREEPIPE_PURE={'' if native else '1'}")
    return Contender(
        f"threepipe-{core}{_OTHER_CHECKOUT + commit if commit else ''}",
        f"{commit or 'threepipe'} {core}",
        build.threepipe(native=native, checkout=checkout),
        command=(*command, str(python), "-m", "benchmarks.forwarders.with_threepipe"),
        python=(*command, str(python)),
        uses_netns=True,
        statement="import threepipe",
        device=(*command, str(python.with_name("threepipe-wg")), "-f"),
        kinds=("forwarder", "answer", "bundles", "pipe", "wireguard"),
    )


def counterpart(contender: Contender, checkout: Path, commit: str) -> Contender:
    """Return the same contender of another checkout of threepipe, which has a virtual environment in `.venv`."""
    core = contender.key.removeprefix("threepipe-")
    python = checkout / ".venv" / "bin" / "python"
    # An inherited PYTHONPATH would lead to this checkout's code.
    return _threepipe(core, python, "-C", str(checkout), "PYTHONPATH=", checkout=checkout, commit=commit)


def described(checkout: Path) -> str:
    """Return the commit of a checkout, or its folder's name if git does not know one."""
    try:
        return output(["git", "-C", str(checkout), "describe", "--always", "--dirty", "--exclude=*"], 10.0).strip()
    except Failed:
        return checkout.name


def _c_loop(mode: str, kinds: tuple[str, ...], excluded: Mapping[str, str]) -> Contender:
    """Return the limit."""
    command = (str(build.LOOP), mode)
    return Contender(f"c-{mode}", f"C loop {mode}", build.c_loop, command, kinds=kinds, excluded=excluded)


def _peer(key: str, module: str, program: str, statement: str) -> Contender:
    """Return another Python library."""
    command = (sys.executable, "-m", f"benchmarks.forwarders.{program}")
    return Contender(key, key, build.python_package(module), command, statement=statement, kinds=_PACKETS)


def _wireguard(key: str, title: str, prepare: build.Prepare, *device: str) -> Contender:
    return Contender(key, title, prepare, device=device, kinds=("wireguard",))


# Otherwise they change to the user of the login, and end without one.
_AS_ROOT = "--disable-drop-privileges"

_ROWS = (
    *(_threepipe(core, Path(sys.executable)) for core in ("native", "pure")),
    _c_loop("offload", (*_PACKETS, "bundles"), {"answer-asyncio": "no Python package", **_NOT_PYTHON}),
    _c_loop("plain", _PACKETS, _FORWARDS_ONLY),
    _peer("python-pytun", "pytun", "with_pytun", "from pytun import TunTapDevice"),
    _peer("pytun-pmd3", "pytun_pmd3", "with_pytun_pmd3", "from pytun_pmd3 import TunTapDevice"),
    _peer("scapy", "scapy", "with_scapy", "from scapy.layers.tuntap import TunTapInterface"),
    Contender("tun-rs", "tun-rs, in Rust", build.tun_rs, (str(build.TUN_RS),), excluded=_FORWARDS_ONLY),
    Contender(
        "veth",
        "veth, no program",
        build.always_there,
        excluded={"look": "no program", "burst": "no program", **_NOT_PYTHON},
    ),
    Contender(
        "socat",
        "socat",
        build.always_there,
        kinds=("pipe",),
        excluded=dict.fromkeys(("pipe-tcp", "pipe-tls"), "keeps no packets apart on a stream"),
    ),
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
