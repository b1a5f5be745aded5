"""The stage without an operating system: two pairs of memory adapters, with an echo responder at the far end.

The stream is the payload of echo requests, and is checked in the replies.
"""

import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import islice

from threepipe.bundle import Bundle
from threepipe.demo.play import Transfer
from threepipe.demo.stream import chunks
from threepipe.echo import echo_reply, echo_request
from threepipe.memory import MemoryAdapter
from threepipe.session import Session

__all__ = ["MemoryStage", "memory_stage"]

_ADDRESSES = {4: ("10.77.0.1", "10.77.0.2"), 6: ("fd77::1", "fd77::2")}
_PAYLOAD = 1472  # Bytes of an echo request in a packet of 1500.
_HEADERS = 28  # Bytes of IPv4 and ICMP.
_WINDOW = 64  # Requests on their way at a time.
_REPLY_TIMEOUT = 2.0  # Seconds.


@contextmanager
def memory_stage() -> Iterator["MemoryStage"]:
    """Open a session for the program, two for the pump, and one that answers echo requests; close them afterwards."""
    with ExitStack() as stack:
        program, left = [stack.enter_context(adapter).start_session() for adapter in MemoryAdapter.pair()]
        right, responder = [stack.enter_context(adapter).start_session() for adapter in MemoryAdapter.pair()]
        answering = threading.Thread(target=_answer, args=(responder,), name="threepipe-echo")
        answering.start()
        stack.callback(answering.join)
        stack.callback(responder.close)
        yield MemoryStage(program, left, right)


def _answer(session: Session) -> None:
    for bundle in session:
        session.send([reply for packet in bundle if (reply := echo_reply(packet))], timeout=None)


class MemoryStage:
    """The `Stage` with adapters in memory."""

    backend = "memory"
    privilege = "none"
    namespaces: tuple[str, ...] = ()
    families: tuple[int, ...] = (4, 6)

    def __init__(self, program: Session, left: Session, right: Session) -> None:
        self._program = program
        self.left = left
        self.right = right

    def ping(self, version: int, count: int) -> list[float]:
        times = []
        for sequence in range(count):
            request = echo_request(*_ADDRESSES[version], 1, sequence, bytes(56))
            start = time.perf_counter()
            self._program.send_packet(request)
            if self._program.receive_packet(_REPLY_TIMEOUT) == echo_reply(request):
                times.append(time.perf_counter() - start)
        return times

    def transfer(self, size: int, progress: Callable[[int], None]) -> Transfer:
        sent, received = hashlib.sha256(), hashlib.sha256()
        done = 0
        start = time.perf_counter()
        payloads = chunks(size, _PAYLOAD)
        while window := list(islice(payloads, _WINDOW)):
            for payload in window:
                sent.update(payload)
            packets = [echo_request(*_ADDRESSES[4], 2, number, payload) for number, payload in enumerate(window)]
            self._program.send(packets, timeout=None)
            for packet in self._collect(len(window)):
                received.update(packet[_HEADERS:])
                done += len(packet) - _HEADERS
            progress(done)
        return Transfer(done, time.perf_counter() - start, done == size and sent.digest() == received.digest())

    def _collect(self, count: int) -> Iterator[memoryview]:
        bundle: Bundle
        while count and (bundle := self._program.receive(_REPLY_TIMEOUT)):
            yield from bundle
            count -= len(bundle)

    def dropped(self) -> int:
        return 0
