"""Tests of minutes on the ring, hostile bytes, streams, processes and the contract: make soak."""

import json
import random
import subprocess
import sys
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import threepipe
from tests.support.kernel import Network, call_elsewhere
from tests.support.killing import kill_in_mid_traffic
from tests.support.ring_model import exercise
from threepipe.echo import echo_reply
from threepipe.testing import CHECKS, Wire, make_memory_adapter

pytestmark = pytest.mark.soak


@pytest.mark.parametrize("seed", range(20))
def test_five_million_random_operations_agree_with_the_ring_model(seed: int) -> None:
    exercise(random.Random(seed), 5_000_000)


@settings(max_examples=300_000, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.binary(max_size=400))
def test_hostile_bytes_unpack_without_a_crash(data: bytes) -> None:
    bundle, used = threepipe.Bundle.unpack_from(data)
    assert used <= len(data)
    for packet in bundle:
        echo_reply(packet)


@pytest.mark.kernel
def test_a_stream_of_32_gib_arrives_intact() -> None:
    command = [sys.executable, "-m", "threepipe", "demo", "--json", "--size", "32G"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    result = json.loads(done.stdout)
    assert result["bytes"] == 32 << 30
    assert result["sha256_match"]


@pytest.mark.kernel
def test_five_hundred_processes_killed_in_mid_traffic_leave_no_adapter(network: Network) -> None:
    for _ in range(10):
        seen, _codes = call_elsewhere(network, kill_in_mid_traffic, 50)
        assert seen == 50
    assert not threepipe.adapters(network.path)


@pytest.mark.kernel
@pytest.mark.parametrize("check", CHECKS)
def test_every_check_of_the_contract_passes_fifty_times(
    check: Callable[[threepipe.Adapter, Wire], None], network: Network
) -> None:
    from tests.support.wires import wired

    def create() -> threepipe.Adapter:
        return threepipe.Adapter.create("tp0", netns=network.path)

    for _ in range(50):
        with make_memory_adapter() as (adapter, wire):
            check(adapter, wire)
        with wired(network, create, persistent=False) as (adapter, wire):
            check(adapter, wire)
