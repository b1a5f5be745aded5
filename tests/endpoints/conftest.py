"""Fixtures for tests of endpoints."""

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.endpoints import KINDS, Place
from tests.support.stream_pipes import Piped
from threepipe.core import fast


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    return Place(request.param, tmp_path)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


@pytest.fixture
def secure(tmp_path: Path) -> Place:
    return Place("tls", tmp_path)


@pytest.fixture(params=["native", "python"])
def loop(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run each test with the loop that this core has, and with Python's."""
    if request.param == "python":
        monkeypatch.setattr(fast, "ENDS", frozenset())
    elif not fast.NATIVE or sys.platform != "linux":
        pytest.skip("there is no native loop for sockets on this system")
    return str(request.param)


@pytest.fixture
def piped(stack: ExitStack) -> Piped:
    """Return a running pipe over connected Unix sockets, by which a packet has passed each way."""
    made = Piped(stack)
    made.start()
    made.greet()
    return made
