"""The conformance checks, run on every kind of adapter."""

from collections.abc import Callable

import pytest

import threepipe
from tests.support.kernel import Network
from threepipe.testing import CHECKS, Wire, check_adapter, make_memory_adapter

Check = Callable[[threepipe.Adapter, Wire], None]


@pytest.mark.parametrize("check", CHECKS)
def test_a_memory_adapter_passes_every_check(check: Check) -> None:
    with make_memory_adapter() as (adapter, wire):
        check(adapter, wire)


@pytest.mark.kernel
@pytest.mark.parametrize("offload", [True, False], ids=["offload", "plain"])
@pytest.mark.parametrize("check", CHECKS)
def test_a_created_adapter_passes_every_check(check: Check, offload: bool, network: Network) -> None:
    from tests.support.wires import wired

    def create() -> threepipe.Adapter:
        return threepipe.Adapter.create("tp0", netns=network.path, offload=offload)

    with wired(network, create, persistent=False) as (adapter, wire):
        check(adapter, wire)


@pytest.mark.kernel
@pytest.mark.parametrize("check", CHECKS)
def test_a_reopened_persistent_adapter_passes_every_check(check: Check, network: Network) -> None:
    from tests.support.wires import wired

    def create_and_open() -> threepipe.Adapter:
        threepipe.Adapter.create("tp0", netns=network.path, persistent=True, addresses=["10.9.8.1/24"]).close()
        return threepipe.Adapter.open("tp0", netns=network.path)

    with wired(network, create_and_open, persistent=True) as (adapter, wire):
        check(adapter, wire)


def test_check_adapter_runs_every_check() -> None:
    check_adapter(make_memory_adapter)


def test_check_adapter_fails_for_a_session_that_loses_packets(monkeypatch: pytest.MonkeyPatch) -> None:
    """The session of this adapter loses every second packet: the checks must be able to fail."""
    monkeypatch.setattr("threepipe.testing.probes.SECONDS", 0.2)

    class Losing(threepipe.Session):
        def receive(self, timeout: float | None = None) -> threepipe.Bundle:
            return super().receive(timeout)[::2]

    class LosingAdapter(threepipe.MemoryAdapter):
        def start_session(self, capacity: int = 0x400000) -> threepipe.Session:
            session = super().start_session(capacity)
            session.__class__ = Losing
            return session

    with make_memory_adapter() as (adapter, wire):
        adapter.__class__ = LosingAdapter
        with pytest.raises(AssertionError, match="differ from those sent"):
            CHECKS[0](adapter, wire)
