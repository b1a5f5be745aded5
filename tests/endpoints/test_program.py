"""Endpoints that are programs, and standard input and output."""

import os
import signal
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


def test_records_go_to_and_from_a_program(stack: ExitStack) -> None:
    session = opened(stack, f"exec:{CAT}")
    packets = [packet(number, size) for number, size in enumerate([20, 1500, MAX_PACKET] * 50)]
    with ThreadPoolExecutor(1) as executor:
        sending = executor.submit(session.send, packets, None)
        assert received(session, len(packets)) == packets
        assert sending.result() == len(packets)


def test_a_program_that_exits_ends_the_endpoint(stack: ExitStack) -> None:
    session = opened(stack, f"exec:{python('')}")
    with pytest.raises(threepipe.EndpointEnded, match="the command disconnected"):
        session.receive(SECONDS)


def test_a_program_that_exits_in_mid_record_raises(stack: ExitStack) -> None:
    session = opened(stack, f"exec:{python('print(1, end=str())')}")
    with pytest.raises(threepipe.EndpointError, match="the command ended in the middle of a record"):
        session.receive(SECONDS)


def test_a_program_that_exits_with_a_status_raises_with_it(stack: ExitStack) -> None:
    session = opened(stack, f"exec:{python('exit(7)')}")
    with pytest.raises(threepipe.EndpointError, match="the command ended with status 7"):
        session.receive(SECONDS)


DEAF = "import time\nwhile True: time.sleep(1000)"
"""A program that does not notice the end of its input."""

INTERRUPTED = """
import signal, subprocess, sys
import threepipe
start = subprocess.Popen.__init__
def interrupted(self, *arguments, **options):
    start(self, *arguments, **options)
    print(self.pid, flush=True)
    signal.raise_signal(signal.SIGINT)
subprocess.Popen.__init__ = interrupted
try:
    threepipe.open_endpoint(sys.argv[1])
except KeyboardInterrupt:
    sys.exit(130)
"""


@posix
def test_a_program_whose_start_is_interrupted_ends_with_this_one() -> None:
    """The exception leaves nobody with a session to close."""
    command = [sys.executable, "-c", INTERRUPTED, f"exec:{python(DEAF)}"]
    done = subprocess.run(command, stdout=subprocess.PIPE, timeout=50)
    assert done.returncode == 130
    with pytest.raises(ProcessLookupError):
        os.kill(int(done.stdout), signal.SIGKILL)


@posix
def test_a_program_is_not_ended_by_the_exit_of_a_forked_process(stack: ExitStack) -> None:
    code = (
        "import os, sys, threepipe\n"
        f"session = threepipe.open_endpoint({f'exec:{CAT}'!r})\n"
        "child = os.fork()\n"
        "if not child: sys.exit(0)\n"
        "os.waitpid(child, 0)\n"
        f"session.send([{packet(1)!r}])\n"
        f"print(len(session.receive({SECONDS})))\n"
        "session.close()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, timeout=50)
    assert (done.returncode, done.stdout) == (0, b"1\n")


NOISE = {
    "SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3\r\n": "'SSH-2.0-OpenSSH_9.2p1",
    "bash: warning: setlocale: LC_ALL: cannot change locale\n": "'bash: warning: setlocale",
    "\r\n\r\nWelcome to this machine\r\n": r"'\\r\\n\\r\\nWelcome to",
    "welcome!": "'welcome!",
    "\x1b[1mGrüße: für größere Dateien gibt es keinen Platz\x1b[0m": "'.x1b.1mGrüße: für größere Dateien",
}


@pytest.mark.parametrize("noise", NOISE)
def test_text_before_the_first_record_is_told_while_the_program_runs(stack: ExitStack, noise: str) -> None:
    code = f"import sys; sys.stdout.buffer.write({noise!r}.encode()); sys.stdout.flush(); sys.stdin.read()"
    session = opened(stack, f"exec:{python(code)}")
    with pytest.raises(threepipe.EndpointError, match=f"sent text, .*: {NOISE[noise]}.*such as a login shell"):
        session.receive(SECONDS)


def test_text_after_a_record_is_told(stack: ExitStack) -> None:
    sent = record(packet(1)) + b"Terminated"
    code = f"import sys; sys.stdout.buffer.write({sent!r}); sys.stdout.flush(); sys.stdin.read()"
    session = opened(stack, f"exec:{python(code)}")
    assert received(session, 1) == [packet(1)]
    with pytest.raises(threepipe.EndpointError, match=r"sent text, .*: 'Terminated'"):
        session.receive(SECONDS)


def test_a_command_is_not_run_by_a_shell(stack: ExitStack, tmp_path: Path) -> None:
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
def test_a_program_that_cannot_start_raises_with_advice(command: str, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        threepipe.open_endpoint(f"exec:{command}")


DATAGRAMS = f"""
import os, socket, sys
number = int(os.environ["VPNFD"])
assert sys.argv[1:] == [str(number)] and os.environ["TUNTAP_SOCKET_FD"] == str(number)
assert not os.get_blocking(number) and not sys.stdin.read()
assert not {{"WG_TUN_FD", "XRAY_TUN_FD"}} & os.environ.keys()
print("this is not a packet")
mine = socket.socket(fileno=number)
mine.settimeout({SECONDS})
"""
"""The start of a program that takes packets as datagrams."""

ECHO_DATAGRAMS = f"{DATAGRAMS}while packet := mine.recv(1 << 17): mine.send(b''), mine.send(packet)"


def datagrams(code: str) -> str:
    return f"exec,datagrams:{python(code)} {{fd}}"


@posix
def test_datagrams_go_to_and_from_a_program_one_packet_in_each(
    stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("WG_TUN_FD", "XRAY_TUN_FD"):
        monkeypatch.setenv(variable, "9")  # Of a program around this one.
    session = opened(stack, datagrams(ECHO_DATAGRAMS))
    packets = [packet(number, size) for number, size in enumerate([20, 1500, MAX_PACKET] * 20)]
    with ThreadPoolExecutor(1) as executor:
        sending = executor.submit(session.send, packets, None)
        assert received(session, len(packets)) == packets
        assert sending.result() == len(packets)


@posix
def test_an_empty_datagram_of_a_program_is_a_probe(stack: ExitStack, caplog: pytest.LogCaptureFixture) -> None:
    session = opened(stack, datagrams(f"{DATAGRAMS}mine.send(b''), mine.send({packet(1)!r}), mine.recv(100)"))
    assert received(session, 1) == [packet(1)]
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


@posix
@pytest.mark.parametrize(
    ("ending", "error", "text"),
    [
        ("", threepipe.EndpointEnded, "the command ended"),
        ("exit(7)", threepipe.EndpointError, "the command ended with status 7"),
        ("os.kill(os.getpid(), 9)", threepipe.EndpointError, "the command was ended by signal 9"),
    ],
)
def test_the_end_of_a_program_with_datagrams_follows_its_last_packet(
    stack: ExitStack, ending: str, error: type[Exception], text: str
) -> None:
    session = opened(stack, datagrams(f"{DATAGRAMS}mine.send({packet(1)!r})\n{ending}"))
    assert received(session, 1) == [packet(1)]
    with pytest.raises(error, match=text):
        session.receive(SECONDS)


@posix
@pytest.mark.parametrize("deaf", ["", "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)"])
def test_closing_the_session_ends_a_program_with_datagrams(stack: ExitStack, deaf: str) -> None:
    code = f"import os\n{deaf}\n{DATAGRAMS}mine.send(b'\\x45' + bytes(15) + os.getpid().to_bytes(4))\n{DEAF}"
    session = opened(stack, datagrams(code))
    (told,) = received(session, 1)
    session.close()
    with pytest.raises(ProcessLookupError):
        os.kill(int.from_bytes(told[16:20], "big"), signal.SIGKILL)


@posix
def test_a_program_with_datagrams_ends_with_this_one() -> None:
    code = (
        "import sys, threepipe\nsession = threepipe.open_endpoint(sys.argv[1])\nprint(session.receive()[0][16:].hex())"
    )
    asked = f"{DATAGRAMS}mine.send(b'\\x45' + bytes(15) + os.getpid().to_bytes(4))\n{DEAF}"
    done = subprocess.run([sys.executable, "-c", code, datagrams(asked)], stdout=subprocess.PIPE, timeout=50)
    assert done.returncode == 0
    with pytest.raises(ProcessLookupError):
        os.kill(int(done.stdout, 16), signal.SIGKILL)


@pytest.mark.skipif(sys.platform == "win32", reason="programs do not inherit descriptors there")
@pytest.mark.parametrize(
    ("address", "error", "text"),
    [
        ("exec,datagrams:/nonexistent/program", threepipe.EndpointError, "starting /nonexistent/program: .*check that"),
        ("exec,datagrams,forever:cat", threepipe.InvalidSetting, "is started once; leave out retry and forever"),
        ("exec,datagrams,retry=3:cat", threepipe.InvalidSetting, "is started once"),
        ("exec,datagrams=1:cat", threepipe.InvalidSetting, "is written datagrams"),
    ],
)
def test_datagrams_that_cannot_work_are_refused(address: str, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        threepipe.open_endpoint(address)


STDIO = """
import threepipe
threepipe.pipe(threepipe.open_endpoint("-"), threepipe.open_endpoint("echo"))
"""


def test_records_go_through_standard_input_and_output() -> None:
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
def test_a_terminal_as_standard_input_raises() -> None:
    controller, terminal = os.openpty()
    try:
        done = subprocess.run([sys.executable, "-c", STDIO], stdin=terminal, capture_output=True, text=True)
    finally:
        os.close(controller)
        os.close(terminal)
    assert "standard input is a terminal, which cannot show packets" in done.stderr


@posix
def test_a_shared_standard_descriptor_is_blocking_again_at_the_end() -> None:
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
