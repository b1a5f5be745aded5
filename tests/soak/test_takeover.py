"""Takeovers of a device under load, beside restarts of wireguard-go, and with a fault of a process at each step.

The load is a datagram every millisecond in each direction, and a TCP stream; TAKEOVERS sets another number of rounds.
The gaps between the datagrams tell how long a takeover holds them up. They are printed and not judged, beside the gaps
of the same load while another threepipe starts and takes nothing over: on a busy machine those are long already.
"""

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.takeover_faults import CASES, check_fault
from tests.support.takeover_load import Probes, WireGuardGo, check_order
from tests.support.takeovers import Host, two_hosts
from tests.support.transfers import MIB, transfer

ROUNDS = int(os.environ.get("TAKEOVERS") or 20)
BURST = 8000
"""Packets that fill the socket of the device, and the queue of its adapter in part."""
STREAM = 16 * MIB
STARTS = 5  # Programs that start during the same load without a takeover.

pytestmark = [pytest.mark.kernel, pytest.mark.soak, pytest.mark.timeout(600)]


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[tuple[Host, Host]]:
    with two_hosts(tmp_path) as hosts:
        yield hosts


@contextmanager
def streaming(left: Host, right: Host) -> Iterator[list[int]]:
    """Send streams to the left host one after another, and compare their hashes. Yield a list of their sizes in MiB."""
    over, sizes = threading.Event(), list[int]()
    failures: list[BaseException] = []

    def stream() -> None:
        try:
            while not over.is_set():
                transfer(right.network, left.network, left.inside, STREAM)
                sizes.append(STREAM // MIB)
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=stream)
    thread.start()
    try:
        yield sizes
    finally:
        over.set()
        thread.join()
    assert not failures, failures


def loaded(left: Host, right: Host, replace: Callable[[], None], say: Callable[[str], None]) -> list[int]:
    """Replace the left device under load, say how that went, and return how many probes were lost in each direction."""
    probes = Probes(left, right)
    try:
        with streaming(left, right) as sizes:
            probes.begin_gap()
            for _ in range(STARTS):
                left.threepipe("wg", "show", left.name)
            began = time.monotonic()
            for _ in range(ROUNDS):
                probes.begin_gap()
                replace()
            took = time.monotonic() - began
            probes.begin_gap()
        sent, lost, gaps = probes.finish()
    finally:
        probes.close()
    say(f"{ROUNDS} rounds in {took:.1f} s, {sum(sizes)} MiB by TCP; probes sent {sent}, lost {lost}")
    for direction, (before, *during, _) in zip(("to the device", "from it"), gaps, strict=True):
        middle = sorted(during)[ROUNDS // 2]
        say(f"longest gap {direction}: {max(during)} ms (median {middle}); while another program starts: {before} ms")
    return lost


@pytest.mark.parametrize("pure", ["1", "0"], ids=["pure", "native"])
def test_takeovers_under_load_lose_no_packet(hosts: tuple[Host, Host], pure: str, say: Callable[[str], None]) -> None:
    if pure == "0":
        pytest.importorskip("threepipe._native", reason="there is no native core")
    left, right = hosts
    current = left.up(THREEPIPE_PURE=pure)
    right.up(THREEPIPE_PURE=pure)
    left.ping(right)
    handshake = left.handshake()

    def replace() -> None:
        nonlocal current
        new = left.up("--takeover", "--verbose", THREEPIPE_PURE=pure)
        assert new.poll() is None
        assert current.wait(20) == 0
        current = new

    say(f"\nthreepipe, {'pure Python' if pure == '1' else 'native core'}")
    assert loaded(left, right, replace, say) == [0, 0]
    assert int(left.handshake()) - int(handshake) in (0, *range(115, 600)), "keys were made anew before their time"
    waited = [float(line.split()[-4]) for line in left.said if "taken over; packets waited" in line]
    say(f"stood still for {max(waited)} ms at most (median {sorted(waited)[ROUNDS // 2]})")


def test_restarts_of_wireguard_go_under_load_lose_packets(hosts: tuple[Host, Host], say: Callable[[str], None]) -> None:
    if not shutil.which("wireguard-go"):
        pytest.skip("wireguard-go is not there; install wireguard-go")
    left, right = hosts
    device = WireGuardGo(left, right)
    right.up()
    left.ping(right)
    say("\nwireguard-go")
    assert min(loaded(left, right, device.restart, say)) > 0


@pytest.mark.parametrize(("step", "fault"), CASES)
def test_a_fault_of_either_process_at_any_step_leaves_a_working_device_or_none(
    hosts: tuple[Host, Host], step: str, fault: str
) -> None:
    left, right = hosts
    check_fault(left, right, step, fault)


def test_packets_that_wait_for_room_in_the_socket_are_sent_by_the_new_process_in_order(
    hosts: tuple[Host, Host],
) -> None:
    left, right = hosts
    current = left.up()
    right.up()
    left.ping(right)

    def take_over() -> None:
        left.up("--takeover")
        assert current.wait(20) == 0

    check_order(left, right, "20mbit", BURST, take_over, pause=0.002)  # Else the adapter's queue would overflow.
