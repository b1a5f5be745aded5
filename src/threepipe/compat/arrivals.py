"""Receive packets in an event loop, for the tasks that wait for them. Windows' loops cannot watch a session.

A loop goes on watching the session between two waits. `Session.receive_async` begins anew to watch for each of its
waits, which takes as long as carrying several packets.
"""

import asyncio
from collections import deque
from weakref import WeakKeyDictionary

from threepipe.errors import ThreepipeError
from threepipe.session import Session

__all__ = ["Arrivals"]


class Arrivals:
    """Receives the packets of a session while tasks wait for them."""

    def __init__(self, session: Session, packets: deque[bytes]) -> None:
        """Append the packets to `packets`, so that a task that is cancelled loses none."""
        self._session = session
        self._fileno = session.fileno()  # It stays open while there is the session, closed or not.
        self._packets = packets
        self._waiting: WeakKeyDictionary[asyncio.AbstractEventLoop, list[asyncio.Future[None]]] = WeakKeyDictionary()
        """The waits of tasks, for each loop that watches the session."""

    async def wait(self) -> None:
        """Wait until packets may have been received. Raises as `Session.receive` does."""
        loop = asyncio.get_running_loop()
        if loop not in self._waiting:  # Packets have perhaps come since it stopped watching.
            await asyncio.sleep(0)
            self._receive()
            if self._packets:
                return
        if (waiting := self._waiting.get(loop)) is None:
            waiting = []
            loop.add_reader(self._fileno, self._serve, loop, waiting)
            self._waiting[loop] = waiting
        arrived = loop.create_future()
        waiting.append(arrived)
        try:
            await arrived
        except asyncio.CancelledError:
            if arrived in waiting:
                waiting.remove(arrived)
            raise
        if not self._packets:
            self._receive()

    def _serve(self, loop: asyncio.AbstractEventLoop, waiting: list[asyncio.Future[None]]) -> None:
        """Receive packets for the tasks of a loop and wake them. If none waits, leave the packets and stop watching."""
        if not waiting:
            del self._waiting[loop]
            loop.remove_reader(self._fileno)
            return
        failed = False
        try:
            self._receive()
        except (OSError, ThreepipeError):
            failed = True  # Each task meets the error itself: one that a future keeps is in a cycle of references.
        if self._packets or failed:
            for arrived in waiting:
                if not arrived.done():
                    arrived.set_result(None)
            waiting.clear()

    def _receive(self) -> None:
        """Receive all packets that are ready."""
        if bundle := self._session.receive(0):
            self._packets.extend(bundle.copies())
            bundle.release()
