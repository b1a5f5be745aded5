"""Devices in one process, with packets of the test and sockets on loopback: no adapter and no privilege."""

import asyncio
import contextlib
import errno
import gc
import ipaddress
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import threepipe
from tests.support.waiting import come_true
from tests.support.wireguard_pair import new_key, packet
from threepipe import wireguard
from threepipe.core.descriptor import MAX_BUNDLE
from threepipe.echo import echo_reply, echo_request
from threepipe.errors import EndpointError, InvalidSetting, SessionClosed
from threepipe.wireguard import Change, Device, PeerChange, parse_networks, sockets
from threepipe.wireguard.constants import Timing
from threepipe.wireguard.noise import Identity
from threepipe.wireguard.tunnel import Tunnel

SECONDS = 20.0
THERE, BACK = packet("10.0.0.1", "10.0.0.2", b"there"), packet("10.0.0.2", "10.0.0.1", b"back")


class Pair:
    def __init__(self, host: str) -> None:
        keys = new_key(), new_key()
        self.public = [Identity(key).public for key in keys]
        self.events: list[wireguard.Event] = []
        self.happened = threading.Event()
        self.right = Device(private_key=keys[1], on_event=self.note)
        endpoint = (host, self.right.status().listen_port)
        there = PeerChange(self.public[1], endpoint=endpoint, allowed_ips=parse_networks(["10.0.0.2", "fd00::2"]))
        self.left = Device(private_key=keys[0], peers=[there], mtu=1420)
        back = parse_networks(["10.0.0.1", "fd00::1"])
        self.right.configure(Change(peers=(PeerChange(self.public[0], allowed_ips=back),)))

    def note(self, event: wireguard.Event) -> None:
        self.events.append(event)
        self.happened.set()

    def close(self) -> None:
        self.left.close()
        self.right.close()


@pytest.fixture(params=["127.0.0.1", "::1"], ids=["outside-4", "outside-6"])
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    pair = Pair(request.param)
    yield pair
    pair.close()


def received(device: Device, count: int) -> list[bytes]:
    packets: list[bytes] = []
    while len(packets) < count:
        with device.session.receive(SECONDS) as bundle:
            assert bundle, f"{len(packets)} of {count} packets came; dropped: {device.rejected}"
            packets += map(bytes, bundle)
    return packets


def answering(pair: Pair) -> None:
    """Receive at the right end until it is closed; this also answers handshakes."""
    for _ in pair.right.session:
        pass


def test_packets_pass_in_order_and_are_counted(pair: Pair) -> None:
    packets = [packet("10.0.0.1", "10.0.0.2", os.urandom(size) + bytes([size % 256])) for size in range(1, 1300, 13)]
    opener = threading.Thread(target=lambda: pair.left.session.receive(0.5))
    opener.start()
    assert pair.left.session.send(packets) == len(packets)
    assert received(pair.right, len(packets)) == packets
    opener.join()
    assert pair.right.session.send([BACK]) == 1
    assert received(pair.left, 1) == [BACK]
    (mine,), (theirs,) = pair.left.status().peers, pair.right.status().peers
    assert mine.tx_bytes == theirs.rx_bytes > sum(map(len, packets))
    assert theirs.endpoint is not None
    assert theirs.endpoint[1] == pair.left.status().listen_port
    assert pair.happened.wait(SECONDS)
    assert pair.events[0].name == "handshake"


def test_a_handshake_refused_for_its_timestamp_is_logged_once_with_the_reason(
    pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    """The peer restarts with a clock that was set back by a year."""
    key = new_key()
    pair.right.configure(Change(peers=(PeerChange(Identity(key).public),)))
    there = PeerChange(pair.public[1], endpoint=("127.0.0.1", pair.right.status().listen_port), persistent_keepalive=25)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for number, unix in enumerate((2e9, 2e9 - 31536000, 2e9 - 31536000)):

            def wall_clock(unix: float = unix) -> float:
                return unix

            tunnel = Tunnel(wall_clock=wall_clock)
            tunnel.configure(Change(key, peers=(there,)), 1000)
            ((_, _, ((initiation, _, _),)),) = tunnel.datagrams_to_send()
            sender.sendto(initiation, there.endpoint or ())
            pair.right.session.receive(0.2)
            assert pair.right.rejected.get("initiation replayed", 0) == number
    assert come_true(lambda: bool(caplog.messages))
    (message,) = caplog.messages
    assert wireguard.key_to_text(Identity(key).public) in message
    assert "31536000 s older" in message
    assert "remove the peer here and add it again" in message


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux reports local addresses")
def test_answers_come_from_the_local_address_that_was_used() -> None:
    with contextlib.closing(Pair("127.0.0.2")) as pair:
        opener = threading.Thread(target=lambda: pair.left.session.receive(0.5))
        opener.start()
        pair.left.session.send([THERE])
        assert received(pair.right, 1) == [THERE]
        pair.right.session.send([BACK])
        opener.join()
        assert pair.left.status().peers[0].endpoint == ("127.0.0.2", pair.right.status().listen_port)


def test_a_session_of_a_device_works_in_asyncio(pair: Pair) -> None:
    async def converse() -> bytes:
        async def answer() -> None:
            async for bundle in pair.right.session:
                replies = [reply for packet in bundle if (reply := echo_reply(packet))]
                await pair.right.session.send_async(replies)

        answering = asyncio.create_task(answer())
        request = echo_request("10.0.0.1", "10.0.0.2", identifier=1, sequence=2)
        await pair.left.session.send_async([request])
        bundle = await asyncio.wait_for(pair.left.session.receive_async(), SECONDS)
        answering.cancel()
        return bytes(bundle[0])

    reply = asyncio.run(converse())
    assert reply[12:20] == bytes([10, 0, 0, 2, 10, 0, 0, 1])
    assert reply[20] == 0


def test_close_wakes_a_receive_and_ends_the_device(pair: Pair) -> None:
    waiting = threading.Thread(target=answering, args=(pair,))
    waiting.start()
    pair.right.close()
    waiting.join(SECONDS)
    assert not waiting.is_alive()
    pair.right.close()
    assert pair.right.status().peers == ()
    with pytest.raises(SessionClosed):
        pair.right.session.send([BACK])


def test_close_of_the_session_closes_the_device(pair: Pair) -> None:
    pair.left.session.close()
    assert pair.left.status().peers == ()


@pytest.mark.parametrize("lacking", [socket.AF_INET, socket.AF_INET6])
@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE])
def test_a_device_does_not_do_without_a_family_for_want_of_descriptors(
    monkeypatch: pytest.MonkeyPatch, lacking: socket.AddressFamily, code: int
) -> None:
    with_descriptors = socket.socket

    def opened(family: int, kind: int) -> socket.socket:
        if family == lacking:
            raise OSError(code, "Too many open files")
        return with_descriptors(family, kind)

    with monkeypatch.context() as patch:
        patch.setattr(socket, "socket", opened)
        with pytest.raises(EndpointError, match=r"Too many open files; raise the .*limit of open files") as caught:
            sockets.open_sockets(0, 0)
    assert caught.value.errno == code


def test_a_device_without_any_family_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    def lacking(family: int, kind: int) -> socket.socket:
        raise OSError(errno.EAFNOSUPPORT, "Address family not supported")

    with monkeypatch.context() as patch:
        patch.setattr(socket, "socket", lacking)
        with pytest.raises(EndpointError, match="Address family not supported"):
            sockets.open_sockets(0, 0)


def test_a_device_of_one_family_has_one_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    with_both = socket.socket

    def opened(family: int, kind: int) -> socket.socket:
        if family == socket.AF_INET:
            raise OSError(errno.EAFNOSUPPORT, "Address family not supported")
        return with_both(family, kind)

    with monkeypatch.context() as patch:
        patch.setattr(socket, "socket", opened)
        (only,) = sockets._bind(0)
    assert only.family == socket.AF_INET6
    only.close()


def test_the_listen_port_can_be_changed_while_running(pair: Pair) -> None:
    before = pair.right.status().listen_port
    with Device() as other:
        taken = other.status().listen_port
        with pytest.raises(EndpointError, match="choose another listen port") as caught:
            pair.right.configure(Change(listen_port=taken))
    assert caught.value.errno == errno.EADDRINUSE
    assert pair.right.status().listen_port == before
    pair.right.configure(Change(listen_port=taken))
    assert pair.right.status().listen_port == taken
    endpoint = ("127.0.0.1", taken)
    pair.left.configure(Change(peers=(PeerChange(pair.public[1], endpoint=endpoint),)))
    pair.left.session.send([THERE])
    opener = threading.Thread(target=lambda: pair.left.session.receive(0.5))
    opener.start()
    assert received(pair.right, 1) == [THERE]
    opener.join()


def open_descriptors() -> int:
    gc.collect()  # Objects of earlier tests close theirs when they go.
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.skipif(sys.platform != "linux", reason="counts descriptors in /proc")
def test_listen_ports_set_by_several_threads_take_turns_and_leak_no_descriptor(pair: Pair) -> None:
    before = open_descriptors()
    with ThreadPoolExecutor(4) as executor:
        turns = [executor.submit(pair.right.configure, Change(listen_port=0)) for _ in range(200)]
        for turn in turns:
            turn.result()
    assert open_descriptors() == before
    endpoint = ("127.0.0.1", pair.right.status().listen_port)
    pair.left.configure(Change(peers=(PeerChange(pair.public[1], endpoint=endpoint),)))
    pair.left.session.send([THERE])
    opener = threading.Thread(target=lambda: pair.left.session.receive(0.5))
    opener.start()
    assert received(pair.right, 1) == [THERE]
    opener.join()


@pytest.mark.skipif(sys.platform != "linux", reason="counts descriptors in /proc")
@pytest.mark.parametrize("what", ["device", "session"])
def test_a_listen_port_set_while_the_device_closes_raises_or_is_closed_too(what: str) -> None:
    before = open_descriptors()
    for _ in range(30):
        device = Device()
        closing = threading.Thread(target=(device if what == "device" else device.session).close)
        closing.start()
        with contextlib.suppress(SessionClosed):
            for _ in range(20):
                device.configure(Change(listen_port=0))
        closing.join()
        with pytest.raises(SessionClosed, match="the device is closed"):
            device.configure(Change(listen_port=0))
    assert open_descriptors() == before


def test_a_closed_device_refuses_changes_and_still_tells_its_state(pair: Pair) -> None:
    pair.right.close()
    with pytest.raises(SessionClosed, match="the device is closed"):
        pair.right.configure(Change(fwmark=7))
    assert pair.right.status().peers == ()


def test_datagrams_of_strangers_are_dropped_and_counted(pair: Pair) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        for data in (b"", b"\1" * 148, b"\4\0\0\0" + bytes(60), os.urandom(1000), b"\1\0\0\0" + bytes(144)):
            stranger.sendto(data, ("127.0.0.1", pair.right.status().listen_port))
    assert not pair.right.session.receive(0.2)
    assert pair.right.rejected == {"not a message": 2, "no keypair": 1, "wrong mac1": 1}


def test_an_endpoint_opens_from_a_file(pair: Pair, tmp_path: Path) -> None:
    key = new_key()
    file = tmp_path / "inside.conf"
    file.write_text(
        f"[Interface]\nPrivateKey = {wireguard.key_to_text(key)}\n[Peer]\nAllowedIPs = 10.0.0.2/32\n"
        f"PublicKey = {wireguard.key_to_text(pair.public[1])}\n"
        f"Endpoint = 127.0.0.1:{pair.right.status().listen_port}\n"
    )
    allowed = (ipaddress.ip_network("10.0.0.1/32"),)
    pair.right.configure(Change(peers=(PeerChange(Identity(key).public, allowed_ips=allowed),)))
    with threepipe.open_endpoint(f"wg:{file}") as endpoint:
        endpoint.send([THERE])
        opener = threading.Thread(target=lambda: endpoint.receive(0.5))
        opener.start()
        assert received(pair.right, 1) == [THERE]
        opener.join()
    file.write_text("[Interface]\nPostUp = wg set %i private-key FILE\n")
    with pytest.raises(InvalidSetting, match=r"inside.conf: \[Interface\] has no PrivateKey"):
        threepipe.open_endpoint(f"wg:{file}")
    file.write_text("[Interface]\nPrivateKey = x\n")
    with pytest.raises(InvalidSetting, match=r"inside.conf, line 2: invalid WireGuard key"):
        threepipe.open_endpoint(f"wg:{file}")


def stranger_sends(device: Device, *datagrams: bytes) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        for data in datagrams:
            stranger.sendto(data, ("127.0.0.1", device.status().listen_port))


def test_a_flood_of_invalid_datagrams_does_not_occupy_a_receive(pair: Pair) -> None:
    stranger_sends(pair.right, *[b"\1" * 148] * (MAX_BUNDLE + 5))
    assert pair.right.session.receive_packet(0) == b""
    assert sum(pair.right.rejected.values()) < MAX_BUNDLE + 5  # A close, for example, has its turn before the rest.


def test_forged_messages_are_dropped_and_counted(pair: Pair) -> None:
    pair.left.session.send([THERE])
    opener = threading.Thread(target=lambda: pair.left.session.receive(0.5))
    opener.start()
    received(pair.right, 1)
    opener.join()
    (index,) = pair.right._tunnel._peers.indices
    stranger_sends(pair.right, b"\4\0\0\0" + index.to_bytes(4, "little") + bytes(56))
    assert not pair.right.session.receive(0.2)
    assert pair.right.rejected == {"not authentic, or not new": 1}


def test_a_rejected_change_is_undone(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    before, port = pair.right.status(), _free_port()

    def refuse(self: object, fwmark: int) -> None:
        raise EndpointError(errno.EPERM, "no")

    monkeypatch.setattr(type(pair.right._port.datagrams[0]), "mark", refuse)
    with pytest.raises(EndpointError, match="no"):
        pair.right.configure(Change(listen_port=port, fwmark=7, replace_peers=True))
    assert pair.right.status() == before


class Full:
    """A socket without room until the test gives it some."""

    def __init__(self, datagrams: object) -> None:
        self._datagrams = datagrams
        self.full = True
        self.sent: list[bytes] = []

    def __getattr__(self, name: str) -> object:
        return getattr(self._datagrams, name)

    def send_run(self, memory: memoryview, size: int, target: object) -> int:
        if self.full:
            return 0
        self.sent.append(bytes(memory))
        return len(memory)


def test_messages_without_room_are_sent_later_in_order(pair: Pair) -> None:
    port = pair.left._port
    full = Full(port.datagrams[0])
    port.datagrams[0] = full  # type: ignore[call-overload]
    pair.left.configure(Change(peers=(PeerChange(pair.public[1], endpoint=("127.0.0.1", 9)),)))
    pair.left.session.send([THERE])  # An initiation finds no room.
    assert pair.left.session.send([THERE], timeout=0) == 0  # The waiting initiation is sent first.
    full.full = False
    assert pair.left.session.send([THERE]) == 1
    assert [data[0] for data in full.sent] == [1]


class Blocking(Full):
    """A socket whose system calls that send do not return until `released` is set."""

    def __init__(self, datagrams: object) -> None:
        super().__init__(datagrams)
        self.entered, self.released = threading.Event(), threading.Event()

    def send_run(self, memory: memoryview, size: int, target: object) -> int:
        self.entered.set()
        assert self.released.wait(SECONDS)
        return len(memory)


def test_a_receive_does_not_wait_for_a_send_in_another_thread(pair: Pair) -> None:
    opener = threading.Thread(target=lambda: pair.left.session.receive(0.5))
    opener.start()
    pair.left.session.send([THERE])
    received(pair.right, 1)
    opener.join()
    port = pair.left._port
    endpoint = pair.left.status().peers[0].endpoint
    assert endpoint is not None
    used, address = port._target(endpoint) or (None, None)
    assert used is not None
    blocking = Blocking(used)
    port.datagrams[port.datagrams.index(used)] = blocking  # type: ignore[call-overload]
    port._targets[endpoint] = (blocking, address)  # type: ignore[assignment]
    sender = threading.Thread(target=lambda: pair.left.session.send([THERE]))
    sender.start()
    assert blocking.entered.wait(SECONDS)
    receiver = threading.Thread(target=lambda: received(pair.left, 1))
    receiver.start()
    pair.right.session.send([BACK])
    receiver.join(SECONDS / 4)
    waited = receiver.is_alive()
    blocking.released.set()
    sender.join()
    receiver.join()
    assert not waited


def test_messages_without_room_are_sent_although_nothing_else_is() -> None:
    there = PeerChange(Identity(new_key()).public, endpoint=("127.0.0.1", 9), allowed_ips=parse_networks(["10.0.0.2"]))
    with Device(private_key=new_key(), peers=[there], timing=Timing(rekey_timeout=1000)) as device:
        full = Full(device._port.datagrams[0])
        device._port.datagrams[0] = full  # type: ignore[call-overload]
        receiving = threading.Thread(target=list, args=[device.session])
        receiving.start()
        device.session.send([THERE])  # The initiation finds no room, and is not repeated.
        full.full = False
        sent = come_true(lambda: bool(full.sent))
        device.session.close()
        receiving.join(SECONDS)
        assert sent


def test_a_flush_after_the_session_was_closed_sends_nothing(pair: Pair) -> None:
    """The device's thread may be in the middle of one."""
    port = pair.left._port
    full = Full(port.datagrams[0])
    port.datagrams[0] = full  # type: ignore[call-overload]
    pair.left.configure(Change(peers=(PeerChange(pair.public[1], endpoint=("127.0.0.1", 9)),)))
    pair.left.session.send([THERE])  # An initiation finds no room.
    pair.left.session.close()
    full.full = False
    port.flush()
    assert not full.sent


def test_a_send_that_waits_for_room_is_woken_by_a_change_of_sockets(pair: Pair) -> None:
    port = pair.left._port
    port.datagrams[0] = Full(port.datagrams[0])  # type: ignore[call-overload]
    pair.left.configure(Change(peers=(PeerChange(pair.public[1], endpoint=("127.0.0.1", 9)),)))
    pair.left.session.send([THERE])
    port.writable.watch(port.datagrams[0].socket, 0)  # The socket stays without room, whatever the system reports.
    accepted: list[int] = []
    waiting = threading.Thread(target=lambda: accepted.append(pair.left.session.send([THERE], timeout=SECONDS)))
    waiting.start()
    pair.left.configure(Change(listen_port=_free_port()))
    waiting.join(SECONDS / 2)
    assert accepted == [1]


def _free_port() -> int:
    with Device() as device:
        return device.status().listen_port


@pytest.mark.parametrize("use", [lambda session: session.receive(SECONDS), lambda session: session.send([])])
def test_an_exception_of_a_listener_reaches_the_users_of_the_session(
    use: Callable[[threepipe.Session], object],
) -> None:
    def fail(event: wireguard.Event) -> None:
        raise RuntimeError("what a program got wrong")

    with Device(on_event=fail) as device:
        device._tunnel.events.append(wireguard.Event("roamed", bytes(32)))
        device._wake_for_timer()

        def use_again_and_again() -> None:
            while True:
                use(device.session)

        with pytest.raises(RuntimeError, match="what a program got wrong"):
            use_again_and_again()


def test_an_exception_of_a_listener_ends_the_pipe_and_reaches_its_caller() -> None:
    def fail(event: wireguard.Event) -> None:
        raise RuntimeError("what a program got wrong")

    near, far = threepipe.MemoryAdapter.pair()
    with near, far, Device(on_event=fail) as device, ThreadPoolExecutor(1) as executor:
        ended = executor.submit(threepipe.pipe, near.start_session(), device.session)
        device._tunnel.events.append(wireguard.Event("roamed", bytes(32)))
        device._wake_for_timer()
        with pytest.raises(RuntimeError, match="what a program got wrong"):
            ended.result(SECONDS)
