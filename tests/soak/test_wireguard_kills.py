"""A device with DNS, a default route and rules, killed or ended by a signal at random moments: nothing is left.

Each round compares addresses, routes, rules, nftables, sysctls, DNS, sockets, files in /run and processes with those
before. SOAK_ROUNDS sets another number of rounds.
"""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.wireguard_leavings import Place, check_kills, check_signals

ROUNDS = int(os.environ.get("SOAK_ROUNDS") or 100)

pytestmark = [pytest.mark.kernel, pytest.mark.soak, pytest.mark.timeout(ROUNDS * 30)]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    made.close()


def test_up_and_down_after_a_kill_at_any_moment_leave_nothing(place: Place) -> None:
    check_kills(place, ROUNDS)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_at_any_moment_leaves_nothing(place: Place, number: signal.Signals) -> None:
    check_signals(place, number, ROUNDS)
