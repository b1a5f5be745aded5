"""The conformance suite: it checks every promise of the contract for any kind of adapter.

`check_adapter(make)` runs all of `CHECKS`, each on a new adapter. A check is a function that raises AssertionError,
and can be run alone. The suite uses an adapter from both sides: as its program, and through a `Wire` as its network.
"""

import asyncio
import multiprocessing.connection
import selectors
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from ipaddress import ip_interface, ip_network
from typing import Protocol, TypeVar

from threepipe.adapter import Adapter
from threepipe.bundle import Bundle
from threepipe.core.packet import Packet
from threepipe.errors import AdapterClosed, AdapterError, InvalidPacket, InvalidSetting, SessionClosed, SessionExists
from threepipe.memory import MemoryAdapter
from threepipe.ring import MIN_CAPACITY
from threepipe.session import Session

__all__ = ["CHECKS", "Make", "Wire", "check_adapter", "make_memory_adapter"]

Error = TypeVar("Error", bound=Exception)

_SECONDS = 10.0  # Longer than any step takes. Only a failing check waits that long.


class Wire(Protocol):
    """The network side of an adapter: the operating system, or another program. Used while a session is open."""

    persistent: bool
    """True if the adapter must still exist after `close`."""

    def send(self, packets: Sequence[bytes]) -> int:
        """Have the system send packets to the program, in order; return how many the system accepted."""

    def receive(self, timeout: float) -> list[bytes]:
        """Wait up to `timeout` seconds for at least one packet of the program, and return those that arrived."""

    def adapter_exists(self) -> bool:
        """Return True if the system has the adapter now."""


Make = Callable[[], AbstractContextManager[tuple[Adapter, Wire]]]
"""Makes a new adapter without a session, and its wire."""


def check_adapter(make: Make) -> None:
    """Run every check, each on a new adapter. Raises AssertionError, whose text names the broken promise."""
    for check in CHECKS:
        with make() as (adapter, wire):
            check(adapter, wire)


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


# The suite's packets have protocol 253, which RFC 3692 reserves for experiments. That distinguishes them from packets
# that a system sends by itself, such as router solicitations.
_PROTOCOL = 253
_NOISE = 20  # Packets that the system may send by itself during a check.


def _packet(number: int, size: int = 100, version: int = 4) -> bytes:
    """Return a packet of `size` bytes that contains its `number` (below 2**32) and that no system answers."""
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
    """Receive until there are `count` packets of the suite, or `_SECONDS` have passed."""
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
    """Check that packets of both IP versions and all sizes arrive intact and in order, both ways."""
    sizes = [(20, 4), (40, 6), (21, 4), (41, 6), *((100 + 200 * step, 4 + 2 * (step % 2)) for step in range(8))]
    packets = [_packet(number, size, version) for number, (size, version) in enumerate(sizes)]
    with adapter.start_session() as session:
        assert wire.send(packets) == len(packets)
        assert _collect(session.receive, len(packets)) == packets, "received packets differ from those sent"
        assert session.send(packets) == len(packets)
        assert _collect(wire.receive, len(packets)) == packets, "sent packets arrived changed, or not at all"


def check_one_packet_calls(adapter: Adapter, wire: Wire) -> None:
    """Check that `send_packet` and `receive_packet` move one packet and lose none behind it, and mix with bundles."""
    packets = _packets(9)
    with adapter.start_session() as session:

        def receive_one(left: float) -> list[bytes]:
            packet = session.receive_packet(left)
            return [packet] if packet else []

        wire.send(packets[:6])
        assert _collect(receive_one, 3) == packets[:3]
        assert _collect(session.receive, 3) == packets[3:6], "a bundle does not begin where single packets ended"
        wire.send(packets[6:])
        assert _collect(receive_one, 3) == packets[6:]
        counts = session.statistics
        assert 9 <= counts.received_packets <= 9 + _NOISE
        assert counts.received_bytes >= 900
        kinds: list[Packet] = [packets[0], bytearray(packets[1]), memoryview(packets[2])]
        for packet in kinds:
            assert session.send_packet(packet)
        assert _collect(wire.receive, 3) == packets[:3]
        counts = session.statistics
        assert (counts.sent_packets, counts.sent_bytes, counts.sent_bundles) == (3, 300, 3)
        _raises(InvalidPacket, "send_packet refuses an invalid packet", session.send_packet, b"\x45")
    _raises(SessionClosed, "a closed session does nothing", session.send_packet, packets[0])


def check_one_packet_threads(adapter: Adapter, wire: Wire) -> None:
    """Check that each packet goes to one of several threads that wait for one, and that closing wakes the others."""
    packets = _packets(60)
    session = adapter.start_session()
    found: list[bytes] = []
    complete = threading.Event()

    def receive() -> None:
        try:
            while True:
                found.extend(_ours([session.receive_packet()]))
                if len(found) == len(packets):
                    complete.set()
        except SessionClosed:
            return

    threads = [threading.Thread(target=receive, daemon=True) for _ in range(3)]
    for thread in threads:
        thread.start()
    wire.send(packets)
    complete.wait(_SECONDS)
    session.close()
    for thread in threads:
        thread.join(_SECONDS)
        assert not thread.is_alive(), "close did not wake a thread that waited for a packet"
    assert sorted(found) == packets, "packets were lost, or went to several threads"


async def _use_packets(adapter: Adapter, wire: Wire) -> None:
    packets = _packets(20)
    with adapter.start_session() as session:
        waiting = asyncio.create_task(session.receive_packet_async())
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        wire.send(packets)
        received: list[bytes] = []
        while len(received) < len(packets):
            received += _ours([await session.receive_packet_async()])
        assert received == packets, "packets were lost or reordered by a cancelled receive"
        for packet in packets:
            await session.send_packet_async(packet)
        assert _collect(wire.receive, len(packets)) == packets
        waiting = asyncio.create_task(session.receive_packet_async())
        await asyncio.sleep(0)
        await asyncio.to_thread(session.close)
        while not isinstance((await asyncio.gather(waiting, return_exceptions=True))[0], SessionClosed):
            waiting = asyncio.create_task(session.receive_packet_async())


def check_one_packet_asyncio(adapter: Adapter, wire: Wire) -> None:
    """Check that single packets work in an event loop: waiting, sending, cancelling, closing."""
    asyncio.run(asyncio.wait_for(_use_packets(adapter, wire), _SECONDS))


def check_kinds_of_packets(adapter: Adapter, wire: Wire) -> None:
    """Check that `send` accepts a bundle, any iterable and any bytes-like packet, and refuses a single packet."""
    a, b, c = _packets(3)
    with adapter.start_session() as session:
        kinds: list[Packet] = [a, bytearray(b), memoryview(c)]
        assert session.send(iter(kinds)) == 3
        assert session.send(Bundle([a, b])) == 2
        assert session.send([]) == 0
        assert _collect(wire.receive, 5) == [a, b, c, a, b]
        _raises(TypeError, "send refuses a single packet", session.send, a)


def check_validation(adapter: Adapter, wire: Wire) -> None:
    """Check that `send` refuses a bundle with an invalid packet by its index, and that `drop_invalid` drops it."""
    good = _packet(1)
    bad = [b"", b"\x45", _packet(2)[:19], _packet(3, 60, 6)[:39], b"\x00" * 60, b"\x50" * 60, b"\x45" * 65536]
    with adapter.start_session() as session:
        for packet in bad:
            error = _raises(InvalidPacket, "send refuses an invalid packet", session.send, [good, packet, good])
            assert error.index == 1, "the index is not that of the invalid packet"
        assert session.statistics.sent_packets == 0
        assert session.send(Bundle([good, *bad, good]), None, drop_invalid=True) == 2
        assert session.statistics.sent_dropped == len(bad)
        assert _collect(wire.receive, 2) == [good, good]


def check_timeouts(adapter: Adapter, wire: Wire) -> None:
    """Check that `receive` returns an empty bundle after its timeout and not before, and that 0 does not wait."""
    with adapter.start_session() as session:
        while session.receive(timeout=0.3):
            pass  # Packets that the system sends by itself when a link comes up.
        start = time.monotonic()
        bundle = session.receive(timeout=0.05)
        assert bundle or time.monotonic() - start >= 0.049, "receive returned before its timeout"
        assert not session.receive(timeout=0)
        assert session.receive_packet(timeout=0) == b""


def check_link_state(adapter: Adapter, wire: Wire) -> None:
    """Check that the link is up exactly while a session is open, for several sessions in turn."""
    assert not adapter.link_up, "the link is up without a session"
    for _ in range(3):
        with adapter.start_session() as session:
            assert adapter.link_up, "the link is down with a session"
            wire.send([_packet(7)])
            assert _collect(session.receive, 1) == [_packet(7)]
        assert not adapter.link_up, "the link is up after the session"


def check_one_session(adapter: Adapter, wire: Wire) -> None:
    """Check that a second session is refused while one is open, and that invalid capacities are."""
    for capacity in (0, MIN_CAPACITY - 1, MIN_CAPACITY + 4, 2 * 0x4000000):
        _raises(InvalidSetting, "capacity is checked", adapter.start_session, capacity)
    with adapter.start_session() as session:
        _raises(SessionExists, "one session at a time", adapter.start_session)
        assert session.send([_packet(1)]) == 1, "the refused session harmed the first"


def check_overflow(adapter: Adapter, wire: Wire) -> None:
    """Check that a full ring keeps the first packets in order, and that every dropped packet is counted."""
    packets = _packets(3000, 1000)
    with adapter.start_session(MIN_CAPACITY) as session:
        taken = wire.send(packets)
        received: list[bytes] = []
        while bundle := session.receive(timeout=0.3):
            received += _ours(bundle)
        assert len(received) < len(packets), "more packets were kept than fit the capacity"
        assert received == packets[: len(received)], "packets other than the newest were dropped"
        counted = len(received) + adapter.statistics.received_dropped
        assert taken <= counted, "a packet was lost and not counted"
        assert counted <= taken + _NOISE, "more packets were counted as dropped than were"
        sent = session.send(packets)
        assert sent + session.statistics.sent_dropped == len(packets)


def check_memory(adapter: Adapter, wire: Wire) -> None:
    """Check that held packets stay unchanged while others arrive, and that released ones are unusable."""
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
    """Check that closing wakes every waiting thread with `SessionClosed`."""
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
    assert sorted(ended) == ["iteration", "receive", "receive"], f"only these threads woke: {ended}"


def check_after_close(adapter: Adapter, wire: Wire) -> None:
    """Check that every call of a closed session raises `SessionClosed`, except its statistics."""
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
    """Check that several threads can use both directions at once without loss or reordering."""
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
        # Packets differ by their number only, so sorting them sorts by number.
        expected = _packets(count * senders)
        assert sorted(got_by_wire) == expected, "packets of several threads were lost"
        for own in (set(expected[first : first + count]) for first in range(0, len(expected), count)):
            in_order = [packet for packet in got_by_wire if packet in own]
            assert in_order == sorted(in_order), "packets of one thread were reordered"


def check_fileno(adapter: Adapter, wire: Wire) -> None:
    """Check that `fileno()` becomes readable when a packet arrives, and when the session is closed."""
    with adapter.start_session() as session:
        descriptor = session.fileno()
        while session.receive(timeout=0.3):
            pass
        assert not _is_readable(descriptor, 0), "readable without packets"
        wire.send(_packets(2))
        assert _is_readable(descriptor, _SECONDS), "not readable despite packets"
        assert _collect(session.receive, 2) == _packets(2)
        while session.receive(timeout=0):
            pass
        threading.Timer(0.01, session.close).start()
        assert _is_readable(descriptor, _SECONDS), "not readable after close"


def _is_readable(descriptor: int, timeout: float) -> bool:
    try:
        with selectors.DefaultSelector() as selector:
            selector.register(descriptor, selectors.EVENT_READ)
            return bool(selector.select(timeout))
    except OSError:  # Windows: selectors take sockets only, and an adapter has an event.
        return bool(multiprocessing.connection.wait([descriptor], timeout))


def check_asyncio(adapter: Adapter, wire: Wire) -> None:
    """Check that a session works in an event loop: waiting, sending, cancelling, iterating, closing."""
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
    assert received == packets, "packets were lost or reordered by a cancelled receive"
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
    assert first == "ended", "async iteration did not end with the session"
    assert all(isinstance(end, SessionClosed) for end in others), "close did not wake a waiting task"


def check_statistics(adapter: Adapter, wire: Wire) -> None:
    """Check that session and adapter count every packet and byte, both ways."""
    with adapter.start_session() as session:
        wire.send(_packets(10))
        _collect(session.receive, 10)
        session.send(_packets(7, 200))
        _collect(wire.receive, 7)  # The system may count a packet a little later than `send` returns.
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
    """Check that closing the adapter closes its session and removes it unless persistent, and can be repeated."""
    session = adapter.start_session()
    assert wire.adapter_exists()
    adapter.close()
    adapter.close()
    assert session.closed
    _raises(SessionClosed, "closing the adapter closes its session", session.receive)
    _raises(AdapterClosed, "a closed adapter does nothing", adapter.start_session)
    _raises(AdapterClosed, "a closed adapter does nothing", lambda: adapter.info)
    assert wire.adapter_exists() == wire.persistent, "the adapter exists though it is not persistent, or the reverse"


def check_mtu(adapter: Adapter, wire: Wire) -> None:
    """Check that the MTU can be read and set, and that an invalid one is refused and changes nothing."""
    adapter.mtu = 1400
    assert adapter.mtu == 1400
    for mtu in (0, 67, 65536):
        _raises(InvalidSetting, "the MTU is checked", setattr, adapter, "mtu", mtu)
    assert adapter.mtu == 1400


def check_addresses(adapter: Adapter, wire: Wire) -> None:
    """Check that addresses and routes can be added and removed with and without a session, each for itself."""
    before = set(adapter.addresses), set(adapter.routes)
    added = [ip_interface(text) for text in ("10.253.1.1/24", "10.253.1.2/24", "fd25:3::1/64")]
    routed = [ip_network(text) for text in ("10.254.0.0/16", "fd25:4::/64")]
    for address in added:
        adapter.add_address(address)
    for route in routed:
        adapter.add_route(str(route))
    assert set(adapter.addresses) >= {*before[0], *added}, "an added address is missing"
    assert set(adapter.routes) >= {*before[1], *routed}, "an added route is missing"
    _raises(AdapterError, "an address is added once", adapter.add_address, added[0])
    _raises(AdapterError, "a route is added once", adapter.add_route, routed[0])
    with adapter.start_session():
        for place, address in enumerate(added, 1):
            adapter.remove_address(str(address))
            assert address not in adapter.addresses
            assert set(adapter.addresses) >= {*before[0], *added[place:]}, "another address went with one removed"
            assert set(adapter.routes) >= {*before[1], *routed}, "a route went with an address"
        for route in routed:
            adapter.remove_route(route)
    assert not set(adapter.routes) & set(routed), "a removed route is there"
    _raises(AdapterError, "only present addresses are removed", adapter.remove_address, added[0])
    _raises(AdapterError, "only present routes are removed", adapter.remove_route, routed[0])


CHECKS: tuple[Callable[[Adapter, Wire], None], ...] = (
    check_both_directions,
    check_one_packet_calls,
    check_one_packet_threads,
    check_one_packet_asyncio,
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
    check_addresses,
)
"""Every check of the suite, in reading order."""
