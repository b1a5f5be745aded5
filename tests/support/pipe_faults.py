"""Takeovers of `threepipe pipe` between the hosts of `takeovers`, also with a fault of a process at a step."""

from functools import partial

from tests.support.takeovers import FAULTS, FAULTY, Host, Popen, has_ended, works
from tests.support.waiting import come_true

__all__ = ["CASES", "ENDS", "check_fault", "taken_over", "tun"]

ENDS = {
    "udp": ("udp:192.0.2.2:5000", "udp-listen:192.0.2.2:5000"),
    "udp-listen": ("udp-listen:192.0.2.1:5000", "udp:192.0.2.1:5000"),
    "tcp": ("tcp:192.0.2.2:5000,forever,interval=0.1", "tcp-listen:192.0.2.2:5000"),
    "tcp-listen": ("tcp-listen:192.0.2.1:5000", "tcp:192.0.2.1:5000,forever,interval=0.1"),
}
"""Kind -> the end of the left pipe, which is taken over, and that of the right one."""


def tun(host: Host, options: str = "") -> str:
    return f"tun:{host.name},address={host.inside}/24{options}"


def taken_over(host: Host, old: Popen, *arguments: str, pure: str = "0") -> Popen:
    """Take the pipe of a process over, and return the new process once the old one has ended in order."""
    new = host.pipe("--takeover", str(old.pid), *arguments, THREEPIPE_PURE=pure)
    assert new.poll() is None, new.stderr and new.stderr.read()
    assert old.wait(20) == 0
    return new


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
    "Taking.confirm": ({OLD, NONE}, {OLD, NONE}),
}
"""Each step, and who may have the pipe if its process is killed there, or if the step fails (nobody: it cannot)."""
CASES = [
    (step, fault) for step, allowed in STEPS.items() for number, fault in enumerate(FAULTS) if allowed[number // 2]
]


def check_fault(left: Host, right: Host, kind: str, step: str, fault: str) -> None:
    """Take the left pipe over with a fault of one process; check which process has it then, and that it works."""
    here, there = ENDS[kind]
    faulty, sound = (FAULTY, fault, step), ("-m", "threepipe")
    at_old = step.startswith("Giving")
    right.pipe(tun(right), there)
    old = left.pipe(tun(left), here, python=faulty if at_old else sound)
    left.ping(right)
    new = left.pipe("--takeover", str(old.pid), tun(left), here, python=sound if at_old else faulty)
    allowed = STEPS[step][FAULTS.index(fault) // 2]
    if len(allowed) == 1:  # Then it is known which processes end.
        for process in {OLD: [new], NEW: [old], NONE: [old, new]}[min(allowed)]:
            process.wait(20)
        running = [process for process in (old, new) if not has_ended(process)]
    else:
        running = [process for process in (old, new) if not come_true(partial(has_ended, process), 5)]
    outcome = {(): NONE, (old,): OLD, (new,): NEW}[tuple(running)]
    assert outcome in allowed
    if not running:
        left.pipe(tun(left), here)  # Nothing is in its way.
    left.ping(right)
    assert works(left, right)
