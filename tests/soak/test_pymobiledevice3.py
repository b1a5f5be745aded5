"""pymobiledevice3's own tunnel with the TUN class of `threepipe.compat`, beside pytun-pmd3's, in turns.

A stand-in for a device is at the far end, in a network of its own. Every stream has to arrive whole. The rates are
printed and not judged, with the processor time of pymobiledevice3's process, which other programs of a busy machine
change least, and with the medians of the ratios in a round, which they change less. A class that drops everything tells
what no TUN class can be faster than. ROUNDS and SIZE (MiB) set other numbers.
"""

import importlib.util
import os
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.kernel import Network
from tests.support.transfers import MIB, transfer
from tests.support.waiting import come_true

ROUNDS = int(os.environ.get("ROUNDS") or 9)
SIZE = int(os.environ.get("SIZE") or 64)
PROGRAMS = Path(__file__).parents[1] / "support" / "programs"
HOST, DEVICE = "fd70::1", "fd70::2"
KINDS = ("pytun-pmd3", "threepipe")

pytestmark = [pytest.mark.kernel, pytest.mark.soak, pytest.mark.timeout(900)]


class Cost(NamedTuple):
    arrived: float
    """Bytes that arrived; the class that drops everything has none."""
    gbits: float
    """Gbit/s."""
    cpu: float
    """Seconds of processor time of the tunnel's process for a GiB."""


class Tunnel(NamedTuple):
    host: Network
    device: Network
    process: "subprocess.Popen[str]"


@contextmanager
def tunnel(kind: str, mtu: int, folder: Path, flood: int = 0) -> Iterator[Tunnel]:
    """Run pymobiledevice3 with a TUN class, and the device at the other end."""
    path = str(folder / f"{kind}-{mtu}-{time.monotonic_ns()}")
    with ExitStack() as stack:
        host, device = Network(), Network()
        stack.callback(host.namespace.close)
        stack.callback(device.namespace.close)

        def start(network: Network, program: str, *arguments: str) -> "subprocess.Popen[str]":
            command = network.command(sys.executable, str(PROGRAMS / program), *arguments)
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            stack.enter_context(process)
            stack.callback(process.kill)
            return process

        far = start(device, "pymobiledevice3_device.py", path, str(mtu), str(flood))
        assert far.stdin is not None
        assert far.stdout is not None
        assert far.stdout.readline() == "ready\n"
        near = start(host, "pymobiledevice3_host.py", kind, path)
        assert near.stdout is not None
        assert near.stdout.readline()
        far.stdin.close()  # It may begin.
        yield Tunnel(host, device, near)


def addressed(network: Network, address: str) -> bool:
    shown = network.run("ip", "-6", "address", "show").split()
    return f"{address}/64" in shown and "tentative" not in shown


def processor_time(process: "subprocess.Popen[str]") -> float:
    threads = Path(f"/proc/{process.pid}/task").iterdir()
    return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads) / 1e9


def streamed(sending: Network, receiving: Network, address: str, process: "subprocess.Popen[str]") -> Cost:
    """Send a stream of TCP, and return the bytes that arrived and their cost."""
    listener, sender = (
        network.namespace.run(lambda: socket.socket(socket.AF_INET6)) for network in (receiving, sending)
    )
    with listener, sender:
        listener.bind((address, 0))
        listener.listen()
        sender.connect(listener.getsockname())
        receiver, _ = listener.accept()

        def send() -> None:
            block = bytes(MIB)
            for _ in range(SIZE):
                sender.sendall(block)
            sender.shutdown(socket.SHUT_WR)

        with receiver:
            memory, total = bytearray(MIB), 0
            before, began = processor_time(process), time.monotonic()
            thread = threading.Thread(target=send)
            thread.start()
            while received := receiver.recv_into(memory):
                total += received
            took, used = time.monotonic() - began, processor_time(process) - before
            thread.join()
    return Cost(total, total * 8 / took / 1e9, used * 1024 / SIZE)


@contextmanager
def ready(kinds: Sequence[str], mtu: int, folder: Path) -> Iterator[list[Tunnel]]:
    """Run a tunnel with each TUN class."""
    with ExitStack() as stack:
        tunnels = [stack.enter_context(tunnel(kind, mtu, folder)) for kind in kinds]
        for host, device, _ in tunnels:
            assert come_true(lambda a=host, b=device: addressed(a, HOST) and addressed(b, DEVICE), 20)  # type: ignore[misc]
        yield tunnels


def both_ways(tunnel: Tunnel) -> list[Cost]:
    """Return the costs of a stream from the device, and of one to it."""
    host, device, process = tunnel
    return [streamed(device, host, HOST, process), streamed(host, device, DEVICE, process)]


def dropped(mtu: int, folder: Path) -> Cost:
    """Return the cost of packets from the device at pymobiledevice3 with a TUN class that drops them."""
    with tunnel("drops", mtu, folder, SIZE) as (_, _, process):
        assert process.stdout is not None
        took, used = map(float, process.stdout.readline().split())
    return Cost(0, SIZE * MIB * 8 / took / 1e9, used * 1024 / SIZE)


def middle(costs: Sequence[Cost]) -> Cost:
    return Cost(*(statistics.median(column) for column in zip(*costs, strict=True)))


def ratio(costs: Sequence[Cost], others: Sequence[Cost]) -> Cost:
    """Return the medians of the ratios in a round."""
    return middle([Cost(*(a / b for a, b in zip(*pair, strict=True))) for pair in zip(costs, others, strict=True)])


@pytest.fixture(autouse=True)
def needs_pymobiledevice3() -> None:
    if importlib.util.find_spec("pymobiledevice3") is None:
        pytest.skip("there is no pymobiledevice3; pip install pymobiledevice3")


@pytest.mark.parametrize("mtu", [1280, 16000])
def test_streams_through_pymobiledevice3_arrive_whole(mtu: int, tmp_path: Path) -> None:
    with ready(["threepipe"], mtu, tmp_path) as [(host, device, _)]:
        assert transfer(device, host, HOST, 16 * MIB) == 16 * MIB
        assert transfer(host, device, DEVICE, 16 * MIB) == 16 * MIB


@pytest.mark.parametrize("mtu", [1280, 16000])
def test_rates_through_pymobiledevice3(mtu: int, tmp_path: Path, say: Callable[[str], None]) -> None:
    with ready(KINDS, mtu, tmp_path) as tunnels:
        rounds = [[both_ways(each) for each in tunnels] for _ in range(ROUNDS)]
    limits = [dropped(mtu, tmp_path) for _ in range(3)]
    assert {cost.arrived for row in rounds for costs in row for cost in costs} == {SIZE * MIB}
    say(f"\nMTU {mtu}: Gbit/s, and seconds of processor time for a GiB")
    peers, ours = zip(*rounds, strict=True)
    for way, theirs, own in zip(("from", "to"), zip(*peers, strict=True), zip(*ours, strict=True), strict=True):
        for kind, costs in zip(KINDS, (theirs, own), strict=True):
            say(f"{way} the device, {kind}: {middle(costs).gbits:.2f}, {middle(costs).cpu:.2f} s")
        part = ratio(own, theirs)
        say(f"{way} the device, {KINDS[1]} to {KINDS[0]}: {part.gbits:.2f}, {part.cpu:.2f}")
    limit = middle(limits)
    say(f"a class that drops everything: from the device {limit.gbits:.2f}, {limit.cpu:.2f} s")
