"""The measurement of one contender on Windows' Python: its loops, or a fault. Prints a line of JSON.

python -m benchmarks.windows.worker CONTENDER measure|close|full SECONDS SIZE
"""

import json
import os
import sys
import threading
import time
from collections.abc import Callable

from benchmarks.windows.loops import LOOPS, NAME, Loops
from tests.support.contract_dll.library import Fault
from threepipe.core import fast

BATCH = 2000
"""Packets between two looks at the clock: so few that they fit in the rings, and no loop waits."""

WALL_TIME_FACTOR = 5
"""A loop ends after this multiple of its running time, even if it worked less: filling a ring may take most of it."""

PATIENCE = 3.0  # Seconds for a woken thread to end.


def measure(loops: Loops, seconds: float, size: int) -> dict[str, float]:
    """Measure each loop: thousand packets per second, and microseconds of the thread's own CPU per packet."""
    contract, adapter = loops.contract, loops.contract.WintunOpenAdapter(NAME)
    packet = b"\x45".ljust(size, b"\0")
    packets = [packet] * BATCH
    contract.ContractSetDiscard(adapter, True)

    def fill() -> None:
        assert contract.ContractInjectMany(adapter, packet, size, BATCH) == BATCH

    def settle() -> None:
        assert contract.ContractSettle(adapter, 10_000)

    def refill() -> None:
        settle()
        fill()

    figures = {
        **_timed("receive", fill, lambda: loops.receive(BATCH), seconds),
        **_timed("send", settle, lambda: loops.send(packets), seconds),
        **_timed("echo", refill, lambda: loops.echo(BATCH), seconds),
    }
    settle()
    lost = contract.statistics(adapter).get("received_dropped", 0)
    assert not lost
    return figures


def _timed(name: str, prepare: Callable[[], object], work: Callable[[], None], seconds: float) -> dict[str, float]:
    taken = cpu = 0.0
    packets = 0
    end = time.monotonic() + WALL_TIME_FACTOR * seconds
    while taken < seconds and (not packets or time.monotonic() < end):
        prepare()
        start, cpu_start = time.perf_counter(), time.thread_time()
        work()
        taken += time.perf_counter() - start
        cpu += time.thread_time() - cpu_start
        packets += BATCH
    return {f"{name} kpps": packets / taken / 1e3, f"{name} us": cpu / packets * 1e6}


def close(loops: Loops, seconds: float, size: int) -> dict[str, float]:
    """Find out if closing wakes a thread that waits for packets."""

    def receive() -> None:
        try:
            loops.receive(1)
        except Exception:  # Each contender has its own exception for a closed session.
            return

    thread = threading.Thread(target=receive, daemon=True)
    thread.start()
    thread.join(seconds)  # By then it waits; no call shows that.
    loops.close()
    thread.join(PATIENCE)
    return {"woken": float(not thread.is_alive())}


def full(loops: Loops, seconds: float, size: int) -> dict[str, float]:
    """Find out if the contender survives a full ring, from which the driver takes nothing."""
    adapter = loops.contract.WintunOpenAdapter(NAME)
    assert loops.contract.ContractSetFault(adapter, Fault.STALL, 1)
    packets = [b"\x45".ljust(1400)] * 5000  # A ring of 4 MiB holds 2987.
    try:
        loops.send(packets)
    except OSError as error:  # ctypes raises it for an access to unmapped memory.
        sys.stderr.write(f"{error}\n")
        return {"survived": 0.0}
    return {"survived": 1.0}


if __name__ == "__main__":
    contender, role, seconds, size = sys.argv[1:]
    roles = {"measure": measure, "close": close, "full": full}
    assert contender.startswith("core") == fast.NATIVE, fast.REASON
    figures = roles[role](LOOPS[contender](), float(seconds), int(size))
    sys.stdout.write(json.dumps(figures) + "\n")
    sys.stdout.flush()
    os._exit(0)  # Even if a thread waits for ever.
