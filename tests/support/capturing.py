"""Adapters and pipes to capture from, programs that capture, and the packets in their files."""

import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tests.support import pinging
from tests.support.captures import reader
from tests.support.hosts import answers
from tests.support.kernel import Network
from tests.support.waiting import come_true
from threepipe import Adapter, Session
from threepipe.backend import CapturedBundle

__all__ = [
    "OTHERS",
    "OWN",
    "SECONDS",
    "TUN",
    "Program",
    "answering",
    "echoes",
    "made",
    "packets_of",
    "ping",
    "sees",
    "shown",
    "so_far",
    "started_pipe",
]

SECONDS = 10.0
OWN, OTHERS = ("10.9.0.1", "fd99::1"), ("10.9.0.2", "fd99::2")
TUN = f"tun:tp0,address={OWN[0]}/24,address={OWN[1]}/64"

_HEADERS = 512  # Bytes: more than a program writes before the first packet, and less than a file with some packets has.

PIPE = """
import sys, threepipe
from pathlib import Path
from threepipe.capture.server import serve_captures
from threepipe.capture.tap import Taps
from threepipe.endpoints import open_endpoint
left, right, taps = open_endpoint(sys.argv[1]), open_endpoint(sys.argv[2], side="right"), Taps()
with serve_captures(taps, sys.argv[1], sys.argv[2]):
    ends = taps.around(left, right)
    print("runs", file=sys.stderr, flush=True)
    try:
        threepipe.pipe(*ends)
    except KeyboardInterrupt:
        pass
"""


def made(network: Network, offload: bool = True) -> Adapter:
    addresses = [f"{OWN[0]}/24", f"{OWN[1]}/64"]
    return Adapter.create("tp0", netns=network.path, addresses=addresses, offload=offload)


@contextmanager
def answering(network: Network) -> Iterator[Session]:
    """Make an adapter tp0, behind which hosts answer pings."""
    with made(network) as adapter, adapter.start_session() as session:
        thread = threading.Thread(target=_answer, args=(session,))
        thread.start()
        try:
            yield session
        finally:
            session.close()
            thread.join()


def _answer(session: Session) -> None:
    for bundle in session:
        session.send(answers(bundle), None)


def ping(network: Network, count: int = 3) -> None:
    for host in OTHERS:
        pinging.ping(network, host, count)


class Program:
    """A program that captures until it is told to end."""

    def __init__(self, stack: ExitStack, command: list[str], started: Callable[[str], bool], **options: Any) -> None:
        """Start the program, and wait until `started` is true for its standard error."""
        self.said = ""
        self._begun = threading.Event()
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, **options)
        self._listener = threading.Thread(target=self._listen, args=(started,))
        self._listener.start()
        stack.callback(self.end)
        assert come_true(lambda: self._begun.is_set() or self.process.poll() is not None, SECONDS * 3)
        assert self._begun.is_set(), self.said

    def _listen(self, started: Callable[[str], bool]) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.said += line
            if started(self.said):
                self._begun.set()

    def end(self, how: signal.Signals = signal.SIGINT) -> int:
        """End the program and return its status; repeating this is harmless."""
        if self.process.returncode is None:
            self.process.send_signal(how)
        status = self.process.wait(SECONDS * 3)
        self._listener.join()
        assert self.process.stderr is not None
        self.process.stderr.close()
        return status


def started_pipe(stack: ExitStack, network: Network, environment: dict[str, str], left: str, right: str) -> Program:
    command = network.command(sys.executable, "-W", "error", "-c", PIPE, left, right)
    return Program(stack, command, lambda said: "runs" in said, env=environment)


def shown(path: Path, *fields: str) -> list[list[str]]:
    """Return `fields` of each packet that tshark reads in a file."""
    command = ["tshark", "-n", "-r", str(path), "-T", "fields", "-E", "separator=|", "-E", "occurrence=f"]
    for field in fields:
        command += ["-e", field]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=50)
    return [line.split("|") for line in done.stdout.splitlines()]


def so_far(path: Path) -> list[bytes]:
    """Return the packets in a file that may not exist yet or is being written."""
    data = path.read_bytes() if path.exists() else b""
    return [bytes(packet) for _, packet, _ in reader(data)] if len(data) >= _HEADERS else []


def echoes(packets: Iterable[bytes]) -> int:
    """Return how many packets are ICMP echo requests and replies."""
    return sum(
        [packet[9] == 1 if packet[0] >> 4 == 4 else packet[6] == 58 and packet[40] in (128, 129) for packet in packets]
    )


def packets_of(seen: list[CapturedBundle], *directions: int) -> list[bytes]:
    """Return the packets of `directions`, or of all."""
    chosen = [one for one in seen if not directions or one.direction in directions]
    return [bytes(packet) for one in chosen for packet in one.packets]


def sees(network: Network) -> bool:
    """Return True if a packet socket, that of a capture, is open in `network`."""
    return "tp0" in network.run("ss", "-0", "-a", "-n")
