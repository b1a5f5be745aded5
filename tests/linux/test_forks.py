"""Forks of a program with adapters: the child can neither keep nor change the parent's interface."""

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

import threepipe
from tests.support.forks import in_child
from tests.support.kernel import Network, links
from tests.support.wireguard_pair import new_key
from threepipe import Adapter
from threepipe.echo import echo_reply
from threepipe.wireguard import Change, Device, PeerChange, parse_networks
from threepipe.wireguard.noise import Identity

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
    keys = new_key(), new_key()
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
        try:
            assert "3 received" in network.run("ping", "-c3", "-i0.2", "-W5", "10.6.7.2")

            def end() -> str:
                with session, adapter, left, right:
                    return f"{session.closed} {left.status().peers}"

            for _ in range(20):
                assert in_child(end) == "True ()"
            assert "3 received" in network.run("ping", "-c3", "-i0.2", "-W5", "10.6.7.2")
            assert session.statistics.sent_dropped == 0
            assert "not authentic, or not new" not in left.rejected | right.rejected
        finally:
            session.close()
            right.close()
            for thread in threads:
                thread.join()
