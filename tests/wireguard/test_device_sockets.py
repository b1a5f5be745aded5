"""The sockets of a device: families, listen ports, and want of room."""

import contextlib
import errno
import gc
import os
import socket
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.device_pair import BACK, SECONDS, THERE, Pair, received
from tests.support.waiting import come_true
from tests.support.wireguard_pair import new_key
from threepipe.errors import EndpointError, SessionClosed
from threepipe.wireguard import Change, Device, PeerChange, parse_networks, sockets
from threepipe.wireguard.constants import Timing
from threepipe.wireguard.noise import Identity
from threepipe.wireguard.peer_endpoint import to_native
from threepipe.wireguard.routing import Handler


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


def test_a_native_loop_begins_only_after_the_messages_of_an_earlier_one_were_sent(pair: Pair) -> None:
    port = pair.left._port
    if port._routing is None:
        pytest.skip("there is no native core")
    full = Full(port.datagrams[0])
    port.datagrams[0] = full  # type: ignore[call-overload]
    endpoint = to_native(("127.0.0.1", 9))
    assert endpoint is not None
    handler = Handler(pair.left._tunnel, port.flush, port._keep)
    for message in (b"first", b"second"):
        handler.keep(bytearray(message), 6, endpoint, None, 0)
    offered = threading.Event()
    assert port.lend() is None
    port.offer = offered.set
    port.flush()
    assert not offered.is_set()
    full.full = False
    port.flush()
    assert offered.is_set()
    assert full.sent == [b"first", b"second"]
    end = port.lend()
    assert end is not None
    end.release()


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
