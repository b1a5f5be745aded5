"""Devices in one process, with packets of the test and sockets on loopback: no adapter and no privilege."""

import asyncio
import contextlib
import ipaddress
import os
import socket
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import threepipe
from tests.support.device_pair import BACK, SECONDS, THERE, Pair, received
from tests.support.waiting import come_true
from tests.support.wireguard_pair import new_key, packet
from threepipe import wireguard
from threepipe.core.descriptor import MAX_BUNDLE
from threepipe.echo import echo_reply, echo_request
from threepipe.errors import InvalidSetting, SessionClosed
from threepipe.wireguard import Change, Device, PeerChange
from threepipe.wireguard.noise import Identity
from threepipe.wireguard.tunnel import Tunnel


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
