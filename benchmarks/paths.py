"""A path: two networks, left and right, joined by a contender. Everything of one is fresh, and goes with it."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from benchmarks.contenders import Contender
from benchmarks.network import FRESH, Failed, Process, inside, namespace, output, process

__all__ = ["TARGETS", "Path", "blaming", "path"]

TARGETS = {4: "10.97.0.2", 6: "fd97::2"}
"""The right side's addresses."""

_CONFIGURE = """
link set {name} mtu 1500 up
addr add 10.97.0.{host}/24 dev {name}
addr add fd97::{host}/64 dev {name} nodad
"""
_COMMAND_SECONDS = 10.0
_FIRST_ANSWER_SECONDS = 10


@dataclass(frozen=True, slots=True)
class Path:
    """Two networks by the ids of processes in them, and the programs between them, where there are some."""

    left: int
    right: int
    programs: tuple[Process, ...] = ()

    def cpu_seconds(self) -> float:
        return sum(program.cpu_seconds() for program in self.programs)


@contextmanager
def path(contender: Contender, role: str) -> Iterator[Path]:
    """A path over which a ping has gone. Raises `Failed`."""
    with ExitStack() as stack:
        left, right = (stack.enter_context(namespace()) for _ in range(2))
        forwarder = None
        if contender.command:
            command = [*FRESH, *contender.command, role, str(left), str(right)]
            forwarder = stack.enter_context(process(command, contender.environment))
            stack.enter_context(blaming(forwarder))
            forwarder.wait_for("made")
        sides = {"left": left, "right": right}
        if forwarder is None:
            veth = f"link add left type veth peer name right netns {right}"
            output(inside(left, "ip", *veth.split()), _COMMAND_SECONDS)
        elif not contender.uses_netns:
            moves = "".join(f"link set {name} netns {pid}\n" for name, pid in sides.items())
            output(inside(forwarder.pid, "ip", "-batch", "-"), _COMMAND_SECONDS, moves)
        for host, (name, pid) in enumerate(sides.items(), 1):
            lines = _CONFIGURE.format(name=name, host=host)
            output(inside(pid, "ip", "-batch", "-"), _COMMAND_SECONDS, lines)
        if forwarder:
            forwarder.tell("go")
        for target in TARGETS.values():
            # With a deadline, ping asks again until there is an answer.
            ping = f"ping -q -n -c 1 -i 0.05 -w {_FIRST_ANSWER_SECONDS} {target}"
            output(inside(left, *ping.split()), _FIRST_ANSWER_SECONDS + _COMMAND_SECONDS)
        yield Path(left, right, (forwarder,) if forwarder else ())


@contextmanager
def blaming(program: Process) -> Iterator[None]:
    """Whatever fails over a path, the reason is the program's where that has ended."""
    try:
        yield
    except Failed as failure:
        if program.ended() and (words := program.last_words()):
            raise Failed(words) from failure
        raise
