"""The table of workloads: what is measured, in which units, and how. A measurement is one function."""

import json
import re
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path as File

from benchmarks.contenders import Contender
from benchmarks.network import FRESH, Failed, inside, output, process
from benchmarks.paths import TARGETS, Path, path
from benchmarks.pipes import PIPED, piped

__all__ = ["WORKLOADS", "Figures", "Metric", "Workload"]

Figures = dict[str, float]

_GRACE_SECONDS = 30.0
"""How much longer than asked for a measurement may take: a full path delays its own end."""
_PINGS = 1000
_IMPORTS = 10
_DATAGRAM = 64


@dataclass(frozen=True, slots=True)
class Metric:
    """One figure of a workload."""

    key: str
    title: str
    unit: str
    more_is_better: bool
    digits: int


@dataclass(frozen=True, slots=True)
class Workload:
    """One measurement, of `seconds` where that is free to choose; may raise `Failed`."""

    key: str
    title: str
    metrics: tuple[Metric, ...]
    measure: Callable[[Contender, int], Figures]


@dataclass(slots=True)
class _Usage:
    """What the forwarder used while a measurement ran."""

    cpu_seconds: float = 0.0
    seconds: float = 0.0


@contextmanager
def _usage(over: Path) -> Iterator[_Usage]:
    usage = _Usage()
    cpu, start = over.cpu_seconds(), time.monotonic()
    yield usage
    usage.cpu_seconds, usage.seconds = over.cpu_seconds() - cpu, time.monotonic() - start


def _iperf(over: Path, target: str, seconds: int, *options: str) -> tuple[Mapping[str, Mapping[str, float]], _Usage]:
    """What iperf3 says at its end, sending from left to right, and what the forwarder used for it."""
    with process(inside(over.right, "iperf3", "--server", "--one-off", "--forceflush")) as server:
        server.wait_for("listening")
        client = ["iperf3", "--json", "--client", target, "--time", str(seconds), *options]
        with _usage(over) as usage:
            result = json.loads(output(inside(over.left, *client), seconds + _GRACE_SECONDS))
    return result["end"], usage


def _tcp(version: int, role: str) -> Callable[[Contender, int], Figures]:
    def measure(contender: Contender, seconds: int) -> Figures:
        with path(contender, role) as over:
            end, usage = _iperf(over, TARGETS[version], seconds)
        received = end["sum_received"]["bits_per_second"]
        if not received:
            raise Failed("nothing was received")
        figures = {"gbit": received / 1e9}
        if over.forwarder:
            figures["cores"] = usage.cpu_seconds / usage.seconds
        return figures

    return measure


def _udp(contender: Contender, seconds: int) -> Figures:
    with path(contender, "forward") as over:
        before = _datagrams(over.right)
        end, usage = _iperf(over, TARGETS[4], seconds, "--udp", "--bandwidth", "0", "--length", str(_DATAGRAM))
        counted = {name: count - before[name] for name, count in _datagrams(over.right).items()}
    received, arrived = counted["InDatagrams"], sum(counted.values())
    if not received:
        raise Failed("nothing was received")
    figures = {"kpps": received / end["sum"]["seconds"] / 1e3}
    if over.forwarder:
        figures["cpu"] = usage.cpu_seconds / arrived * 1e6
    return figures


def _datagrams(pid: int) -> dict[str, int]:
    """Datagrams that arrived in the network of that process: read by a program, or lost just before.

    Those of UDP itself, for an interface counts a superpacket as one packet.
    """
    names, counts = [line.split() for line in File(f"/proc/{pid}/net/snmp").read_text().splitlines() if "Udp:" in line]
    table = dict(zip(names, counts, strict=True))
    return {name: int(table[name]) for name in ("InDatagrams", "InErrors", "NoPorts")}


def _rtt(contender: Contender, _: int) -> Figures:
    with path(contender, "forward") as over:
        return {"us": _round_trip(over, TARGETS[4])}


def _round_trip(over: Path, target: str) -> float:
    """Microseconds: the median of pings from left to right."""
    ping = ["ping", "-n", "-i", "0.001", "-c", str(_PINGS), target]
    lines = output(inside(over.left, *ping), _GRACE_SECONDS)
    return statistics.median(float(time) * 1e3 for time in re.findall(r"time=([\d.]+) ms", lines))


def _pipe(transport: str) -> Callable[[Contender, int], Figures]:
    def measure(contender: Contender, seconds: int) -> Figures:
        with piped(contender, transport) as over:
            round_trip = _round_trip(over, PIPED)
            end, _ = _iperf(over, PIPED, seconds)
        return {"gbit": end["sum_received"]["bits_per_second"] / 1e9, "us": round_trip}

    return measure


def _import(contender: Contender, _: int) -> Figures:
    """The median of pairs: with the import, and without, right after each other."""

    def start(statement: str) -> float:
        python = ["env", *(f"{name}={value}" for name, value in contender.environment.items()), sys.executable, "-c"]
        before = time.perf_counter()
        output([*python, statement], _GRACE_SECONDS)
        return time.perf_counter() - before

    start(contender.statement)  # The first may compile.
    return {"ms": statistics.median((start(contender.statement) - start("pass")) * 1e3 for _ in range(_IMPORTS))}


def _create(contender: Contender, _: int) -> Figures:
    command = [*FRESH, *contender.command, "create", "", ""]
    with process(command, contender.environment) as program:
        first, *others = json.loads(program.wait_for("["))
    return {"ms": statistics.median(others), "first": first}


_TCP = (Metric("gbit", "received", "Gbit/s", True, 2), Metric("cores", "forwarder", "cores", False, 2))
_PIPE = (_TCP[0], Metric("us", "round trip", "µs", False, 0))

_ROWS = (
    Workload("tcp4", "One TCP stream, IPv4", _TCP, _tcp(4, "forward")),
    Workload("tcp6", "One TCP stream, IPv6", _TCP, _tcp(6, "forward")),
    Workload(
        "udp",
        f"UDP, {_DATAGRAM} bytes of payload",
        (
            Metric("kpps", "received", "1000 packets/s", True, 1),
            Metric("cpu", "forwarder", "µs of CPU a packet", False, 2),
        ),
        _udp,
    ),
    Workload("look", "One TCP stream, IPv4, every packet looked at (not by the C loop)", _TCP, _tcp(4, "look")),
    Workload("rtt", "Ping every millisecond", (Metric("us", "round trip", "µs", False, 0),), _rtt),
    Workload("import", "Import", (Metric("ms", "more than bare Python", "ms", False, 1),), _import),
    Workload(
        "create",
        "Create an adapter with an address, up, and close it",
        (Metric("ms", "each", "ms", False, 1), Metric("first", "the first of a process", "ms", False, 1)),
        _create,
    ),
    Workload("pipe-udp", "The pipe command over UDP, one TCP stream, IPv4", _PIPE, _pipe("udp")),
    Workload("pipe-unix", "The pipe command over a Unix socket, one TCP stream, IPv4", _PIPE, _pipe("unix")),
)

WORKLOADS = {row.key: row for row in _ROWS}
