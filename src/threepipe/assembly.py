"""Assembly: a pipe put together from addresses, and from what is to become of packets between its ends.

What `threepipe pipe` does, without printing. Knows no kind: that is `endpoints`'s business.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

from threepipe.capture.announcing import announce
from threepipe.capture.file import CaptureFile
from threepipe.capture.tap import Taps
from threepipe.core import fast
from threepipe.endpoint import Endpoint
from threepipe.endpoints import open_endpoint
from threepipe.endpoints.address import parse_address
from threepipe.errors import InvalidSetting
from threepipe.filters.clamp import Clamp
from threepipe.filters.impair import Impair
from threepipe.filters.impairment import Direction, Impairment
from threepipe.pipe import pipe
from threepipe.settings import check_mtu

__all__ = ["Assembly", "Plan", "assemble"]


class Plan(NamedTuple):
    """What is wanted: two addresses, and what stands between them."""

    left: str
    right: str
    once: bool = False
    """Listeners end when their first caller leaves."""
    mtu_clamp: int | None = None
    """Bytes of the longest packet that TCP connections through the pipe are to send."""
    impairments: Sequence[Impairment] = ()
    """Each for one direction or both; they add up in the order given."""
    capture: str | None = None
    """The pcapng file that all packets are written to, as they are at the left end."""


class Assembly:
    """A pipe that is ready to `run`; `close` ends it, from any thread."""

    def __init__(self, left: Endpoint, right: Endpoint, impairs: Sequence[tuple[Direction, Impair]]) -> None:
        self.left, self.right = left, right
        self.impairs = impairs
        """Those in the way, and the end that packets go to from them."""

    def run(self) -> None:
        """Move packets until an end ends. Raises as `pipe`."""
        pipe(self.left, self.right)

    def close(self) -> None:
        self.left.close()
        self.right.close()


@contextmanager
def assemble(plan: Plan) -> Iterator[Assembly]:
    """Open both ends and all that stands between them; leaving the block closes everything.

    While the block runs, `threepipe capture` finds the pipe. Raises as `open_endpoint`, and
    `InvalidSetting` where the plan cannot be.
    """
    if plan.mtu_clamp is not None:
        check_mtu(plan.mtu_clamp, ipv6=False)
    kinds = [parse_address(address).kind for address in (plan.left, plan.right)]
    if kinds == ["stdio", "stdio"]:
        raise InvalidSetting("standard input and output can be one end of a pipe, not both")
    # In Python alone, splitting a superpacket is dearer than reading its packets one by one; two adapters never split.
    offload = fast.NATIVE or kinds == ["tun", "tun"]
    with ExitStack() as stack:
        left = open_endpoint(plan.left, side="left", once=plan.once, offload=offload)
        stack.callback(left.close)
        right = open_endpoint(plan.right, side="right", once=plan.once, offload=offload)
        stack.callback(right.close)
        taps = Taps()
        if plan.capture is not None:
            taps.add(stack.enter_context(CaptureFile(plan.capture, plan.left)).sink)
        stack.enter_context(announce(taps, plan.left, plan.right))
        ends: list[Endpoint] = list(taps.around(left, right))
        if plan.mtu_clamp is not None:
            ends = [Clamp(end, plan.mtu_clamp) for end in ends]
        impairs: list[tuple[Direction, Impair]] = []
        for number, impairment in enumerate(plan.impairments):
            # Each makes choices of its own. What an end receives goes to the other one.
            impairment = impairment._replace(seed=impairment.seed + number)
            for index, towards in enumerate[Direction](("right", "left")):
                if impairment.towards in (None, towards):
                    ends[index] = impair = Impair(ends[index], impairment, towards=towards)
                    impairs.append((towards, impair))
        yield Assembly(ends[0], ends[1], impairs)
