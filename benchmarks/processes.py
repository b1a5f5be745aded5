"""Child processes and network namespaces. Knows no contender and no measurement.

Nothing outlives this program, however it ends. Every child asks the kernel to kill it when its parent dies. The
namespaces have no names, so each goes with the last process inside it.
"""

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

__all__ = ["NEW_NETWORK", "ROOT", "Failed", "Process", "inside", "namespace", "output", "process"]

ROOT = Path(__file__).parent.parent
NEW_NETWORK = ("unshare", "--net")
_DIE_WITH_PARENT = ("setpriv", "--pdeathsig", "KILL")
_ERRORS_SIZE = 0x10000
_CPUCLOCK_SCHED = 2  # The kind of clock_getcpuclockid's clocks in Linux, below the number of the process.

# The kernel's own traffic on a new IPv6 link would be measured too, so it is turned off.
_HOLD_NAMESPACE = """
for where in all default; do
    echo 0 2>/dev/null >/proc/sys/net/ipv6/conf/$where/accept_dad
    echo 0 2>/dev/null >/proc/sys/net/ipv6/conf/$where/router_solicitations
done
ip link set lo up
echo held
exec cat
"""


class Failed(Exception):
    """A measurement could not be made; the text says why."""


class Process:
    """A child that is controlled by lines of text on its standard streams; made by `process`."""

    def __init__(self, child: subprocess.Popen[str], errors: int) -> None:
        self._child = child
        self._errors = errors
        self.pid = child.pid

    def wait_for(self, text: str) -> str:
        """Return the next line that contains `text`. Raises `Failed` with the child's last error if it ends first."""
        assert self._child.stdout is not None
        for line in self._child.stdout:
            if text in line:
                return line
        raise Failed(self.last_error() or f"ended without printing {text!r}")

    def send(self, line: str) -> None:
        """Write one line to the child."""
        assert self._child.stdin is not None
        self._child.stdin.write(line + "\n")
        self._child.stdin.flush()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Stop the child from running within the `with` block."""
        self._child.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._child.send_signal(signal.SIGCONT)

    def ended(self) -> bool:
        """Return True if the child has ended."""
        return self._child.poll() is not None

    def last_error(self) -> str:
        """Return the last line of the child's standard error, or an empty string."""
        lines = os.pread(self._errors, _ERRORS_SIZE, 0).decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else ""

    def cpu_seconds(self) -> float:
        """Return the child's CPU time, user and system, also of threads that have ended (clock_getcpuclockid(3))."""
        return time.clock_gettime(~self.pid << 3 | _CPUCLOCK_SCHED)


@contextmanager
def process(command: Sequence[str]) -> Iterator[Process]:
    """Start a child process and kill it at the end."""
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(
            [*_DIE_WITH_PARENT, *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            cwd=ROOT,
            start_new_session=True,  # Ctrl-C reaches this program alone, which ends its children in order.
        ) as child,
    ):
        try:
            yield Process(child, errors.fileno())
        finally:
            child.kill()


@contextmanager
def namespace() -> Iterator[int]:
    """Make a network namespace; yields the id of the process that holds it."""
    with process([*NEW_NETWORK, "sh", "-c", _HOLD_NAMESPACE]) as holder:
        holder.wait_for("held")
        yield holder.pid


def inside(pid: int, *command: str) -> list[str]:
    """Return the command that runs `command` in the network namespace of process `pid`."""
    return ["nsenter", f"--net=/proc/{pid}/ns/net", *command]


def output(command: Sequence[str], timeout: float, stdin: str = "") -> str:
    """Run a command to its end and return its output. Raises `Failed`."""
    try:
        return subprocess.run(
            [*_DIE_WITH_PARENT, *command],
            input=stdin,
            capture_output=True,
            text=True,
            cwd=ROOT,
            timeout=timeout,
            check=True,
            start_new_session=True,
        ).stdout
    except subprocess.TimeoutExpired:
        raise Failed(f"still running after {timeout:g} s: {' '.join(command[-4:])}") from None
    except subprocess.CalledProcessError as error:
        text = (error.stderr or error.stdout).strip().splitlines()
        raise Failed(text[-1] if text else f"exit code {error.returncode}") from None
