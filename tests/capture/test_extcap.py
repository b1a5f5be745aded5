"""Answers to the queries that Wireshark sends to an extcap program; tests/linux/test_capture.py runs Wireshark."""

import os
import sys
from pathlib import Path

import pytest

import threepipe
from tests.support.libpcap import needs_libpcap
from tests.support.taps import unix
from threepipe.capture.extcap import main as extcap
from threepipe.capture.server import serve_captures
from threepipe.capture.tap import Taps


def answers(capfd: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    extcap(arguments)
    return capfd.readouterr().out.splitlines()


@unix
def test_running_pipes_are_listed_as_interfaces(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    with serve_captures(Taps(), "tun:tp0", "exec:{x}\n"):
        lines = answers(capfd, "--extcap-interfaces", "--extcap-version=4.0")
    name = f"threepipe-pipe:{os.getpid()}"
    assert lines[0] == f"extcap {{version={threepipe.__version__}}}{{display=threepipe}}"
    assert f"interface {{value={name}}}{{display=threepipe pipe tun:tp0 exec:(x)\\n}}" in lines
    assert answers(capfd, "--extcap-interface", name, "--extcap-dlts") == ["dlt {number=101}{name=RAW}{display=Raw IP}"]
    assert answers(capfd, "--extcap-interface", name, "--extcap-config") == []
    assert answers(capfd, "--extcap-interface", name) == []


@unix
def test_a_pipe_at_a_path_that_is_not_utf_8_is_listed(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    with serve_captures(Taps(), os.fsdecode(b"unix:/tmp/caf\xe9"), "echo"):
        lines = answers(capfd, "--extcap-interfaces")
    assert any(r"display=threepipe pipe unix:/tmp/caf\udce9 echo" in line for line in lines)


@needs_libpcap
def test_a_capture_filter_is_checked(capfd: pytest.CaptureFixture[str]) -> None:
    for right in ("", "tcp port 80"):
        assert answers(capfd, "--extcap-interface", "threepipe-tp0", f"--extcap-capture-filter={right}") == []
    (refusal,) = answers(capfd, "--extcap-interface", "threepipe-tp0", "--extcap-capture-filter=tcp prt")
    assert "filter 'tcp prt': " in refusal


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--capture",), "--capture needs"),
        (("--capture", "--extcap-interface", "eth0", "--fifo", "x"), "--capture needs"),
        (("--capture", "--extcap-interface", "threepipe-pipe:1-0", "--fifo", "x"), "runs no pipe of this user"),
        (("--capture", "--extcap-interface", "threepipe-a", "--fifo", "x", "--extcap-capture-filter", "y"), "filter"),
    ],
)
@unix
def test_an_impossible_capture_exits_with_a_reason(
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    arguments: tuple[str, ...],
    complaint: str,
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    with pytest.raises(SystemExit) as ended:
        extcap(arguments)
    printed, complained = capfd.readouterr()
    assert ended.value.code == 1
    assert printed == ""
    assert complaint in complained


KEY = "q" * 42 + "g="
"""Of WireGuard, in base64."""


@pytest.mark.parametrize(
    "arguments",
    [(KEY,), ("--fifo", "x", f"--{KEY}=1"), ("--capture", "--extcap-interface", f"threepipe-{KEY}", "--fifo", "x")],
)
def test_a_key_among_the_arguments_is_not_repeated(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    monkeypatch.setattr(sys, "argv", ["threepipe-extcap", *arguments])
    with pytest.raises(SystemExit):
        extcap()
    complained = capfd.readouterr().err
    assert "(hidden)" in complained
    assert "q" * 12 not in complained
