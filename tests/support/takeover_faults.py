"""Takeovers with a fault at a step, after which one process or none has the device or the pipe."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from tests.support.takeovers import LOOK, Host, Popen, has_ended, works
from tests.support.waiting import come_true

__all__ = ["CASES", "FAULTY", "STEPS", "cases", "check_fault", "survivors"]

FAULTY = str(Path(__file__).with_name("programs") / "takeover_fault.py")
"""A program with a fault, the step and the arguments of the command."""

NONE, OLD, NEW = "", "old", "new"
STEPS: dict[str, tuple[set[str], set[str]]] = {
    "Giving.greet": ({NONE}, {OLD}),
    "Giving.offer": ({NONE}, {OLD}),
    "Giving.suspend": ({NONE}, {OLD}),
    "Giving.send_state": ({NONE, NEW}, {OLD, NEW}),  # The new process may be quicker.
    "Giving.forget": ({NEW}, {NEW}),
    "Giving.wait_for_running": ({NEW}, {NEW}),
    "Giving.give_away": ({NEW}, set()),
    "Taking.ask": ({OLD}, {OLD}),
    "Taking.take": ({OLD}, {OLD}),
    "Taking.begin": ({OLD}, {OLD}),
    "Taking.confirm": ({OLD, NONE}, {OLD, NONE}),
}
"""Each step, and the owners that are possible if its process is killed there, or if it fails (none: it cannot)."""
FAULTS = ("kill-before", "kill-after", "fail-before", "fail-after")


def cases(steps: Mapping[str, tuple[set[str], set[str]]]) -> list[tuple[str, str]]:
    """Return each of the steps with each fault that it can have."""
    return [
        (step, fault) for step, allowed in steps.items() for number, fault in enumerate(FAULTS) if allowed[number // 2]
    ]


CASES = cases(STEPS)


def survivors(old: Popen, new: Popen, step: str, fault: str) -> list[Popen]:
    """Return the process that runs after the fault, or none; check that it is one that may."""
    allowed = STEPS[step][FAULTS.index(fault) // 2]
    if len(allowed) == 1:  # Then it is known which processes end.
        for process in {OLD: [new], NEW: [old], NONE: [old, new]}[min(allowed)]:
            process.wait(20)
        running = [process for process in (old, new) if not has_ended(process)]
    else:
        running = [process for process in (old, new) if not come_true(partial(has_ended, process), 5)]
    assert len(running) <= 1, "both run"
    outcome = NONE if not running else OLD if running[0] is old else NEW
    assert outcome in allowed, f"{step} {fault}: {outcome or 'nobody'} has it"
    return running


def check_fault(left: Host, right: Host, step: str, fault: str) -> None:
    """Take the left device over with a fault of one process; check which process has it then, and that it works."""
    left.write(right, allowed=f"{right.inside}, 0.0.0.0/0")
    before = left.shell(LOOK)
    faulty = (FAULTY, fault, step)
    at_old = step.startswith("Giving")
    old = left.up(python=faulty if at_old else ("-m", "threepipe"))
    right.up()
    left.ping(right)  # The first handshake may need a second try.
    new = left.up("--takeover", python=("-m", "threepipe") if at_old else faulty)
    running = survivors(old, new, step, fault)
    if running:
        assert works(left, right), f"{step} {fault}: the device does not work"
        left.ping(right)
    status, said = left.threepipe("wg", "down", left.name)
    assert status == 0 or "no device is named" in said, said
    for process in running:
        assert process.wait(20) == 0
    after = left.shell(LOOK)
    assert after == before, f"{after} {before}"
