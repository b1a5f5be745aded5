"""Devices whose wall clock is wrong, steps and is mended, beside others. libfaketime changes that clock alone."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.waiting import come_true
from tests.support.wireguard_peers import INSIDE, OUTSIDE, PROGRAMS, End, Program, hasty, sites
from threepipe.wireguard import Timing

LIBRARIES = sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.timeout(120),
    pytest.mark.skipif(not LIBRARIES, reason="libfaketime is missing; install faketime"),
]

HASTY = Timing(rekey_after=1, reject_after=4, rekey_timeout=0.5, keepalive=1)
RIGHT, BEHIND, AHEAD = "+0", "-365d", "+365d"


class Clock:
    """The wall clock of a program."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "clock"

    def set(self, offset: str) -> None:
        """Set how far the clock is from the right time, as faketime(1) writes it, while the program runs or before."""
        new = self._path.with_suffix(".new")
        new.write_text(f"{offset}\n")
        new.replace(self._path)

    def environment(self) -> list[str]:
        return [
            f"LD_PRELOAD={LIBRARIES[0]}",
            f"FAKETIME_TIMESTAMP_FILE={self._path}",
            "FAKETIME_NO_CACHE=1",
            "FAKETIME_DONT_FAKE_MONOTONIC=1",
        ]


@contextmanager
def clocked(other: str, clock: Clock, folder: Path) -> Iterator[tuple[End, End, Path, Path]]:
    """Start ours with its clock, and the other one with the right clock; yield both, and the logs of their events."""
    if missing := PROGRAMS[other].missing():
        pytest.skip(missing)
    logs = folder / "ours", folder / "theirs"
    theirs: str | Program = hasty(Timing(), logs[1]) if other == "threepipe" else other
    with sites(hasty(HASTY, logs[0], *clock.environment()), theirs) as site:
        for end in site.ends:
            end.start()
        site.ends[1].set_peer(site.ends[0])
        connect(*site.ends)
        site.ends[0].ping(4, site.ends[1])
        yield *site.ends, *logs


def connect(ours: End, theirs: End) -> None:
    ours.set_peer(theirs, "endpoint", OUTSIDE[4].endpoint(2), "persistent-keepalive", "1")


@pytest.mark.parametrize("other", ["wireguard-go", "threepipe"])
def test_a_device_whose_clock_is_behind_and_steps_renews_its_keys_all_the_time(other: str, tmp_path: Path) -> None:
    clock = Clock(tmp_path)
    clock.set(BEHIND)
    with clocked(other, clock, tmp_path) as (ours, theirs, log, _):

        def renewals() -> int:
            return log.read_text().split().count("handshake")

        for offset in (RIGHT, BEHIND, AHEAD, RIGHT):
            clock.set(offset)
            wanted = renewals() + 2
            assert come_true(lambda wanted=wanted: renewals() >= wanted, 30)  # type: ignore[misc]
            ours.ping(4, theirs)
            theirs.ping(6, ours)


@pytest.mark.parametrize("other", ["wireguard-go", "threepipe"])
def test_a_device_whose_clock_was_ahead_is_refused_until_it_is_removed_and_added(other: str, tmp_path: Path) -> None:
    """Every implementation does so: its timestamps are below the last one accepted (section 5.1 of the paper)."""
    clock = Clock(tmp_path)
    clock.set(AHEAD)
    with clocked(other, clock, tmp_path) as (ours, theirs, _, their_log):
        ours.stop()
        clock.set(RIGHT)
        ours.start()
        connect(ours, theirs)
        refused = ours.network.run("ping", "-c", "1", "-W", "3", INSIDE[4][theirs.number], check=False)
        assert " 0 received" in refused
        assert other != "threepipe" or "outdated" in their_log.read_text().split()
        theirs.remove_peer(ours)
        theirs.set_peer(ours)
        ours.ping(4, theirs)
