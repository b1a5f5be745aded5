"""Taps of a pipe and their sinks."""

import errno
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

import threepipe
from tests.support.captures import PACKETS
from tests.support.taps import Stage, recorded
from threepipe.backend import INBOUND, OUTBOUND, CapturedBundle
from threepipe.capture.tap import Tap, Taps
from threepipe.capture.writer import CaptureWriter


class Notes:
    """A sink that notes all that it gets."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, list[bytes]]] = []
        self.times: list[int] = []

    def __call__(self, seen: CapturedBundle) -> None:
        self.seen.append((seen.direction, list(map(bytes, seen.packets))))
        self.times.append(seen.time_ns)


def test_a_sink_gets_both_directions_as_seen_from_the_left_end(stage: Stage) -> None:
    notes = Notes()
    stage.taps.add(notes)
    stage.both_ways()
    assert notes.seen == [(OUTBOUND, PACKETS[:1]), (INBOUND, PACKETS[1:2])]
    assert notes.times == sorted(notes.times)


def test_sinks_can_be_added_and_removed_while_a_pipe_runs(stage: Stage) -> None:
    first, second = Notes(), Notes()
    stage.both_ways()
    stage.taps.add(first)
    stage.both_ways()
    stage.taps.add(second)
    stage.both_ways()
    stage.taps.remove(first)
    stage.taps.remove(first)
    stage.both_ways()
    assert (len(first.seen), len(second.seen)) == (4, 4)


def test_a_sink_that_raises_does_not_disturb_the_pipe(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    def fail(seen: CapturedBundle) -> None:
        raise OSError(errno.ENOSPC, "the disk is full")

    notes = Notes()
    stage.taps.add(fail)
    stage.taps.add(notes)
    stage.both_ways()
    assert len(notes.seen) == 2
    assert [record.getMessage() for record in caplog.records] == [
        "a capture was ended by its error: [Errno 28] the disk is full"
    ]


@pytest.fixture
def tapped() -> Iterator[tuple[Taps, list[Tap]]]:
    """Return two sessions with taps around them, and no pump."""
    with ExitStack() as stack:
        taps = Taps()
        left, right = [stack.enter_context(end).start_session() for end in threepipe.MemoryAdapter.pair()]
        yield taps, list(taps.around(left, right))


@pytest.fixture
def interrupted(monkeypatch: pytest.MonkeyPatch) -> list[threepipe.Session]:
    """Record the sessions whose pump was interrupted."""
    sessions: list[threepipe.Session] = []
    monkeypatch.setattr("threepipe.capture.tap.interrupt", sessions.append)
    return sessions


def test_a_direct_pump_is_interrupted_when_a_sink_is_added(
    tapped: tuple[Taps, list[Tap]], interrupted: list[threepipe.Session]
) -> None:
    (taps, ends), notes = tapped, Notes()
    sessions = [end.inner for end in ends]
    assert [end.direct for end in ends] == sessions
    taps.add(notes)
    assert len(interrupted) == 1
    assert [end.direct for end in ends] == [None, None]
    taps.add(print)
    taps.remove(print)
    taps.remove(notes)
    assert len(interrupted) == 1
    assert [end.direct for end in ends] == sessions


def test_a_pump_of_bundles_is_not_interrupted(
    tapped: tuple[Taps, list[Tap]], interrupted: list[threepipe.Session]
) -> None:
    taps, ends = tapped
    taps.add(print)
    taps.remove(print)
    assert ends[0].direct is not None  # Of one session only.
    taps.add(print)
    taps.remove(print)
    assert None not in [end.direct for end in ends]
    ends[0].receive(0)  # The pump moves bundles after all.
    taps.add(print)
    assert not interrupted


def test_a_capture_file_is_a_sink(stage: Stage, tmp_path: Path) -> None:
    path = tmp_path / "a.pcapng"
    with CaptureWriter(str(path), "tp0") as file:
        stage.taps.add(file.sink)
        stage.both_ways()
        stage.taps.remove(file.sink)
    assert recorded(path) == [(PACKETS[0], OUTBOUND), (PACKETS[1], INBOUND)]
