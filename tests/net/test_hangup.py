"""Readers of pipes and sockets that leave while nothing is written."""

import io
import os
import select
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from threepipe.net.hangup import on_hangup

SECONDS = 10.0

posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no poll")


@posix
@pytest.mark.parametrize("connect", [os.pipe, lambda: [end.detach() for end in socket.socketpair()]])
@pytest.mark.parametrize("before", [False, True])
def test_a_reader_that_leaves_is_noticed(connect: Callable[[], Sequence[int]], before: bool) -> None:
    reader, writer = connect()
    left = threading.Event()
    with io.FileIO(writer, "w") as file:
        if before:
            os.close(reader)
        with on_hangup(file, left.set):
            if not before:
                assert not left.is_set()
                os.close(reader)
            assert left.wait(SECONDS)


@posix
def test_a_reader_that_stays_is_not_reported(tmp_path: Path) -> None:
    left = threading.Event()
    reader, writer = os.pipe()
    with io.FileIO(reader), io.FileIO(writer, "w") as file, on_hangup(file, left.set):
        file.write(b"data")
    with (tmp_path / "file").open("wb") as plain, on_hangup(plain, left.set):
        pass
    assert not left.is_set()


def test_without_poll_nothing_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(select, "poll", raising=False)
    left = threading.Event()
    with io.BytesIO() as file, on_hangup(file, left.set):
        pass
    assert not left.is_set()
