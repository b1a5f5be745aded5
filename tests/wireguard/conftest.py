"""Fixtures for tests of WireGuard."""

from collections.abc import Iterator

import pytest

from tests.support.device_pair import Pair


@pytest.fixture(params=["127.0.0.1", "::1"], ids=["outside-4", "outside-6"])
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    pair = Pair(request.param)
    yield pair
    pair.close()
