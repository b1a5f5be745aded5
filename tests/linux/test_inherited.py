"""Inherited descriptors of TUN devices of every sort. test_inherited_sockets.py has all other descriptors."""

import array
import fcntl
import hashlib
import os
import re
import socket
import struct
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack, closing

import pytest

import threepipe
from tests.support.inherited import PACKETS, child, is_open
from tests.support.kernel import Network
from threepipe.demo.stream import chunks
from threepipe.echo import echo_request

if sys.platform != "linux":
    pytest.skip(f"{sys.platform} has no TUN device of this sort", allow_module_level=True)

from threepipe import platforms
from threepipe.adapter import Adapter, adopt, claim, give_away, share
from threepipe.platforms.linux import tun
from threepipe.platforms.linux.inherited import TUNGETVNETHDRSZ

SECONDS = 10.0
SORTS = [(information, header) for information in (False, True) for header in (0, 10, 12, 20)]
"""Sorts of TUN devices: True if packets begin with `struct tun_pi`, and the bytes of the virtio header."""
HEADED = [sort for sort in SORTS if sort[1]]

ETHTOOL_GTSO = 0x1E  # <linux/ethtool.h>
SIOCETHTOOL = 0x8946  # <linux/sockios.h>


def tun_descriptor(network: Network, information: bool, header: int, kind: int = tun.IFF_TUN) -> int:
    """Return a blocking descriptor of a new interface tp0, which is up and has addresses."""

    def make() -> int:
        number = os.open(tun.TUN_PATH, os.O_RDWR)
        flags = kind | (0 if information else tun.IFF_NO_PI) | (tun.IFF_VNET_HDR if header else 0)
        fcntl.ioctl(number, tun.TUNSETIFF, tun.IFREQ.pack(b"tp0", flags))
        if header:
            fcntl.ioctl(number, tun.TUNSETVNETHDRSZ, struct.pack("i", header))
        return number

    number = network.namespace.run(make)
    network.run("ip", "link", "set", "tp0", "up")
    return number


def addressed(network: Network, host: int) -> None:
    network.run("ip", "address", "add", f"10.77.1.{host}/24", "dev", "tp0")
    network.run("ip", "address", "add", f"fd77:1::{host}/64", "dev", "tp0", "nodad")


def state(number: int) -> tuple[bytes, bytes]:
    """Return the state set by the maker: name, flags, and the size of the virtio header."""
    return (
        bytes(fcntl.ioctl(number, tun.TUNGETIFF, bytes(tun.IFREQ.size))),
        bytes(fcntl.ioctl(number, TUNGETVNETHDRSZ, bytes(4))),
    )


def takes_superpackets(network: Network) -> bool:
    """Return True if the kernel sends tp0 superpackets of TCP."""
    value = array.array("I", [ETHTOOL_GTSO, 0])
    request = struct.pack("16sP16x", b"tp0", value.buffer_info()[0])
    with network.namespace.run(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as any_socket:
        fcntl.ioctl(any_socket, SIOCETHTOOL, request)
    return bool(value[1])


@pytest.mark.kernel
@pytest.mark.parametrize(("information", "header"), SORTS)
def test_a_child_pipes_an_inherited_tun_device(network: Network, information: bool, header: int) -> None:
    number = tun_descriptor(network, information, header)
    try:
        addressed(network, 1)
        before = state(number)
        with child(f"fd:{number}", "echo", pass_fds=(number,)):
            for family, target in (("-4", "10.77.1.9"), ("-6", "fd77:1::9")):
                network.run("ping", family, "-c3", "-i0.01", "-W10", "-s1300", target)
        assert state(number) == before
        assert os.get_blocking(number)
        assert network.run("ip", "-br", "link", "show", "tp0").split()[1] in ("UP", "UNKNOWN")
        assert not takes_superpackets(network)
    finally:
        os.close(number)


@pytest.mark.kernel
@pytest.mark.parametrize("sorts", [*((sort, sort) for sort in HEADED), (SORTS[0], SORTS[7]), (SORTS[1], SORTS[4])])
def test_streams_between_two_sorts_of_tun_devices_pass_in_superpackets(
    sorts: tuple[tuple[bool, int], tuple[bool, int]],
) -> None:
    with ExitStack() as stack:
        networks = [Network() for _ in sorts]
        for network in networks:
            stack.callback(network.namespace.close)
        ends = []
        for host, (network, sort) in enumerate(zip(networks, sorts, strict=True), 1):
            number = tun_descriptor(network, *sort)
            addressed(network, host)
            ends.append(stack.enter_context(closing(threepipe.open_endpoint(f"fd:{number}"))))
            assert takes_superpackets(network) == bool(sort[1])
        pumping = threading.Thread(target=threepipe.pipe, args=ends)
        pumping.start()
        stack.callback(pumping.join)
        stack.callback(ends[0].close)
        for prefix in ("10.77.1.", "fd77:1::"):
            assert sent_by_tcp(networks, prefix) == hash_of_chunks()
        for network in networks:
            assert not re.findall(r"^\S*(?:Csum|Hdr)\S*Err\S*\s+[1-9]", network.run("nstat", "-az"), re.M)


SIZE = 2 << 20


def hash_of_chunks() -> bytes:
    digest = hashlib.sha256()
    for chunk in chunks(SIZE):
        digest.update(chunk)
    return digest.digest()


def sent_by_tcp(networks: list[Network], prefix: str) -> bytes:
    """Send a stream of the kernel's TCP from the first network to the second; return the hash of the received bytes."""
    family = socket.AF_INET6 if ":" in prefix else socket.AF_INET
    listener = networks[1].namespace.run(lambda: socket.create_server((f"{prefix}2", 0), family=family))
    sender = networks[0].namespace.run(lambda: socket.socket(family))
    with listener, sender:
        for each in (listener, sender):
            each.settimeout(SECONDS)
        sender.connect(listener.getsockname()[:2])
        receiver, _ = listener.accept()

        def send() -> None:
            for chunk in chunks(SIZE):
                sender.sendall(chunk)
            sender.shutdown(socket.SHUT_WR)

        thread = threading.Thread(target=send)
        thread.start()
        with receiver:
            receiver.settimeout(SECONDS)
            digest = hashlib.sha256()
            while data := receiver.recv(1 << 16):
                digest.update(data)
        thread.join()
    return digest.digest()


@pytest.mark.kernel
@pytest.mark.parametrize(("information", "header"), SORTS)
def test_close_leaves_the_interface_as_it_was(network: Network, information: bool, header: int) -> None:
    number = tun_descriptor(network, information, header)
    kept = os.dup(number)
    try:
        os.set_inheritable(number, True)
        before = state(kept)
        with closing(threepipe.open_endpoint(f"fd:{number}")) as session:
            assert not os.get_inheritable(number)
            session.send([echo_request("10.77.1.9", "10.77.1.1", 1, 1)])
            session.receive(0)
            assert state(kept) == before
        assert not is_open(number)
        assert os.get_blocking(kept)
        assert state(kept) == before
        assert not takes_superpackets(network)
    finally:
        os.close(kept)


@pytest.mark.kernel
@pytest.mark.parametrize(("information", "header"), SORTS)
def test_an_adopted_interface_of_another_program_stays_as_it_is_until_it_is_claimed(
    network: Network, information: bool, header: int
) -> None:
    number = tun_descriptor(network, information, header)
    kept = os.dup(number)
    try:
        before = state(kept)
        device = platforms.inherit(number)
        assert device is not None
        with Adapter(device) as old, old.start_session():
            on = takes_superpackets(network)
            assert on is bool(header)
            for is_claimed in (False, True):
                shared = share(old)
                with adopt(shared._replace(descriptors=[os.dup(each) for each in shared.descriptors])) as new:
                    with new.start_session() as session:
                        session.send([echo_request("10.77.1.9", "10.77.1.1", 1, 1)])
                        if is_claimed:
                            give_away(old)
                            claim(new)
                    assert takes_superpackets(network) is (on and not is_claimed)
        assert state(kept) == before
        assert not is_open(number)
    finally:
        os.close(kept)


@pytest.mark.kernel
@pytest.mark.parametrize(("information", "header"), SORTS)
def test_an_interface_that_is_set_down_or_removed_raises(network: Network, information: bool, header: int) -> None:
    number = tun_descriptor(network, information, header)
    with closing(threepipe.open_endpoint(f"fd:{number}")) as session:
        packet = echo_request("10.77.1.9", "10.77.1.1", 1, 1)
        network.run("ip", "link", "set", "tp0", "down")
        with pytest.raises(threepipe.LinkDown, match="tp0 was set down"):
            session.send([packet])
        network.run("ip", "link", "set", "tp0", "up")
        assert session.send([packet]) == 1
        network.run("ip", "link", "delete", "tp0")
        with pytest.raises(threepipe.AdapterGone, match="tp0 was removed"):
            session.send([packet])
        with pytest.raises(threepipe.AdapterGone, match="tp0 was removed"):
            session.receive(SECONDS)


@pytest.mark.kernel
@pytest.mark.parametrize(("information", "header"), SORTS)
def test_an_interface_that_is_down_is_accepted_and_may_come_up(
    network: Network, information: bool, header: int
) -> None:
    number = tun_descriptor(network, information, header)
    network.run("ip", "link", "set", "tp0", "down")
    with closing(threepipe.open_endpoint(f"fd:{number}")) as session:
        with pytest.raises(threepipe.LinkDown):
            session.send([PACKETS[0]])
        network.run("ip", "link", "set", "tp0", "up")
        addressed(network, 1)
        assert session.send([echo_request("10.77.1.9", "10.77.1.1", 1, 1, b"anybody there?")]) == 1
        assert b"anybody there?" in awaited(session, lambda packet: packet[0] == 0x45)


def awaited(session: threepipe.Endpoint, wanted: Callable[[memoryview], bool]) -> bytes:
    """Receive until a packet is the wanted one, and return it."""
    while bundle := session.receive(SECONDS):
        for packet in bundle:
            if wanted(packet):
                return bytes(packet)
    raise AssertionError("it did not come")


@pytest.mark.kernel
@pytest.mark.parametrize("header", [0, 10, 12])
def test_a_tap_device_raises_and_is_unchanged(network: Network, header: int) -> None:
    number = tun_descriptor(network, False, header, 2)  # IFF_TAP
    try:
        with pytest.raises(threepipe.InvalidSetting, match="tp0, a TAP device, which carries Ethernet"):
            threepipe.open_endpoint(f"fd:{number}")
        assert os.get_blocking(number)
    finally:
        os.close(number)


@pytest.mark.kernel
def test_a_tun_descriptor_without_an_interface_raises() -> None:
    number = os.open(tun.TUN_PATH, os.O_RDWR)
    try:
        with pytest.raises(threepipe.InvalidSetting, match="has no interface"):
            threepipe.open_endpoint(f"fd:{number}")
    finally:
        os.close(number)


@pytest.mark.kernel
def test_a_virtio_header_of_an_unsupported_size_raises(network: Network) -> None:
    number = tun_descriptor(network, False, 1 << 20)
    try:
        with pytest.raises(threepipe.InvalidSetting, match="1048576 bytes; set it to 10 or 12"):
            threepipe.open_endpoint(f"fd:{number}")
    finally:
        os.close(number)
