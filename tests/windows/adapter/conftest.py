"""Fixtures for tests of Windows adapters on the contract library."""

import asyncio
import sys
from collections.abc import Coroutine, Iterator
from typing import Any

import pytest

from tests.support.contract_system import Bench, find_contract
from tests.support.windows_adapters import LOOPS, Made, Run


@pytest.fixture(scope="module")
def loaded(request: pytest.FixtureRequest) -> Iterator[Bench]:
    bench = Bench(find_contract(request.config))
    yield bench
    bench.close()


@pytest.fixture
def bench(loaded: Bench) -> Iterator[Bench]:
    """Return the bench, and fail the test if it broke Wintun's contract or left something open."""
    loaded.contract.ContractReset()
    yield loaded
    wrongs = loaded.contract.counters()
    for allowed in ("released_out_of_order", "sent_out_of_order", "lost_wakeups"):
        wrongs.pop(allowed, None)
    loaded.contract.ContractReset()
    assert not wrongs
    if sys.platform == "linux":
        from tests.support.contract_events import EventFds

        assert isinstance(loaded.events, EventFds)
        assert not loaded.events.open
        assert not loaded.events.watches


@pytest.fixture
def made(bench: Bench) -> Iterator[Made]:
    with bench.wired() as made:
        yield made


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest) -> Run:
    """Return `asyncio.run` for each kind of event loop of this system."""

    def run(main: Coroutine[Any, Any, Any]) -> Any:
        with asyncio.Runner(loop_factory=getattr(asyncio, request.param)) as runner:
            return runner.run(main)

    return run
