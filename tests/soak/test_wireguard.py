"""Two of our devices that renew keys all the time, with a bad network between them, for half an hour.

`threepipe pipe --impair` makes the network bad: some datagrams are lost, some come twice, and some overtake others,
including handshakes. At each event the programs fork a child, which uses its copy of the device. Meanwhile both ends
change their addresses, and one end restarts. The streams in the tunnel must arrive intact all the time.
SOAK_SECONDS sets another time.
"""

import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import cycle
from pathlib import Path

import pytest

from tests.support.transfers import MIB, transfer
from tests.support.waiting import come_true
from tests.support.wireguard_peers import INSIDE, OUTSIDE, End, hasty, worsened
from threepipe.wireguard import Timing

SECONDS = float(os.environ.get("SOAK_SECONDS") or 900)  # For each core.
TIMING = Timing(rekey_after=3, reject_after=8, rekey_attempt=20, rekey_timeout=0.5, keepalive=1.5)
SELDOM = 6.0
"""Seconds with one handshake at least, on average: twice the age, as some must be repeated."""
BAD = (
    "delay=4ms,jitter=1ms,loss=0.5%,duplicate=1%,reorder=0.5%,seed=1,towards=right",
    "delay=4ms,jitter=1ms,loss=0.5%,duplicate=1%,reorder=0.5%,seed=2,towards=left",
)
STREAM = 8 * MIB
GROWTH = 4 << 10  # KiB of memory growth allowed after a fifth of the time.
LOOK = 5.0
MORE_DESCRIPTORS = 4
"""Descriptors that a device may have above those after a fifth of the time: of a fork, and of clients."""

pytestmark = [pytest.mark.kernel, pytest.mark.soak, pytest.mark.timeout(SECONDS + 300)]


class Device:
    """An end, and its handshakes and memory as observed from outside."""

    def __init__(self, end: End, events: Path) -> None:
        self.end, self.events = end, events
        self.memory: list[int] = []
        self.descriptors: list[int] = []

    def handshakes(self) -> int:
        return self.events.read_text().split().count("handshake") if self.events.exists() else 0

    def look(self) -> str:
        """Note its memory and descriptors now, and return both as text."""
        text = Path(f"/proc/{self.end.pid}/status").read_text()
        self.memory.append(next(int(line.split()[1]) for line in text.splitlines() if line.startswith("VmRSS:")))
        self.descriptors.append(len(os.listdir(f"/proc/{self.end.pid}/fd")))
        return f"{self.memory[-1]} KiB, {self.descriptors[-1]} descriptors"

    def check_growth(self) -> None:
        """Compare its memory and descriptors with those after a fifth of the time."""
        for counts, more in ((self.memory, GROWTH), (self.descriptors, MORE_DESCRIPTORS)):
            assert max(counts) < max(counts[: len(counts) // 5 + 1]) + more, counts

    def stop(self, pure: str) -> Mapping[str, int]:
        """End the program, check its report, and return the datagrams that it dropped."""
        said = json.loads(self.end.stop().splitlines()[-1])
        assert said["native"] is not bool(pure)
        assert set(said["children"]) <= {0}, "a child could send, or it had keys"
        return dict(said["rejected"])


@contextmanager
def streaming(devices: Sequence[Device], counts: list[int]) -> Iterator[threading.Event]:
    """Send streams one after another, in both directions at once and of both versions, and compare their hashes.

    This goes on until the block ends, or until a stream fails, which sets the event.
    """
    over = threading.Event()

    def stream(number: int) -> None:
        near, far = devices[number].end, devices[1 - number].end
        try:
            for version in cycle((4, 6)):
                if over.is_set():
                    return
                transfer(near.network, far.network, INSIDE[version][far.number], STREAM)
                counts[number] += 1
        finally:
            over.set()

    with ThreadPoolExecutor(2) as executor:
        running = [executor.submit(stream, number) for number in (0, 1)]
        try:
            yield over
        finally:
            over.set()
        for each in running:
            each.result()


def renewed(devices: Sequence[Device], before: Sequence[int]) -> bool:
    return all(device.handshakes() > count for device, count in zip(devices, before, strict=True))


@pytest.mark.parametrize("pure", ["1", ""], ids=["pure", "native"])
def test_streams_through_a_bad_network_arrive_while_keys_are_renewed(
    pure: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if not pure:
        pytest.importorskip("threepipe._native", reason="there is no native core")

    def say(text: str) -> None:
        with capsys.disabled():
            print(text, flush=True)  # noqa: T201

    logs = [tmp_path / f"events{number}" for number in (0, 1)]
    with worsened(*(hasty(TIMING, log, f"THREEPIPE_PURE={pure}", "FORKS=1") for log in logs), impairments=BAD) as site:
        devices = [Device(end, log) for end, log in zip(site.ends, logs, strict=True)]
        first, second = site.ends
        for end in site.ends:
            end.keep_adapter()
            end.start()
        second.set_peer(first)
        first.set_peer(second, "endpoint", OUTSIDE[4].endpoint(2))
        first.ping(4, second)

        def restart() -> None:
            devices[1].stop(pure)
            second.start()
            second.set_peer(first)

        events: Iterator[tuple[str, Callable[[], None]]] = cycle(
            (
                ("nothing happens", lambda: None),
                ("the second moves", partial(site.move, 1, 3, 4)),
                ("the second restarts", restart),
                ("the first moves", partial(site.move, 0, 4, 4)),
                ("the second moves back", partial(site.move, 1, 2, 4)),
                ("the first moves back", partial(site.move, 0, 1, 4)),
            )
        )
        streams, began = [0, 0], time.monotonic()
        with streaming(devices, streams) as over:
            while (passed := time.monotonic() - began) < SECONDS and not over.is_set():
                before = [device.handshakes() for device in devices]
                looks = [device.look() for device in devices]
                title, act = next(events)
                say(f"{passed:4.0f} s: handshakes {before}, streams {streams}, {looks}; {title}")
                act()
                over.wait(LOOK)
                assert over.is_set() or come_true(partial(renewed, devices, before), 60), "there are no new keys"
        assert all(streams)
        assert min(device.handshakes() for device in devices) > passed / SELDOM
        for device in devices:
            device.check_growth()
        rejected = [device.stop(pure) for device in devices]
        assert rejected[0]["not authentic, or not new"] > 0, "nothing came twice"
        say(f"they dropped {rejected}")
