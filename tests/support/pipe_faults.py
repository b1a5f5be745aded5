"""Takeovers of `threepipe pipe` between the hosts of `takeovers`, also with a fault of a process at a step."""

from tests.support.takeover_faults import FAULTY, STEPS, cases, survivors
from tests.support.takeovers import Host, Popen, works

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


CASES = cases({step: allowed for step, allowed in STEPS.items() if step != "Taking.begin"})
"""Each step and fault; a pipe begins with the step `confirm`."""


def check_fault(left: Host, right: Host, kind: str, step: str, fault: str) -> None:
    """Take the left pipe over with a fault of one process; check which process has it then, and that it works."""
    here, there = ENDS[kind]
    faulty, sound = (FAULTY, fault, step), ("-m", "threepipe")
    at_old = step.startswith("Giving")
    right.pipe(tun(right), there)
    old = left.pipe(tun(left), here, python=faulty if at_old else sound)
    left.ping(right)
    new = left.pipe("--takeover", str(old.pid), tun(left), here, python=sound if at_old else faulty)
    if not survivors(old, new, step, fault):
        left.pipe(tun(left), here)  # Nothing is in its way.
    left.ping(right)
    assert works(left, right)
