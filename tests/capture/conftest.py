"""Fixtures for tests of taps and of running pipes."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.taps import Stage


@pytest.fixture
def stage() -> Iterator[Stage]:
    with ExitStack() as stack:
        yield Stage(stack)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "threepipe"
