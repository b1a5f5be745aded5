"""Fixtures for tests of sessions: two memory adapters that are joined."""

from collections.abc import Iterator

import pytest

from tests.support.sessions import CAPACITY, Pair, Sessions
from threepipe import MemoryAdapter


@pytest.fixture
def adapters() -> Iterator[Pair]:
    left, right = MemoryAdapter.pair()
    with left, right:
        yield left, right


@pytest.fixture
def sessions(adapters: Pair) -> Sessions:
    return adapters[0].start_session(CAPACITY), adapters[1].start_session(CAPACITY)
