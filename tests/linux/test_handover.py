"""The connection of a takeover, and adapters that two processes share: who may connect, and who removes what."""

import os
import socket
import stat
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.support.kernel import STRANGER, Network, call_elsewhere, links, needs_root
from tests.support.service import Service
from tests.support.sessions import in_thread
from tests.support.takeovers import Host, two_hosts

if sys.platform != "linux":
    pytest.skip(f"{sys.platform} has no takeover", allow_module_level=True)

import threepipe
from threepipe import platforms
from threepipe.adapter import Adapter, adopt, claim, give_away, share
from threepipe.backend import Share
from threepipe.errors import EndpointError
from threepipe.platforms.linux.handover import Link, accept_handover, connect_handover, listen_handover
from threepipe.platforms.linux.service.client import ServedDevice
from threepipe.wireguard import clock
from threepipe.wireguard.takeover import VERSION

pytestmark = pytest.mark.kernel


def pair() -> tuple[Link, Link]:
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    return Link(left), Link(right)


def copied(shared: Share) -> Share:
    """Return the share with descriptors of its own, as another process gets them."""
    return Share(shared.name, shared.index, shared.form, [os.dup(number) for number in shared.descriptors])


def connect_as_stranger(path: str) -> str:
    try:
        connect_handover(Path(path), 20).receive(20)
    except OSError as error:
        return str(error)
    return ""


def test_the_socket_is_its_owners_alone_and_its_file_is_replaced_if_stale(tmp_path: Path) -> None:
    path = tmp_path / "wg0.takeover"
    listening, _ = listen_handover(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(EndpointError):
        listen_handover(path)
    listening.close()
    listening, remove = listen_handover(path)
    with closing(listening):
        with closing(connect_handover(path, 20)) as near, closing(accept_handover(listening)) as far:
            assert near.pid == far.pid == os.getpid()
        remove()
    assert not path.exists()


@needs_root
def test_another_user_is_refused_at_either_end(network: Network, tmp_path: Path) -> None:
    path = tmp_path / "wg0.takeover"
    tmp_path.chmod(0o755)
    listening, _ = listen_handover(path)
    with closing(listening):
        assert "Permission denied" in call_elsewhere(network, connect_as_stranger, str(path), user=STRANGER)
        path.chmod(0o666)
        accepted = in_thread(accept_handover, listening)
        text = f"user {STRANGER} may not take part"
        assert text in call_elsewhere(network, connect_as_stranger, str(path), user=STRANGER)
        with pytest.raises(EndpointError, match=text):
            accepted.result(20)


def test_a_message_is_refused_after_it_was_revoked_or_has_arrived_before() -> None:
    for early in (False, True):
        left, right = pair()
        with closing(left), closing(right):
            if early:
                right.send({"takeover": "mine"})
            assert left.revoke() == ({"takeover": "mine"} if early else None)
            with pytest.raises(EndpointError, match="has ended, or gone back"):
                right.send({"takeover": "mine"})
            left.send_error(EndpointError(5, "it failed"))
            with pytest.raises(EndpointError, match="it failed"):
                right.receive(20)


def test_a_silent_or_closed_end_is_told() -> None:
    left, right = pair()
    with closing(left):
        with pytest.raises(EndpointError, match="has not answered"):
            left.receive(0.01)
        with pytest.raises(EndpointError, match="has not answered"):
            left.receive_memory(5, 0.01)
        right.close()
        with pytest.raises(EndpointError, match="has ended"):
            left.receive(20)
        with pytest.raises(EndpointError, match="has ended"):
            left.receive_memory(5, 20)
        with pytest.raises(EndpointError, match="has ended"):
            left.send_memory(bytearray(5))


def test_memory_of_any_size_arrives_whole() -> None:
    left, right = pair()
    with closing(left), closing(right):
        for size in (0, 1, 1 << 16, (1 << 16) + 1):
            memory = bytearray(os.urandom(size))
            left.send_memory(memory)
            assert right.receive_memory(size, 20) == memory


@pytest.mark.parametrize("queues", [1, 3])
def test_a_shared_adapter_passes_from_one_owner_to_another_with_its_link_and_packets(
    network: Network, queues: int
) -> None:
    def start() -> None:
        old = Adapter.create("tp%d", addresses=["10.6.7.1/24"], queues=queues)
        session = old.start_session()
        new = adopt(copied(share(old)))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.sendto(b"waits", ("10.6.7.2", 9))
        give_away(old)
        session.close()
        old.close()
        assert new.link_up
        with new.start_session() as taken:
            claim(new)
            while not any(bytes(packet).endswith(b"waits") for packet in taken.receive(timeout=20)):
                pass
        assert not new.link_up
        new.close()
        assert not threepipe.adapters()

    network.namespace.run(start)


def test_an_adopted_adapter_that_is_not_claimed_changes_nothing(network: Network) -> None:
    def start() -> None:
        with Adapter.create("tp%d") as old, old.start_session():
            with adopt(copied(share(old))) as new, new.start_session():
                pass
            assert old.link_up
        assert not threepipe.adapters()

    network.namespace.run(start)


@pytest.fixture
def serving_here(network: Network, tmp_path: Path) -> Iterator[Service]:
    from tests.support.service import serving

    with serving(network, tmp_path) as service:
        yield service


@needs_root
def test_an_adapter_of_the_service_is_shared_with_its_connection(serving_here: Service) -> None:
    def served() -> Any:
        os.environ["THREEPIPE_SERVE"] = str(serving_here.path)
        try:
            from threepipe.platforms.linux.service import client
            from threepipe.settings import AdapterSettings

            peer = client._connect()
            assert peer is not None
            return client._ask_for(peer, AdapterSettings(name="vpn%d"))
        finally:
            del os.environ["THREEPIPE_SERVE"]

    device = serving_here.network.namespace.run(served)
    old = Adapter(device)
    old.start_session()
    new = adopt(copied(share(old)))
    assert isinstance(new._device, ServedDevice)
    give_away(old)
    old.close()
    assert links(serving_here.network) == {"vpn0"}
    claim(new)
    serving_here.network.namespace.run(lambda: new.add_address("10.6.7.1/24"))
    new.close()
    assert links(serving_here.network) == set()


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    with two_hosts(tmp_path) as (host, _):
        yield host


HELLO: dict[str, Any] = {"takeover": "hello", "version": VERSION, "kind": "threepipe wg up"}
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"version": VERSION + 1}, f"version {VERSION} of the takeover, and the new process {VERSION + 1}"),
    ({"version": None}, "take it down, and up again"),
    ({"kind": "threepipe-wg"}, "use threepipe wg up"),
    ({"scope": "another"}, "in another network namespace"),
    ({"clock": 0.0}, "in another time namespace"),
    ({"takeover": "offer"}, "did not say hello"),
]


def test_a_process_that_does_not_fit_is_refused_and_the_device_goes_on(host: Host) -> None:
    device = host.up()
    path = Path(f"/proc/{host.holder}/root/run/wireguard/{host.name}.takeover")
    scope = host.network.namespace.run(platforms.network_scope)
    for change, text in REFUSED:
        with closing(connect_handover(path, 20)) as link:
            link.send(HELLO | {"scope": scope, "clock": clock.now()} | change)
            with pytest.raises(EndpointError, match=text):
                link.receive(20)
    with closing(connect_handover(path, 20)) as link:
        link.send(HELLO | {"scope": scope, "clock": clock.now()})
        offer, numbers = link.receive(20)
        assert offer["takeover"] == "offer"
        for number in numbers:
            os.close(number)
    assert device.poll() is None
    new = host.up("--takeover")
    assert device.wait(20) == 0
    assert new.poll() is None


NO_HELLO = [
    b"junk",
    b"\xff",
    b"[" * 5000,
    b"[]",
    b'{"takeover": "hello", "version": 1, "kind": "threepipe wg up", "clock": "noon"}',
]


def test_a_process_that_speaks_otherwise_is_refused_and_the_next_one_takes_over(host: Host) -> None:
    device = host.up()
    path = f"/proc/{host.holder}/root/run/wireguard/{host.name}.takeover"
    for data in NO_HELLO:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as peer:
            peer.settimeout(20)
            peer.connect(path)
            peer.send(data)
            assert b'"error"' in peer.recv(1000), data
    host.up("--takeover")
    assert device.wait(20) == 0


def test_a_message_that_is_not_one_counts_as_none_when_it_is_revoked() -> None:
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with closing(Link(left)) as link, right:
        right.send(b"junk")
        assert link.revoke() is None
