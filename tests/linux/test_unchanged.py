"""Mixed packets through two adapters arrive byte for byte and in their flows' order, coalesced and split or not."""

import json
import os
import sys
from collections.abc import Iterator

import pytest

from tests.support.kernel import Network
from tests.support.mixes import runs
from threepipe import Adapter

if sys.platform != "linux":
    pytest.skip(f"the kernel of {sys.platform} redirects in another way", allow_module_level=True)

pytestmark = pytest.mark.kernel

MTU = 1500
RUNS, SEED = 60, 20190318
SOAK = [pytest.param(240, seed, marks=pytest.mark.soak) for seed in range(10)]


@pytest.fixture
def one_processor() -> Iterator[None]:
    """Keep this thread on one processor; the kernel has a queue for each."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    yield
    os.sched_setaffinity(0, allowed)


@pytest.mark.usefixtures("one_processor")
@pytest.mark.parametrize("receiving", [True, False], ids=["to-offload", "to-none"])
@pytest.mark.parametrize("sending", [True, False], ids=["from-offload", "from-none"])
@pytest.mark.parametrize(("count", "seed"), [(RUNS, SEED), *SOAK])
def test_mixed_packets_arrive_byte_for_byte(
    network: Network, count: int, seed: int, sending: bool, receiving: bool
) -> None:
    network.disable_ipv6()
    with (
        Adapter.create("tp0", netns=network.path, offload=sending, mtu=MTU) as near,
        Adapter.create("tp1", netns=network.path, offload=receiving, mtu=MTU) as far,
        near.start_session() as left,
        far.start_session() as right,
    ):
        # What the program sends into tp0 leaves by tp1, past routes and counts of hops.
        network.run("tc", "qdisc", "add", "dev", "tp0", "clsact")
        redirect = "match u32 0 0 action mirred egress redirect dev tp1"
        network.run(*f"tc filter add dev tp0 ingress protocol all u32 {redirect}".split())
        total = 0
        for number, run in enumerate(runs(seed, count, MTU)):
            sent = run.packets
            assert left.send(sent, timeout=10) == len(sent)
            arrived: list[bytes] = []
            while len(arrived) < len(sent):
                bundle = right.receive(timeout=10)
                assert bundle, f"run {number}: {len(sent) - len(arrived)} of {len(sent)} packets are lost"
                arrived += [bytes(packet) for packet in bundle]
            assert sorted(arrived) == sorted(sent), f"run {number}"
            for flow in run.flows:  # Flows may pass each other.
                assert [packet for packet in arrived if packet in flow] == flow, f"run {number}"
            total += len(sent)
        (link,) = json.loads(network.run("ip", "-j", "-s", "link", "show", "tp0"))
        assert (link["stats64"]["rx"]["packets"] < total) == sending, "superpackets, which count as one, if allowed"
