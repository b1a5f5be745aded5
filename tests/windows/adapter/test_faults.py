"""Faults of rings and of the driver, and interpreters that end while adapters are open."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.support.contract_dll.library import Fault, Function
from tests.support.contract_system import Bench, find_contract
from tests.support.windows_adapters import SECONDS, Made, in_threads, packet, packets
from threepipe.errors import AdapterError, AdapterGone, RingCorrupt

pytestmark = pytest.mark.windows


def test_a_corrupt_ring_ends_the_session_with_ring_corrupt(made: Made) -> None:
    adapter, wire = made
    with adapter.start_session() as session:
        wire.send(packets(2))
        wire.fault(Fault.CORRUPT_SIZE, 70_000)
        assert len(session.receive(SECONDS)) == 2  # The packets before the fault are intact.
        for _ in range(2):
            with pytest.raises(RingCorrupt, match="start another"):
                session.receive(SECONDS)
            with pytest.raises(RingCorrupt):
                session.send([packet(0)])
    with adapter.start_session() as session:
        wire.send([packet(3)])
        assert session.receive(SECONDS)[0] == packet(3)


@pytest.mark.parametrize("waiters", [1, 4])
def test_removal_of_the_adapter_wakes_every_waiter(made: Made, waiters: int) -> None:
    adapter, wire = made
    with adapter.start_session() as session:
        waiting = threading.Barrier(waiters + 1)

        def receive() -> None:
            waiting.wait(SECONDS)
            with pytest.raises(AdapterGone, match="tp0 was removed"):
                session.receive()

        with in_threads(*[receive] * waiters):
            waiting.wait(SECONDS)
            wire.fault(Fault.TERMINATE)
        with pytest.raises(AdapterGone):
            session.send([packet(0)])
    with pytest.raises(AdapterGone):
        adapter.start_session()


def test_a_driver_that_stopped_receiving_ends_the_session(made: Made) -> None:
    adapter, wire = made
    with adapter.start_session() as session:
        wire.fault(Fault.CORRUPT_HEAD, 0xFFFFFFFF)
        with pytest.raises(AdapterGone, match="or its driver failed"):
            session.send([packet(0)])
        with pytest.raises(AdapterGone):
            session.receive()


def test_an_unknown_error_ends_the_session(made: Made, bench: Bench) -> None:
    adapter, _ = made
    with adapter.start_session() as session:
        bench.contract.ContractFailCall(Function.RECEIVE_PACKET, 1460, 2)  # A failed call is repeated once.
        with pytest.raises(AdapterError, match="tp0: "):
            session.receive()


def test_a_lost_wake_up_delays_a_receive_by_a_second_at_most(made: Made) -> None:
    adapter, wire = made
    with adapter.start_session() as session:
        waiting = threading.Barrier(2)
        found: list[bytes] = []

        def receive() -> None:
            waiting.wait(SECONDS)
            found.append(session.receive_packet())

        with in_threads(receive):
            waiting.wait(SECONDS)
            wire.fault(Fault.LOST_WAKEUPS, 1)
            wire.send([packet(5)])
        assert found == [packet(5)]


# Programs that end.

FORGOTTEN = """
import gc
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from tests.support.contract_dll.library import Contract
from tests.support.contract_system import Bench
bench = Bench(Path(sys.argv[1]))
bench.close()
del bench
gc.collect()
if Contract(Path(sys.argv[1])).WintunOpenAdapter("nowhere"):
    print("found")
"""

OUTLIVED = """
import sys
from pathlib import Path
from typing import Any
sys.path.insert(0, sys.argv[2])
from tests.support.contract_system import Bench
bench = Bench(Path(sys.argv[1]))
adapter = bench.create("tp0")
session = adapter.start_session()
session.send([bytes([0x45]).ljust(100)])
"""


@pytest.mark.parametrize(
    "program",
    [
        pytest.param(FORGOTTEN, id="the library logs after its listener is gone"),
        pytest.param(OUTLIVED, id="the interpreter ends while all is open"),
    ],
)
def test_a_program_that_ends_with_open_adapters_exits_cleanly(request: pytest.FixtureRequest, program: str) -> None:
    command = [sys.executable, "-c", program, str(find_contract(request.config)), str(Path(__file__).parents[3])]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=50)
    assert (done.returncode, done.stdout) == (0, "")
