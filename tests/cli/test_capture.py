"""`threepipe capture`: its summary, and its filter. tests/linux/test_capture.py captures adapters and pipes."""

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.support.commands import Done, run_here
from tests.support.libpcap import needs_libpcap
from threepipe.backend import OUTBOUND, CapturedBundle
from threepipe.echo import echo_request

PACKETS = [echo_request("10.6.7.1", "10.6.7.2", 1, 1, b"hello"), echo_request("fd00::1", "fd00::2", 1, 1, b"hello")]


class Source:
    """Captured packets, in place of an adapter."""

    name = "tp0"
    dropped = 0

    def __iter__(self) -> Iterator[list[CapturedBundle]]:
        yield [CapturedBundle(OUTBOUND, tuple(PACKETS), 7)]

    def stop(self) -> None: ...

    def close(self) -> None: ...


@pytest.fixture
def capture(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[..., Done]:
    monkeypatch.setattr("threepipe.capture.live.open_source", lambda name, netns: Source())
    return partial(run_here, monkeypatch, capfd, "capture", "tp0", "--write", str(tmp_path / "packets.pcapng"))


def test_the_summary_is_on_standard_error(capture: Callable[..., Done]) -> None:
    counts = {"packets": 2, "bytes": sum(map(len, PACKETS)), "dropped": 0}
    said = ", ".join([f"{value} {name}" for name, value in counts.items()])
    assert capture() == Done(0, "", f"threepipe: {said}\n")
    assert capture("-v") == Done(0, "", f"threepipe: {said}\n")
    assert json.loads(capture("--json").complaint) == counts
    assert capture("-q") == Done(0, "", "")


@needs_libpcap
def test_a_filter_leaves_out_other_packets(capture: Callable[..., Done], tmp_path: Path) -> None:
    assert capture("--filter", "ip6").complaint.startswith("threepipe: 1 packets, ")
    written = (tmp_path / "packets.pcapng").read_bytes()
    assert PACKETS[1] in written
    assert PACKETS[0] not in written
    assert "filter 'ip7': " in capture("--filter", "ip7").complaint


def test_a_wrong_filter_leaves_the_file_as_it_was(
    capture: Callable[..., Done], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("threepipe.capture.expression.find_library", lambda name: None)
    (tmp_path / "packets.pcapng").write_text("before")
    assert capture("--filter", "tcp").status == 1
    assert (tmp_path / "packets.pcapng").read_text() == "before"
