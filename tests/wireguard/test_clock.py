"""Wall clocks that are wrong, step and are mended, suspended machines, and restarts in each of these states."""

import itertools
import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.wireguard_pair import BACK, THERE, End, Network, joined
from threepipe.wireguard import clock
from threepipe.wireguard.settings import Change, PeerChange
from threepipe.wireguard.tai64n import Timestamps, seconds_between, timestamp

YEAR = 365 * 86400.0
SOON = 10.0
"""Seconds within which traffic passes after everything is well again."""


def passes(network: Network, sender: End, receiver: End, packet: bytes) -> bool:
    """Send a packet now and each second, and return True if one arrives soon."""
    until, count = network.now + SOON, len(receiver.packets)
    while network.now < until:
        sender.send(packet)
        network.advance(1)
        if len(receiver.packets) > count:
            return True
    return False


def both_pass(network: Network, left: End, right: End) -> bool:
    return passes(network, left, right, THERE) and passes(network, right, left, BACK)


@pytest.mark.parametrize("error", [-YEAR, -1.0, 1.0, YEAR])
@pytest.mark.parametrize("wrong", ["left", "right", "both"])
@pytest.mark.parametrize("pause", [0.0, 200.0, 600.0], ids=["at-once", "renewing", "wiped"])
def test_traffic_passes_after_a_clock_stepped_while_the_device_runs(error: float, wrong: str, pause: float) -> None:
    network, left, right = joined()
    assert both_pass(network, left, right)
    for end in (left, right):
        if wrong in ("both", "left" if end is left else "right"):
            end.wall_error = error
    network.advance(pause)
    assert both_pass(network, left, right)
    left.wall_error = right.wall_error = 0
    network.advance(pause)
    assert both_pass(network, left, right)
    assert not left.tunnel.rejected["initiation replayed"] + right.tunnel.rejected["initiation replayed"]


@pytest.mark.parametrize("waits", [0.0, 30.0, 300.0])
def test_a_device_that_started_with_a_clock_behind_is_heard_within_seconds_of_the_mend(waits: float) -> None:
    network, left, right = joined()
    assert both_pass(network, left, right)
    left.wall_error = -YEAR
    left.restart()
    assert not passes(network, left, right, THERE)  # The peer has seen later timestamps.
    network.advance(waits)
    left.wall_error = 0
    assert both_pass(network, left, right)


def test_two_devices_that_started_with_clocks_behind_stay_joined_over_the_mend_of_both() -> None:
    network, left, right = joined()
    for end in (left, right):
        end.wall_error = -YEAR
        end.restart()
    assert both_pass(network, left, right)
    left.wall_error = right.wall_error = 0
    for _ in range(5):
        network.advance(121)
        assert both_pass(network, left, right)
    left.restart()
    assert both_pass(network, left, right)


def test_a_clock_that_was_ahead_is_refused_until_the_peer_is_removed_and_added() -> None:
    network, left, right = joined()
    left.wall_error = YEAR
    assert both_pass(network, left, right)
    left.wall_error = 0
    network.advance(200)
    assert both_pass(network, left, right)  # While it runs, its timestamps do not go back.
    left.restart()
    assert not passes(network, left, right, THERE)
    assert right.tunnel.rejected["initiation replayed"] >= 2
    refusals = [event for event in right.tunnel.events if event.name == "outdated"]
    assert [(event.public_key, event.endpoint) for event in refusals] == [(left.public, left.endpoint)]
    assert refusals[0].seconds == pytest.approx(YEAR, abs=1000)
    right.tunnel.configure(Change(peers=(PeerChange(left.public, remove=True),)), network.now)
    right.add(left, "10.0.0.1/32", endpoint=False)
    assert both_pass(network, left, right)


def test_refusals_are_reported_again_after_an_initiation_was_accepted() -> None:
    network, left, right = joined()
    for _ in range(3):
        left.wall_error = 0
        left.restart()
        assert both_pass(network, left, right)
        left.wall_error = -YEAR
        left.restart()
        assert not passes(network, left, right, THERE)
        network.advance(30)
    assert [event.name for event in right.tunnel.events].count("outdated") == 3


def test_an_initiation_that_came_twice_is_not_reported() -> None:
    network, left, right = joined()
    left.send(THERE)
    network.settle()
    right.take(network.log[0][2], left.endpoint)
    assert right.tunnel.rejected["initiation replayed"] == 1
    assert [event.name for event in right.tunnel.events] == ["handshake"]


@pytest.mark.parametrize("seconds", [30.0, 170.0, 190.0, 1000.0, 7200.0])
@pytest.mark.parametrize("suspended", ["left", "right", "both"])
@pytest.mark.parametrize("timers_first", [True, False])
def test_traffic_passes_after_a_suspension(seconds: float, suspended: str, timers_first: bool) -> None:
    network, left, right = joined(persistent_keepalive=25)
    assert both_pass(network, left, right)
    left.suspended, right.suspended = suspended != "right", suspended != "left"
    if suspended == "both":
        network.now += seconds
    else:
        network.advance(seconds)
    left.suspended = right.suspended = False
    if timers_first:
        network.advance(0)
    assert both_pass(network, left, right)


def test_data_sent_right_after_a_long_suspension_is_not_delayed_by_the_wipe_of_old_keys() -> None:
    network, left, right = joined()
    assert both_pass(network, left, right)
    network.now += 1000
    left.send(THERE)
    left.tunnel.handle_timers(network.now)
    before = network.now
    network.settle()
    assert (network.now, right.packets) == (before, [THERE, THERE])


def test_the_time_of_a_handshake_moves_with_the_wall_clock_and_its_age_does_not() -> None:
    network, left, right = joined()
    left.wall_error = -YEAR
    left.restart()
    assert left.peer(right).handshake_age == float("inf")
    left.send(THERE)
    network.settle()
    assert (left.peer(right).last_handshake, left.peer(right).handshake_age) == (1.7e9 + 1000 - YEAR, 0)
    left.wall_error = 0
    network.now += 50
    assert (left.peer(right).last_handshake, left.peer(right).handshake_age) == (1.7e9 + 1000, 50)
    left.wall_error = 0.1  # Clocks drift, which is not to look like another handshake.
    assert left.peer(right).last_handshake == 1.7e9 + 1000
    left.wall_error = -1.7e9 - 1020
    assert (left.peer(right).last_handshake, left.peer(right).handshake_age) == (1, 50)


@given(st.lists(st.tuples(st.floats(0, 5e9), st.integers(0, 2)), min_size=1))
def test_timestamps_grow_for_each_peer_and_are_never_below_the_clock_or_the_last(
    steps: list[tuple[float, int]],
) -> None:
    wall = iter([at for at, _ in steps])
    stamps, last, latest = Timestamps(lambda: next(wall)), dict.fromkeys(range(3), b""), b""
    for at, peer in steps:
        stamp = stamps.after(last[peer])
        assert len(stamp) == 12
        assert stamp > last[peer]
        assert stamp >= timestamp(at)
        last[peer], latest = stamp, max(latest, timestamp(at))
        assert seconds_between(latest, stamp) < len(steps) * 0.02


def test_timestamps_of_one_moment_differ_for_one_peer() -> None:
    stamps = Timestamps(lambda: 1.7e9)
    stamp, seen = b"", []
    for _ in range(200):
        stamp = stamps.after(stamp)
        seen.append(stamp)
    assert all(earlier < later for earlier, later in itertools.pairwise(seen))
    assert stamps.after(b"") == timestamp(1.7e9)


def test_the_clock_never_goes_back() -> None:
    times = [clock.now() for _ in range(1000)]
    assert times == sorted(times)


@pytest.mark.kernel
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has time namespaces")
def test_the_clock_counts_the_time_in_suspend() -> None:
    """In a time namespace CLOCK_BOOTTIME is ahead of CLOCK_MONOTONIC, as it is after a suspension."""
    program = "import time; from threepipe.wireguard import clock; print(clock.now() - time.monotonic())"
    command = ["unshare", "--time", "--boottime", "5000", "--fork", sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True)
    if "unshare" in done.stderr:
        pytest.skip(f"no time namespace: {done.stderr.strip()}")
    ahead = time.clock_gettime(time.CLOCK_BOOTTIME) - time.monotonic()
    assert float(done.stdout) == pytest.approx(5000 + ahead, abs=1), done.stderr
