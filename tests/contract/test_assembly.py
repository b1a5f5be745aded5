"""Pipes assembled from addresses, in memory: their filters, errors and endings."""

import errno
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import threepipe
from tests.support.assemblies import plan, running
from tests.support.commands import python, run_here
from threepipe.assembly import Plan, assemble
from threepipe.backend import INBOUND, OUTBOUND
from threepipe.capture.reader import CaptureReader
from threepipe.echo import echo_request
from threepipe.endpoint import Filter
from threepipe.filters.impairment import parse_impairment
from threepipe.net.datagrams import Datagrams
from threepipe.pump import interrupt

PING = echo_request("10.6.7.1", "10.6.7.2", 1, 1, b"hello")
SYN = bytes.fromhex(
    "45000030000040004006000a0a0607010a060702"  # An IPv4 header of 20 bytes, TCP, 48 in all.
    "1f401f410000000100000000700216d000000000"  # TCP with 8 bytes of options: SYN,
    "020405b401010402"  # MSS 1460, SACK permitted.
)
SECONDS = 10


@contextmanager
def programs(*names: str) -> Iterator[list[threepipe.Session]]:
    """Open the other ends of memory endpoints, which must exist before packets are sent to them."""
    sessions = [threepipe.open_endpoint(f"memory:{name}") for name in names]
    try:
        yield sessions
    finally:
        for session in sessions:
            session.close()


def test_a_capture_has_the_packets_of_the_left_end(tmp_path: Path) -> None:
    path = tmp_path / "pipe.pcapng"
    with programs("left") as (program,), running(plan("memory:left", "echo", capture=str(path))):
        assert program.send([PING], SECONDS) == 1
        with program.receive(SECONDS) as answer:
            reply = bytes(answer[0])
    with path.open("rb") as file:
        seen = [(captured.direction, bytes(captured.packet)) for captured in CaptureReader(file, "pipe.pcapng")]
    assert seen == [(OUTBOUND, PING), (INBOUND, reply)]


def test_mtu_clamp_lowers_the_mss_in_both_directions() -> None:
    with programs("one", "two") as ends, running(plan("memory:one", "memory:two", mtu_clamp=1000)):
        for near, far in (ends, reversed(ends)):
            assert near.send([SYN], SECONDS) == 1
            with far.receive(SECONDS) as bundle:
                assert int.from_bytes(bundle[0][42:44], "big") == 1000 - 40


def test_two_impairments_lose_packets_independently() -> None:
    half = parse_impairment("loss=50%,towards=right")
    with programs("a", "b") as (left, right), running(plan("memory:a", "memory:b", impairments=[half] * 2)) as assembly:
        for _ in range(10):
            assert left.send([PING] * 100, SECONDS) == 100
        assert right.send([PING] * 100, SECONDS) == 100  # The other direction loses none.
        total = 0
        while total < 100:
            total += len(left.receive(SECONDS))
        received = 0
        while bundle := right.receive(0.5):
            received += len(bundle)
        counts = [impair.counts.lost for towards, impair in assembly.impairs if towards == "right"]
        assert received == 1000 - sum(counts)
    # A quarter is left; if both made the same choices, a half would be.
    assert 150 < received < 350


@pytest.mark.parametrize(
    "plan",
    [plan("-", "stdio"), plan("echo", "discard", mtu_clamp=5), plan("echo", "discard", capture="/no/such/folder/x")],
)
def test_a_plan_that_fails_leaves_nothing_open(plan: Plan) -> None:
    with pytest.raises(threepipe.ThreepipeError), assemble(plan):
        pass


@pytest.mark.parametrize(
    "right",
    [
        "nothing:1",
        "udp:localhost",
        "udp:localhost:9,bind=x",
        "tcp-listen:1,reuse=perhaps",
        "tls:localhost:9,cert=a",
        "tun:t0,mtu=1",
        "tun:t0,address=10.0.0.0.1",
        "fd:x",
        "exec:'",
        "pcap:a,loop",
    ],
)
def test_an_invalid_right_address_leaves_the_left_one_unopened(
    right: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    mark = tmp_path / "opened"
    program = python(f"open({str(mark)!r}, 'x')")
    done = run_here(monkeypatch, capfd, "pipe", f"exec:{program}", right)
    assert done.status == 1
    assert repr(right) in done.complaint
    assert not mark.exists()


@pytest.mark.skipif(sys.platform == "win32", reason="programs do not inherit descriptors there")
def test_an_end_that_has_ended_before_the_start_ends_the_pipe() -> None:
    near, far = socket.socketpair()
    far.sendall(len(PING).to_bytes(2, "big") + PING)
    far.shutdown(socket.SHUT_WR)
    with far, assemble(plan(f"fd:{near.detach()}", "echo")) as assembly:
        assembly.left.receive(SECONDS)  # Somebody else has received its packet.
        assembly.run()
        assert assembly.left.statistics.received_packets == 1


def test_a_filter_sends_to_its_inner_endpoint() -> None:
    with Filter(threepipe.open_endpoint("echo")) as echo:
        assert echo.send([PING]) == 1
        assert len(echo.receive(SECONDS)) == 1
        assert echo.direct is None


def test_interrupt_of_a_closed_session_does_nothing() -> None:
    session = threepipe.open_endpoint("echo")
    session.close()
    interrupt(session)
    assert session.closed


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="Python has no Unix sockets here")
def test_datagrams_send_stops_when_the_socket_is_full() -> None:
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with near, far:
        datagrams = Datagrams(near)
        many = [memoryview(PING)] * 10_000
        sent, error = datagrams.send(many, None)
        assert (0 < sent < len(many), error) == (True, 0)  # It was full.
        assert datagrams.room(None) == 0
        far.close()
        assert datagrams.send(many[:2], None)[0] == 0
        assert datagrams.send(many[:2], None)[1] in (errno.ECONNREFUSED, errno.ECONNRESET, errno.EPIPE, errno.ENOTCONN)


def test_both_ends_in_a_new_namespace_are_refused() -> None:
    with pytest.raises(threepipe.InvalidSetting, match="one end of a pipe can be in a new namespace, not both"):
        plan("tun:a,netns=new", "tun:b,netns=new").check()
