"""Traffic through a testbed, by iperf3 and ping, and the CPU time of the programs meanwhile. Knows no contender."""

import json
import re
import statistics
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from benchmarks.processes import Failed, Process, inside, output, process
from benchmarks.testbed import Testbed

__all__ = [
    "AS_FAST_AS_POSSIBLE",
    "BURST",
    "GRACE_SECONDS",
    "LONG_BURST",
    "PAYLOAD",
    "Usage",
    "arrivals",
    "bursts",
    "flood",
    "iperf",
    "round_trip",
]

GRACE_SECONDS = 30.0
"""Seconds that a measurement may take beyond its time: a full link delays the end of iperf3."""
PAYLOAD = 64
"""Bytes of payload of a small datagram."""
AS_FAST_AS_POSSIBLE = ("--udp", "--bandwidth", "0", "--length", str(PAYLOAD))
"""Options of iperf3 for small datagrams at full speed."""
BURST = 2000
"""Datagrams that are sent while a program does not run. A link of 1 Gbit/s takes 24 ms for as many long ones."""
LONG_BURST = 20000
"""Datagrams that are sent while all programs run."""
_PINGS = 1000


@dataclass(slots=True)
class Usage:
    """The programs' CPU time during a measurement."""

    cpu_seconds: float = 0.0
    seconds: float = 0.0


@contextmanager
def _usage(testbed: Testbed) -> Iterator[Usage]:
    usage = Usage()
    cpu, start = testbed.cpu_seconds(), time.monotonic()
    yield usage
    usage.cpu_seconds, usage.seconds = testbed.cpu_seconds() - cpu, time.monotonic() - start


def iperf(
    testbed: Testbed, target: str, seconds: int, *options: str
) -> tuple[Mapping[str, Mapping[str, float]], Usage]:
    """Send from left to right. Return iperf3's summary and the programs' CPU time."""
    with process(inside(testbed.right, "iperf3", "--server", "--one-off", "--forceflush")) as server:
        server.wait_for("listening")
        client = ["iperf3", "--json", "--client", target, "--time", str(seconds), *options]
        with _usage(testbed) as usage:
            result = json.loads(output(inside(testbed.left, *client), seconds + GRACE_SECONDS))
    return result["end"], usage


def arrivals(pid: int) -> dict[str, int]:
    """Return UDP's counters of datagrams that arrived in the network of process `pid`, read by a program or not.

    An interface's counters do not serve: they count a superpacket as one packet.
    """
    names, counts = [line.split() for line in Path(f"/proc/{pid}/net/snmp").read_text().splitlines() if "Udp:" in line]
    table = dict(zip(names, counts, strict=True))
    return {name: int(table[name]) for name in ("InDatagrams", "InErrors", "NoPorts")}


def flood(testbed: Testbed, target: str, seconds: int) -> tuple[int, Usage]:
    """Send small datagrams from the left at full speed. Return how many were answered, and the programs' CPU time."""
    before = arrivals(testbed.left)
    command = inside(testbed.left, sys.executable, "-m", "benchmarks.flood", target, str(PAYLOAD), str(seconds))
    with _usage(testbed) as usage:
        output(command, seconds + GRACE_SECONDS)
        answered = sum(arrivals(testbed.left).values()) - sum(before.values())
    return answered, usage


def bursts(testbed: Testbed, target: str) -> dict[str, float]:
    """Send bursts of small datagrams at full speed, and return how many of a hundred arrive.

    `late` is of bursts during which one of the programs does not run, and `running` of a longer one. `uncounted` is
    how many of a hundred of all datagrams were lost without any interface's count on the left.
    """
    before = _dropped(testbed.left)
    late = [_burst(testbed, target, BURST, program) for program in testbed.programs]
    running = _burst(testbed, target, LONG_BURST)
    if not running:
        raise Failed("nothing was received")
    sent = BURST * len(late) + LONG_BURST
    lost = sent - sum(late) - running
    return {
        "late": sum(late) / (BURST * len(late)) * 100,
        "running": running / LONG_BURST * 100,
        "uncounted": (lost - (_dropped(testbed.left) - before)) / sent * 100,
    }


def _burst(testbed: Testbed, target: str, datagrams: int, late: Process | None = None) -> int:
    """Send datagrams from the left, while the program `late` does not run. Return how many arrive at the right."""
    send = [sys.executable, "-m", "benchmarks.flood", target, str(PAYLOAD), str(GRACE_SECONDS), str(datagrams)]
    with process(inside(testbed.right, sys.executable, "-m", "benchmarks.sink")) as sink:
        sink.wait_for("bound")
        with late.paused() if late else nullcontext():
            output(inside(testbed.left, *send), GRACE_SECONDS)
        sink.send(str(datagrams))
        (arrived,) = json.loads(sink.wait_for("["))
    return int(arrived)


def _dropped(pid: int) -> int:
    """Return how many packets the interfaces in the network of process `pid` had no room for."""
    links = json.loads(output(inside(pid, "ip", "-json", "-statistics", "link"), GRACE_SECONDS))
    return sum(int(link["stats64"]["tx"]["dropped"]) for link in links)


def round_trip(testbed: Testbed, target: str) -> float:
    """Return the median round trip of pings from left to right, in microseconds."""
    ping = ["ping", "-n", "-i", "0.001", "-c", str(_PINGS), target]
    lines = output(inside(testbed.left, *ping), GRACE_SECONDS)
    return statistics.median(float(time) * 1e3 for time in re.findall(r"time=([\d.]+) ms", lines))
