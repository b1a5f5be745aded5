"""The conformance suite: every promise of the contract, for any kind of adapter.

`check_adapter(make)` runs all of `CHECKS`, each on a fresh adapter; a check is a function that raises
AssertionError and can be run alone. The suite sees an adapter from both sides: as its program, and
through a `Wire` as its network.
"""

import asyncio
import multiprocessing.connection
import selectors
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol, TypeVar

from threepipe.adapter import Adapter
from threepipe.bundle import Bundle
from threepipe.core.packet import Packet
from threepipe.errors import AdapterClosed, InvalidPacket, InvalidSetting, SessionClosed, SessionExists
from threepipe.memory import MemoryAdapter
from threepipe.ring import MIN_CAPACITY
from threepipe.session import Session

__all__ = ["CHECKS", "Make", "Wire", "check_adapter", "make_memory_adapter"]

Error = TypeVar("Error", bound=Exception)

_SECONDS = 10.0  # Longer than anything here takes; only a failure waits for so long.


class Wire(Protocol):
    """The network side of an adapter whose session is open: the operating system, or another program."""

    persistent: bool
    """Whether the adapter is to outlive its closing."""

    def send(self, packets: Sequence[bytes]) -> int:
        """Make the system send these to the program, in order; return how many it took."""

    def receive(self, timeout: float) -> list[bytes]:
        """Packets that came from the program: at least one, unless `timeout` seconds are over."""

    def adapter_exists(self) -> bool:
        """Whether the system knows the adapter now."""


Make = Callable[[], AbstractContextManager[tuple[Adapter, Wire]]]
"""Makes a fresh adapter without a session, and its wire."""


def check_adapter(make: Make) -> None:
    """Run every check, each on an adapter of its own; AssertionError says which promise is broken."""
    for check in CHECKS:
        with make() as (adapter, wire):
            check(adapter, wire)


@contextmanager
def make_memory_adapter() -> Iterator[tuple[Adapter, Wire]]:
    """The `Make` of memory adapters: the other of the pair is the network."""
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


# Packets of the suite carry protocol 253, which RFC 3692 keeps for experiments: what a real system says
# on its own accord (router solicitations, say) is told apart by it.
_PROTOCOL = 253
_NOISE = 20  # Packets of that kind that may get lost among ours.


def _packet(number: int, size: int = 100, version: int = 4) -> bytes:
    """A packet of `size` bytes that carries its `number` (up to 2**32) and nothing that anybody answers."""
    body = number.to_bytes(4, "big")
    if version == 4:
        header = bytes((0x45, 0)) + size.to_bytes(2, "big") + bytes((0, 0, 0, 0, 64, _PROTOCOL, 0, 0))
        head = header + bytes((192, 0, 2, 1, 192, 0, 2, 2))
    else:
        header = bytes((0x60, 0, 0, 0)) + (size - 40).to_bytes(2, "big") + bytes((_PROTOCOL, 64))
        head = header + bytes.fromhex("20010db8000000000000000000000001 20010db8000000000000000000000002")
    return (head + body).ljust(size, b"~")[:size]


def _packets(count: int, size: int = 100) -> list[bytes]:
    return [_packet(number, size) for number in range(count)]


def _ours(packets: Iterable[bytes | memoryview]) -> list[bytes]:
    return [bytes(p) for p in packets if p[9 if p[0] >> 4 == 4 else 6] == _PROTOCOL]


def _collect(receive: Callable[[float], Iterable[bytes | memoryview]], count: int) -> list[bytes]:
    """Receive until there are `count` packets of the suite's own, or `_SECONDS` are over."""
    found: list[bytes] = []
    deadline = time.monotonic() + _SECONDS
    while len(found) < count and (left := deadline - time.monotonic()) > 0:
        found += _ours(receive(left))
    return found


def _raises(kind: type[Error], promise: str, action: Callable[..., object], *arguments: object) -> Error:
    try:
        action(*arguments)
    except kind as error:
        return error
    raise AssertionError(f"{promise}: {kind.__name__} was not raised")


def check_both_directions(adapter: Adapter, wire: Wire) -> None:
    """Packets of both families and of all sizes arrive whole and in order, in both directions."""
    sizes = [(20, 4), (40, 6), (21, 4), (41, 6), *((100 + 200 * step, 4 + 2 * (step % 2)) for step in range(8))]
    packets = [_packet(number, size, version) for number, (size, version) in enumerate(sizes)]
    with adapter.start_session() as session:
        assert wire.send(packets) == len(packets)
        assert _collect(session.receive, len(packets)) == packets, "received packets are not those that were sent"
        assert session.send(packets) == len(packets)
        assert _collect(wire.receive, len(packets)) == packets, "sent packets did not arrive as they were"


def check_one_packet_calls(adapter: Adapter, wire: Wire) -> None:
    """`send_packet` and `receive_packet` move one packet; what waits behind it is not lost."""
    packets = _packets(3)
    with adapter.start_session() as session:
        wire.send(packets)
        assert _collect(lambda left: [p] if (p := session.receive_packet(left)) else [], 3) == packets
        assert session.send_packet(packets[0])
        assert _collect(wire.receive, 1) == packets[:1]


def check_kinds_of_packets(adapter: Adapter, wire: Wire) -> None:
    """`send` takes a bundle, any iterable and any bytes-like packet, but not a lone packet."""
    a, b, c = _packets(3)
    with adapter.start_session() as session:
        kinds: list[Packet] = [a, bytearray(b), memoryview(c)]
        assert session.send(iter(kinds)) == 3
        assert session.send(Bundle([a, b])) == 2
        assert session.send([]) == 0
        assert _collect(wire.receive, 5) == [a, b, c, a, b]
        _raises(TypeError, "a lone packet is refused", session.send, a)


def check_validation(adapter: Adapter, wire: Wire) -> None:
    """A bundle with something that is no packet raises `InvalidPacket` with its place; none of it is sent."""
    good = _packet(1)
    bad = [b"", b"\x45", _packet(2)[:19], _packet(3, 60, 6)[:39], b"\x00" * 60, b"\x50" * 60, b"\x45" * 65536]
    with adapter.start_session() as session:
        for packet in bad:
            error = _raises(InvalidPacket, "what is no packet is not sent", session.send, [good, packet, good])
            assert error.index == 1, "index is not that of the bad packet"
        assert session.statistics.sent_packets == 0
        assert session.send(Bundle([good, *bad, good]), None, drop_invalid=True) == 2
        assert session.statistics.sent_dropped == len(bad)
        assert _collect(wire.receive, 2) == [good, good]


def check_timeouts(adapter: Adapter, wire: Wire) -> None:
    """With nothing to receive a time-out gives an empty bundle, not before its time; 0 does not wait."""
    with adapter.start_session() as session:
        while session.receive(timeout=0.3):
            pass  # What a system says on its own when a link comes up.
        start = time.monotonic()
        bundle = session.receive(timeout=0.05)
        assert bundle or time.monotonic() - start >= 0.049, "receive came back before its time-out"
        assert not session.receive(timeout=0)
        assert session.receive_packet(timeout=0) == b""


def check_link_state(adapter: Adapter, wire: Wire) -> None:
    """The link is up exactly while a session is open; one session follows another."""
    assert not adapter.link_up, "the link is up without a session"
    for _ in range(3):
        with adapter.start_session() as session:
            assert adapter.link_up, "the link is down with a session"
            wire.send([_packet(7)])
            assert _collect(session.receive, 1) == [_packet(7)]
        assert not adapter.link_up, "the link is up after the session"


def check_one_session(adapter: Adapter, wire: Wire) -> None:
    """A second session is refused while one is open, and so is a capacity that is none."""
    for capacity in (0, MIN_CAPACITY - 1, MIN_CAPACITY + 4, 2 * 0x4000000):
        _raises(InvalidSetting, "capacity is checked", adapter.start_session, capacity)
    with adapter.start_session() as session:
        _raises(SessionExists, "one session at a time", adapter.start_session)
        assert session.send([_packet(1)]) == 1, "the refused session harmed the first"


def check_overflow(adapter: Adapter, wire: Wire) -> None:
    """What does not fit is counted: the first packets stay, in order, and none vanishes without a count."""
    packets = _packets(3000, 1000)
    with adapter.start_session(MIN_CAPACITY) as session:
        taken = wire.send(packets)
        received: list[bytes] = []
        while bundle := session.receive(timeout=0.3):
            received += _ours(bundle)
        assert len(received) < len(packets), "more was kept than the capacity holds"
        assert received == packets[: len(received)], "not the newest packets were dropped"
        counted = len(received) + adapter.statistics.received_dropped
        assert taken <= counted, "a packet was lost without a count"
        assert counted <= taken + _NOISE, "packets were counted as dropped that were not"
        sent = session.send(packets)
        assert sent + session.statistics.sent_dropped == len(packets)


def check_memory(adapter: Adapter, wire: Wire) -> None:
    """Packets that are held stay as they are while others arrive; released ones can be used no more."""
    held: list[tuple[bytes, memoryview]] = []
    with adapter.start_session() as session:
        for number in range(400):
            wire.send([_packet(number, 1400)])
            bundle = session.receive(timeout=_SECONDS)
            if number % 3:
                held += [(bytes(packet), packet) for packet in bundle]
            else:
                first = bundle[0]
                bundle.release()
                _raises(ValueError, "a released packet cannot be read", bytes, first)
        assert all(copy == packet for copy, packet in held), "a held packet was overwritten"


def check_close_wakes_threads(adapter: Adapter, wire: Wire) -> None:
    """Closing from another thread wakes every thread that waits, with `SessionClosed`."""
    session = adapter.start_session()
    ready = threading.Barrier(4)
    ended: list[str] = []

    def wait() -> None:
        ready.wait(_SECONDS)
        try:
            while True:
                session.receive()
        except SessionClosed:
            ended.append("receive")

    def iterate() -> None:
        ready.wait(_SECONDS)
        for _ in session:
            pass
        ended.append("iteration")

    threads = [threading.Thread(target=target, daemon=True) for target in (wait, wait, iterate)]
    for thread in threads:
        thread.start()
    ready.wait(_SECONDS)
    session.close()
    for thread in threads:
        thread.join(_SECONDS)
    assert sorted(ended) == ["iteration", "receive", "receive"], f"only these woke: {ended}"


def check_after_close(adapter: Adapter, wire: Wire) -> None:
    """A closed session refuses everything with `SessionClosed`, but tells its statistics."""
    with adapter.start_session() as session:
        session.send([_packet(1)])
    session.close()
    assert session.closed
    for call in (session.receive, session.receive_packet, session.fileno):
        _raises(SessionClosed, "a closed session does nothing", call)
    _raises(SessionClosed, "a closed session does nothing", session.send, [_packet(1)])
    _raises(SessionClosed, "a closed session does nothing", lambda: asyncio.run(session.receive_async()))
    assert list(session) == []
    assert session.statistics.sent_packets == 1


def check_threads(adapter: Adapter, wire: Wire) -> None:
    """Both directions are used at once, from several threads, and nothing is lost or mixed up."""
    count, senders = 100, 3
    with adapter.start_session() as session:

        def send(first: int) -> None:
            for number in range(first, first + count):
                session.send([_packet(number)], timeout=None)

        threads = [threading.Thread(target=send, args=(count * n,), daemon=True) for n in range(senders)]
        for thread in threads:
            thread.start()
        got_by_wire: list[bytes] = []
        for number in range(count):
            wire.send([_packet(number)])
            assert _collect(session.receive, 1) == [_packet(number)]
            got_by_wire += _ours(wire.receive(0))
        got_by_wire += _collect(wire.receive, count * senders - len(got_by_wire))
        for thread in threads:
            thread.join(_SECONDS)
        # The number is the packets' only difference, so that sorting them is sorting by number.
        expected = _packets(count * senders)
        assert sorted(got_by_wire) == expected, "packets of several threads got lost"
        for own in (set(expected[first : first + count]) for first in range(0, len(expected), count)):
            in_order = [packet for packet in got_by_wire if packet in own]
            assert in_order == sorted(in_order), "packets of one thread changed places"


def check_fileno(adapter: Adapter, wire: Wire) -> None:
    """`fileno()` becomes readable when there is something to receive, and when the session is closed."""
    with adapter.start_session() as session:
        descriptor = session.fileno()
        while session.receive(timeout=0.3):
            pass
        assert not _is_readable(descriptor, 0), "readable with nothing to receive"
        wire.send(_packets(2))
        assert _is_readable(descriptor, _SECONDS), "not readable though there are packets"
        assert _collect(session.receive, 2) == _packets(2)
        while session.receive(timeout=0):
            pass
        threading.Timer(0.01, session.close).start()
        assert _is_readable(descriptor, _SECONDS), "not readable though it was closed"


def _is_readable(descriptor: int, timeout: float) -> bool:
    try:
        with selectors.DefaultSelector() as selector:
            selector.register(descriptor, selectors.EVENT_READ)
            return bool(selector.select(timeout))
    except OSError:  # Windows, whose selectors take sockets only, and where an adapter has an event.
        return bool(multiprocessing.connection.wait([descriptor], timeout))


def check_asyncio(adapter: Adapter, wire: Wire) -> None:
    """The same session works in an event loop: waiting, sending, cancelling, iterating, closing."""
    asyncio.run(asyncio.wait_for(_use_asyncio(adapter, wire), _SECONDS))


async def _use_asyncio(adapter: Adapter, wire: Wire) -> None:
    packets = _packets(5)
    session = adapter.start_session()
    waiting = asyncio.create_task(session.receive_async())
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    received: list[bytes] = []

    async def receive_all() -> None:
        async for bundle in session:
            received.extend(_ours(bundle))
            if len(received) == len(packets):
                return

    reader = asyncio.create_task(receive_all())
    await asyncio.sleep(0)
    for packet in packets:
        wire.send([packet])
        await asyncio.sleep(0)
    await reader
    assert received == packets, "packets were lost or changed places around a cancelled receive"
    assert await session.send_async(packets) == len(packets)
    assert _collect(wire.receive, len(packets)) == packets

    async def until_closed() -> str:
        async for _ in session:
            pass
        return "ended"

    async def receive_until_closed() -> str:
        while True:
            await session.receive_async()

    tasks = [asyncio.create_task(until_closed()), *(asyncio.create_task(receive_until_closed()) for _ in range(3))]
    await asyncio.sleep(0)
    await asyncio.to_thread(session.close)
    first, *others = await asyncio.gather(*tasks, return_exceptions=True)
    assert first == "ended", "async iteration does not end with the session"
    assert all(isinstance(end, SessionClosed) for end in others), "a waiting task was not woken by close"


def check_statistics(adapter: Adapter, wire: Wire) -> None:
    """Session and adapter count every packet and byte, each way."""
    with adapter.start_session() as session:
        wire.send(_packets(10))
        _collect(session.receive, 10)
        session.send(_packets(7, 200))
        _collect(wire.receive, 7)  # For a system counts what it has taken, and may do that a little later.
        counts, system = session.statistics, adapter.statistics
        assert counts.received_packets >= 10
        assert counts.received_bytes >= 1000
        assert 1 <= counts.received_bundles <= counts.received_packets
        assert (counts.sent_packets, counts.sent_bytes, counts.sent_bundles) == (7, 1400, 1)
        assert counts.sent_dropped == 0
        assert system.received_packets >= 10
        assert system.sent_packets == 7
        assert system.sent_bytes == 1400


def check_adapter_end(adapter: Adapter, wire: Wire) -> None:
    """Closing the adapter closes its session and removes it, unless it is persistent; it may be repeated."""
    session = adapter.start_session()
    assert wire.adapter_exists()
    adapter.close()
    adapter.close()
    assert session.closed
    _raises(SessionClosed, "closing the adapter closes its session", session.receive)
    _raises(AdapterClosed, "a closed adapter does nothing", adapter.start_session)
    _raises(AdapterClosed, "a closed adapter does nothing", lambda: adapter.info)
    assert wire.adapter_exists() == wire.persistent, "the adapter did not go, or stay, with its maker"


def check_mtu(adapter: Adapter, wire: Wire) -> None:
    """The MTU can be read and set, and a wrong one is refused and changes nothing."""
    adapter.mtu = 1400
    assert adapter.mtu == 1400
    for mtu in (0, 67, 65536):
        _raises(InvalidSetting, "the MTU is checked", setattr, adapter, "mtu", mtu)
    assert adapter.mtu == 1400


CHECKS: tuple[Callable[[Adapter, Wire], None], ...] = (
    check_both_directions,
    check_one_packet_calls,
    check_kinds_of_packets,
    check_validation,
    check_timeouts,
    check_link_state,
    check_one_session,
    check_overflow,
    check_memory,
    check_close_wakes_threads,
    check_after_close,
    check_threads,
    check_fileno,
    check_asyncio,
    check_statistics,
    check_adapter_end,
    check_mtu,
)
"""Every check of the suite, in the order they are best read."""
