"""Takeovers of `threepipe pipe` under load, and with a fault of a process at each step.

The load is a datagram every millisecond in each direction, and a TCP stream; TAKEOVERS sets another number of rounds.
The gaps between the datagrams are printed and not judged, as in the test of devices.
"""

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.pipe_faults import CASES, ENDS, check_fault, taken_over, tun
from tests.support.takeover_load import Probes
from tests.support.takeovers import Host, two_hosts
from tests.support.transfers import MIB, transfer

ROUNDS = int(os.environ.get("TAKEOVERS") or 20)
STREAM = 16 * MIB

pytestmark = [pytest.mark.kernel, pytest.mark.soak, pytest.mark.timeout(600)]


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[tuple[Host, Host]]:
    with two_hosts(tmp_path) as hosts:
        yield hosts


@pytest.mark.parametrize("pure", ["1", "0"], ids=["pure", "native"])
@pytest.mark.parametrize("kind", ENDS)
def test_takeovers_under_load_lose_no_packet(
    hosts: tuple[Host, Host], kind: str, pure: str, say: Callable[[str], None]
) -> None:
    left, right = hosts
    here, there = ENDS[kind]
    right.pipe(tun(right), there, THREEPIPE_PURE=pure)
    current = left.pipe(tun(left), here, THREEPIPE_PURE=pure)
    left.ping(right)
    over, sizes, waited = threading.Event(), list[int](), list[float]()

    def stream() -> None:
        while not over.is_set():
            transfer(right.network, left.network, left.inside, STREAM)
            sizes.append(STREAM // MIB)

    thread = threading.Thread(target=stream)
    probes = Probes(left, right)
    try:
        thread.start()
        for _ in range(ROUNDS):
            before, current = current, taken_over(left, current, tun(left), here, pure=pure)
            assert before.stderr is not None
            waited += [float(line.split()[-4]) for line in before.stderr if "packets waited" in line]
        over.set()
        thread.join()
        sent, lost, _ = probes.finish()
    finally:
        over.set()
        probes.close()
    text = f"\n{ROUNDS} takeovers, {sum(sizes)} MiB by TCP; probes sent {sent}, lost {lost}; packets waited for"
    say(f"{text} {sorted(waited)[len(waited) // 2]} ms (median), {max(waited)} ms at most")
    assert lost == [0, 0]


@pytest.mark.parametrize("kind", ["udp", "tcp-listen"])
@pytest.mark.parametrize(("step", "fault"), CASES)
def test_a_fault_of_either_process_at_any_step_leaves_a_working_pipe_or_none(
    hosts: tuple[Host, Host], step: str, fault: str, kind: str
) -> None:
    check_fault(*hosts, kind, step, fault)
