"""Numbered packets, threads and waiting, for tests of sessions."""

import asyncio
import select
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import TypeVar

import pytest

from threepipe import Bundle, MemoryAdapter, Session
from threepipe.backend import Waitable
from threepipe.core.packet import Packet

CAPACITY = 0x20000
SIZE = 28
FITTING = (CAPACITY - 4) // (4 + SIZE)
"""The number of packets of `SIZE` bytes that a session has room for."""

Result = TypeVar("Result")
Pair = tuple[MemoryAdapter, MemoryAdapter]
Sessions = tuple[Session, Session]


def packet(number: int, size: int = SIZE) -> bytes:
    """Return a packet with its number; its other bytes follow from that."""
    return b"\x45" + number.to_bytes(4, "big") + bytes([number % 251]) * (size - 5)


def packets(*numbers: int) -> list[bytes]:
    """Return the packets of the numbers in `range(*numbers)`."""
    return [packet(number) for number in range(*numbers)]


def numbers(received: Iterable[Packet]) -> list[int]:
    """Return the numbers of packets, after a check that each is intact."""
    found = []
    for view in received:
        number = int.from_bytes(view[1:5], "big")
        assert view == packet(number, len(view))
        found.append(number)
    return found


def in_thread(function: Callable[..., Result], *arguments: object) -> Future[Result]:
    """Run `function` in a thread that does not delay the end of a failed test."""
    future: Future[Result] = Future()

    def run() -> None:
        try:
            future.set_result(function(*arguments))
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


def until(condition: Callable[[], bool]) -> None:
    """Return once `condition` holds. Only this function polls, for conditions that nothing signals."""
    tick = threading.Event()
    for _ in range(10_000):
        if condition():
            return
        tick.wait(0.001)
    pytest.fail("the condition did not become true in time")


def until_waiting(session: Session, waiters: int) -> None:
    """Return once that many threads and tasks wait in `session`."""
    until(lambda: session._present == 1 + waiters)


def readable(waitable: Waitable | Session | int) -> bool:
    return bool(select.select([waitable], [], [], 0)[0])


def drain(session: Session, count: int) -> list[int]:
    """Receive until `count` packets have come; return their numbers."""
    found: list[int] = []
    while len(found) < count:
        bundle = session.receive(timeout=10)
        assert bundle, f"{len(found)} of {count} packets came"
        found += numbers(bundle)
    return found


async def first_bundle(session: Session) -> Bundle:
    async for bundle in session:
        return bundle
    return Bundle()


USES: dict[str, Callable[[Session], object]] = {
    "receive": lambda session: session.receive(),
    "receive at once": lambda session: session.receive(timeout=0),
    "receive_packet": lambda session: session.receive_packet(timeout=0),
    "send": lambda session: session.send(packets(1)),
    "send nothing": lambda session: session.send([]),
    "send_packet": lambda session: session.send_packet(packet(1), timeout=None),
    "receive_async": lambda session: asyncio.run(session.receive_async()),
    "send_async": lambda session: asyncio.run(session.send_async(packets(1))),
    "receive_packet_async": lambda session: asyncio.run(session.receive_packet_async()),
    "send_packet_async": lambda session: asyncio.run(session.send_packet_async(packet(1))),
    "fileno": lambda session: session.fileno(),
}
