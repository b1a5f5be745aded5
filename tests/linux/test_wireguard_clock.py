"""The clock of a device in a time namespace whose CLOCK_BOOTTIME is ahead, as after a suspension."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.answering_peer import TARGET, answering_peer
from tests.support.kernel import Network, needs_root
from threepipe.wireguard import clock

pytestmark = [pytest.mark.kernel, needs_root]

ROOT = Path(__file__).parents[2]


def age_of_traffic() -> float:
    """Ping through two devices, and return how long ago the first one notes that it had traffic, in seconds."""
    network = Network()
    with answering_peer(network) as (_, _, device, _):
        network.run("ping", "-c2", "-i0.2", "-w20", TARGET)
        (peer,) = device._tunnel._peers
        age = clock.now() - peer.traffic.last_traversal
    network.namespace.close()
    return age


def test_the_loop_that_forwards_notes_traffic_by_the_clock_of_the_timers() -> None:
    """The native core has a clock of its own, which has to be the same."""
    program = f"from {__name__} import age_of_traffic; print(age_of_traffic())"
    command = ["unshare", "--time", "--boottime", "5000", "--fork", sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    if done.stderr.startswith("unshare"):
        pytest.skip(f"no time namespace: {done.stderr.strip()}")
    assert 0 <= float(done.stdout) < 60, done.stderr
