"""The forwarding loop in pure Python.

It moves bundles both ways between two sides until a bell rings. The native core has the same loop for sides that can
lend an `End`. This file knows no platform, and a session only as a `Side`.
"""

import math
import selectors
import time
from collections.abc import Callable, Sized
from typing import Generic, Protocol, Self, TypeVar

from threepipe.core.ends import HasFileno
from threepipe.errors import EndpointEnded

__all__ = ["LINGER", "PAUSE", "Side", "forward"]

LINGER = 0.5
"""Seconds in which answers to the last packets of an ended side may still arrive, as with socat."""

PAUSE = 0.001
"""Seconds to wait while a target has no memory for packets: it is writable, so waiting for room would return at once.
The twin of `PAUSE` in the native core's `waiting`."""


_CALM = 8
"""A direction is calm after so many bundles in a row with at most one packet each."""

Packets = TypeVar("Packets", bound=Sized)
"""A bundle, of any type with a length."""


class Side(Protocol[Packets]):
    """One side of the loop. Nothing here blocks."""

    @property
    def readable(self) -> HasFileno:
        """Become readable when `receive` may return packets or raise."""

    @property
    def writable(self) -> HasFileno:
        """Become readable when `send` may accept packets or raise."""

    def receive(self) -> Packets:
        """Return the packets that are ready. Raise `EndpointEnded` when there will be no more."""

    def send(self, packets: Packets, /) -> Packets:
        """Accept packets and return those without room. Drop and count those that can never be sent.

        Drop and count all of them before raising.
        """

    def drop(self, packets: Packets, /) -> None:
        """Count packets that will not be sent."""

    def pass_on(self, target: Self, /) -> bool:
        """Receive a packet and send it to `target`, by the shortest way. Raise as `receive` and `send` do.

        Return False if that did not move one packet: `receive` has all that is left to move.
        """


def forward(
    left: Side[Packets], right: Side[Packets], bell: HasFileno, leave: Callable[[], bool] | None = None
) -> tuple[Packets | None, Packets | None]:
    """Move bundles both ways until `bell` is readable; return the packets from left and from right that still wait.

    Also returns once `leave`, which is called only while no packets wait, returns True.

    While a side has no room, packets wait for it and no more are received for it; the opposite direction goes on.
    Raises the sides' exceptions, after dropping and counting the packets that still wait; `EndpointEnded` half a second
    later, in which the answers to a side's last packets may still arrive, as with socat.
    """
    with selectors.DefaultSelector() as selector, _Direction(left, right) as there, _Direction(right, left) as back:
        selector.register(bell, selectors.EVENT_READ)
        ready = [there, back]  # Receive before the first wait: that starts the time of a replay.
        rang = bool(selector.select(0))
        ended: EndpointEnded | None = None
        deadline = math.inf
        turn = 0
        while not rang:
            turn += 1
            for direction in ready:
                try:
                    direction.move(selector, turn)
                except EndpointEnded as error:
                    direction.stop(selector)
                    if ended is not None:
                        raise
                    ended, deadline = error, time.monotonic() + LINGER
            if leave is not None and ended is None and there.is_clear and back.is_clear and leave():
                break
            until = deadline
            if pausing := there.pauses or back.pauses:
                until = min(deadline, time.monotonic() + PAUSE)
            events = selector.select(None if until == math.inf else until - time.monotonic())
            ready = [key.data for key, _ in events]
            if ended is not None and time.monotonic() >= deadline:
                raise ended
            rang = None in ready
            if pausing:
                for direction in there, back:
                    if direction.pauses:
                        direction.wait(selector)
        return there.take_waiting(), back.take_waiting()


class _Direction(Generic[Packets]):
    """The way from one side to the other, and the packets that wait for room there."""

    def __init__(self, source: Side[Packets], target: Side[Packets]) -> None:
        self._source, self._target = source, target
        self._waiting: Packets | None = None
        self._registered: HasFileno | None = None
        self._passed_on = 0  # The turn of the last packet that took the shortest way.
        self._alone = 0  # How many bundles in a row had at most one packet, for which there was room.
        self.pauses = False
        """True if the target was writable and yet accepted nothing: to be waited for after `PAUSE`."""

    @property
    def is_clear(self) -> bool:
        """True if no packets wait."""
        return self._waiting is None

    def move(self, selector: selectors.BaseSelector, turn: int) -> None:
        """Move one bundle; then wait until it can go on, or pause.

        While calm, pass on one packet by the shortest way, but look for more if that was done last turn.
        """
        if self._alone >= _CALM and turn > self._passed_on + 1 and self._source.pass_on(self._target):
            self._passed_on = turn
            return
        waited = 0 if self._waiting is None else len(self._waiting)
        self.pauses = False
        packets, self._waiting = self._waiting or self._source.receive(), None
        self._alone = self._alone + 1 if len(packets) < 2 else 0
        if packets:
            self._waiting = self._target.send(packets) or None
        if self._waiting is not None:
            self._alone = 0
        self.pauses = self._waiting is not None and len(self._waiting) == waited
        if self.pauses:
            self.stop(selector)
        else:
            self.wait(selector)

    def wait(self, selector: selectors.BaseSelector) -> None:
        """Wait for room at the target if packets are left, else for packets at the source."""
        awaited = self._source.readable if self._waiting is None else self._target.writable
        if awaited is not self._registered:
            self.stop(selector)
            selector.register(awaited, selectors.EVENT_READ, self)
            self._registered = awaited

    def stop(self, selector: selectors.BaseSelector) -> None:
        """Wait for nothing."""
        if self._registered is not None:
            selector.unregister(self._registered)
            self._registered = None

    def take_waiting(self) -> Packets | None:
        """Return the packets that wait for room, which are the caller's from now on."""
        waiting, self._waiting = self._waiting, None
        return waiting

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._waiting is not None:
            self._target.drop(self._waiting)
