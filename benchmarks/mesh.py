"""Measure agents of a mesh on one nats-server, without privilege: devices between memory adapters, on the loopback.

    python -m benchmarks.mesh nodes --count 200        # that many processes, each a node
    python -m benchmarks.mesh curve --counts 100 1000  # one node, which knows that many simulated others

Needs nats-server and nats-py. The first starts all nodes at once, and tells how long it takes until every node knows
all, then the messages and bytes of the bus and the memory. Simulated nodes have real certificates and records, which
one client puts into the bucket. Memory is the growth of the process's private memory from one known node to all.
"""

import argparse
import asyncio
import json
import os
import re
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from ipaddress import IPv6Address, ip_network
from pathlib import Path
from typing import Any

import typer

from threepipe import MemoryAdapter, pipe
from threepipe.errors import ThreepipeError
from threepipe.mesh import Agent, Certificate, Links, NatsBus, Record, Request, Store
from threepipe.mesh.agent import now
from threepipe.mesh.records import public_part
from threepipe.settings import Network
from threepipe.wireguard import Device, NextHopRouting, generate_key, key_to_text, parse_networks, public_key

NETWORKS = parse_networks(["fd12:3456:789a::/48"])
AUTHORITY = bytes(range(32))
YEAR = 365 * 86_400_000
EXPIRY = 300.0  # Seconds, as by default.
PAGE = os.sysconf("SC_PAGE_SIZE")


class MemoryRoutes:
    """Routes without a system."""

    def __init__(self) -> None:
        self._hops: dict[Network, IPv6Address] = {}
        self._over = threading.Event()

    def add(self, destination: Network, next_hop: IPv6Address) -> None:
        self._hops[destination] = next_hop

    def remove(self, destination: Network, next_hop: IPv6Address) -> None:
        self._hops.pop(destination, None)

    def next_hop(self, destination: bytes, source: bytes) -> bytes | None:
        hop = self._hops.get(ip_network(destination))
        return hop.packed if hop else None

    def changes(self) -> Sequence[Network] | None:
        self._over.wait()
        return None

    def use_address(self, address: IPv6Address | None) -> None: ...

    def close(self) -> None:
        self._over.set()


def certified(folder: Path, name: str) -> Store:
    """Return the state of a new node."""
    store = Store(folder / name)
    made = Certificate.issue(AUTHORITY, store.keys().request(name), (), now(), now() + YEAR)
    store.put_certificate(f"{made.text}\n{key_to_text(public_part(AUTHORITY))}\n")
    return store


@contextmanager
def agent(store: Store, url: str, keepalive: int) -> Iterator[Agent]:
    """Return an agent that does not run yet."""
    with ExitStack() as stack:
        stack.callback(store.close)
        adapter, far = MemoryAdapter.pair(mtu=1420)
        stack.enter_context(adapter)
        stack.enter_context(far)
        routes = MemoryRoutes()
        routing = NextHopRouting(NETWORKS, routes)
        device = stack.enter_context(Device(private_key=store.keys().wireguard, mtu=1420, routing=routing))

        def forward() -> None:
            try:
                pipe(adapter.start_session(), device.session)
            except ThreepipeError:
                pass  # It was closed.

        thread = threading.Thread(target=forward)
        thread.start()
        stack.callback(thread.join)
        stack.callback(device.close)
        own = [("127.0.0.1", device.status().listen_port)]
        links = Links(device, routes, NETWORKS, keepalive)
        bus = NatsBus([url])
        yield Agent(store, NETWORKS, bus, links, expiry=EXPIRY, endpoints=lambda: ((), own), probe=unanswered)


async def unanswered(address: IPv6Address, seconds: float) -> None:
    """Answer no probe: the benchmark has no interface."""


def private_memory() -> int:
    """Return the bytes of this process's private memory."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith("Private_"))


def processor_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def run_until(made: Agent, count: int, known: "asyncio.Event", over: threading.Event) -> None:
    """Run an agent; set `known` once it has `count` members."""

    def look() -> bool:
        if len(made.links.statuses()) >= count - 1 and len(made.membership.members) >= count:
            known.set()
        return over.is_set()

    await made.run(look)


def node(folder: Path, name: str, url: str, count: int, keepalive: int) -> None:
    """Run a node in this process. Print when it knows all others, and its costs at the end of the input."""
    with agent(certified(folder, name), url, keepalive) as made:
        over = threading.Event()

        async def work() -> None:
            known = asyncio.Event()
            running = asyncio.ensure_future(run_until(made, 1, asyncio.Event(), over))
            while len(made.membership.members) < 1:
                await asyncio.sleep(0.01)
            alone = private_memory()
            while len(made.membership.members) < count:
                await asyncio.sleep(0.05)
            known.set()
            typer.echo(json.dumps({"known": time.time(), "alone": alone}))
            await asyncio.to_thread(sys.stdin.read)
            reached = sum(status.handshake_age < 180 for status in made.links.statuses().values())
            typer.echo(json.dumps({"memory": private_memory(), "cpu": processor_seconds(), "reached": reached}))
            over.set()
            await running

        asyncio.run(work())


class Server:
    """A nats-server with JetStream, and the counts of its connections."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        found = shutil.which("nats-server")
        if found is None:
            sys.exit("nats-server is not installed; run: go install github.com/nats-io/nats-server/v2@latest")
        self.port, self.monitor = free_port(), free_port()
        words = [found, "-js", "-sd", str(folder / "nats"), "-a", "127.0.0.1", "-p", str(self.port)]
        words += ["-m", str(self.monitor)]
        self.process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        stack.callback(self.process.wait)
        stack.callback(self.process.terminate)
        self.url = f"nats://127.0.0.1:{self.port}"
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                self.connections()
                return
            except OSError:
                time.sleep(0.05)
        sys.exit("nats-server has not started")

    def connections(self) -> list[dict[str, Any]]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.monitor}/connz?limit=20000") as answer:
            found: list[dict[str, Any]] = json.load(answer)["connections"]
        return found

    def totals(self) -> dict[str, int]:
        """Return messages and bytes of all connections, in both directions; bytes are those of TCP's segments."""
        found = self.connections()
        shown = subprocess.run(["ss", "-tinH", f"sport = :{self.port}"], capture_output=True, text=True, check=True)
        counts = re.findall(r"bytes_(?:sent|received):(\d+)", shown.stdout)
        return {
            "messages": sum(each["in_msgs"] + each["out_msgs"] for each in found),
            "bytes": sum(map(int, counts)),
        }

    def memory(self) -> int:
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * PAGE


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def measure_nodes(count: int, seconds: float, keepalive: int) -> None:
    """Start `count` processes, and print the times, the traffic of the bus and the memory."""
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        server = Server(folder, stack)
        begin = time.time()
        words = [sys.executable, "-m", "benchmarks.mesh", "node", str(folder)]
        processes = []
        for number in range(count):
            more = [f"n{number}", server.url, str(count), str(keepalive)]
            process = subprocess.Popen([*words, *more], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            stack.callback(process.kill)
            processes.append(process)
        started = time.time() - begin
        first = [json.loads(read_line(process)) for process in processes]
        known = max(each["known"] for each in first) - begin
        typer.echo(f"{count} nodes: all started after {started:.1f} s, all know all after {known:.1f} s")
        joined = server.totals()
        typer.echo(
            f"to join: {joined['messages'] / count:.0f} messages and {joined['bytes'] / count / 1024:.0f} KiB a node"
        )
        time.sleep(seconds)
        after = server.totals()
        minutes = seconds / 60
        rate = (after["bytes"] - joined["bytes"]) / count / count / minutes
        messages = (after["messages"] - joined["messages"]) / count / minutes
        each = f"{rate:.0f} bytes a minute for each node that a node knows"
        typer.echo(f"then, in {seconds:.0f} s: {messages:.0f} messages a minute and node, {each}")
        last = []
        for process in processes:
            assert process.stdin is not None
            process.stdin.close()
            last.append(json.loads(read_line(process)))
        grown = [end["memory"] - start["alone"] for start, end in zip(first, last, strict=True)]
        whole = statistics.median(each["memory"] for each in last)
        share = statistics.median(grown) / count / 1024
        typer.echo(f"memory of a node: {whole / 2**20:.1f} MiB, {share:.1f} KiB for each that it knows")
        reached = statistics.median(end["reached"] for end in last)
        typer.echo(f"peers with a session: {reached:.0f} of {count - 1}")
        typer.echo(f"processor time of a node: {statistics.median(end['cpu'] for end in last):.1f} s")
        for process in processes:
            process.wait(60)


def read_line(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def simulated(count: int, times: int) -> list[list[tuple[str, bytes]]]:
    """Return `times` records of each of `count` nodes, the later ones newer."""
    rounds: list[list[tuple[str, bytes]]] = [[] for _ in range(times)]
    for number in range(count):
        seed = generate_key()
        request = Request(f"n{number}", public_key(generate_key()), public_part(seed))
        certificate = Certificate.issue(AUTHORITY, request, (), now(), now() + YEAR)
        endpoints = [(f"127.{1 + (number >> 16)}.{number >> 8 & 255}.{number & 255}", 51820)]
        for index, records in enumerate(rounds):
            time_of = now() + index
            record = Record.sign(certificate, seed, time_of, time_of + 3_600_000, endpoints)
            records.append((request.name, record.text.encode()))
    return rounds


async def put_all(url: str, records: list[tuple[str, bytes]]) -> None:
    import nats

    client = await nats.connect(url)
    stream = client.jetstream()
    store = await stream.create_key_value(bucket="mesh", history=1)
    for begin in range(0, len(records), 200):
        await asyncio.gather(*[store.put(name, data) for name, data in records[begin : begin + 200]])
    await client.close()


def measure_curve(counts: Sequence[int], keepalive: int) -> None:
    """Print the costs of one agent for each number of nodes that it knows."""
    headings = ("nodes", "known s", "KiB each", "record B", "bus B each", "refresh s", "refresh us CPU", "server MiB")
    typer.echo(" ".join([heading.rjust(14) for heading in headings]))
    for count in counts:
        with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
            folder = Path(name)
            server = Server(folder, stack)
            first, second = simulated(count, 2)
            asyncio.run(put_all(server.url, first))
            made = stack.enter_context(agent(certified(folder, "own"), server.url, keepalive))
            figures = asyncio.run(watch(made, server, count, second))
            figures["record"] = sum(len(data) for _, data in first) / count
            figures["server"] = server.memory() / 2**20
            order = ("known", "memory", "record", "bytes", "refreshed", "cpu", "server")
            typer.echo(" ".join([str(count).rjust(14), *[f"{figures[each]:14.1f}" for each in order]]))


async def watch(made: Agent, server: Server, count: int, second: list[tuple[str, bytes]]) -> dict[str, float]:
    over, known = threading.Event(), asyncio.Event()
    alone, begin = private_memory(), time.monotonic()
    running = asyncio.ensure_future(run_until(made, count + 1, known, over))
    await known.wait()
    figures = {"known": time.monotonic() - begin, "memory": (private_memory() - alone) / count / 1024}
    before, spent, begin = await asyncio.to_thread(server.totals), processor_seconds(), time.monotonic()
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.mesh", "put", server.url, stdin=asyncio.subprocess.PIPE
    )
    text = json.dumps([[name, data.decode()] for name, data in second])
    await child.communicate(text.encode())
    newest = {name: data.decode() for name, data in second}
    while any(made.membership.known[name].text != newest[name] for name in newest):
        await asyncio.sleep(0.05)
    figures["refreshed"] = time.monotonic() - begin
    figures["cpu"] = (processor_seconds() - spent) / count * 1e6
    after = await asyncio.to_thread(server.totals)  # The client that has put the records is gone.
    figures["bytes"] = (after["bytes"] - before["bytes"]) / count
    over.set()
    await running
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    nodes = commands.add_parser("nodes")
    nodes.add_argument("--count", type=int, default=200)
    nodes.add_argument("--seconds", type=float, default=180, help="of the measurement once all are known")
    nodes.add_argument("--keepalive", type=int, default=25)
    curve = commands.add_parser("curve")
    curve.add_argument("--counts", type=int, nargs="+", default=[100, 1000, 10000])
    curve.add_argument("--keepalive", type=int, default=0)
    one = commands.add_parser("node")
    for argument, kind in (("folder", Path), ("name", str), ("url", str), ("count", int), ("keepalive", int)):
        one.add_argument(argument, type=kind)
    commands.add_parser("put").add_argument("url")
    given = parser.parse_args()
    if given.command == "nodes":
        measure_nodes(given.count, given.seconds, given.keepalive)
    elif given.command == "curve":
        measure_curve(given.counts, given.keepalive)
    elif given.command == "node":
        node(given.folder, given.name, given.url, given.count, given.keepalive)
    else:
        asyncio.run(put_all(given.url, [(name, text.encode()) for name, text in json.load(sys.stdin)]))


if __name__ == "__main__":
    main()
