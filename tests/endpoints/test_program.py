"""Endpoints that are programs, and standard input and output."""

import os
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

import threepipe
from tests.support.commands import CAT, python
from tests.support.endpoints import SECONDS, opened, packet, posix, received, record
from threepipe.core.packet import MAX_PACKET
from threepipe.echo import echo_reply, echo_request


def test_a_program_gets_and_gives_records(stack: ExitStack) -> None:
    session = opened(stack, f"exec:{CAT}")
    packets = [packet(number, size) for number, size in enumerate([20, 1500, MAX_PACKET] * 50)]
    with ThreadPoolExecutor(1) as executor:
        sending = executor.submit(session.send, packets, None)
        assert received(session, len(packets)) == packets
        assert sending.result() == len(packets)


def test_a_program_that_ends_is_the_end(stack: ExitStack) -> None:
    session = opened(stack, f"exec:{python('')}")
    with pytest.raises(threepipe.EndpointEnded, match="the command disconnected"):
        session.receive(SECONDS)


def test_a_program_that_ends_in_a_record_is_a_fault(stack: ExitStack) -> None:
    session = opened(stack, f"exec:{python('print(1, end=str())')}")
    with pytest.raises(threepipe.EndpointError, match="the command ended in the middle of a record"):
        session.receive(SECONDS)


def test_the_status_of_a_program_is_told(stack: ExitStack) -> None:
    session = opened(stack, f"exec:{python('exit(7)')}")
    with pytest.raises(threepipe.EndpointError, match="the command ended with status 7"):
        session.receive(SECONDS)


def test_no_shell_reads_the_command(stack: ExitStack, tmp_path: Path) -> None:
    session = opened(stack, f"exec:{python('print(1, end=str())')}; touch {tmp_path}/made")
    with pytest.raises(threepipe.EndpointError, match="ended in the middle of a record"):
        session.receive(SECONDS)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("command", "error", "text"),
    [
        (
            "/nonexistent/program",
            threepipe.EndpointError,
            "starting /nonexistent/program: .*check that it is",
        ),
        pytest.param("/etc/passwd", threepipe.EndpointError, "make it executable", marks=posix),
        ('"unclosed', threepipe.InvalidSetting, "No closing quotation"),
        (" ", threepipe.InvalidSetting, "exec needs a command"),
    ],
)
def test_a_program_that_cannot_be_started(command: str, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        threepipe.open_endpoint(f"exec:{command}")


STDIO = """
import threepipe
threepipe.pipe(threepipe.open_endpoint("-"), threepipe.open_endpoint("echo"))
"""


def test_standard_input_and_output_carry_records() -> None:
    requests = [echo_request("10.1.1.1", "10.1.1.2", 1, number) for number in range(100)]
    command = [sys.executable, "-W", "error", "-c", STDIO]
    sent = b"".join(map(record, requests))
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdin.write(sent)
        process.stdin.flush()
        assert process.stdout.read(len(sent)) == b"".join(record(echo_reply(request) or b"") for request in requests)
        process.stdin.close()
        assert process.stderr.read() == b""
        assert process.stdout.read() == b""
    assert process.returncode == 0


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such terminals")
def test_a_terminal_is_refused() -> None:
    controller, terminal = os.openpty()
    try:
        done = subprocess.run([sys.executable, "-c", STDIO], stdin=terminal, capture_output=True, text=True)
    finally:
        os.close(controller)
        os.close(terminal)
    assert "standard input is a terminal, which cannot show packets" in done.stderr


@posix
def test_standard_descriptors_that_are_one_block_again_at_the_end() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(SECONDS)
        with subprocess.Popen([sys.executable, "-c", STDIO], stdin=theirs.fileno(), stdout=theirs.fileno()) as process:
            request = echo_request("10.1.1.1", "10.1.1.2", 1, 1)
            ours.sendall(record(request))
            assert ours.recv(1 << 16) == record(echo_reply(request) or b"")
            assert not os.get_blocking(theirs.fileno())
            ours.shutdown(socket.SHUT_WR)
            assert process.wait(SECONDS) == 0
        assert os.get_blocking(theirs.fileno())
