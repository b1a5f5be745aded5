"""The limits of one WireGuard device that routes by next hops: what it costs to have 10, 100, 1000 and 10000 peers.

    python -m benchmarks.peers                            # with the native core, if there is one
    THREEPIPE_PURE=1 python -m benchmarks.peers --peers 10 --peers 1000

The peers are simulated, but real to the device: each has keys, an address and a session of its own. The program that
has the device uses its session itself. Times are those of this process on a CPU, so a busy machine changes them little;
every number of peers has a process of its own. It needs neither root nor an adapter.
"""

import gc
import json
import os
import queue
import resource
import subprocess
import sys
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from ipaddress import IPv6Address, ip_network
from pathlib import Path
from typing import Annotated, NamedTuple
from urllib.request import urlopen

import typer
from rich.console import Console
from rich.table import Table

from benchmarks.wireguard.simulated import address, identity, packet
from threepipe import Bundle
from threepipe.core import fast
from threepipe.settings import Network
from threepipe.wireguard import Change, Device, NextHopRouting, PeerChange, generate_key, link_local
from threepipe.wireguard.metrics import serve_metrics

_ROOT = Path(__file__).parents[1]
_MESH = "fd12::/16"
_BUNDLE, _PACKETS = 64, 20_000
_IDLE = 10.0  # Seconds.
_KEEPALIVE = 25
_GROUP = IPv6Address("ff02::1:6").packed
_PAGE = resource.getpagesize()


class Figures(NamedTuple):
    """The costs of a device with a number of peers."""

    peers: int
    add: float
    """Microseconds to add a peer, one peer in a change, as an agent does."""
    memory: float
    """KiB for each peer without a session."""
    session_memory: float
    """KiB for each peer with one."""
    handshake: float
    """Microseconds for each handshake of a peer."""
    look_up: float
    """Microseconds for a packet to another peer than before, the first one to that peer."""
    send: float
    """Microseconds for a packet to another peer than before."""
    receive: float
    """Microseconds for a packet from another peer than before."""
    copy: float
    """Microseconds for each copy of a packet to a group."""
    route: float
    """Microseconds from a changed route of one peer until the device has forgotten the old one."""
    idle: float
    """Thousandths of a core for the timers of idle peers with a keepalive of 25 s."""
    scrape: float
    """Milliseconds for a scrape of the metrics."""
    remove: float
    """Microseconds to remove a peer, one peer in a change."""


class _Routes:
    """Routes of a program: each peer is the next hop of its own address."""

    def __init__(self) -> None:
        self.hops: dict[bytes, bytes] = {}
        self.waits = threading.Semaphore(0)
        self._changes: queue.SimpleQueue[Sequence[Network] | None] = queue.SimpleQueue()

    def next_hop(self, destination: bytes, source: bytes) -> bytes | None:
        del source
        return self.hops.get(destination)

    def changes(self) -> Sequence[Network] | None:
        self.waits.release()
        return self._changes.get()

    def change(self, destination: bytes) -> None:
        self._changes.put([ip_network(destination)])

    def use_address(self, address: IPv6Address | None) -> None:
        pass

    def close(self) -> None:
        self._changes.put(None)


def _memory() -> int:
    """Return the resident memory of this process in bytes."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE


def _cpu(work: Callable[[], object], count: int = 1) -> float:
    """Return the microseconds on a CPU that `work` takes, for each of `count` parts."""
    begin = time.process_time()
    work()
    return (time.process_time() - begin) * 1e6 / count


@contextmanager
def _simulated(device: Device) -> Iterator[Callable[[str, str], int]]:
    """Run the program of the simulated peers; yield the function that asks it for something."""
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.wireguard.simulated"],
        cwd=_ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as simulated:
        assert simulated.stdin is not None
        assert simulated.stdout is not None
        say, hear = simulated.stdin, simulated.stdout

        def ask(line: str, answer: str) -> int:
            """Send a line, and receive packets until the answer comes. Return the number of packets."""
            print(line, file=say, flush=True)
            answered: list[str] = []
            reader = threading.Thread(target=lambda: answered.append(hear.readline().strip()))
            reader.start()
            received = 0
            while reader.is_alive():
                received += len(device.session.receive(0.05))
            reader.join()
            assert answered == [answer], "the program of the simulated peers has failed"
            return received + len(device.session.receive(0.05))

        yield ask
        simulated.kill()


def _measure(count: int) -> Figures:
    routes = _Routes()
    with Device(private_key=generate_key(), mtu=1420, routing=NextHopRouting([_MESH], routes)) as device:
        status = device.status()
        numbers = list(range(1, count + 1))
        peers = [identity(number).public for number in numbers]
        changes = [Change(peers=[PeerChange(key, persistent_keepalive=_KEEPALIVE)]) for key in peers]
        before = _memory()
        add = _cpu(lambda: _configure(device, changes), count)
        memory = (_memory() - before) / count / 1024
        routes.hops = {address(number): link_local(key).packed for number, key in enumerate(peers, 1)}
        task = {"device": b64encode(status.public_key).decode(), "port": status.listen_port, "peers": numbers}
        with _simulated(device) as ask:
            handshake = _cpu(lambda: ask(json.dumps(task), "ready"), count)
            session_memory = (_memory() - before) / count / 1024
            bundles = _bundles(count)
            first = min(count, _PACKETS)
            look_up = _cpu(lambda: [device.session.send(bundle) for bundle in _bundles(count, first)], first)
            send = _cpu(lambda: [device.session.send(bundle) for bundle in bundles], _PACKETS)
            received: list[int] = []
            spent = _cpu(lambda: received.append(ask(str(max(_PACKETS // count, 1)), "sent")))
            copies = max(2000 // count, 1)
            group = Bundle([packet(address(0), _GROUP)])
            copy = _cpu(lambda: [device.session.send(group) for _ in range(copies)], copies * count)
            route = _cpu(lambda: _change_routes(routes, count), 50)
            idle = _cpu(lambda: _idle(device)) / _IDLE / 1000
            with serve_metrics(device, "mesh0", "0") as server:
                scrape = _cpu(lambda: urlopen(f"http://{server.address}").read()) / 1000
            going = [Change(peers=[PeerChange(key, remove=True)]) for key in peers]
            remove = _cpu(lambda: _configure(device, going), count)
    return Figures(
        count, add, memory, session_memory, handshake, look_up, send, spent / max(*received, 1), copy, route, idle,
        scrape, remove,
    )  # fmt: skip


def _bundles(count: int, total: int = _PACKETS) -> list[Bundle]:
    """Return packets to all peers in turn, in bundles."""
    packets = [packet(address(0), address(1 + number % count)) for number in range(total)]
    return [Bundle(packets[start : start + _BUNDLE]) for start in range(0, total, _BUNDLE)]


def _configure(device: Device, changes: Sequence[Change]) -> None:
    for change in changes:
        device.configure(change)


def _idle(device: Device) -> None:
    """Receive, and send nothing, for `_IDLE` seconds."""
    ended = time.monotonic() + _IDLE
    while (left := ended - time.monotonic()) > 0:
        device.session.receive(left)


def _change_routes(routes: _Routes, count: int) -> None:
    """Have the device follow 50 changes of routes, one after another."""
    while routes.waits.acquire(blocking=False):
        pass
    for number in range(50):
        routes.change(address(1 + number % count))
        routes.waits.acquire()


def main(
    peers: Annotated[list[int] | None, typer.Option(help="A number of peers; repeatable.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for one number of peers.")] = False,
) -> None:
    numbers = peers or [10, 100, 1000, 10_000]
    if as_json:
        print(json.dumps(_measure(numbers[0])))  # noqa: T201
        return
    table = Table(title=f"One device, {'native core' if fast.NATIVE else 'pure Python'}, {os.uname().machine}")
    for name in Figures._fields:
        table.add_column(name.replace("_", " "), justify="right")
    for number in numbers:
        command = [sys.executable, "-m", "benchmarks.peers", "--json", "--peers", str(number)]
        done = subprocess.run(command, cwd=_ROOT, stdout=subprocess.PIPE, text=True, check=True)
        figures = Figures(*json.loads(done.stdout))
        table.add_row(str(figures.peers), *(f"{figure:.3g}" for figure in figures[1:]))
    Console(width=160).print(table)


if __name__ == "__main__":
    typer.run(main)
