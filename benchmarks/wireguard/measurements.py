"""The measurements of WireGuard devices, for the table in workloads.py. Knows no program by name."""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.contenders import Contender
from benchmarks.processes import Failed, Process, inside, namespace, process
from benchmarks.testbed import OVERLAID, overlay
from benchmarks.traffic import AS_FAST_AS_POSSIBLE, PAYLOAD, arrivals, bursts, iperf, round_trip
from benchmarks.wireguard.testbed import (
    MTU,
    PORT,
    TUNNELLED,
    configure,
    device,
    interface_section,
    peer_address,
    peer_sections,
    public_key,
    random_key,
    route_to_peers,
    set_up,
    starting,
    tunnel,
    wait_until_ready,
)

__all__ = ["burst", "handshakes", "peers", "pings", "small_datagrams", "spread", "start", "stream"]

_HANDSHAKES = 500
_RECEIVED = ("sum_received", "sum_received_bidir_reverse")
"""iperf3's keys for received data; the second is there if both ends sent."""


def stream(*options: str, overlaid: bool = False) -> Callable[[Contender, int], dict[str, float]]:
    """Measure a TCP stream through a tunnel, or in a VXLAN through it; `options` are iperf3's."""

    def measure(contender: Contender, seconds: int) -> dict[str, float]:
        with tunnel(contender) as testbed:
            if overlaid:
                overlay(testbed, TUNNELLED, MTU)
            end, usage = iperf(testbed, OVERLAID if overlaid else TUNNELLED, seconds, *options)
        received = [end[key] for key in _RECEIVED if key in end]
        size = sum(each["bytes"] for each in received)
        if not size:
            raise Failed("nothing was received")
        rate = sum(each["bits_per_second"] for each in received)
        return {"gbit": rate / 1e9, "cpu": usage.cpu_seconds / size * 1e9}

    return measure


def small_datagrams(bystanders: int = 0) -> Callable[[Contender, int], dict[str, float]]:
    """Measure small datagrams through a tunnel.

    The receiving iperf3 counts them: its network's counters include the datagrams that the tunnel consists of.
    """

    def measure(contender: Contender, seconds: int) -> dict[str, float]:
        with tunnel(contender, bystanders) as testbed:
            end, usage = iperf(testbed, TUNNELLED, seconds, *AS_FAST_AS_POSSIBLE)
        received = end["sum_received"]["bytes"] / PAYLOAD
        if not received:
            raise Failed("nothing was received")
        return {"kpps": received / end["sum_received"]["seconds"] / 1e3, "cpu": usage.cpu_seconds / received * 1e6}

    return measure


def pings(contender: Contender, _: int) -> dict[str, float]:
    """Measure the round trip through a tunnel."""
    with tunnel(contender) as testbed:
        return {"us": round_trip(testbed, TUNNELLED)}


def burst(contender: Contender, _: int) -> dict[str, float]:
    """Measure how many datagrams of a burst at full speed pass a tunnel."""
    with tunnel(contender) as testbed:
        return bursts(testbed, TUNNELLED)


def start(contender: Contender, _: int) -> dict[str, float]:
    """Measure the time until a device is ready, and its memory then."""
    with namespace() as network, starting(contender, network) as program:
        begin = time.perf_counter()
        wait_until_ready(program)
        return {"ms": (time.perf_counter() - begin) * 1e3, "mib": _resident_kib(program) / 1024}


def peers(count: int) -> Callable[[Contender, int], dict[str, float]]:
    """Measure the memory and the time that adding `count` peers takes."""

    def measure(contender: Contender, _: int) -> dict[str, float]:
        with namespace() as network, device(contender, network) as program:
            configure(program, interface_section(random_key()))
            set_up(program, 1)
            before, text = _resident_kib(program), peer_sections([random_key() for _ in range(count)])
            start = time.perf_counter()
            configure(program, text)
            seconds = time.perf_counter() - start
            return {"kib": (_resident_kib(program) - before) / count, "ms": seconds * 1e3}

    return measure


def spread(count: int) -> Callable[[Contender, int], dict[str, float]]:
    """Measure small datagrams that a device sends to `count` peers in turn, as they arrive at the peers' sockets."""

    def measure(contender: Contender, seconds: int) -> dict[str, float]:
        own, others = random_key(), [random_key() for _ in range(count)]
        addresses = [peer_address(number) for number in range(1, count + 1)]
        task = {"device": public_key(own), "port": PORT, "peers": others, "addresses": addresses}
        with namespace() as network, device(contender, network) as program:
            configure(program, interface_section(own) + peer_sections([public_key(key) for key in others]))
            set_up(program, 1)
            route_to_peers(program)
            with process(inside(network, sys.executable, "-m", "benchmarks.wireguard.receivers")) as receivers:
                receivers.send(json.dumps(task))
                receivers.wait_for("met")
                before, used = arrivals(network), program.cpu_seconds()
                receivers.send(str(seconds))
                (passed,) = json.loads(receivers.wait_for("["))
                used = program.cpu_seconds() - used
                arrived = sum(counted - before[name] for name, counted in arrivals(network).items())
        if not arrived:
            raise Failed("nothing was received")
        return {"kpps": arrived / passed / 1e3, "cpu": used / arrived * 1e6}

    return measure


def handshakes(contender: Contender, _: int) -> dict[str, float]:
    """Measure handshakes, one after another, each of another peer at another address."""
    own, others = random_key(), [random_key() for _ in range(_HANDSHAKES)]
    task = {"device": public_key(own), "port": PORT, "peers": others}
    with namespace() as network, device(contender, network) as program:
        configure(program, interface_section(own) + peer_sections([public_key(key) for key in others]))
        set_up(program, 1)
        with process(inside(network, sys.executable, "-m", "benchmarks.wireguard.initiators")) as initiators:
            initiators.send(json.dumps(task))
            initiators.wait_for("made")
            before = program.cpu_seconds()
            initiators.send("go")
            (seconds,) = json.loads(initiators.wait_for("["))
            used = program.cpu_seconds() - before
    return {"rate": _HANDSHAKES / seconds, "cpu": used / _HANDSHAKES * 1e6}


def _resident_kib(program: Process) -> int:
    """Return the program's resident memory in KiB."""
    lines = Path(f"/proc/{program.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))
