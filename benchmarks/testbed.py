"""Testbeds: two networks, left and right, joined by a contender. Each testbed is new, and goes with its measurement."""

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from tempfile import TemporaryDirectory

from benchmarks.contenders import CONTENDERS, Contender
from benchmarks.processes import NEW_NETWORK, Failed, Process, inside, namespace, output, process

__all__ = [
    "OVERLAID",
    "PIPED",
    "TARGETS",
    "Testbed",
    "answering",
    "explaining",
    "forwarding",
    "linked",
    "overlay",
    "piped",
]

TARGETS = {4: "10.97.0.2", 6: "fd97::2"}
"""The right side's addresses."""

PIPED = "10.98.0.2"
"""The right side's address behind a pipe."""

OVERLAID = "10.99.0.2"
"""The right side's address in an overlay."""

_OVERLAY = """
link add overlaid type vxlan id 7 dstport 4789 local {local} remote {remote}
link set overlaid mtu {mtu} up
addr add 10.99.0.{host}/24 dev overlaid
"""
_VXLAN = 50  # Bytes of the headers of IPv4, UDP, VXLAN and Ethernet.

_CONFIGURE = """
link set {name} mtu 1500 up
addr add 10.97.0.{host}/24 dev {name}
addr add fd97::{host}/64 dev {name} nodad
"""
_SECONDS = 10.0
"""The longest that a command may take."""
_FIRST_ANSWER_SECONDS = 10

_PIPE_MTU = 1472  # A UDP datagram over a link of 1500 holds this much.
_ENDPOINT = f"{TARGETS[4]}:4242"
_THREEPIPE = ("-m", "threepipe", "pipe", "tun:piped,address=10.98.0.{host}/24")
_SOCAT = ("socat", "TUN:10.98.0.{host}/24,tun-name=piped,iff-no-pi,iff-up")

_FILES = "cert={{folder}}/{0}/cert.pem,key={{folder}}/{0}/key.pem,ca={{folder}}/{0}/ca.pem"

# Socat keeps no record boundaries: packets on a Unix stream run together, so it gets a socket that keeps them apart.
_PIPE_ENDS = {
    ("udp", "threepipe"): (f"udp:{_ENDPOINT}", f"udp-listen:{_ENDPOINT}"),
    ("udp", "socat"): (f"UDP4:{_ENDPOINT}", f"UDP4-LISTEN:4242,bind={TARGETS[4]}"),
    ("unix", "threepipe"): ("unix:{folder}/pipe", "unix-listen:{folder}/pipe"),
    ("tcp", "threepipe"): (f"tcp:{_ENDPOINT}", f"tcp-listen:{_ENDPOINT}"),
    ("tls", "threepipe"): (
        f"tls:{_ENDPOINT},{_FILES.format('client')}",
        f"tls-listen:{_ENDPOINT},{_FILES.format('listener')}",
    ),
    ("unix", "socat"): ("UNIX-CONNECT:{folder}/pipe,type=5", "UNIX-LISTEN:{folder}/pipe,type=5"),
}
"""The address at the left and at the right, by transport and program."""

_PIPE_UP = (
    f"until ip link show piped | grep -q LOWER_UP; do sleep 0.05; done 2>/dev/null; ip link set piped mtu {_PIPE_MTU}"
)


@dataclass(frozen=True, slots=True)
class Testbed:
    """Two networks, by the ids of processes in them, and the programs between them, if any."""

    left: int
    right: int
    programs: tuple[Process, ...] = ()

    def cpu_seconds(self) -> float:
        """Return the CPU time of all programs."""
        return sum(program.cpu_seconds() for program in self.programs)

    def wait_for_answer(self, target: str) -> None:
        """Wait until `target` has answered a ping from the left. Raises `Failed`."""
        # With a deadline, ping asks again until it gets an answer.
        ping = f"ping -q -n -c 1 -i 0.05 -w {_FIRST_ANSWER_SECONDS} {target}"
        output(inside(self.left, *ping.split()), _FIRST_ANSWER_SECONDS + _SECONDS)


@contextmanager
def forwarding(contender: Contender, role: str) -> Iterator[Testbed]:
    """Join two networks by a forwarder, or by a veth link if the contender has none. Raises `Failed`."""
    with _placed(contender, role, "left", "right") as testbed:
        for target in TARGETS.values():
            testbed.wait_for_answer(target)
        yield testbed


@contextmanager
def answering(contender: Contender, role: str) -> Iterator[Testbed]:
    """Connect a network, the left, to a program that answers IPv4 packets. Raises `Failed`."""
    with _placed(contender, role, "left") as testbed:
        testbed.wait_for_answer(TARGETS[4])
        yield testbed


@contextmanager
def _placed(contender: Contender, role: str, *interfaces: str) -> Iterator[Testbed]:
    with ExitStack() as stack:
        left, right = (stack.enter_context(namespace()) for _ in range(2))
        sides = {name: pid for name, pid in {"left": left, "right": right}.items() if name in interfaces}
        forwarder = None
        if contender.command:
            command = [*NEW_NETWORK, *contender.command, role, str(left), str(right)]
            forwarder = stack.enter_context(process(command))
            stack.enter_context(explaining(forwarder))
            forwarder.wait_for("made")
        if forwarder is None:
            veth = f"link add left type veth peer name right netns {right}"
            output(inside(left, "ip", *veth.split()), _SECONDS)
        elif not contender.uses_netns:
            moves = "".join(f"link set {name} netns {pid}\n" for name, pid in sides.items())
            output(inside(forwarder.pid, "ip", "-batch", "-"), _SECONDS, moves)
        for host, (name, pid) in enumerate(sides.items(), 1):
            output(inside(pid, "ip", "-batch", "-"), _SECONDS, _CONFIGURE.format(name=name, host=host))
        if forwarder:
            forwarder.send("go")
        yield Testbed(left, right, (forwarder,) if forwarder else ())


@contextmanager
def linked() -> Iterator[Testbed]:
    """Join two networks by a veth link. Raises `Failed`."""
    with forwarding(CONTENDERS["veth"], "forward") as testbed:
        yield testbed


@contextmanager
def piped(contender: Contender, transport: str) -> Iterator[Testbed]:
    """Join two networks by a veth link, and over it by a command in each that is one end of a pipe. Raises `Failed`."""
    program = re.split(r"\W", contender.key)[0]
    begin = _SOCAT if program == "socat" else (*contender.python, *_THREEPIPE)
    left_end, right_end = _PIPE_ENDS[transport, program]
    with ExitStack() as stack:
        link = stack.enter_context(linked())
        folder = stack.enter_context(TemporaryDirectory())
        if transport == "tls":
            init = ("-m", "threepipe", "tls", "init", _ENDPOINT)
            output(("env", "-C", folder, *contender.python, *init), _SECONDS)
        programs = []
        for host, pid, end in ((2, link.right, right_end), (1, link.left, left_end)):  # The listener comes first.
            command = [word.format(host=host, folder=folder) for word in (*begin, end)]
            programs.append(stack.enter_context(process(inside(pid, *command))))
            output(inside(pid, "sh", "-c", _PIPE_UP), _SECONDS)
        testbed = Testbed(link.left, link.right, tuple(programs))
        testbed.wait_for_answer(PIPED)
        yield testbed


def overlay(testbed: Testbed, target: str, mtu: int) -> None:
    """Add a VXLAN between the two networks, which reach each other by `target` with packets of `mtu` bytes."""
    addresses = [f"{target.rpartition('.')[0]}.{host}" for host in (1, 2)]
    for host, pid in ((1, testbed.left), (2, testbed.right)):
        local, remote = addresses if host == 1 else addresses[::-1]
        text = _OVERLAY.format(local=local, remote=remote, mtu=mtu - _VXLAN, host=host)
        output(inside(pid, "ip", "-batch", "-"), _SECONDS, text)
    testbed.wait_for_answer(OVERLAID)


@contextmanager
def explaining(program: Process) -> Iterator[None]:
    """Replace the reason of a failure by the program's last error, if the program has ended."""
    try:
        yield
    except Failed as failure:
        if program.ended() and (words := program.last_error()):
            raise Failed(words) from failure
        raise
