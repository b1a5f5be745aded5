"""A pipe with taps, and the packets recorded in a file."""

import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

import threepipe
from tests.support.captures import PACKETS, reader
from threepipe.capture.tap import Taps

SECONDS = 10.0

descriptors = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no descriptor for a set of others")
unix = pytest.mark.skipif(sys.platform == "win32", reason="Python on Windows has no Unix sockets, FIFOs and limits")


def recorded(path: Path) -> list[tuple[bytes, int]]:
    return [(bytes(packet), direction) for _, packet, direction in reader(path.read_bytes())]


class Stage:
    """Two programs whose sessions are piped through taps."""

    def __init__(self, stack: ExitStack) -> None:
        self.taps = Taps()
        ends = [threepipe.MemoryAdapter.pair() for _ in "ab"]
        sessions = [stack.enter_context(adapter).start_session() for pair in ends for adapter in pair]
        self.left, left, right, self.right = sessions
        self.ends = self.taps.around(left, right)
        executor = stack.enter_context(ThreadPoolExecutor(1))
        stack.callback(left.close)
        self.ended = executor.submit(threepipe.pipe, *self.ends)

    def both_ways(self) -> None:
        """Send a packet to the right, and one back."""
        for source, target, packet in ((self.left, self.right, PACKETS[0]), (self.right, self.left, PACKETS[1])):
            source.send([packet])
            assert bytes(target.receive_packet(SECONDS)) == packet
