"""Processes and network namespaces. Knows no contender and no measurement.

Nothing here outlives the program, whatever ends it: every process asks the kernel to be killed when its parent
dies, and the namespaces have no names, so they and what is in them go with the last process inside.
"""

import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

__all__ = ["ROOT", "Failed", "Process", "inside", "namespace", "output", "process"]

ROOT = Path(__file__).parent.parent
GUARD = ("setpriv", "--pdeathsig", "KILL")
FRESH = ("unshare", "--net")
_ERRORS_SIZE = 0x10000

# What the kernel does by itself on a new IPv6 link would be measured too.
HOLD = """
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
    """A child that is talked to by lines; made by `process`."""

    def __init__(self, child: subprocess.Popen[str], errors: int) -> None:
        self._child = child
        self._errors = errors
        self.pid = child.pid

    def wait_for(self, text: str) -> str:
        """Return the first line with `text` in it. Raises `Failed` with the child's last words."""
        assert self._child.stdout is not None
        for line in self._child.stdout:
            if text in line:
                return line
        raise Failed(self.last_words() or f"ended without saying {text!r}")

    def tell(self, line: str) -> None:
        assert self._child.stdin is not None
        self._child.stdin.write(line + "\n")
        self._child.stdin.flush()

    def ended(self) -> bool:
        return self._child.poll() is not None

    def last_words(self) -> str:
        """The last line of what it wrote as errors."""
        lines = os.pread(self._errors, _ERRORS_SIZE, 0).decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else ""

    def cpu_seconds(self) -> float:
        """Time on a processor, of the program and of the kernel for it, from the scheduler's nanoseconds."""
        tasks = Path(f"/proc/{self.pid}/task").glob("*/schedstat")
        return sum(int(task.read_text().split()[0]) for task in tasks) / 1e9


@contextmanager
def process(command: Sequence[str], environment: Mapping[str, str] | None = None) -> Iterator[Process]:
    """A child process, killed at the end."""
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(
            [*GUARD, *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            cwd=ROOT,
            env={**os.environ, **(environment or {})},
            start_new_session=True,  # Ctrl-C is for this program, which ends its children in order.
        ) as child,
    ):
        try:
            yield Process(child, errors.fileno())
        finally:
            child.kill()


@contextmanager
def namespace() -> Iterator[int]:
    """A fresh network namespace: the id of the process that holds it."""
    with process([*FRESH, "sh", "-c", HOLD]) as holder:
        holder.wait_for("held")
        yield holder.pid


def inside(pid: int, *command: str) -> list[str]:
    """The command, in the network of that process."""
    return ["nsenter", f"--net=/proc/{pid}/ns/net", *command]


def output(command: Sequence[str], timeout: float, words: str = "") -> str:
    """What a command prints, given `words`. Raises `Failed`."""
    try:
        return subprocess.run(
            [*GUARD, *command],
            input=words,
            capture_output=True,
            text=True,
            cwd=ROOT,
            timeout=timeout,
            check=True,
            start_new_session=True,
        ).stdout
    except subprocess.TimeoutExpired:
        raise Failed(f"no end after {timeout:g} s: {' '.join(command[-4:])}") from None
    except subprocess.CalledProcessError as error:
        text = (error.stderr or error.stdout).strip().splitlines()
        raise Failed(text[-1] if text else f"exit code {error.returncode}") from None
