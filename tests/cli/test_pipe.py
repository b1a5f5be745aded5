"""`threepipe pipe`: help, output, endings, and what stays behind."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from tests.support.commands import CAT, Done, python, run, run_here
from tests.support.interrupted import interrupted_starts
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
    """Return the address of a program that prints the file at `path`."""
    return f"exec:{python(f'import sys; sys.stdout.buffer.write(open({str(path)!r}, {chr(34)}rb{chr(34)}).read())')}"


def test_help_names_every_kind_option_and_impairment(here: Callable[..., Done]) -> None:
    said = here("pipe", "--help").plain
    names = [name for kind in KINDS.values() for name in (kind.name, *[option.name for option in kind.options])]
    assert [name for name in (*names, *SETTINGS) if name not in said] == []


def test_the_page_of_the_docs_has_the_tables_of_the_program() -> None:
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
def test_an_impossible_pipe_exits_with_advice(here: Callable[..., Done], arguments: list[str], advice: str) -> None:
    done = here("pipe", *arguments)
    assert done.status == 1
    assert advice in done.complaint.splitlines()[-1]
    assert done.printed == ""


def test_packets_go_through_standard_input_and_output_alone() -> None:
    """Standard output has packets only; events go to standard error."""
    command = [sys.executable, "-W", "error", "-m", "threepipe", "pipe", "-", f"exec:{CAT}", "--json"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as program:
        assert program.stdin is not None
        assert program.stdout is not None
        program.stdin.write(RECORD * 3)
        program.stdin.flush()  # The end of input would give the other end half a second for its answers.
        assert program.stdout.read(3 * len(RECORD)) == RECORD * 3
        rest, errors = program.communicate(timeout=50)
    assert (program.returncode, rest) == (0, b"")
    assert [json.loads(line)["event"] for line in errors.splitlines()][-1] == "end"


def test_a_file_as_standard_input_is_read_to_its_end(tmp_path: Path) -> None:
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


def test_a_file_as_standard_output_gets_all_records(tmp_path: Path) -> None:
    (tmp_path / "records").write_bytes(RECORD * 300)
    with (tmp_path / "copy").open("wb") as copy:
        command = [sys.executable, "-m", "threepipe", "pipe", shown(tmp_path / "records"), "-"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=copy) as program:
            assert program.wait(50) == 0
    assert (tmp_path / "copy").read_bytes() == RECORD * 300


def test_json_prints_events(here: Callable[..., Done], tmp_path: Path) -> None:
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


def test_stats_without_a_terminal_prints_a_line_for_each_direction(here: Callable[..., Done], tmp_path: Path) -> None:
    (tmp_path / "records").write_bytes(RECORD * 2)
    done = here("pipe", shown(tmp_path / "records"), "discard", "--stats")
    headings, *lines = [line for line in done.complaint.splitlines() if not line.startswith("threepipe: ")]
    assert headings.split() == ["time", "direction", "packets/s", "bit/s", "packets", "bytes", "dropped"]
    assert all(len(line) == len(headings) == 78 for line in lines)
    forward, back = lines[-2:]  # On a busy machine the pipe outlives a second, and there are lines before.
    assert " > discard " in forward
    assert forward.split()[-3:] == ["2", str(2 * len(PING)), "0"]
    assert back.split()[-5:] == ["0"] * 5


def test_statistics_count_packets_that_an_impairment_drops(here: Callable[..., Done], tmp_path: Path) -> None:
    (tmp_path / "records").write_bytes(RECORD * 5)
    done = here("pipe", shown(tmp_path / "records"), "discard", "--json", "--impair", "loss=100%,towards=right")
    way = json.loads(done.printed.splitlines()[-1])["towards_right"]
    assert (way["sent_packets"], way["dropped"]) == (0, 5)


def assert_served(path: Path) -> None:
    """Check that the echo behind a listener answers, as soon as it listens."""
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
@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_ends_the_pipe_cleanly(tmp_path: Path, number: str) -> None:
    with started(f"unix-listen:{tmp_path}/pipe", "echo") as program:
        assert_served(tmp_path / "pipe")  # Then both ends are open.
        done = ended(program, getattr(signal, number))
    assert done.status == (130 if number == "SIGINT" else 0)
    assert "Traceback" not in done.complaint
    assert list(tmp_path.iterdir()) == []


@no_signals
@pytest.mark.parametrize("connect", ["openpty", "pipe"])
def test_a_terminal_or_reader_that_is_gone_ends_the_pipe_and_its_program(tmp_path: Path, connect: str) -> None:
    """The shell and the kernel may send a SIGHUP each, and nothing can be printed any more."""
    terminal, own = getattr(os, connect)()
    child = python(f"import os; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); os.read(0, 1)")
    ends = (f"unix-listen:{tmp_path}/pipe", f"exec:{child}")
    command = [sys.executable, "-W", "error", "-m", "threepipe", "pipe", *ends, "--stats"]
    with subprocess.Popen(command, stdin=own, stderr=own, start_new_session=True) as program:
        os.close(own)
        assert come_true(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text() != "", 20)
        os.close(terminal)
        for _ in range(2):
            program.send_signal(signal.SIGHUP)
        assert program.wait(20) == 0
    assert not (tmp_path / "pipe").exists()
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


@no_signals
def test_a_pipe_under_nohup_outlives_its_terminal(tmp_path: Path) -> None:
    ignoring = ("sh", "-c", 'trap "" HUP; exec "$@"', "sh")
    with started(f"unix-listen:{tmp_path}/pipe", "echo", prefix=ignoring) as program:
        assert_served(tmp_path / "pipe")
        program.send_signal(signal.SIGHUP)
        assert_served(tmp_path / "pipe")
        assert ended(program, signal.SIGTERM).status == 0


@no_signals
def test_a_listener_serves_the_next_caller_unless_once(tmp_path: Path) -> None:
    for options, calls in ((), 2), (("--once",), 1):
        path = tmp_path / f"pipe{calls}"
        with started(f"unix-listen:{path}", "echo", *options) as program:
            for _ in range(calls):
                assert_served(path)
            done = ended(program, signal.SIGINT) if not options else Done(program.wait(20), "", "")
        assert done.status == (0 if options else 130)


def test_a_command_that_exits_ends_the_pipe_with_its_status() -> None:
    done = run("pipe", "udp-listen:0", "echo", "--run", python("print('up'); exit(7)"))
    assert (done.status, done.printed) == (7, "up\n")


def test_a_pipe_that_ends_stops_its_command() -> None:
    done = run("pipe", f"exec:{python('')}", "discard", "--run", python("import time; time.sleep(1000)"))
    assert done.status == (1 if sys.platform == "win32" else 128 + signal.SIGTERM)  # TerminateProcess sets this status.


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_a_signal_while_the_command_starts_ends_it(
    here: Callable[..., Done], monkeypatch: pytest.MonkeyPatch, number: signal.Signals, status: int
) -> None:
    with interrupted_starts(monkeypatch, number) as programs:
        done = here("pipe", "echo", "discard", "--run", python("import time; time.sleep(1000)"))
        assert done.status == status
        assert [program.poll() is not None for program in programs] == [True]


@pytest.mark.skipif(sys.platform != "win32", reason="signals interrupt waiting here, which other tests see")
def test_ctrl_c_ends_an_idle_pipe() -> None:
    """On Windows, Ctrl-C does not interrupt a wait of the main thread."""
    code = (
        "import _thread, sys, threading; from threepipe import cli; sys.argv[1:] = ['pipe', 'udp-listen:0', 'echo'];"
        " threading.Timer(0.5, _thread.interrupt_main).start(); cli.main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=50)
    assert done.returncode == 130
    assert "Traceback" not in done.stderr


@pytest.mark.kernel
def test_the_adapter_of_a_pipe_is_gone_after_its_end_or_kill(network: Network) -> None:
    prefix = tuple(network.command())
    for number in (signal.SIGINT, signal.SIGKILL):
        with started("tun:t%d,address=10.6.7.1/24", "echo", prefix=prefix) as program:
            assert come_true(lambda: "LOWER_UP" in network.run("ip", "link", "show", "t0", check=False), 20)
            assert " 1 received" in network.run("ping", "-c", "1", "-w", "20", "10.6.7.2")
            assert "adapter t0 created" in ended(program, number).complaint
        assert come_true(lambda: not links(network))


@pytest.mark.kernel
def test_an_existing_persistent_adapter_is_opened(network: Network) -> None:
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


@pytest.mark.kernel
def test_the_adapter_stays_while_the_other_end_connects_again(network: Network, tmp_path: Path) -> None:
    starts = tmp_path / "starts"
    command = python(f"open({str(starts)!r}, 'a').write('.')")
    left = "tun:t0,address=10.6.7.1/24,route=10.9.0.0/16"

    def state() -> str:
        return network.run("ip", "-o", "addr", "show", "t0", check=False) + network.run("ip", "route")

    with started(left, f"exec,forever,interval=0.01:{command}", prefix=tuple(network.command())) as program:
        assert come_true(lambda: starts.exists() and "10.9.0.0/16 dev t0" in state(), 20)
        before, many = state(), len(starts.read_text())
        assert come_true(lambda: len(starts.read_text()) >= many + 3, 20)
        assert state() == before
        assert ended(program, signal.SIGTERM).status == 0
    assert not links(network)


def test_a_connection_that_its_other_end_closes_fails_the_command(here: Callable[..., Done]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening, ThreadPoolExecutor(1) as executor:
        accepting = executor.submit(lambda: listening.accept()[0].close())
        done = here("pipe", f"tcp:127.0.0.1:{listening.getsockname()[1]}", "discard")
        accepting.result()
    assert done.status == 1
    assert done.complaint.endswith(" disconnected; to have it connect again, add ,forever\n")


def test_a_signal_at_the_start_of_the_statistics_leaves_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    from threepipe.cli.pipe import _every

    start, before = threading.Thread.start, threading.active_count()

    def interrupted(thread: threading.Thread) -> None:
        start(thread)
        raise SystemExit(129)

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    with pytest.raises(SystemExit), _every(1000.0, lambda: None):
        pytest.fail("the block began")
    assert threading.active_count() == before


CHATTY = python("import sys; print('to output', flush=True); print('{to error', file=sys.stderr)")


def test_json_on_standard_output_has_it_to_itself() -> None:
    done = run("pipe", "echo", "discard", "--json", "--run", CHATTY)
    assert [json.loads(line)["event"] for line in done.printed.splitlines()] == ["end"]
    assert sorted(done.complaint.splitlines()) == ["to output", "{to error"]


def outputs_beside_packets(command: str) -> list[str]:
    """Run a pipe with packets on standard output and this command, and return the lines that became events."""
    words = [sys.executable, "-W", "error", "-m", "threepipe", "pipe", "-", "echo", "--json", "--run", command]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as program:
        assert program.stderr is not None
        assert program.stdout is not None
        events = [json.loads(line) for line in program.stderr]
        assert program.stdout.read() == b""
    assert events[-1]["event"] == "end"
    return [event["text"] for event in events if event["event"] == "output"]


def test_json_beside_packets_has_what_programs_write_as_events() -> None:
    assert sorted(outputs_beside_packets(CHATTY)) == ["to output", "{to error"]


@pytest.mark.parametrize("length", [5, 65520, 65536])
def test_an_unfinished_line_of_any_length_becomes_events_and_does_not_delay_the_end(length: int) -> None:
    outputs = outputs_beside_packets(python(f"import sys; sys.stderr.write('x' * {length})"))
    assert "".join(outputs) == "x" * length


@pytest.mark.parametrize(("options", "noted"), [((), True), (("-q",), False), (("-v",), True)], ids=str)
def test_quiet_leaves_out_notes(
    here: Callable[..., Done], tmp_path: Path, options: tuple[str, ...], noted: bool
) -> None:
    (tmp_path / "records").write_bytes(RECORD)
    done = here("pipe", shown(tmp_path / "records"), "discard", "--json", *options)
    events = [json.loads(line)["event"] for line in done.printed.splitlines()]
    assert ("note" in events) == noted
    assert events[-1] == "end"


def test_verbose_and_quiet_exclude_each_other(here: Callable[..., Done]) -> None:
    done = here("pipe", "echo", "discard", "-vq")
    assert done.status == 2
    assert "exclude each other" in done.plain
