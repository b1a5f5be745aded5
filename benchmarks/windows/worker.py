"""One contender on Windows' Python: its loops timed, or how it takes what goes wrong. Says so in a line of JSON.

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
"""Packets between two looks at the clock: as many as fit in the rings, so that nobody ever waits."""

LONGEST = 5
"""Times what a loop is to run: when its measuring ends, for filling a ring takes longer than emptying it quickly."""

PATIENCE = 3.0  # Seconds for whoever was woken to say so.


def measure(loops: Loops, seconds: float, size: int) -> dict[str, float]:
    """Packets a second, and the loop's own CPU in microseconds a packet, of each loop."""
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
    end = time.monotonic() + LONGEST * seconds
    while taken < seconds and (not packets or time.monotonic() < end):
        prepare()
        start, cpu_start = time.perf_counter(), time.thread_time()
        work()
        taken += time.perf_counter() - start
        cpu += time.thread_time() - cpu_start
        packets += BATCH
    return {f"{name} kpps": packets / taken / 1e3, f"{name} us": cpu / packets * 1e6}


def close(loops: Loops, seconds: float, size: int) -> dict[str, float]:
    """Whether closing wakes a thread that waits for packets."""

    def receive() -> None:
        try:
            loops.receive(1)
        except Exception:  # However it says that it is over.
            return

    thread = threading.Thread(target=receive, daemon=True)
    thread.start()
    thread.join(seconds)  # It waits by then; nobody can be asked whether he does.
    loops.close()
    thread.join(PATIENCE)
    return {"woken": float(not thread.is_alive())}


def full(loops: Loops, seconds: float, size: int) -> dict[str, float]:
    """Whether a full ring, whose driver takes nothing, is survived."""
    adapter = loops.contract.WintunOpenAdapter(NAME)
    assert loops.contract.ContractSetFault(adapter, Fault.STALL, 1)
    packets = [b"\x45".ljust(1400)] * 5000  # 4 MiB have room for 2987.
    try:
        loops.send(packets)
    except OSError as error:  # As ctypes says it of an access to memory that is not there.
        sys.stderr.write(f"{error}\n")
        return {"survived": 0.0}
    return {"survived": 1.0}


if __name__ == "__main__":
    contender, role, seconds, size = sys.argv[1:]
    roles = {"measure": measure, "close": close, "full": full}
    assert contender.startswith("core") == fast.NATIVE, fast.REASON
    said = roles[role](LOOPS[contender](), float(seconds), int(size))
    sys.stdout.write(json.dumps(said) + "\n")
    sys.stdout.flush()
    os._exit(0)  # With whatever waits for ever.
