"""Adapters on Linux leave nothing behind: after use, after failure, and when their process is killed."""

import errno
import os
import signal
import threading

import pytest

import threepipe
from tests.support.kernel import Network, call_elsewhere, links, udp_socket
from tests.support.killing import kill_in_mid_traffic, there_and_back
from tests.support.waiting import come_true
from threepipe import Adapter

pytestmark = pytest.mark.kernel


def tasks() -> int:
    """Return the number of threads of this process, as counted by the kernel."""
    return len(os.listdir("/proc/self/task"))


def test_two_hundred_adapters_leave_nothing_behind(network: Network) -> None:
    threads, before, descriptors = threading.active_count(), tasks(), len(os.listdir("/proc/self/fd"))
    with udp_socket(network, "0.0.0.0") as sock:
        for _ in range(200):
            with (
                Adapter.create("tp%d", netns=network.path, addresses=["10.6.7.1/24"]) as adapter,
                adapter.start_session() as session,
            ):
                assert adapter.name == "tp0"
                there_and_back(sock, session, "10.6.7.2")
    assert links(network) == set()
    assert threading.active_count() == threads
    assert come_true(lambda: tasks() <= before)
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_fifty_processes_killed_in_mid_traffic_leave_no_adapter(network: Network) -> None:
    seen, codes = call_elsewhere(network, kill_in_mid_traffic, 50)
    assert seen == 50
    assert codes == [-signal.SIGKILL] * 50
    assert come_true(lambda: not links(network))


@pytest.mark.parametrize("persistent", [False, True])
def test_twenty_failed_creations_leave_nothing_behind(network: Network, persistent: bool) -> None:
    before = tasks()
    with Adapter.create("taker", netns=network.path, routes=["10.77.0.0/16", "fd77::/16"]):
        for number in range(20):
            with pytest.raises(threepipe.AdapterError, match="has it already") as caught:
                Adapter.create(
                    "tp0",
                    netns=network.path,
                    addresses=["10.6.7.1/24", "fd00::1/64"],
                    routes=["10.78.0.0/16", ("10.77.0.0/16", "fd77::/16")[number % 2]],
                    mtu=1400,
                    persistent=persistent,
                )
            assert caught.value.errno == errno.EEXIST
            assert links(network) == {"taker"}
    assert come_true(lambda: tasks() <= before)
