"""Traffic over a path, by iperf3 and ping, and what the programs of the path used for it. Knows no contender."""

import json
import re
import statistics
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path as File

from benchmarks.network import inside, output, process
from benchmarks.paths import Path

__all__ = ["DATAGRAM", "DATAGRAMS", "GRACE_SECONDS", "Usage", "datagrams", "iperf", "round_trip"]

GRACE_SECONDS = 30.0
"""How much longer than asked for a measurement may take: a full path delays its own end."""
DATAGRAM = 64
DATAGRAMS = ("--udp", "--bandwidth", "0", "--length", str(DATAGRAM))
"""Options of iperf3 for datagrams as fast as it can send them."""
_PINGS = 1000


@dataclass(slots=True)
class Usage:
    """What the programs used while a measurement ran."""

    cpu_seconds: float = 0.0
    seconds: float = 0.0


@contextmanager
def _usage(over: Path) -> Iterator[Usage]:
    usage = Usage()
    cpu, start = over.cpu_seconds(), time.monotonic()
    yield usage
    usage.cpu_seconds, usage.seconds = over.cpu_seconds() - cpu, time.monotonic() - start


def iperf(over: Path, target: str, seconds: int, *options: str) -> tuple[Mapping[str, Mapping[str, float]], Usage]:
    """What iperf3 says at its end, sending from left to right, and what the programs used for it."""
    with process(inside(over.right, "iperf3", "--server", "--one-off", "--forceflush")) as server:
        server.wait_for("listening")
        client = ["iperf3", "--json", "--client", target, "--time", str(seconds), *options]
        with _usage(over) as usage:
            result = json.loads(output(inside(over.left, *client), seconds + GRACE_SECONDS))
    return result["end"], usage


def datagrams(pid: int) -> dict[str, int]:
    """Datagrams that arrived in the network of that process: read by a program, or lost just before.

    Those of UDP itself, for an interface counts a superpacket as one packet.
    """
    names, counts = [line.split() for line in File(f"/proc/{pid}/net/snmp").read_text().splitlines() if "Udp:" in line]
    table = dict(zip(names, counts, strict=True))
    return {name: int(table[name]) for name in ("InDatagrams", "InErrors", "NoPorts")}


def round_trip(over: Path, target: str) -> float:
    """Microseconds: the median of pings from left to right."""
    ping = ["ping", "-n", "-i", "0.001", "-c", str(_PINGS), target]
    lines = output(inside(over.left, *ping), GRACE_SECONDS)
    return statistics.median(float(time) * 1e3 for time in re.findall(r"time=([\d.]+) ms", lines))
