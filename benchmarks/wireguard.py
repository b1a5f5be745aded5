"""The measurements of WireGuard devices, as workloads.py wants them. Knows no program by name."""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path as File

from benchmarks.contenders import Contender
from benchmarks.network import Failed, Process, inside, namespace, process
from benchmarks.traffic import DATAGRAM, DATAGRAMS, datagrams, iperf, round_trip
from benchmarks.tunnels import (
    PORT,
    TUNNELLED,
    address,
    come_up,
    configure,
    crowd,
    device,
    interface,
    lead_to_crowd,
    public_key,
    random_key,
    tunnel,
)

__all__ = ["handshakes", "peers", "pings", "small_datagrams", "spread", "stream"]

_HANDSHAKES = 500
_RECEIVED = ("sum_received", "sum_received_bidir_reverse")
"""Where iperf3 says what came through; the second is there if both ends sent."""


def stream(*options: str) -> Callable[[Contender, int], dict[str, float]]:
    def measure(contender: Contender, seconds: int) -> dict[str, float]:
        with tunnel(contender) as over:
            end, usage = iperf(over, TUNNELLED, seconds, *options)
        received = [end[key] for key in _RECEIVED if key in end]
        size = sum(each["bytes"] for each in received)
        if not size:
            raise Failed("nothing was received")
        rate = sum(each["bits_per_second"] for each in received)
        return {"gbit": rate / 1e9, "cpu": usage.cpu_seconds / size * 1e9}

    return measure


def small_datagrams(bystanders: int = 0) -> Callable[[Contender, int], dict[str, float]]:
    """As the receiving iperf3 counts them, for its network also counts those that the tunnel is made of."""

    def measure(contender: Contender, seconds: int) -> dict[str, float]:
        with tunnel(contender, bystanders) as over:
            end, usage = iperf(over, TUNNELLED, seconds, *DATAGRAMS)
        received = end["sum_received"]["bytes"] / DATAGRAM
        if not received:
            raise Failed("nothing was received")
        return {"kpps": received / end["sum_received"]["seconds"] / 1e3, "cpu": usage.cpu_seconds / received * 1e6}

    return measure


def pings(contender: Contender, _: int) -> dict[str, float]:
    with tunnel(contender) as over:
        return {"us": round_trip(over, TUNNELLED)}


def peers(count: int) -> Callable[[Contender, int], dict[str, float]]:
    """What a device takes for so many peers more than none."""

    def measure(contender: Contender, _: int) -> dict[str, float]:
        with namespace() as network, device(contender, network) as program:
            configure(program, interface(random_key()))
            come_up(program, 1)
            before, text = _resident(program), crowd([random_key() for _ in range(count)])
            start = time.perf_counter()
            configure(program, text)
            seconds = time.perf_counter() - start
            return {"kib": (_resident(program) - before) / count, "ms": seconds * 1e3}

    return measure


def spread(count: int) -> Callable[[Contender, int], dict[str, float]]:
    """Datagrams to so many peers in turn, as they arrive at their sockets."""

    def measure(contender: Contender, seconds: int) -> dict[str, float]:
        own, others = random_key(), [random_key() for _ in range(count)]
        addresses = [address(number) for number in range(1, count + 1)]
        given = {"device": public_key(own), "port": PORT, "peers": others, "addresses": addresses}
        with namespace() as network, device(contender, network) as program:
            configure(program, interface(own) + crowd([public_key(key) for key in others]))
            come_up(program, 1)
            lead_to_crowd(program)
            with process(inside(network, sys.executable, "-m", "benchmarks.listeners")) as listeners:
                listeners.tell(json.dumps(given))
                listeners.wait_for("met")
                before, used = datagrams(network), program.cpu_seconds()
                listeners.tell(str(seconds))
                (passed,) = json.loads(listeners.wait_for("["))
                used = program.cpu_seconds() - used
                arrived = sum(counted - before[name] for name, counted in datagrams(network).items())
        if not arrived:
            raise Failed("nothing was received")
        return {"kpps": arrived / passed / 1e3, "cpu": used / arrived * 1e6}

    return measure


def handshakes(contender: Contender, _: int) -> dict[str, float]:
    """As the device answers them, one after another, each of another peer at another address."""
    own, others = random_key(), [random_key() for _ in range(_HANDSHAKES)]
    given = {"device": public_key(own), "port": PORT, "peers": others}
    with namespace() as network, device(contender, network) as program:
        configure(program, interface(own) + crowd([public_key(key) for key in others]))
        come_up(program, 1)
        with process(inside(network, sys.executable, "-m", "benchmarks.initiators")) as initiators:
            initiators.tell(json.dumps(given))
            initiators.wait_for("made")
            before = program.cpu_seconds()
            initiators.tell("go")
            (seconds,) = json.loads(initiators.wait_for("["))
            used = program.cpu_seconds() - before
    return {"rate": _HANDSHAKES / seconds, "cpu": used / _HANDSHAKES * 1e6}


def _resident(program: Process) -> int:
    """KiB of memory that the program has."""
    lines = File(f"/proc/{program.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))
