"""The table of workloads: their figures, units and measurements. A measurement is one function."""

import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.contenders import Contender
from benchmarks.processes import NEW_NETWORK, Failed, output, process
from benchmarks.testbed import OVERLAID, PIPED, TARGETS, answering, forwarding, overlay, piped
from benchmarks.traffic import (
    AS_FAST_AS_POSSIBLE,
    BURST,
    GRACE_SECONDS,
    LONG_BURST,
    PAYLOAD,
    arrivals,
    bursts,
    flood,
    iperf,
    round_trip,
)
from benchmarks.wireguard import measurements as wireguard

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
    background: bool = False
    """True for a figure that only explains another one: no picture shows it, and no other checkout is held to it."""


@dataclass(frozen=True, slots=True)
class Workload:
    """One kind of measurement."""

    key: str
    title: str
    metrics: tuple[Metric, ...]
    measure: Callable[[Contender, int], Figures]
    """Measures for the given seconds, if the length is free to choose; may raise `Failed`."""
    kind: str = "forwarder"
    """The kind of contender that it measures."""


def _tcp(target: str, role: str) -> Callable[[Contender, int], Figures]:
    def measure(contender: Contender, seconds: int) -> Figures:
        with forwarding(contender, role) as testbed:
            if target == OVERLAID:
                overlay(testbed, TARGETS[4], 1500)
            end, usage = iperf(testbed, target, seconds)
        received = end["sum_received"]["bits_per_second"]
        if not received:
            raise Failed("nothing was received")
        figures = {"gbit": received / 1e9}
        if testbed.programs:
            figures["cores"] = usage.cpu_seconds / usage.seconds
        return figures

    return measure


def _udp(contender: Contender, seconds: int) -> Figures:
    with forwarding(contender, "forward") as testbed:
        before = arrivals(testbed.right)
        end, usage = iperf(testbed, TARGETS[4], seconds, *AS_FAST_AS_POSSIBLE)
        counted = {name: count - before[name] for name, count in arrivals(testbed.right).items()}
    received, arrived = counted["InDatagrams"], sum(counted.values())
    if not received:
        raise Failed("nothing was received")
    figures = {"kpps": received / end["sum"]["seconds"] / 1e3}
    if testbed.programs:
        figures["cpu"] = usage.cpu_seconds / arrived * 1e6
    return figures


def _answer(role: str) -> Callable[[Contender, int], Figures]:
    def measure(contender: Contender, seconds: int) -> Figures:
        with answering(contender, role) as testbed:
            answered, usage = flood(testbed, TARGETS[4], seconds)
        if not answered:
            raise Failed("nothing was answered")
        return {"kpps": answered / seconds / 1e3, "cpu": usage.cpu_seconds / answered * 1e6}

    return measure


def _rtt(contender: Contender, _: int) -> Figures:
    with forwarding(contender, "forward") as testbed:
        return {"us": round_trip(testbed, TARGETS[4])}


def _burst(contender: Contender, _: int) -> Figures:
    with forwarding(contender, "forward") as testbed:
        return bursts(testbed, TARGETS[4])


def _pipe(transport: str) -> Callable[[Contender, int], Figures]:
    def measure(contender: Contender, seconds: int) -> Figures:
        with piped(contender, transport) as testbed:
            figures = {"us": round_trip(testbed, PIPED)}
            end, _ = iperf(testbed, PIPED, seconds)
        return {"gbit": end["sum_received"]["bits_per_second"] / 1e9, **figures}

    return measure


def _import(contender: Contender, _: int) -> Figures:
    """Return the median difference of pairs: a start with the import, and one without right after it."""

    def start(statement: str) -> float:
        before = time.perf_counter()
        output([*contender.python, "-c", statement], GRACE_SECONDS)
        return time.perf_counter() - before

    start(contender.statement)  # The first start may compile.
    return {"ms": statistics.median((start(contender.statement) - start("pass")) * 1e3 for _ in range(_IMPORTS))}


def _create(contender: Contender, _: int) -> Figures:
    command = [*NEW_NETWORK, *contender.command, "create", "", ""]
    with process(command) as program:
        first, *others = json.loads(program.wait_for("["))
    return {"ms": statistics.median(others), "first": first}


_TCP = (Metric("gbit", "received", "Gbit/s", True, 2), Metric("cores", "forwarder", "cores", False, 2, background=True))
_DATAGRAMS = (
    Metric("kpps", "received", "1000 packets/s", True, 1),
    Metric("cpu", "forwarder", "µs of CPU per packet", False, 2),
)
_ANSWERS = (
    Metric("kpps", "answered", "1000 packets/s", True, 1),
    Metric("cpu", "the program", "µs of CPU per packet", False, 2),
)
_BURST = (
    Metric("late", "while it does not run", f"% of {BURST}", True, 1),
    Metric("running", "while it runs", f"% of {LONG_BURST}", True, 1),
    Metric("uncounted", "lost uncounted", "%", False, 1, background=True),
)
_RTT = (Metric("us", "round trip", "µs", False, 0),)
_PIPE = (_TCP[0], *_RTT)
_TUNNEL = (_TCP[0], Metric("cpu", "both devices", "ns of CPU per byte", False, 2))
_TUNNELLED_DATAGRAMS = (_DATAGRAMS[0], Metric("cpu", "both devices", "µs of CPU per packet", False, 2))
_PEERS = (
    Metric("kib", "memory", "KiB per peer", False, 2),
    Metric("ms", "configuration", "ms", False, 0),
)

_HANDSHAKES = (
    Metric("rate", "answered", "handshakes/s", True, 0),
    Metric("cpu", "the device", "µs of CPU each", False, 0),
)

_START = (Metric("ms", "ready after", "ms", False, 0), Metric("mib", "memory", "MiB", False, 1))

_WIREGUARD = (
    Workload("wg-start", "WireGuard, the start of a device", _START, wireguard.start, "wireguard"),
    Workload("wg-tcp", "WireGuard, one TCP stream, IPv4", _TUNNEL, wireguard.stream(), "wireguard"),
    Workload(
        "wg-reverse",
        "WireGuard, one TCP stream, from right to left",
        _TUNNEL,
        wireguard.stream("--reverse"),
        "wireguard",
    ),
    Workload(
        "wg-both",
        "WireGuard, a TCP stream each way at once, the sum",
        _TUNNEL,
        wireguard.stream("--bidir"),
        "wireguard",
    ),
    Workload(
        "wg-udp",
        f"WireGuard, UDP, {PAYLOAD} bytes of payload",
        _TUNNELLED_DATAGRAMS,
        wireguard.small_datagrams(),
        "wireguard",
    ),
    *(
        Workload(
            f"wg-udp-{count}",
            f"WireGuard, UDP, {PAYLOAD} bytes of payload, to one of {count} peers",
            _TUNNELLED_DATAGRAMS,
            wireguard.small_datagrams(count - 1),
            "wireguard",
        )
        for count in (1000, 10000)
    ),
    *(
        Workload(
            f"wg-spread-{count}",
            f"WireGuard, UDP, {PAYLOAD} bytes of payload, to {count} peers in turn",
            (_DATAGRAMS[0], Metric("cpu", "the device", "µs of CPU per packet", False, 2)),
            wireguard.spread(count),
            "wireguard",
        )
        for count in (10, 1000, 10000)
    ),
    Workload("wg-vxlan", "WireGuard, one TCP stream in a VXLAN", _TUNNEL, wireguard.stream(overlaid=True), "wireguard"),
    Workload(
        "wg-burst", "WireGuard, UDP datagrams that arrive of a burst to a device", _BURST, wireguard.burst, "wireguard"
    ),
    Workload("wg-rtt", "WireGuard, ping every millisecond", _RTT, wireguard.pings, "wireguard"),
    Workload("wg-hands", "WireGuard, handshakes, one after another", _HANDSHAKES, wireguard.handshakes, "wireguard"),
    *(
        Workload(
            f"wg-{count}", f"WireGuard, {count} peers added to a device", _PEERS, wireguard.peers(count), "wireguard"
        )
        for count in (1000, 10000)
    ),
)

_ROWS = (
    Workload("tcp4", "One TCP stream, IPv4", _TCP, _tcp(TARGETS[4], "forward")),
    Workload("tcp6", "One TCP stream, IPv6", _TCP, _tcp(TARGETS[6], "forward")),
    Workload("vxlan", "One TCP stream in a VXLAN", _TCP, _tcp(OVERLAID, "forward")),
    Workload(
        "udp",
        f"UDP, {PAYLOAD} bytes of payload",
        _DATAGRAMS,
        _udp,
    ),
    Workload(
        "look",
        "One TCP stream, IPv4; the program reads every packet (the C loop does not)",
        _TCP,
        _tcp(TARGETS[4], "look"),
    ),
    Workload("answer", "A program that answers UDP, packet by packet", _ANSWERS, _answer("answer"), "answer"),
    Workload("answer-bundles", "The same, a bundle at a time", _ANSWERS, _answer("answer-bundles"), "bundles"),
    Workload("answer-asyncio", "The same, with asyncio", _ANSWERS, _answer("answer-asyncio"), "bundles"),
    Workload("burst", "UDP datagrams that arrive of a burst at full speed to a program", _BURST, _burst),
    Workload("rtt", "Ping every millisecond", _RTT, _rtt),
    Workload("import", "Import", (Metric("ms", "beyond a start of Python", "ms", False, 1),), _import),
    Workload(
        "create",
        "Create an adapter with an address, set it up, close it",
        (Metric("ms", "each", "ms", False, 1), Metric("first", "the first in a process", "ms", False, 1)),
        _create,
    ),
    Workload("pipe-udp", "The pipe command over UDP, one TCP stream, IPv4", _PIPE, _pipe("udp"), "pipe"),
    Workload("pipe-tcp", "The pipe command over TCP, one TCP stream, IPv4", _PIPE, _pipe("tcp"), "pipe"),
    Workload("pipe-tls", "The pipe command over TLS, one TCP stream, IPv4", _PIPE, _pipe("tls"), "pipe"),
    Workload("pipe-unix", "The pipe command over a Unix socket, one TCP stream, IPv4", _PIPE, _pipe("unix"), "pipe"),
    *_WIREGUARD,
)

WORKLOADS = {row.key: row for row in _ROWS}
