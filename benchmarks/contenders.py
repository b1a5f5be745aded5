"""The table of what is measured. A new contender is a row here, and a program in `forwarders/`."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from benchmarks import build

__all__ = ["CONTENDERS", "PYTHON_PEERS", "Contender"]


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
    cannot: Mapping[str, str] = field(default_factory=dict)
    """Workloads that make no sense for it, and why."""


_NOT_PYTHON = {"import": "no Python package", "create": "no Python package"}
_FORWARDS_ONLY = {"look": "only forwards", **_NOT_PYTHON}
_NO_COMMAND = dict.fromkeys(("pipe-udp", "pipe-unix"), "no such command")
_ONLY_COMMAND = dict.fromkeys(("tcp4", "tcp6", "udp", "look", "rtt"), "no library") | _NOT_PYTHON


def _python(module: str) -> tuple[str, ...]:
    return (sys.executable, "-m", f"benchmarks.forwarders.{module}")


_ROWS = (
    Contender(
        "threepipe-native",
        "threepipe native",
        build.native_core,
        _python("with_threepipe"),
        {"THREEPIPE_PURE": ""},
        uses_netns=True,
        statement="import threepipe",
    ),
    Contender(
        "threepipe-pure",
        "threepipe pure",
        build.python_package("threepipe"),
        _python("with_threepipe"),
        {"THREEPIPE_PURE": "1"},
        uses_netns=True,
        statement="import threepipe",
    ),
    Contender(
        "c-offload", "C loop offload", build.c_loop, (str(build.LOOP), "offload"), cannot=_NOT_PYTHON | _NO_COMMAND
    ),
    Contender("c-plain", "C loop plain", build.c_loop, (str(build.LOOP), "plain"), cannot=_FORWARDS_ONLY | _NO_COMMAND),
    Contender(
        "python-pytun",
        "python-pytun",
        build.python_package("pytun"),
        _python("with_pytun"),
        statement="from pytun import TunTapDevice",
        cannot=_NO_COMMAND,
    ),
    Contender(
        "pytun-pmd3",
        "pytun-pmd3",
        build.python_package("pytun_pmd3"),
        _python("with_pytun_pmd3"),
        statement="from pytun_pmd3 import TunTapDevice",
        cannot=_NO_COMMAND,
    ),
    Contender(
        "scapy",
        "scapy",
        build.python_package("scapy"),
        _python("with_scapy"),
        statement="from scapy.layers.tuntap import TunTapInterface",
        cannot=_NO_COMMAND,
    ),
    Contender(
        "tun-rs", "tun-rs, in Rust", build.rust_forwarder, (str(build.TUN_RS),), cannot=_FORWARDS_ONLY | _NO_COMMAND
    ),
    Contender("veth", "veth, no program", lambda _: "", cannot={"look": "no program", **_NOT_PYTHON, **_NO_COMMAND}),
    Contender("socat", "socat", lambda _: "", cannot=_ONLY_COMMAND),
)

CONTENDERS = {row.key: row for row in _ROWS}
PYTHON_PEERS = ("python-pytun", "pytun-pmd3", "scapy")
