"""Fixtures for tests of the forwarding loop."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as fresh:
        yield fresh
