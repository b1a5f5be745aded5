"""`threepipe pipe --takeover`: a new process goes on with a running pipe, whatever fails on the way."""

import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.pipe_faults import ENDS, check_fault, taken_over, tun
from tests.support.takeover_load import Probes, check_order
from tests.support.takeovers import Host, two_hosts
from tests.support.waiting import come_true

pytestmark = pytest.mark.kernel

TAKEOVERS = 3
BURST = 2000
"""Packets that fill the buffer of the socket, and the queue of the adapter in part."""


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[tuple[Host, Host]]:
    with two_hosts(tmp_path) as hosts:
        yield hosts


@pytest.mark.parametrize(
    ("kind", "pure", "options"),
    [
        ("udp", "0", []),
        ("udp-listen", "1", []),
        ("udp-listen", "0", ["--impair", "delay=5ms", "--mtu-clamp", "1300"]),
        ("tcp", "1", []),
        ("tcp-listen", "0", []),
    ],
)
def test_takeovers_lose_no_probe(hosts: tuple[Host, Host], kind: str, pure: str, options: list[str]) -> None:
    left, right = hosts
    here, there = ENDS[kind]
    right.pipe(tun(right), there)
    current = left.pipe(tun(left), here, *options, THREEPIPE_PURE=pure)
    left.ping(right)
    probes = Probes(left, right)
    try:
        for _ in range(TAKEOVERS):
            current = taken_over(left, current, tun(left), here, *options, pure=pure)
        sent, lost, _ = probes.finish()
    finally:
        probes.close()
    assert min(sent) > TAKEOVERS
    assert lost == [0, 0]


@pytest.mark.parametrize("pure", ["1", "0"], ids=["pure", "native"])
def test_packets_that_wait_for_room_are_sent_by_the_new_process_in_order(hosts: tuple[Host, Host], pure: str) -> None:
    left, right = hosts
    here, there = ENDS["udp"]
    right.pipe(tun(right), there)
    current = left.pipe(tun(left), here, THREEPIPE_PURE=pure)
    left.ping(right)
    check_order(left, right, "10mbit", BURST, lambda: taken_over(left, current, tun(left), here, pure=pure))


@pytest.mark.parametrize(
    ("step", "fault"),
    [("Taking.take", "kill-after"), ("Taking.confirm", "kill-before"), ("Giving.forget", "kill-before")],
)
def test_a_process_killed_during_a_takeover_leaves_a_working_pipe(
    hosts: tuple[Host, Host], step: str, fault: str
) -> None:
    check_fault(*hosts, "tcp-listen", step, fault)


def test_a_persistent_adapter_stays_after_the_takeover_and_the_end(hosts: tuple[Host, Host]) -> None:
    left, right = hosts
    here, there = ENDS["udp"]
    right.pipe(tun(right), there)
    old = left.pipe(tun(left, ",persistent"), here)
    new = taken_over(left, old, tun(left, ",persistent"), here)
    left.ping(right)
    new.terminate()
    assert new.wait(20) == 0
    assert left.name in left.shell("ip link")
    left.pipe(tun(left, ",persistent"), here)
    left.ping(right)


def test_an_adapter_in_another_namespace_is_taken_over(hosts: tuple[Host, Host]) -> None:
    left, right = hosts
    address = f"tun:{left.name},address={left.inside}/24,netns={left.network.path}"
    far = tun(right)
    old = right.pipe(address, far)
    left.ping(right)
    new = taken_over(right, old, address, far)
    left.ping(right)
    new.terminate()
    assert new.wait(20) == 0
    assert left.name not in left.shell("ip link")


def test_the_service_manager_learns_the_new_process(hosts: tuple[Host, Host], tmp_path: Path) -> None:
    left, _ = hosts
    ends = tun(left), ENDS["udp"][0]
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(path)
        manager.settimeout(20)
        old = left.pipe(*ends, NOTIFY_SOCKET=path)
        assert manager.recv(100).startswith(b"READY=1\nSTATUS=")
        new = taken_over(left, old, *ends)
        assert manager.recv(100) == f"MAINPID={new.pid}".encode()
        manager.setblocking(False)
        with pytest.raises(BlockingIOError):
            manager.recv(100)


def test_a_pipe_that_cannot_be_taken_over_goes_on_and_the_new_process_says_why(hosts: tuple[Host, Host]) -> None:
    left, right = hosts
    here, there = ENDS["udp"]
    right.pipe(tun(right), there)
    run = ["--run", "sleep 60"]
    old = left.start(sys.executable, "-m", "threepipe", "pipe", tun(left), here, *run)
    assert come_true(lambda: left.threepipe("ps")[1].count("pipe:") == 1)
    for arguments, reason in (
        (["pipe", "--takeover", str(old.pid), tun(left), here, *run], "the command of --run ends with its process"),
        (["pipe", "--takeover", str(old.pid), tun(left), here], "an end or a command that only its process can have"),
        (["pipe", "--takeover", "1", tun(left), here], "this user runs no pipe 1; threepipe ps lists them"),
        (["pipe", "--takeover", str(old.pid), tun(left), "-"], "its standard input and output belong to its process"),
    ):
        status, said = left.threepipe(*arguments)
        assert status != 0
        assert reason in said
    left.ping(right)
    old.terminate()  # It ends its command, too.
    assert old.wait(20) == 0
