"""The network side of an adapter under test, and that of a memory adapter."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from threepipe.adapter import Adapter
from threepipe.errors import AdapterClosed
from threepipe.memory import MemoryAdapter
from threepipe.ring import MIN_CAPACITY
from threepipe.session import Session

__all__ = ["Make", "Wire", "make_memory_adapter"]


class Wire(Protocol):
    """The network side of an adapter: the operating system, or another program. Used while a session is open."""

    persistent: bool
    """True if the adapter must still exist after `close`."""

    def send(self, packets: Sequence[bytes]) -> int:
        """Have the system send packets to the program, in order; return how many the system accepted.

        Those that it then drops and counts for want of room are accepted, even if it tells the sender.
        """

    def receive(self, timeout: float) -> list[bytes]:
        """Wait up to `timeout` seconds for at least one packet of the program, and return those that arrived."""

    def adapter_exists(self) -> bool:
        """Return True if the system has the adapter now."""


Make = Callable[[], AbstractContextManager[tuple[Adapter, Wire]]]
"""Makes a new adapter without a session, and its wire."""


@contextmanager
def make_memory_adapter() -> Iterator[tuple[Adapter, Wire]]:
    """Make a memory adapter, with the other one of the pair as its network; a `Make`."""
    adapter, far = MemoryAdapter.pair()
    with adapter, far, far.start_session(MIN_CAPACITY) as session:
        yield adapter, _MemoryWire(adapter, session)


class _MemoryWire:
    persistent = False

    def __init__(self, adapter: Adapter, session: Session) -> None:
        self._adapter = adapter
        self._session = session

    def send(self, packets: Sequence[bytes]) -> int:
        return self._session.send(packets)

    def receive(self, timeout: float) -> list[bytes]:
        return [bytes(packet) for packet in self._session.receive(timeout)]

    def adapter_exists(self) -> bool:
        try:
            return bool(self._adapter.info)
        except AdapterClosed:
            return False
