"""The stage of a system with one network stack: that stack on the left, and a machine in memory on the right.

The machine answers echo requests, and sends datagrams back, which carry the stream.
"""

import hashlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import islice

from threepipe.adapter import Adapter
from threepipe.core.packet import Packet
from threepipe.core.superpacket import UDP
from threepipe.demo.kernel import ADDRESSES, PREFIX_LENGTH, ping, ping_socket
from threepipe.demo.play import Transfer
from threepipe.demo.stream import chunks
from threepipe.echo import echo_reply
from threepipe.memory import MemoryAdapter
from threepipe.session import Session

__all__ = ["SingleStage", "single_stage"]

_PORT = 4242
_PAYLOAD = 1400  # Bytes of a datagram, in a packet of less than 1500.
_WINDOW = 16  # Datagrams on their way at a time; systems keep 50 and more.
_REPLY_TIMEOUT = 2.0  # Seconds.


@contextmanager
def single_stage(netns: str | None = None) -> Iterator["SingleStage"]:
    """Create an adapter, in the network `netns` where there are several, and a machine in memory behind this program.

    Raises as `Adapter.create` does.
    """
    addresses = [f"{ADDRESSES[version][0]}/{PREFIX_LENGTH[version]}" for version in (4, 6)]
    with ExitStack() as stack:
        adapter = stack.enter_context(Adapter.create("demo%d", netns=netns, addresses=addresses))
        right, machine = [stack.enter_context(each).start_session() for each in MemoryAdapter.pair()]
        answering = threading.Thread(target=_answer, args=(machine,), name="threepipe-echo")
        answering.start()
        stack.callback(answering.join)
        stack.callback(machine.close)
        yield SingleStage(adapter, right)


def _answer(session: Session) -> None:
    for bundle in session:
        session.send([answer for packet in bundle if (answer := _answered(packet))], timeout=None)


def _answered(packet: Packet) -> bytes | None:
    """Return the answer to an echo request, or a datagram on its way back."""
    if packet[0] == 0x45 and packet[9] == UDP:  # Exchanging addresses and ports leaves the checksums right.
        head, source, destination, ports = bytes(packet[:12]), packet[12:16], packet[16:20], bytes(packet[20:24])
        return b"".join((head, destination, source, ports[2:], ports[:2], packet[24:]))
    return echo_reply(packet)


class SingleStage:
    """The `Stage` with one network stack of the kernel."""

    backend = "adapter"
    privilege = "root"
    namespaces: tuple[str, ...] = ()

    def __init__(self, adapter: Adapter, right: Session) -> None:
        self.families: tuple[int, ...] = tuple(sorted({address.version for address in adapter.addresses}))
        self._adapter = adapter
        self.left, self.right = adapter.start_session(), right

    def ping(self, version: int, count: int) -> list[float]:
        with ping_socket(version) as icmp:
            return ping(icmp, version, count)

    def transfer(self, size: int, progress: Callable[[int], None]) -> Transfer:
        sent, received = hashlib.sha256(), hashlib.sha256()
        done = 0
        start = time.perf_counter()
        payloads = chunks(size, _PAYLOAD)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
            datagrams.settimeout(_REPLY_TIMEOUT)
            datagrams.connect((ADDRESSES[4][1], _PORT))
            try:
                while window := list(islice(payloads, _WINDOW)):
                    for payload in window:
                        sent.update(payload)
                        datagrams.send(payload)
                    for _ in window:
                        payload = datagrams.recv(_PAYLOAD)
                        received.update(payload)
                        done += len(payload)
                    progress(done)
            except TimeoutError:
                pass  # One was lost, so the stream is not intact.
        return Transfer(done, time.perf_counter() - start, done == size and sent.digest() == received.digest())

    def dropped(self) -> int:
        counts = self._adapter.statistics
        return counts.received_dropped + counts.sent_dropped
