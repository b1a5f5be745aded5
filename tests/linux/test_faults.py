"""Adapters that fail in use on Linux: removed, set down, without their namespace."""

import asyncio
import errno
import os
import select
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

import threepipe
from tests.support.hosts import answers
from tests.support.kernel import Network, links, udp_socket
from tests.support.refusals import refused
from threepipe import Adapter, Session
from threepipe.platforms.linux import device
from threepipe.platforms.linux.namespace import Namespace

pytestmark = pytest.mark.kernel


def remove(network: Network, adapter: Adapter) -> None:
    """Remove the interface as an administrator does, while a program holds it."""
    network.run("ip", "link", "del", adapter.name)
    assert links(network) == set()


def test_removal_wakes_a_waiting_thread(network: Network) -> None:
    waiting, errors = threading.Event(), list[BaseException]()

    def wait(session: Session) -> None:
        try:
            while True:
                session.receive(timeout=0)
                waiting.set()
                session.receive(timeout=30)
        except threepipe.ThreepipeError as error:
            errors.append(error)

    with Adapter.create("tp0", netns=network.path) as adapter, adapter.start_session() as session:
        thread = threading.Thread(target=wait, args=[session])
        thread.start()
        assert waiting.wait(10)
        remove(network, adapter)
        thread.join(10)
        assert not thread.is_alive()
    (error,) = errors
    assert isinstance(error, threepipe.AdapterGone)
    assert error.errno == errno.EBADFD
    assert "tp0 was removed by another program; create or open it again" in str(error)


def test_removal_wakes_a_waiting_task(network: Network) -> None:
    async def wait(session: Session) -> None:
        while True:
            await session.receive_async()

    async def main() -> None:
        with Adapter.create("tp0", netns=network.path) as adapter, adapter.start_session() as session:
            task = asyncio.create_task(wait(session))
            await asyncio.sleep(0)  # This lets the task begin to wait.
            await asyncio.to_thread(remove, network, adapter)
            with pytest.raises(threepipe.AdapterGone):
                await asyncio.wait_for(task, 10)

    asyncio.run(main())


def test_removal_makes_the_descriptor_readable(network: Network) -> None:
    with Adapter.create("tp0", netns=network.path) as adapter, adapter.start_session() as session:
        while session.receive(timeout=0):
            pass
        remove(network, adapter)
        readable, _, _ = select.select([session.fileno()], [], [], 10)
        assert readable == [session.fileno()]


def test_every_call_but_close_raises_after_removal(network: Network) -> None:
    gone, packet = threepipe.AdapterGone, bytes([0x45, *bytes(19)])
    with Adapter.create("tp0", netns=network.path) as adapter, adapter.start_session() as session:
        remove(network, adapter)
        for _ in range(2):
            with refused(network, gone, errno.EBADFD, "tp0 was removed", "create or open it again"):
                session.send([packet])
            with refused(network, gone, errno.EBADFD, "tp0 was removed", "create or open it again"):
                session.receive(timeout=10)
            with refused(network, gone, errno.ENODEV, "tp0 was removed", "create or open it again"):
                assert adapter.info
            with refused(network, gone, errno.ENODEV, "tp0 was removed", "create or open it again"):
                adapter.mtu = 1400
        session.close()
        with refused(network, gone, errno.ENODEV, "tp0 was removed", "create or open it again"):
            adapter.start_session()


def test_a_closed_namespace_raises_adapter_closed(network: Network) -> None:
    namespace = Namespace.find(network.path)
    namespace.close()
    with pytest.raises(threepipe.AdapterClosed):
        namespace.run(lambda: None)


def test_a_namespace_that_closes_during_a_call_does_not_harm_the_call(network: Network) -> None:
    namespace = Namespace.find(network.path)

    def close_and_look() -> tuple[int, int]:
        namespace.close()
        return os.stat("/proc/thread-self/ns/net").st_ino, os.stat(network.path).st_ino

    inside, wanted = namespace.run(close_and_look)
    assert inside == wanted


CALLS: dict[str, Callable[[Adapter, Session], object]] = {
    "info": lambda adapter, _: adapter.info,
    "mtu": lambda adapter, _: setattr(adapter, "mtu", 1400),
    "delete": lambda adapter, _: adapter.delete(),
    "receive": lambda _, session: session.receive(timeout=0),
    "receive_packet": lambda _, session: session.receive_packet(timeout=0),
    "send": lambda _, session: session.send([bytes([0x45, *bytes(19)])]),
    "send_packet": lambda _, session: session.send_packet(bytes([0x45, *bytes(19)])),
    "fileno": lambda _, session: select.select([session.fileno()], [], [], 0),
    "start_session": lambda adapter, session: session.closed and adapter.start_session(),
}


@pytest.mark.parametrize("call", CALLS)
def test_every_call_beside_close_returns_or_raises_an_error_of_ours(network: Network, call: str) -> None:
    def use(adapter: Adapter, session: Session, started: threading.Event) -> None:
        while True:
            started.set()
            CALLS[call](adapter, session)

    with ThreadPoolExecutor(2) as executor:
        for _ in range(5):
            adapter = Adapter.create("tp0", netns=network.path)
            session, started = adapter.start_session(), threading.Event()
            using = [executor.submit(use, adapter, session, started) for _ in range(2)]
            assert started.wait(10)
            adapter.close()
            for user in using:
                assert isinstance(user.exception(20), (threepipe.AdapterClosed, threepipe.SessionClosed))
    assert links(network) == set()


def test_a_session_that_fails_to_start_leaves_the_link_down(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_memory(*_: object, **__: object) -> None:
        raise MemoryError

    with Adapter.create("tp0", netns=network.path) as adapter:
        with monkeypatch.context() as patch:
            patch.setattr(device, "LinuxPort", no_memory)
            with pytest.raises(MemoryError):
                adapter.start_session()
        assert not adapter.link_up
        adapter.start_session()
        assert adapter.link_up


def test_delete_after_removal_closes_the_adapter(network: Network) -> None:
    adapter = Adapter.create("tp0", netns=network.path, persistent=True)
    remove(network, adapter)
    try:
        adapter.delete()
        with pytest.raises(threepipe.AdapterClosed):
            adapter.start_session()
    finally:
        adapter.close()


def test_send_on_an_interface_set_down_raises_until_it_is_up(network: Network) -> None:
    with (
        Adapter.create("tp0", netns=network.path, addresses=["10.6.7.1/24"]) as adapter,
        adapter.start_session() as session,
        udp_socket(network, "10.6.7.1") as sock,
    ):
        sock.sendto(b"again", ("10.6.7.2", 9))
        while not (answer := answers(session.receive(timeout=10))):
            pass
        network.run("ip", "link", "set", "tp0", "down")
        with refused(network, threepipe.LinkDown, errno.EIO, "tp0 was set down", "ip link set tp0 up"):
            session.send(answer)
        assert session.statistics.sent_dropped == 1
        assert not adapter.link_up
        network.run("ip", "link", "set", "tp0", "up")
        assert session.send(answer) == 1
        assert sock.recv(100) == b"again"
