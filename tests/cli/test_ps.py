"""`threepipe ps` and `threepipe top`: what runs is found with its rates, and what was killed is not."""

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests.support.assemblies import plan, running
from tests.support.commands import Done, run_here
from tests.support.taps import unix
from threepipe import EndpointError, open_endpoint
from threepipe.capture import client, server
from threepipe.capture.client import RunningPipe, running_pipes, status_of_pipe
from threepipe.capture.status import PipeStatus, Traffic, emit, parse
from threepipe.cli import ps
from threepipe.cli.running import Program, rates
from threepipe.echo import echo_request
from threepipe.wireguard import Device, uapi_socket
from threepipe.wireguard.uapi_server import UapiServer

PING = echo_request("10.6.7.1", "10.6.7.2", 1, 1, b"hello")


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[..., Done]:
    """Run a command that finds pipes and devices in the test's folder alone, and looks twice without waiting."""
    for module in (client, server):
        monkeypatch.setattr(module, "runtime_folder", lambda: tmp_path / "pipes")
    for name in ("names", "status_of"):
        monkeypatch.setattr(uapi_socket, name, partial(getattr(uapi_socket, name), folder=tmp_path / "devices"))
    for name in ("_SAMPLE", "_INTERVAL"):
        monkeypatch.setattr(ps, name, 0.01)
    return partial(run_here, monkeypatch, capfd)


@unix
def test_a_running_pipe_is_listed_with_its_counts(here: Callable[..., Done]) -> None:
    with open_endpoint("memory:x") as far, running(plan("memory:x", "echo")):
        far.send([PING])
        far.receive(10).release()
        (found,) = json.loads(here("ps", "--json").printed)
        heading, line = here("ps").printed.splitlines()
    assert (found["name"], found["kind"], found["pid"]) == (f"pipe:{os.getpid()}", "pipe", os.getpid())
    assert (found["left"], found["right"]) == ("memory:x", "echo")
    assert found["towards_right"] == {
        "received_packets": 1,
        "received_bytes": len(PING),
        "sent_packets": 1,
        "sent_bytes": len(PING),
        "dropped": 0,
    }
    assert found["bits_per_second"] == {"sent": 0, "received": 0}
    assert heading.split() == ["name", "ends", "time", ">", "bit/s", "<", "bit/s", ">", "bytes", "<", "bytes"]
    assert line.startswith(f"pipe:{os.getpid()} memory:x > echo ")
    assert line.split()[-2:] == [str(len(PING))] * 2
    assert here("ps", "--json").printed == "[]\n"


KILLED = """
import os, signal, sys
from pathlib import Path
from threepipe.capture import server
from threepipe.capture.tap import Taps
with server.serve_captures(Taps(), "a", "b", Path(sys.argv[1])):
    os.kill(os.getpid(), signal.SIGKILL)
"""


@unix
def test_what_was_killed_is_not_listed(here: Callable[..., Done], tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", KILLED, tmp_path / "pipes"], timeout=50, check=False)
    left = uapi_socket.listen("killed", tmp_path / "devices")
    left.close()
    assert len(list((tmp_path / "pipes").iterdir())) == 1
    assert here("ps", "--json") == Done(0, "[]\n", "")
    assert list((tmp_path / "pipes").iterdir()) == [], "the socket of a killed pipe is removed"


@unix
def test_a_wireguard_device_is_listed(here: Callable[..., Done], tmp_path: Path) -> None:
    listening = uapi_socket.listen("wg7", tmp_path / "devices")
    with Device(private_key=bytes(32)) as device, UapiServer(listening, device, device.close):
        (found,) = json.loads(here("ps", "--json").printed)
        line = here("top", "--count", "1").printed.splitlines()[1]
    assert found == {
        "name": "wg7",
        "kind": "wireguard",
        "peers": 0,
        "latest_handshake": None,
        "sent_bytes": 0,
        "received_bytes": 0,
        "bits_per_second": {"sent": 0, "received": 0},
    }
    assert line.split() == ["wg7", "0", "peers", "-", "0", "0", "0", "0"]


@unix
def test_what_refuses_to_answer_is_reported_once(here: Callable[..., Done], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: str) -> None:
        raise EndpointError(errno.EACCES, "run this as root")

    with running(plan("memory:x", "discard")):
        for names in (refuse, lambda: ["wg7", "wg8"]):
            monkeypatch.setattr(uapi_socket, "names", names)
            monkeypatch.setattr(uapi_socket, "status_of", refuse)
            done = here("top", "--json", "--count", "2")
            assert done.complaint == "threepipe: run this as root\n"
            assert [len(json.loads(line)) for line in done.printed.splitlines()] == [1, 1]


@unix
def test_top_prints_a_line_of_json_for_each_update(here: Callable[..., Done]) -> None:
    with running(plan("memory:x", "discard")):
        lines = here("top", "--json", "--count", "2").printed.splitlines()
    assert [[program["right"] for program in json.loads(line)] for line in lines] == [["discard"]] * 2


def test_ctrl_c_is_the_usual_end_of_top(here: Callable[..., Done], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("time.sleep", interrupt)
    assert here("top") == Done(0, "", "")


def program(clock: float, sent: int, received: int = 0, name: str = "pipe:1") -> Program:
    return Program("pipe", name, ("tun:tp0,address=10.6.7.1/24", "udp:vpn.example.org:4242"), clock, sent, received, {})


def test_rates_are_those_between_two_looks() -> None:
    assert rates([program(10.0, 1000)], program(12.0, 2000, 500)) == (4000.0, 2000.0)
    assert rates([program(12.0, 1000)], program(2.0, 0)) is None, "another process with the same number"
    assert rates([], program(2.0, 0)) is None


def test_lines_fit_in_80_columns() -> None:
    lines = ps._lines([], [program(1e6, 10**15, 10**15, "pipe:4194304-2"), program(59, 1)], 80)
    assert [len(line) for line in lines] == [80] * 3
    assert lines[1].split()[-6:] == ["-", "-", "1", "P", "1", "P"]
    assert " 11 d 13 h " in lines[1]
    assert " 0:00:59 " in lines[2]


STATUS = PipeStatus(1.5, Traffic(1, 2, 3, 4, 5), Traffic())


def test_a_status_is_read_as_it_was_written() -> None:
    assert parse(emit(STATUS)) == STATUS


GOOD = Traffic()._asdict()
WRONG: list[object] = [
    [],
    {},
    {"seconds": 1},
    {"seconds": True, "towards_right": GOOD, "towards_left": GOOD},
    {"seconds": -1, "towards_right": GOOD, "towards_left": GOOD},
    {"seconds": float("inf"), "towards_right": GOOD, "towards_left": GOOD},
    {"seconds": float("nan"), "towards_right": GOOD, "towards_left": GOOD},
    {"seconds": 1, "towards_right": GOOD, "towards_left": {**GOOD, "dropped": 1.5}},
    {"seconds": 1, "towards_right": GOOD, "towards_left": {**GOOD, "dropped": 2**64}},
    {"seconds": 1, "towards_right": [], "towards_left": GOOD},
]


@pytest.mark.parametrize("line", [b"\xff", b"[" * 60_000, *[json.dumps(wrong).encode() for wrong in WRONG]])
def test_an_answer_that_is_not_a_status_raises(line: bytes) -> None:
    with pytest.raises(ValueError, match="not the status of a pipe"):
        parse(line)


@unix
def test_a_pipe_that_has_ended_has_no_status(here: Callable[..., Done], tmp_path: Path) -> None:
    with running(plan("memory:x", "discard")):
        (found,) = running_pipes()
        assert status_of_pipe(found) is not None
    assert status_of_pipe(found) is None
    assert status_of_pipe(RunningPipe(1, "a", "b", tmp_path / "none")) is None
