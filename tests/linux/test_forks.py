"""Forks of a program with adapters: the child can neither keep nor change the parent's interface."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.answering_peer import TARGET, answering_peer
from tests.support.forks import in_child
from tests.support.kernel import Network, links
from threepipe import Adapter

pytestmark = pytest.mark.kernel

EXITING_CHILD = """
import os, sys, threepipe
from threepipe.wireguard import Device

with (
    threepipe.Adapter.create("tp0", netns=sys.argv[1], addresses=["10.6.7.1/24"], routes=["10.77.0.0/16"]) as adapter,
    adapter.start_session() as session,
    Device() as device,
):
    before = adapter.info._replace(statistics=None)
    child = os.fork()
    if not child:
        sys.exit(7)  # It leaves all blocks, and ends as every program does.
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 7
    assert adapter.link_up and adapter.info.routes
    assert adapter.info._replace(statistics=None) == before
    print(device.status().listen_port > 0)
"""


def test_a_child_that_exits_leaves_the_interface_its_link_and_its_routes(network: Network) -> None:
    command = [sys.executable, "-W", "error", "-W", "ignore::DeprecationWarning", "-c", EXITING_CHILD, network.path]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.stdout, done.stderr, done.returncode) == ("True\n", "", 0)
    assert "tp0" not in links(network)


def test_an_interface_is_removed_by_the_parent_though_a_child_lives(network: Network) -> None:
    ready, told = os.pipe(), os.pipe()

    def live() -> None:
        os.write(ready[1], b"x")
        os.read(told[0], 1)

    with Adapter.create("tp0", netns=network.path, queues=2) as adapter, ThreadPoolExecutor(1) as executor:
        adapter.start_session()
        child = executor.submit(in_child, live)
        assert os.read(ready[0], 1) == b"x"
        adapter.close()
        assert "tp0" not in links(network)
        os.write(told[1], b"x")
        assert child.result() == ""
    for descriptor in (*ready, *told):
        os.close(descriptor)


def test_forks_of_a_program_that_forwards_to_wireguard_disturb_no_packet(network: Network) -> None:
    with answering_peer(network) as (adapter, session, device, peer):
        network.run("ping", "-c3", "-i0.2", "-w20", TARGET)

        def end() -> str:
            with session, adapter, device, peer:
                return f"{session.closed} {device.status().peers}"

        for _ in range(20):
            assert in_child(end) == "True ()"
        network.run("ping", "-c3", "-i0.2", "-w20", TARGET)
        assert session.statistics.sent_dropped == 0
        assert "not authentic, or not new" not in device.rejected | peer.rejected
