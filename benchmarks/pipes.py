"""A pipe of two commands: each network has one, with an adapter of its own, and they speak to each other."""

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from tempfile import TemporaryDirectory

from benchmarks.contenders import CONTENDERS, Contender
from benchmarks.network import inside, output, process
from benchmarks.paths import TARGETS, Path, path

__all__ = ["PIPED", "TRANSPORTS", "piped"]

PIPED = "10.98.0.2"
"""The right side's address behind the pipe."""

_MTU = 1472  # What a datagram of UDP over a link of 1500 holds.
_PLACE = f"{TARGETS[4]}:4242"
_THREEPIPE = (sys.executable, "-m", "threepipe", "pipe", "tun:piped,address=10.98.0.{host}/24")
_SOCAT = ("socat", "TUN:10.98.0.{host}/24,tun-name=piped,iff-no-pi,iff-up")

TRANSPORTS = {
    # Socat has no records: over a Unix stream its packets run together, so it gets a socket that keeps them apart.
    ("udp", "threepipe"): (_THREEPIPE, f"udp:{_PLACE}", f"udp-listen:{_PLACE}"),
    ("udp", "socat"): (_SOCAT, f"UDP4:{_PLACE}", f"UDP4-LISTEN:4242,bind={TARGETS[4]}"),
    ("unix", "threepipe"): (_THREEPIPE, "unix:{folder}/pipe", "unix-listen:{folder}/pipe"),
    ("unix", "socat"): (_SOCAT, "UNIX-CONNECT:{folder}/pipe,type=5", "UNIX-LISTEN:{folder}/pipe,type=5"),
}
"""By transport and program: how it begins, and its other end at the left and at the right."""

_SECONDS = 10.0
_UP = f"until ip link show piped | grep -q LOWER_UP; do sleep 0.05; done 2>/dev/null; ip link set piped mtu {_MTU}"


@contextmanager
def piped(contender: Contender, transport: str) -> Iterator[Path]:
    """Two networks, joined by a veth link and by the pipe that goes over it, after a ping. Raises `Failed`."""
    begin, left_end, right_end = TRANSPORTS[transport, contender.key.partition("-")[0]]
    with ExitStack() as stack:
        over = stack.enter_context(path(CONTENDERS["veth"], "forward"))
        folder = stack.enter_context(TemporaryDirectory())
        # Who listens has to be there first.
        programs = []
        for host, pid, end in ((2, over.right, right_end), (1, over.left, left_end)):
            command = [word.format(host=host, folder=folder) for word in (*begin, end)]
            programs.append(stack.enter_context(process(inside(pid, *command), contender.environment)))
            output(inside(pid, "sh", "-c", _UP), _SECONDS)
        output(inside(over.left, *f"ping -q -n -c 1 -w 10 {PIPED}".split()), 2 * _SECONDS)
        yield Path(over.left, over.right, tuple(programs))
