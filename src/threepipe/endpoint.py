"""The types `Endpoint`, an end of a pipe, and `Filter`, which stands between a pipe and its end.

This file knows neither kinds nor addresses.
"""

from collections.abc import Iterable
from typing import Protocol, Self

from threepipe.bundle import Bundle
from threepipe.core.packet import Packet
from threepipe.session import Session, SessionStatistics

__all__ = ["Endpoint", "Filter", "direct_session"]


class Endpoint(Protocol):
    """A source and sink of packets. The methods and their errors are those of `Session`.

    `receive` also raises `EndpointEnded` when there will be no more packets.
    """

    @property
    def statistics(self) -> SessionStatistics:
        """The counts so far."""

    def receive(self, timeout: float | None = None) -> Bundle:
        """Wait for packets and return those that are ready."""

    def send(self, packets: Iterable[Packet], timeout: float | None = 0, *, drop_invalid: bool = False) -> int:
        """Send packets and return how many were accepted."""

    def close(self) -> None:
        """End the traffic and wake every waiter."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


class Filter:
    """An endpoint around another one, which it takes over; a subclass overrides the methods in which it differs."""

    def __init__(self, inner: Endpoint) -> None:
        self.inner = inner

    @property
    def direct(self) -> Session | None:
        """The session that a pipe may use in place of this filter; None if packets have to pass the filter."""
        return None

    @property
    def statistics(self) -> SessionStatistics:
        """The counts of the inner endpoint."""
        return self.inner.statistics

    def receive(self, timeout: float | None = None) -> Bundle:
        """Receive from the inner endpoint."""
        return self.inner.receive(timeout)

    def send(self, packets: Iterable[Packet], timeout: float | None = 0, *, drop_invalid: bool = False) -> int:
        """Send to the inner endpoint."""
        return self.inner.send(packets, timeout, drop_invalid=drop_invalid)

    def close(self) -> None:
        """Close the inner endpoint."""
        self.inner.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def direct_session(endpoint: Endpoint) -> Session | None:
    """Return the session of an endpoint that packets may pass by unseen; None if it has none."""
    if isinstance(endpoint, Session):
        return endpoint
    return endpoint.direct if isinstance(endpoint, Filter) else None
