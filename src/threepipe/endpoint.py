"""Endpoint: what the pump joins; and Filter, an endpoint that does something to what another one receives.

Pure types: knows neither kinds nor addresses. A `Session` is an endpoint.
"""

from collections.abc import Iterable
from typing import Protocol, Self

from threepipe.bundle import Bundle
from threepipe.core.packet import Packet
from threepipe.session import Session, SessionStatistics

__all__ = ["Endpoint", "Filter"]


class Endpoint(Protocol):
    """A place that packets come from and go to; the methods are those of `Session`, and so are their errors.

    `receive` also raises `EndpointEnded` where nothing more will come.
    """

    @property
    def direct(self) -> Session | None:
        """The session that all packets pass unchanged and unseen, if there is one: it may be pumped directly."""

    @property
    def statistics(self) -> SessionStatistics: ...

    def receive(self, timeout: float | None = None) -> Bundle: ...

    def send(self, packets: Iterable[Packet], timeout: float | None = 0) -> int: ...

    def forward(self, bundle: Bundle, timeout: float | None = None) -> int: ...

    def interrupt(self) -> None:
        """See that a pump which uses `direct` asks for it again."""

    def close(self) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


class Filter:
    """An endpoint around another one, which it takes over; what it does differently, it overrides."""

    def __init__(self, inner: Endpoint) -> None:
        self.inner = inner

    @property
    def direct(self) -> Session | None:
        return None

    @property
    def statistics(self) -> SessionStatistics:
        return self.inner.statistics

    def receive(self, timeout: float | None = None) -> Bundle:
        return self.inner.receive(timeout)

    def send(self, packets: Iterable[Packet], timeout: float | None = 0) -> int:
        return self.inner.send(packets, timeout)

    def forward(self, bundle: Bundle, timeout: float | None = None) -> int:
        return self.inner.forward(bundle, timeout)

    def interrupt(self) -> None:
        self.inner.interrupt()

    def close(self) -> None:
        self.inner.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
