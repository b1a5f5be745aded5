"""Adapters whose descriptor is given away: the forms of packets, and the life of the interface."""

import errno
import os
import socket
import subprocess
import sys
from contextlib import closing
from typing import Any

import pytest

import threepipe
from tests.support.kernel import Network, links, udp_socket
from threepipe.echo import echo_reply

if sys.platform != "linux":
    pytest.skip(f"{sys.platform} has no descriptors of adapters", allow_module_level=True)

pytestmark = pytest.mark.kernel

FORMS: dict[str, tuple[dict[str, Any], bytes]] = {
    "bare": ({"offload": False}, b""),
    "virtio": ({"offload": True}, bytes(10)),
    "information": ({"packet_information": True}, b"\0\0\x08\x00"),
}
"""Settings of an adapter, and the bytes before an IPv4 packet from it."""


def datagram_behind(number: int, front: bytes) -> bytes:
    """Return the first UDP packet over IPv4 from a descriptor, which has `front` before each one."""
    while True:
        record = os.read(number, 1 << 16)
        packet = record[len(front) :]
        if packet[:1] == b"\x45" and packet[9] == socket.IPPROTO_UDP:
            assert record.startswith(front)
            return packet


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("persistent", [False, True])
def test_a_descriptor_has_packets_in_the_form_of_the_settings(network: Network, form: str, persistent: bool) -> None:
    settings, front = FORMS[form]
    adapter = threepipe.Adapter.create(
        "tp0", netns=network.path, addresses=["10.6.7.1/24"], persistent=persistent, **settings
    )
    number = adapter.detach()
    try:
        assert (os.get_inheritable(number), os.get_blocking(number)) == (False, True)
        with closing(udp_socket(network, "10.6.7.1")) as program:
            program.sendto(b"hello", ("10.6.7.2", 5000))
            request = datagram_behind(number, front)
            assert request.endswith(b"hello")
            swapped = request[:12] + request[16:20] + request[12:16] + request[22:24] + request[20:22] + request[24:]
            os.write(number, front + swapped)
            assert program.recv(100) == b"hello"
        with pytest.raises(threepipe.AdapterClosed):
            _ = adapter.mtu
    finally:
        os.close(number)
    assert links(network) == ({"tp0"} if persistent else set())


def test_no_superpacket_comes_before_the_reader_allows_it(network: Network) -> None:
    adapter = threepipe.Adapter.create("tp0", netns=network.path, addresses=["10.6.7.1/24"])
    number = adapter.detach()
    try:
        features = network.run("ip", "-d", "link", "show", "tp0")
        assert "vnet_hdr on" in features
        with closing(udp_socket(network, "10.6.7.1")) as program:
            program.setsockopt(socket.IPPROTO_UDP, 103, 1000)  # UDP_SEGMENT: one superpacket of five.
            program.sendto(bytes(5000), ("10.6.7.2", 5000))
            assert len(datagram_behind(number, bytes(10))) == 1028
    finally:
        os.close(number)


def test_the_interface_goes_with_the_program_that_inherits_it(network: Network) -> None:
    number = threepipe.Adapter.create("tp0", netns=network.path, offload=False).detach()
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, pass_fds=[number]) as program:
        os.close(number)
        assert "LOWER_UP" in network.run("ip", "link", "show", "tp0")
        program.kill()
    assert links(network) == set()


def test_an_endpoint_takes_a_descriptor_that_was_given_away(network: Network) -> None:
    number = threepipe.Adapter.create("tp0", netns=network.path, addresses=["10.6.7.1/24"]).detach()
    with threepipe.open_endpoint(f"fd:{number}") as endpoint:
        with subprocess.Popen(network.command("ping", "-c", "1", "-w", "20", "10.6.7.9")) as ping:
            while ping.poll() is None:
                for packet in endpoint.receive(0.1):
                    if reply := echo_reply(packet):
                        endpoint.send([reply])
        assert ping.returncode == 0
    assert links(network) == set()


def test_an_adapter_in_use_cannot_be_given_away(network: Network) -> None:
    with threepipe.Adapter.create("tp0", netns=network.path) as adapter:
        session = adapter.start_session()
        with pytest.raises(threepipe.SessionExists):
            adapter.detach()
        session.close()
        os.close(adapter.detach())
    assert links(network) == set()


def test_an_adapter_with_several_queues_cannot_be_given_away(network: Network) -> None:
    with threepipe.Adapter.create("tp0", netns=network.path, queues=2) as adapter:
        with pytest.raises(threepipe.InvalidSetting, match=r"tp0 has several queues.*leave out queues"):
            adapter.detach()
        adapter.start_session().close()


def test_a_removed_adapter_cannot_be_given_away(network: Network) -> None:
    with threepipe.Adapter.create("tp0", netns=network.path) as adapter:
        network.run("ip", "link", "del", "tp0")
        with pytest.raises(threepipe.AdapterGone) as caught:
            adapter.detach()
        assert caught.value.errno in (errno.ENODEV, errno.EBADFD)


def test_an_adapter_with_packet_information_has_ordinary_sessions(network: Network) -> None:
    settings = {"netns": network.path, "addresses": ["10.6.7.1/24", "fd67::1/64"], "packet_information": True}
    with (
        threepipe.Adapter.create("tp0", **settings) as adapter,  # type: ignore[arg-type]
        adapter.start_session() as session,
        subprocess.Popen(network.command("ping", "-c", "1", "-w", "20", "fd67::9")) as ping,
    ):
        while ping.poll() is None:
            for packet in session.receive(0.1):
                assert packet[0] >> 4 in (4, 6)
                if reply := echo_reply(packet):
                    session.send([reply])
    assert ping.returncode == 0
