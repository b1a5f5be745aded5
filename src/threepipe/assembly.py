"""Assembly: a pipe made from two addresses, with clamps, impairments and captures between its ends.

It does what `threepipe pipe` does, without printing. Knows no kind but `tun` and `stdio`.
"""

import errno
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from threepipe.capture.server import serve_captures
from threepipe.capture.status import PipeStatus, Traffic
from threepipe.capture.tap import Taps
from threepipe.capture.writer import CaptureWriter
from threepipe.core import fast
from threepipe.endpoint import Endpoint
from threepipe.endpoints import open_address
from threepipe.endpoints.address import EndpointAddress
from threepipe.endpoints.kinds import NEW_NAMESPACE
from threepipe.endpoints.parts import Part, Taken
from threepipe.endpoints.request import Side
from threepipe.endpoints.takeover import End, wait_for_turn
from threepipe.errors import EndpointError, InvalidSetting
from threepipe.filters.clamp import Clamp
from threepipe.filters.impair import Impair
from threepipe.filters.impairment import Impairment, Towards
from threepipe.piping import pipe
from threepipe.session import Session
from threepipe.settings import check_mtu

if TYPE_CHECKING:
    from threepipe.platforms import Enclosure

__all__ = ["Assembly", "Plan", "assemble"]


class Plan(NamedTuple):
    """The two ends of a pipe, and the filters between them."""

    left: EndpointAddress
    right: EndpointAddress
    once: bool = False
    """True to end listeners when their first client disconnects."""
    mtu_clamp: int | None = None
    """Bytes of the longest packet that TCP connections through the pipe may send."""
    impairments: Sequence[Impairment] = ()
    """Each for one direction or both; packets pass them in this order."""
    capture: str | None = None
    """The pcapng file to write all packets to, as they are at the left end."""

    @property
    def kinds(self) -> tuple[str, str]:
        return self.left.kind.name, self.right.kind.name

    def check(self) -> None:
        """Raise `InvalidSetting` if the plan cannot work."""
        if self.mtu_clamp is not None:
            check_mtu(self.mtu_clamp, ipv6=False)
        if self.kinds == ("stdio", "stdio"):
            raise InvalidSetting("standard input and output can be one end of a pipe, not both; change one address")
        if all(end.options.get("netns") == NEW_NAMESPACE for end in (self.left, self.right)):
            raise InvalidSetting("one end of a pipe can be in a new namespace, not both; change one netns=new")


class Assembly:
    """A pipe that is ready to `run`; `close` ends it, from any thread."""

    def __init__(
        self,
        left: Endpoint,
        right: Endpoint,
        impairs: Sequence[tuple[Towards, Impair]],
        losses: Sequence[str] = (),
        enclosure: "Enclosure | None" = None,
        ends: Mapping[Side, End] = MappingProxyType({}),
    ) -> None:
        """`losses` gets a text when an end loses its connection."""
        self.left, self.right = left, right
        self._losses = losses
        self._start = time.monotonic()
        self.impairs = impairs
        """The impairments, each with the end that packets go to from it."""
        self.enclosure = enclosure
        """The namespaces that were made for the adapter at an end."""
        self.ends = ends
        """The ends that another process can go on with, without the filters."""

    def run(self) -> None:
        """Move packets until an end ends. Raise as `pipe` does, and `EndpointError` if an end lost its connection.

        A connection that this end made is lost when the other end closes it: it is to last as long as the pipe.
        """
        pipe(self.left, self.right)
        if self._losses:
            raise EndpointError(errno.ECONNRESET, f"{self._losses[0]}; to have it connect again, add ,forever")

    def status(self) -> PipeStatus:
        """Return the present totals of both directions. From any thread."""
        left, right = self.left.statistics, self.right.statistics
        both = []
        for towards, near, far in (("right", left, right), ("left", right, left)):
            counts = [impair.counts for end, impair in self.impairs if end == towards]
            dropped = far.sent_dropped + sum(count.lost + count.overflowed for count in counts)
            both.append(Traffic(near.received_packets, near.received_bytes, far.sent_packets, far.sent_bytes, dropped))
        return PipeStatus(time.monotonic() - self._start, *both)

    def delayed(self) -> int:
        """Return the number of packets that the impairments delay. From any thread."""
        return sum(impair.waiting for _, impair in self.impairs)

    def close(self) -> None:
        self.left.close()
        self.right.close()


@contextmanager
def assemble(plan: Plan, taken: Mapping[Side, Taken] = MappingProxyType({})) -> Iterator[Assembly]:
    """Open both ends and put the filters between them; leaving the block closes everything.

    While the block runs, `threepipe ps` and `threepipe capture` find the pipe. `taken` has the ends of another process,
    to go on with once they are resumed. Raises as `open_endpoint`, and `InvalidSetting` if the plan cannot work.
    """
    plan.check()
    # In pure Python, splitting a superpacket costs more than reading its packets singly; two adapters never split.
    offload = fast.NATIVE or plan.kinds == ("tun", "tun")
    with ExitStack() as stack:
        opened: dict[Side, Session] = {}
        parts: dict[Side, Part] = {}
        losses: list[str] = []
        enclosures: list[Enclosure] = []
        # An end that takes all routes comes last: the other one may have to look up a name.
        for end in sorted((plan.left, plan.right), key=lambda end: "default-route" in end.options):
            opened[end.side] = open_address(
                end,
                once=plan.once,
                offload=offload,
                lost=losses.append,
                enclosed=enclosures.append,
                taken=taken.get(end.side),
                opened=partial(parts.__setitem__, end.side),
            )
            stack.callback(opened[end.side].close)
            if end.side in taken:
                wait_for_turn(opened[end.side], taken[end.side])
        left, right = opened["left"], opened["right"]
        taps = Taps()
        if plan.capture is not None:
            taps.add(stack.enter_context(CaptureWriter(plan.capture, plan.left.text)).sink)
        ends: list[Endpoint] = list(taps.around(left, right))
        if plan.mtu_clamp is not None:
            ends = [Clamp(end, plan.mtu_clamp) for end in ends]
        impairs: list[tuple[Towards, Impair]] = []
        for number, impairment in enumerate(plan.impairments):
            # Each makes random choices of its own. Packets received from one end go towards the other.
            impairment = impairment._replace(seed=impairment.seed + number)
            for index, towards in enumerate[Towards](("right", "left")):
                if impairment.towards in (None, towards):
                    ends[index] = impair = Impair(ends[index], impairment, towards=towards)
                    impairs.append((towards, impair))
        can_go_on = {side: End(opened[side], part) for side, part in parts.items()}
        assembly = Assembly(ends[0], ends[1], impairs, losses, enclosures[0] if enclosures else None, can_go_on)
        stack.enter_context(serve_captures(taps, plan.left.text, plan.right.text, status=assembly.status))
        yield assembly
