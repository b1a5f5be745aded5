"""A real adapter of this system, used through the contract alone; the system's own sockets are its network.

These tests are the same on every system. On Windows they need an administrator and the driver.
"""

import asyncio
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

import threepipe
from tests.support.hosts import answers
from tests.support.kernel import Network
from tests.support.waiting import come_true
from threepipe import platforms

pytestmark = [pytest.mark.windows, *([pytest.mark.kernel] if sys.platform == "linux" else [])]

SECONDS = 10.0
NAME = {"darwin": "utun76", "netbsd": "tun3", "openbsd": "tun3"}.get(sys.platform.rstrip("0123456789"), "tpx0")
"""The adapter's name; on some systems it has to be one of the driver's."""
ADDRESSES = {"10.98.76.1/24": "10.98.76.9", "fd98:76::1/64": "fd98:76::9"}
"""The addresses of the adapter, and for each an address of its network where these tests answer."""

LOOPS = ["SelectorEventLoop", *(["ProactorEventLoop"] if sys.platform == "win32" else [])]


class Place:
    """The place of the adapter: a network of its own if the system has such, else the only one."""

    def __init__(self, network: Network | None) -> None:
        self._network = network
        self.netns = network.path if network else None

    def create(self, name: str = NAME, **settings: Any) -> threepipe.Adapter:
        return threepipe.Adapter.create(name, netns=self.netns, addresses=list(ADDRESSES), **settings)

    def names(self) -> set[str]:
        return {found.name for found in threepipe.adapters(self.netns)}

    @contextmanager
    def socket(self, address: str) -> Iterator[socket.socket]:
        """Return a UDP socket bound to an address of the adapter, which may be usable only after a while."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET

        def make() -> socket.socket:
            return socket.socket(family, socket.SOCK_DGRAM)

        with self._network.namespace.run(make) if self._network else make() as sock:
            sock.settimeout(SECONDS)
            assert come_true(lambda: _binds(sock, address), SECONDS), f"{address} cannot be used"
            yield sock


def _binds(sock: socket.socket, address: str) -> bool:
    try:
        sock.bind((address, 0))
    except OSError:
        return False
    return True


@pytest.fixture
def place() -> Iterator[Place]:
    if sys.platform == "linux":
        network = Network()
        yield Place(network)
        network.namespace.close()
    else:
        lacks = [finding.detail for finding in platforms.probe() if finding.essential and not finding.ok]
        if lacks:
            pytest.skip(f"no adapters can be made here: {'; '.join(lacks)}")
        yield Place(None)


@contextmanager
def answering(session: threepipe.Session) -> Iterator[None]:
    """Send every datagram back in a thread until the session is closed; raise the thread's exception."""

    def answer() -> None:
        for bundle in session:
            session.send(answers(bundle), timeout=SECONDS)

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(answer)
        try:
            yield
        finally:
            session.close()
            running.result(SECONDS)


def test_an_adapter_has_its_settings_and_is_gone_after_close(place: Place) -> None:
    with place.create(mtu=1400) as adapter:
        assert adapter.name == NAME
        assert adapter.mtu == 1400
        assert {str(address) for address in adapter.addresses} >= set(ADDRESSES)
        assert NAME in place.names()
        adapter.mtu = 1300
        assert adapter.mtu == 1300
    assert NAME not in place.names()


def test_an_adapter_can_be_made_five_times_in_a_row(place: Place) -> None:
    for _ in range(5):
        with place.create() as adapter:
            adapter.start_session().close()
    assert NAME not in place.names()


def test_a_taken_name_or_a_second_session_raises(place: Place) -> None:
    with place.create() as adapter:
        with pytest.raises(threepipe.NameTaken):
            threepipe.Adapter.create(NAME.upper() if sys.platform == "win32" else NAME, netns=place.netns)
        with adapter.start_session(), pytest.raises(threepipe.SessionExists):
            adapter.start_session()


@pytest.mark.parametrize(("own", "other"), ADDRESSES.items())
def test_datagrams_of_the_system_are_received_and_answered(place: Place, own: str, other: str) -> None:
    with (
        place.create() as adapter,
        adapter.start_session() as session,
        place.socket(own.partition("/")[0]) as sock,
        answering(session),
    ):
        for size in (0, 1, 1000, 1400):
            sock.sendto(bytes(size), (other, 4242))
            data, peer = sock.recvfrom(65536)
            assert (data, peer[:2]) == (bytes(size), (other, 4242))
        for index in range(500):
            sock.sendto(index.to_bytes(4, "big") * 100, (other, 4242))
            assert sock.recv(65536) == index.to_bytes(4, "big") * 100
        assert session.statistics.received_packets >= 500


def test_close_wakes_a_receiving_thread(place: Place) -> None:
    with place.create() as adapter:
        session = adapter.start_session()
        waiting = threading.Barrier(2)

        def receive() -> None:
            waiting.wait(SECONDS)
            for _ in session:  # Packets that the system sends on its own.
                pass

        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(receive)
            waiting.wait(SECONDS)
            session.close()
            running.result(SECONDS)


@pytest.mark.parametrize("loop", LOOPS)
def test_an_event_loop_receives_and_answers_datagrams(place: Place, loop: str) -> None:
    own, other = next(iter(ADDRESSES.items()))
    factory: Callable[[], asyncio.AbstractEventLoop] = getattr(asyncio, loop)

    async def answer(session: threepipe.Session, sock: socket.socket) -> None:
        for index in range(100):
            sock.sendto(index.to_bytes(4, "big"), (other, 4242))
            answered = False
            while not answered:
                ours = answers(await asyncio.wait_for(session.receive_async(), SECONDS))
                await session.send_async(ours)
                answered = any(index.to_bytes(4, "big") in packet for packet in ours)
            assert sock.recv(100) == index.to_bytes(4, "big")

    with (
        place.create() as adapter,
        adapter.start_session() as session,
        place.socket(own.partition("/")[0]) as sock,
        asyncio.Runner(loop_factory=factory) as runner,
    ):
        runner.run(answer(session, sock))
