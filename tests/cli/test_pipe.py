"""`threepipe pipe`: help, what it prints, how it ends, and what it leaves."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from tests.support.commands import CAT, Done, python, run, run_here
from tests.support.kernel import Network, links
from tests.support.waiting import come_true
from threepipe import EndpointError, open_endpoint
from threepipe.echo import echo_request
from threepipe.endpoints.kinds import KINDS
from threepipe.filters.impairment import SETTINGS

no_signals = pytest.mark.skipif(
    sys.platform == "win32",
    reason="Windows sends signals to consoles only, and has no Unix sockets",
)

TOOLS = Path(__file__).parents[2] / "tools"
PING = echo_request("10.6.7.1", "10.6.7.2", 1, 1, b"hello")
RECORD = len(PING).to_bytes(2, "big") + PING


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    return partial(run_here, monkeypatch, capfd)


@contextmanager
def started(*arguments: str, prefix: tuple[str, ...] = ()) -> Iterator["subprocess.Popen[str]"]:
    command = [*prefix, sys.executable, "-W", "error", "-m", "threepipe", "pipe", *arguments]
    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **streams) as program:  # type: ignore[call-overload]
        try:
            yield program
        finally:
            program.kill()


def ended(program: "subprocess.Popen[str]", number: int) -> Done:
    program.send_signal(number)
    printed, complaint = program.communicate(timeout=20)
    return Done(program.returncode, printed, complaint)


def shown(path: Path) -> str:
    """The address of a program that gives what is in the file `path`."""
    return f"exec:{python(f'import sys; sys.stdout.buffer.write(open({str(path)!r}, {chr(34)}rb{chr(34)}).read())')}"


def test_help_has_every_kind_option_and_impairment(here: Callable[..., Done]) -> None:
    said = here("pipe", "--help").plain
    names = [name for kind in KINDS.values() for name in (kind.name, *[option.name for option in kind.options])]
    assert [name for name in (*names, *SETTINGS) if name not in said] == []


def test_page_has_the_tables_of_the_program() -> None:
    write = [
        sys.executable,
        "-c",
        "import pipe_tables as t; page = t.PAGE.read_text(); assert t.with_tables(page) == page",
    ]
    subprocess.run(write, cwd=TOOLS, check=True, timeout=50)


@pytest.mark.parametrize(
    ("arguments", "advice"),
    [
        (["nothing:1", "echo"], "unknown kind 'nothing'; expected one of tun, udp"),
        (["udp", "echo"], "udp needs a parameter; write udp:HOST:PORT"),
        (["echo:1", "discard"], "echo takes no parameter"),
        (["tun:t0,mtu=many", "echo"], "write mtu=BYTES"),
        (["stdio", "-"], "can be one end of a pipe, not both"),
        (["echo", "discard", "--impair", "delay=soon"], "write it like delay=20ms"),
        (["echo", "discard", "--mtu-clamp", "40"], "MTU 40: give 68 to 65535 bytes"),
        (["echo", "discard", "--run", ""], "--run needs a command"),
        (["echo", "discard", "--run", "'"], "No closing quotation"),
        (["echo", "discard", "--run", "/no/such/program"], "starting /no/such/program: "),
        (["exec:/no/such/program", "discard"], "check that it is installed"),
        ([f"exec:{python('exit(1)')}", "discard"], "ended with status 1"),
        ([f"exec:{python('print(1234)')}", "discard"], "check that the other end runs threepipe"),
        (["pcap:/no/such/file", "discard"], "no such file"),
    ],
)
def test_what_cannot_be_ends_with_a_line_that_helps(
    here: Callable[..., Done], arguments: list[str], advice: str
) -> None:
    done = here("pipe", *arguments)
    assert done.status == 1
    assert advice in done.complaint.splitlines()[-1]
    assert done.printed == ""


def test_packets_on_standard_input_and_output() -> None:
    """Nothing but packets is on standard output, events are not either."""
    command = [sys.executable, "-W", "error", "-m", "threepipe", "pipe", "-", f"exec:{CAT}", "--json"]
    done = subprocess.run(command, input=RECORD * 3, capture_output=True, timeout=50)
    assert (done.returncode, done.stdout) == (0, RECORD * 3)
    assert [json.loads(line)["event"] for line in done.stderr.splitlines()][-1] == "end"


def test_file_as_standard_input(tmp_path: Path) -> None:
    (tmp_path / "records").write_bytes(RECORD * 300)
    with (tmp_path / "records").open("rb") as records:
        done = subprocess.run(
            [sys.executable, "-m", "threepipe", "pipe", "-", "discard", "--json"],
            stdin=records,
            capture_output=True,
            timeout=50,
        )
    last = json.loads(done.stderr.splitlines()[-1])
    assert last["towards_right"]["sent_packets"] == 300


def test_file_as_standard_output(tmp_path: Path) -> None:
    (tmp_path / "records").write_bytes(RECORD * 300)
    with (tmp_path / "copy").open("wb") as copy:
        command = [sys.executable, "-m", "threepipe", "pipe", shown(tmp_path / "records"), "-"]
        assert subprocess.run(command, stdin=subprocess.PIPE, stdout=copy, timeout=50).returncode == 0
    assert (tmp_path / "copy").read_bytes() == RECORD * 300


def test_events_in_json(here: Callable[..., Done], tmp_path: Path) -> None:
    (tmp_path / "records").write_bytes(RECORD * 2)
    done = here("pipe", shown(tmp_path / "records"), "echo", "--json")
    assert (done.status, done.complaint) == (0, "")
    events = [json.loads(line) for line in done.printed.splitlines()]
    assert [event["event"] for event in events] == ["note", "note", "end"]
    assert events[-1]["towards_right"] == {
        "received_packets": 2,
        "received_bytes": 2 * len(PING),
        "sent_packets": 2,
        "sent_bytes": 2 * len(PING),
        "dropped": 0,
    }


def test_statistics_for_people_are_lines_where_there_is_no_terminal(here: Callable[..., Done], tmp_path: Path) -> None:
    (tmp_path / "records").write_bytes(RECORD * 2)
    done = here("pipe", shown(tmp_path / "records"), "discard", "--stats")
    assert f"> discard: 2 packets, {2 * len(PING)} bytes" in done.complaint
    assert "0 dropped" in done.complaint


def test_what_an_impairment_drops_is_in_the_statistics(here: Callable[..., Done], tmp_path: Path) -> None:
    (tmp_path / "records").write_bytes(RECORD * 5)
    done = here("pipe", shown(tmp_path / "records"), "discard", "--json", "--impair", "loss=100%,towards=right")
    way = json.loads(done.printed.splitlines()[-1])["towards_right"]
    assert (way["sent_packets"], way["dropped"]) == (0, 5)


def assert_served(path: Path) -> None:
    """By the echo behind a listener, as soon as it listens."""
    callers = []

    def connects() -> bool:
        try:
            callers.append(open_endpoint(f"unix:{path}"))
        except EndpointError:
            return False
        return True

    assert come_true(connects, 20)
    with callers[0] as caller:
        caller.send([PING])
        with caller.receive(20) as answer:
            assert len(answer) == 1


@no_signals
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_end_it_cleanly(tmp_path: Path, number: int, status: int) -> None:
    with started(f"unix-listen:{tmp_path}/pipe", "echo") as program:
        assert_served(tmp_path / "pipe")  # Then it is all there, and not about to be opened.
        done = ended(program, number)
    assert done.status == status
    assert "Traceback" not in done.complaint
    assert list(tmp_path.iterdir()) == []


@no_signals
def test_listener_takes_the_next_caller_and_once_does_not(tmp_path: Path) -> None:
    for options, calls in ((), 2), (("--once",), 1):
        path = tmp_path / f"pipe{calls}"
        with started(f"unix-listen:{path}", "echo", *options) as program:
            for _ in range(calls):
                assert_served(path)
            done = ended(program, signal.SIGINT) if not options else Done(program.wait(20), "", "")
        assert done.status == (0 if options else 130)


def test_command_ends_the_pipe_and_gives_its_status() -> None:
    done = run("pipe", "udp-listen:0", "echo", "--run", python("print('up'); exit(7)"))
    assert (done.status, done.printed) == (7, "up\n")


def test_pipe_ends_the_command() -> None:
    done = run("pipe", f"exec:{python('')}", "discard", "--run", python("import time; time.sleep(1000)"))
    assert done.status == (1 if sys.platform == "win32" else 128 + signal.SIGTERM)  # As TerminateProcess says it.


@pytest.mark.skipif(sys.platform != "win32", reason="signals interrupt waiting here, which other tests see")
def test_ctrl_c_ends_it_while_nothing_comes() -> None:
    """On Windows it does not interrupt what the main thread waits for."""
    code = (
        "import _thread, sys, threading; from threepipe import cli; sys.argv[1:] = ['pipe', 'udp-listen:0', 'echo'];"
        " threading.Timer(0.5, _thread.interrupt_main).start(); cli.main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=50)
    assert done.returncode == 130
    assert "Traceback" not in done.stderr


@pytest.mark.kernel
def test_adapters_go_with_it_also_after_kill(network: Network) -> None:
    prefix = tuple(network.command())
    for number in (signal.SIGINT, signal.SIGKILL):
        with started("tun:t%d,address=10.6.7.1/24", "echo", prefix=prefix) as program:
            assert come_true(lambda: "LOWER_UP" in network.run("ip", "link", "show", "t0", check=False), 20)
            assert " 1 received" in network.run("ping", "-c", "1", "-w", "20", "10.6.7.2")
            assert "adapter t0 created" in ended(program, number).complaint
        assert come_true(lambda: not links(network))


@pytest.mark.kernel
def test_persistent_adapter_is_opened_where_it_exists(network: Network) -> None:
    prefix = tuple(network.command())
    address = "tun:t0,address=10.6.7.1/24,persistent"
    assert run("pipe", address, "echo", "--run", "true", prefix=prefix).status == 0
    again = run("pipe", address, "echo", "--run", "true", prefix=prefix)
    assert (again.status, "adapter t0 opened" in again.complaint) == (0, True)
    other = run("pipe", "tun:t0,address=10.9.9.9/24,mtu=1400", "echo", prefix=prefix)
    assert other.status == 1
    assert "exists without 10.9.9.9/24, an MTU of 1400; drop the option or run: threepipe" in other.complaint
    assert links(network) == {"t0"}


@pytest.mark.kernel
@pytest.mark.parametrize("right", ["udp:localhost", "tcp-listen:1,reuse=perhaps", "fd:x", "tun:t1,mtu=1"])
def test_an_invalid_right_address_leaves_no_adapter_of_the_left_one(network: Network, right: str) -> None:
    done = run("pipe", "tun:t0,address=10.6.7.1/24,persistent", right, prefix=tuple(network.command()))
    assert done.status == 1
    assert repr(right) in done.complaint
    assert not links(network)
