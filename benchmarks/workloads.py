"""The table of workloads: what is measured, in which units, and how. A measurement is one function."""

import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks import wireguard
from benchmarks.contenders import Contender
from benchmarks.network import FRESH, Failed, output, process
from benchmarks.paths import TARGETS, path
from benchmarks.pipes import PIPED, piped
from benchmarks.traffic import DATAGRAM, DATAGRAMS, GRACE_SECONDS, datagrams, iperf, round_trip

__all__ = ["WORKLOADS", "Figures", "Metric", "Workload"]

Figures = dict[str, float]

_IMPORTS = 10


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
    kind: str = "forwarder"
    """Of the contenders that it is for."""


def _tcp(version: int, role: str) -> Callable[[Contender, int], Figures]:
    def measure(contender: Contender, seconds: int) -> Figures:
        with path(contender, role) as over:
            end, usage = iperf(over, TARGETS[version], seconds)
        received = end["sum_received"]["bits_per_second"]
        if not received:
            raise Failed("nothing was received")
        figures = {"gbit": received / 1e9}
        if over.programs:
            figures["cores"] = usage.cpu_seconds / usage.seconds
        return figures

    return measure


def _udp(contender: Contender, seconds: int) -> Figures:
    with path(contender, "forward") as over:
        before = datagrams(over.right)
        end, usage = iperf(over, TARGETS[4], seconds, *DATAGRAMS)
        counted = {name: count - before[name] for name, count in datagrams(over.right).items()}
    received, arrived = counted["InDatagrams"], sum(counted.values())
    if not received:
        raise Failed("nothing was received")
    figures = {"kpps": received / end["sum"]["seconds"] / 1e3}
    if over.programs:
        figures["cpu"] = usage.cpu_seconds / arrived * 1e6
    return figures


def _rtt(contender: Contender, _: int) -> Figures:
    with path(contender, "forward") as over:
        return {"us": round_trip(over, TARGETS[4])}


def _pipe(transport: str) -> Callable[[Contender, int], Figures]:
    def measure(contender: Contender, seconds: int) -> Figures:
        with piped(contender, transport) as over:
            figures = {"us": round_trip(over, PIPED)}
            end, _ = iperf(over, PIPED, seconds)
        return {"gbit": end["sum_received"]["bits_per_second"] / 1e9, **figures}

    return measure


def _import(contender: Contender, _: int) -> Figures:
    """The median of pairs: with the import, and without, right after each other."""

    def start(statement: str) -> float:
        python = ["env", *(f"{name}={value}" for name, value in contender.environment.items()), sys.executable, "-c"]
        before = time.perf_counter()
        output([*python, statement], GRACE_SECONDS)
        return time.perf_counter() - before

    start(contender.statement)  # The first may compile.
    return {"ms": statistics.median((start(contender.statement) - start("pass")) * 1e3 for _ in range(_IMPORTS))}


def _create(contender: Contender, _: int) -> Figures:
    command = [*FRESH, *contender.command, "create", "", ""]
    with process(command, contender.environment) as program:
        first, *others = json.loads(program.wait_for("["))
    return {"ms": statistics.median(others), "first": first}


_TCP = (Metric("gbit", "received", "Gbit/s", True, 2), Metric("cores", "forwarder", "cores", False, 2))
_DATAGRAMS = (
    Metric("kpps", "received", "1000 packets/s", True, 1),
    Metric("cpu", "forwarder", "µs of CPU a packet", False, 2),
)
_RTT = (Metric("us", "round trip", "µs", False, 0),)
_PIPE = (_TCP[0], *_RTT)
_TUNNEL = (_TCP[0], Metric("cpu", "both devices", "ns of CPU a byte", False, 2))
_TUNNELLED_DATAGRAMS = (_DATAGRAMS[0], Metric("cpu", "both devices", "µs of CPU a packet", False, 2))
_PEERS = (
    Metric("kib", "memory", "KiB a peer", False, 2),
    Metric("ms", "to be configured", "ms", False, 0),
)

_HANDSHAKES = (
    Metric("rate", "answered", "handshakes/s", True, 0),
    Metric("cpu", "the device", "µs of CPU each", False, 0),
)

_WIREGUARD = (
    Workload("wg-tcp", "WireGuard, one TCP stream, IPv4", _TUNNEL, wireguard.stream(), "wireguard"),
    Workload("wg-reverse", "The same the other way", _TUNNEL, wireguard.stream("--reverse"), "wireguard"),
    Workload("wg-both", "Both ways at once, together", _TUNNEL, wireguard.stream("--bidir"), "wireguard"),
    Workload(
        "wg-udp",
        f"WireGuard, UDP, {DATAGRAM} bytes of payload",
        _TUNNELLED_DATAGRAMS,
        wireguard.small_datagrams(),
        "wireguard",
    ),
    *(
        Workload(
            f"wg-udp-{count}",
            f"The same to one of {count} peers",
            _TUNNELLED_DATAGRAMS,
            wireguard.small_datagrams(count - 1),
            "wireguard",
        )
        for count in (1000, 10000)
    ),
    *(
        Workload(
            f"wg-spread-{count}",
            f"UDP, {DATAGRAM} bytes of payload, sent to {count} peers in turn",
            (_DATAGRAMS[0], Metric("cpu", "the device", "µs of CPU a packet", False, 2)),
            wireguard.spread(count),
            "wireguard",
        )
        for count in (10, 1000, 10000)
    ),
    Workload("wg-rtt", "WireGuard, ping every millisecond", _RTT, wireguard.pings, "wireguard"),
    Workload("wg-hands", "Handshakes, one after another", _HANDSHAKES, wireguard.handshakes, "wireguard"),
    *(
        Workload(f"wg-{count}", f"A device of {count} peers", _PEERS, wireguard.peers(count), "wireguard")
        for count in (1000, 10000)
    ),
)

_ROWS = (
    Workload("tcp4", "One TCP stream, IPv4", _TCP, _tcp(4, "forward")),
    Workload("tcp6", "One TCP stream, IPv6", _TCP, _tcp(6, "forward")),
    Workload(
        "udp",
        f"UDP, {DATAGRAM} bytes of payload",
        _DATAGRAMS,
        _udp,
    ),
    Workload("look", "One TCP stream, IPv4, every packet looked at (not by the C loop)", _TCP, _tcp(4, "look")),
    Workload("rtt", "Ping every millisecond", _RTT, _rtt),
    Workload("import", "Import", (Metric("ms", "more than bare Python", "ms", False, 1),), _import),
    Workload(
        "create",
        "Create an adapter with an address, up, and close it",
        (Metric("ms", "each", "ms", False, 1), Metric("first", "the first of a process", "ms", False, 1)),
        _create,
    ),
    Workload("pipe-udp", "The pipe command over UDP, one TCP stream, IPv4", _PIPE, _pipe("udp"), "pipe"),
    Workload("pipe-unix", "The pipe command over a Unix socket, one TCP stream, IPv4", _PIPE, _pipe("unix"), "pipe"),
    *_WIREGUARD,
)

WORKLOADS = {row.key: row for row in _ROWS}
