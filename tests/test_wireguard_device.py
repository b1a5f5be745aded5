"""Devices of one process, whose packets are the test's own: no adapter and no privilege; sockets on loopback."""

import asyncio
import errno
import ipaddress
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import threepipe
from threepipe import wireguard
from threepipe.echo import echo_reply, echo_request
from threepipe.errors import EndpointError, InvalidSetting, SessionClosed
from threepipe.wireguard import Change, Device, PeerChange, parse_networks
from threepipe.wireguard.noise import Identity
from wireguard_pair import new_key, packet

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
    """The right end receives, which is what has handshakes answered, until it is closed."""
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


def test_asyncio_has_the_same(pair: Pair) -> None:
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


def test_closing_wakes_who_waits_and_ends_all(pair: Pair) -> None:
    waiting = threading.Thread(target=answering, args=(pair,))
    waiting.start()
    pair.right.close()
    waiting.join(SECONDS)
    assert not waiting.is_alive()
    pair.right.close()
    assert pair.right.status().peers == ()
    with pytest.raises(SessionClosed):
        pair.right.session.send([BACK])


def test_closing_the_session_closes_the_device(pair: Pair) -> None:
    pair.left.session.close()
    assert pair.left.status().peers == ()


def test_the_port_can_be_changed_while_it_runs(pair: Pair) -> None:
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


def test_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(InvalidSetting, match="listen port 65536: give 0 to 65535"):
        Device(listen_port=65536)


def test_datagrams_of_strangers_are_counted_and_dropped(pair: Pair) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        for data in (b"", b"\1" * 148, b"\4\0\0\0" + bytes(60), os.urandom(1000), b"\1\0\0\0" + bytes(144)):
            stranger.sendto(data, ("127.0.0.1", pair.right.status().listen_port))
    assert not pair.right.session.receive(0.2)
    assert pair.right.rejected == {"no message": 2, "no keypair": 1, "wrong mac1": 1}


def test_a_file_makes_an_endpoint(pair: Pair, tmp_path: Path) -> None:
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
    file.write_text("[Interface]\nPrivateKey = x\n")
    with pytest.raises(InvalidSetting, match=r"inside.conf, line 2: a key is 44 characters"):
        threepipe.open_endpoint(f"wg:{file}")
