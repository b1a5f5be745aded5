"""The units for systemd under its own checks, and what a pipe tells the service manager."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

if sys.platform != "linux":
    pytest.skip(f"this system has no systemd, but {sys.platform}", allow_module_level=True)

ROOT = Path(__file__).parents[2]
UNITS = ROOT / "units"
THREEPIPE = [sys.executable, "-W", "error", "-m", "threepipe"]
SECONDS = 20

MOST_EXPOSED = {"threepipe-pipe@.service": 27, "threepipe-wg@.service": 30}
"""Tenths of the exposure that systemd computes, from 0 to 100; without hardening it is 96."""


def needs(program: str) -> None:
    if shutil.which(program) is None and not Path(program).exists():
        pytest.skip(f"{program} is not there; install systemd")


@pytest.mark.parametrize("name", MOST_EXPOSED)
def test_systemd_finds_no_fault_in_a_unit(name: str, tmp_path: Path) -> None:
    needs("systemd-analyze")
    # It looks for the program and the manual page, which are not installed here.
    text = (UNITS / name).read_text().replace("=threepipe ", "=/bin/true ")
    (tmp_path / name).write_text("".join(line for line in text.splitlines(True) if "man:" not in line))
    checked = subprocess.run(["systemd-analyze", "verify", str(tmp_path / name)], capture_output=True, text=True)
    assert [line for line in checked.stderr.splitlines() if "threepipe" in line] == []
    assert checked.returncode == 0


@pytest.mark.parametrize(("name", "most"), MOST_EXPOSED.items())
def test_a_unit_is_hardened(name: str, most: int) -> None:
    needs("systemd-analyze")
    command = ["systemd-analyze", "security", "--offline=true", f"--threshold={most}", str(UNITS / name)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@contextmanager
def manager(tmp_path: Path, abstract: bool) -> Iterator[tuple[socket.socket, str]]:
    """A service manager's socket, and its address for NOTIFY_SOCKET."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.settimeout(SECONDS)
        if abstract:
            listening.bind("")  # The kernel chooses an abstract name.
            yield listening, "@" + listening.getsockname()[1:].decode()
        else:
            listening.bind(str(tmp_path / "notify"))
            yield listening, str(tmp_path / "notify")


@pytest.mark.parametrize("abstract", [False, True])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_pipe_says_that_it_is_ready_and_that_it_stops(tmp_path: Path, abstract: bool, number: signal.Signals) -> None:
    with manager(tmp_path, abstract) as (listening, address):
        command = [*THREEPIPE, "pipe", f"unix-listen:{tmp_path}/pipe", "echo"]
        with subprocess.Popen(command, env=os.environ | {"NOTIFY_SOCKET": address}, stderr=subprocess.DEVNULL) as pipe:
            try:
                assert listening.recv(4096) == f"READY=1\nSTATUS=unix-listen:{tmp_path}/pipe > echo".encode()
                pipe.send_signal(number)
                assert listening.recv(4096) == b"STOPPING=1"
                assert pipe.wait(SECONDS) == 0
            finally:
                pipe.kill()


def test_a_manager_that_is_gone_is_a_warning() -> None:
    command = [*THREEPIPE, "pipe", "echo", "discard", "--run", "true"]
    gone = os.environ | {"NOTIFY_SOCKET": "/no/such/socket"}
    done = subprocess.run(command, env=gone, capture_output=True, text=True, timeout=50)
    assert done.returncode == 0
    assert "warning: the service manager cannot be told READY=1: No such file or directory\n" in done.stderr
