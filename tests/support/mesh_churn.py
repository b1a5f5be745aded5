"""A mesh of agents and babeld in which nodes join, leave, move and die, and links are cut, beside a model of it.

The model knows which nodes are up: all of them must reach each other. Each sends a datagram to every other five times a
second. A black hole is a time in which no datagram of one node arrives at another, while both are up.
"""

import itertools
import random
import select
import shutil
import socket
import struct
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import NamedTuple, TypeAlias

from tests.support.mesh_agents import PREFIX, AgentLab, AgentNode
from tests.support.waiting import come_true

__all__ = ["Churn", "Hole", "lacking"]

_INTERVAL = 0.2  # Seconds between the datagrams of a pair.
_SECONDS = 30.0  # The longest time of a command.
_PROBE = struct.Struct("!I")
_PORT = 9
_MOST_CUTS, _MOST_HOLES = 3, 10
_TOLD = 1.0  # Seconds. Shorter holes are not reported.
_BABELD = f"""
random-id true
interface mesh0 type tunnel split-horizon false hello-interval 0.2
redistribute local ip {PREFIX} allow
redistribute local deny
"""

Pair: TypeAlias = tuple[AgentNode, AgentNode]
Router: TypeAlias = "subprocess.Popen[bytes]"


def lacking() -> list[str]:
    """Return the missing ones of the programs that it needs beside those of a lab of agents."""
    return [name for name in ("babeld",) if not shutil.which(name)]


class Hole(NamedTuple):
    """A time in which no datagram of one node arrived at another."""

    seconds: float
    sender: str
    receiver: str
    after: str
    """The last event before its end."""


class Churn:
    """The nodes, their events, and the datagrams between them."""

    def __init__(self, lab: AgentLab, stack: ExitStack, count: int, seed: int) -> None:
        self.events: Counter[str] = Counter()
        self.sent = self.arrived = 0
        self.holes: list[Hole] = []
        """The longest, the longest first."""
        self.told: list[str] = []
        """The events."""
        self.nodes = [lab.add(f"n{number}") for number in range(1, count + 1)]
        self._random = random.Random(seed)
        self._begin = time.monotonic()
        self._lock = threading.Lock()  # For the fields below, which the thread of the datagrams uses too.
        self._up: dict[AgentNode, float] = {}
        self._seen: dict[Pair, float] = {}
        self._last = "the start"
        self._away: set[AgentNode] = set()
        self._cuts: set[frozenset[AgentNode]] = set()
        self._routers: dict[AgentNode, Router] = {}
        stack.callback(self._end_routers)
        self._sockets = {node: stack.enter_context(_opened(node)) for node in self.nodes}
        for node in self.nodes:
            node.network.run("nft", "add table inet cut; add chain inet cut in { type filter hook input priority 0; }")

    def _route(self, node: AgentNode) -> None:
        """Start babeld, which a node has for as long as its interface, as docs/mesh-sizes.md says."""
        path = node.store.folder / "babeld.conf"
        path.write_text(_BABELD)
        words = ["babeld", "-I", "", "-S", f"{node.store.folder}/babeld-state", "-c", str(path), "mesh0"]
        with (node.store.folder / "babeld.log").open("ab") as output:
            self._routers[node] = subprocess.Popen(node.network.command(*words), stdout=output, stderr=output)

    def _end_routers(self) -> None:
        for router in self._routers.values():
            router.kill()
            router.wait(_SECONDS)

    def run(self, seconds: float) -> None:
        """Begin with all nodes, and have things happen for so many seconds."""
        for node in self.nodes:
            node.start("--expiry", "30")
        for node in self.nodes:
            assert come_true(node.is_up, _SECONDS), node.log
            self._route(node)
        with self._probing() as over:
            for node in self.nodes:
                self._note_up(node)
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                over.wait(self._random.uniform(1, 4))
                self._happen()

    # The events.

    def _happen(self) -> None:
        up = [node for node in self.nodes if node in self._up]
        down = [node for node in self.nodes if node not in self._up]
        choices: list[tuple[str, Callable[[], None]]] = []
        if down:
            choices += [("join", lambda: self._join(self._random.choice(down)))] * 2
        if len(down) < len(self.nodes) // 3:
            choices += [(name, lambda end=end: self._end(self._random.choice(up), end)) for name, end in _ENDS.items()]  # type: ignore[misc]
        choices.append(("move", lambda: self._move(self._random.choice(up))))
        if len(self._cuts) < _MOST_CUTS:
            choices.append(("cut", self._cut))
        if self._cuts:
            choices.append(("mend", lambda: self._mend(self._random.choice(sorted(self._cuts, key=_names)))))
        name, happen = self._random.choice(choices)
        self.events[name] += 1
        happen()

    def _tell(self, text: str) -> None:
        with self._lock:
            self._last = f"{text} at {time.monotonic() - self._begin:.1f} s"
            self.told.append(self._last)

    def _note_up(self, node: AgentNode) -> None:
        with self._lock:
            self._up[node] = time.monotonic()

    def _join(self, node: AgentNode) -> None:
        before = node.log.count("is up")
        node.start("--expiry", "30")
        assert come_true(lambda: node.log.count("is up") > before, _SECONDS), node.log
        self._route(node)
        self._tell(f"{node.name} joined")
        self._note_up(node)

    def _end(self, node: AgentNode, end: Callable[[AgentNode, Router], None]) -> None:
        self._tell(f"{node.name} ended")
        with self._lock:
            self._look_at(node, time.monotonic())
            del self._up[node]
        self._cuts = {cut for cut in self._cuts if node not in cut}
        self._filter()
        router = self._routers.pop(node)
        end(node, router)
        router.wait(_SECONDS)

    def _move(self, node: AgentNode) -> None:
        """Give the node another address outside the mesh, in place of the one that it has."""
        old, new = _addresses(node) if node not in self._away else reversed(_addresses(node))
        self._away ^= {node}
        self._tell(f"{node.name} moved")
        node.network.run("ip", "address", "del", f"{old}/24", "dev", "v0")
        node.network.run("ip", "address", "add", f"{new}/24", "dev", "v0")

    def _cut(self) -> None:
        """Drop all datagrams between two nodes silently, if there is another way between all."""
        cut = frozenset(self._random.sample(sorted(self._up, key=lambda node: node.number), 2))
        if self._hold_together({*self._cuts, cut}):
            self._cuts.add(cut)
            self._tell(f"{_names(cut)} cut")
            self._filter()

    def _mend(self, cut: frozenset[AgentNode]) -> None:
        self._cuts.discard(cut)
        self._tell(f"{_names(cut)} mended")
        self._filter()

    def _hold_together(self, cuts: set[frozenset[AgentNode]]) -> bool:
        """Return True if every two nodes that are up have a way of two links at most, whichever one more node ends."""
        for one, other in itertools.combinations(self._up, 2):
            if frozenset((one, other)) in cuts:
                between = [
                    node
                    for node in self._up
                    if node not in (one, other) and not {frozenset((one, node)), frozenset((node, other))} & cuts
                ]
                if len(between) < 2:
                    return False
        return True

    def _filter(self) -> None:
        for node in self.nodes:
            others = [other for cut in self._cuts if node in cut for other in cut if other is not node]
            rules = [f"add rule inet cut in ip saddr {{ {', '.join(_addresses(other))} }} drop" for other in others]
            node.network.run("nft", "; ".join(["flush chain inet cut in", *rules]))

    # The datagrams.

    @contextmanager
    def _probing(self) -> Iterator[threading.Event]:
        """Send and receive datagrams while the block runs."""
        over = threading.Event()
        failures: list[BaseException] = []

        def probe() -> None:
            try:
                self._probe(over)
            except BaseException as failure:
                failures.append(failure)
                over.set()

        thread = threading.Thread(target=probe)
        thread.start()
        try:
            yield over
        finally:
            over.set()
            thread.join()
        for failure in failures:
            raise failure
        for pair in itertools.permutations(self._up, 2):
            self._note(pair, time.monotonic())

    def _probe(self, over: threading.Event) -> None:
        due = time.monotonic()
        of = {opened: node for node, opened in self._sockets.items()}
        while not over.is_set():
            ready, _, _ = select.select(list(of), [], [], max(0.0, due - time.monotonic()))
            with self._lock:
                now = time.monotonic()
                for opened in ready:
                    self._receive(of[opened], opened, now)
                if now >= due:
                    due = now + _INTERVAL
                    self._send()

    def _send(self) -> None:
        for sender, receiver in itertools.permutations(self._up, 2):
            with suppress(OSError):  # There may be no route for a moment.
                self._sockets[sender].sendto(_PROBE.pack(sender.number), (str(receiver.address), _PORT))
            self.sent += 1

    def _receive(self, receiver: AgentNode, opened: socket.socket, now: float) -> None:
        with suppress(BlockingIOError):
            while True:
                (number,) = _PROBE.unpack(opened.recv(100))
                sender = self.nodes[number - 1]
                self.arrived += 1
                if sender in self._up and receiver in self._up:
                    self._note((sender, receiver), now)
                    self._seen[sender, receiver] = now

    def _look_at(self, node: AgentNode, now: float) -> None:
        """Note the holes of a node that ends."""
        for other in self._up:
            if other is not node:
                for pair in ((node, other), (other, node)):
                    self._note(pair, now)
                    self._seen.pop(pair, None)

    def _note(self, pair: Pair, now: float) -> None:
        sender, receiver = pair
        since = max(self._seen.get(pair, 0.0), self._up[sender], self._up[receiver])
        if now - since > _TOLD:
            self.holes.append(Hole(now - since, sender.name, receiver.name, self._last))
            self.holes.sort(reverse=True)
            del self.holes[_MOST_HOLES:]


def _leave(node: AgentNode, router: Router) -> None:
    node.call("mesh", "leave")
    assert node.process is not None
    node.process.wait(_SECONDS)
    node.process = None
    router.terminate()


def _die(node: AgentNode, router: Router) -> None:
    node.kill()
    router.kill()


_ENDS: dict[str, Callable[[AgentNode, Router], None]] = {"leave": _leave, "die": _die}


def _addresses(node: AgentNode) -> tuple[str, str]:
    """Return the two addresses outside the mesh that a node moves between."""
    return f"192.0.2.{node.number}", f"192.0.2.{node.number + 100}"


def _names(cut: frozenset[AgentNode]) -> str:
    return "-".join(sorted(node.name for node in cut))


def _opened(node: AgentNode) -> socket.socket:
    opened = node.network.namespace.run(lambda: socket.socket(socket.AF_INET6, socket.SOCK_DGRAM))
    opened.bind(("::", _PORT))
    opened.setblocking(False)
    return opened
