"""The clock of a device in a time namespace whose CLOCK_BOOTTIME is ahead, as after a suspension."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest

import threepipe
from tests.support.kernel import Network, needs_root
from tests.support.wireguard_pair import new_key
from threepipe import Adapter
from threepipe.echo import echo_reply
from threepipe.wireguard import Change, Device, PeerChange, clock, parse_networks
from threepipe.wireguard.noise import Identity

pytestmark = [pytest.mark.kernel, needs_root]

ROOT = Path(__file__).parents[2]


def age_of_traffic() -> float:
    """Ping through two devices, and return how long ago the first one notes that it had traffic, in seconds."""
    network, keys = Network(), (new_key(), new_key())
    public = [Identity(key).public for key in keys]
    with (
        Adapter.create("tp0", netns=network.path, addresses=["10.6.7.1/24"]) as adapter,
        adapter.start_session() as session,
        Device(private_key=keys[1]) as right,
        Device(private_key=keys[0]) as left,
    ):
        endpoint = ("127.0.0.1", right.status().listen_port)
        there = PeerChange(public[1], endpoint=endpoint, allowed_ips=parse_networks(["10.6.7.2"]))
        left.configure(Change(peers=(there,)))
        right.configure(Change(peers=(PeerChange(public[0], allowed_ips=parse_networks(["10.6.7.1"])),)))

        def answer() -> None:
            for bundle in right.session:
                right.session.send([reply for packet in bundle if (reply := echo_reply(packet))])

        threads = [
            threading.Thread(target=threepipe.pipe, args=(session, left.session)),
            threading.Thread(target=answer),
        ]
        for thread in threads:
            thread.start()
        network.run("ping", "-c2", "-i0.2", "-W5", "10.6.7.2")
        (peer,) = left._tunnel._peers
        age = clock.now() - peer.traffic.last_traversal
        session.close()
        right.close()
        for thread in threads:
            thread.join()
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
