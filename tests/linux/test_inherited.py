"""Inherited descriptors: TUN devices of every sort, sockets, pipes, and descriptors that are rejected."""

import array
import fcntl
import hashlib
import os
import re
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest

import threepipe
from tests.support.kernel import Network
from threepipe.demo.stream import chunks
from threepipe.echo import echo_reply, echo_request

if sys.platform != "linux":
    pytest.skip(f"{sys.platform} has no TUN device of this sort", allow_module_level=True)

from threepipe.platforms.linux import tun
from threepipe.platforms.linux.inherited import TUNGETVNETHDRSZ

SECONDS = 10.0
SORTS = [(information, header) for information in (False, True) for header in (0, 10, 12, 20)]
"""Sorts of TUN devices: True if packets begin with `struct tun_pi`, and the bytes of the virtio header."""
HEADED = [sort for sort in SORTS if sort[1]]

ETHTOOL_GTSO = 0x1E  # <linux/ethtool.h>
SIOCETHTOOL = 0x8946  # <linux/sockios.h>

CHILD = """
import sys, threading, threepipe
left, right = (threepipe.open_endpoint(address) for address in sys.argv[1:])
def watch():
    sys.stdin.read()
    left.close()
threading.Thread(target=watch, daemon=True).start()
threepipe.pipe(left, right)
"""
"""A program that pipes two addresses until its input ends."""


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


@contextmanager
def child(*addresses: str, pass_fds: tuple[int, ...]) -> Iterator[None]:
    """Run a process that inherits these descriptors and pipes the addresses; it must end without error."""
    command = [sys.executable, "-W", "error", "-c", CHILD, *addresses]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True, pass_fds=pass_fds
    ) as process:
        try:
            yield
        finally:
            _, complaint = process.communicate(timeout=SECONDS)
    assert (process.returncode, complaint) == (0, "")


def is_open(number: int) -> bool:
    return os.path.exists(f"/proc/self/fd/{number}")


# TUN devices.


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


# Sockets and pipes.

PACKETS = [echo_request("10.1.1.1", "10.1.1.2", 7, number, bytes(number)) for number in (1, 2, 1400)]


def socket_pair(kind: socket.SocketKind) -> tuple[int, socket.socket]:
    """Return a descriptor to be inherited, and the socket at its other end."""
    one, other = socket.socketpair(socket.AF_UNIX, kind)
    other.settimeout(SECONDS)
    return one.detach(), other


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_SEQPACKET])
def test_a_datagram_socket_carries_bare_packets(kind: socket.SocketKind) -> None:
    number, other = socket_pair(kind)
    with other, child(f"fd:{number}", "echo", pass_fds=(number,)):
        os.close(number)
        for packet in PACKETS:
            other.send(packet)
            assert other.recv(1 << 16) == echo_reply(packet)


def test_a_stream_socket_carries_records() -> None:
    number, other = socket_pair(socket.SOCK_STREAM)
    with other, child(f"fd:{number}", "echo", pass_fds=(number,)):
        os.close(number)
        with other.makefile("rb") as replies:
            for packet in PACKETS:
                other.sendall(len(packet).to_bytes(2, "big") + packet)
                assert replies.read(2 + len(packet)) == len(packet).to_bytes(2, "big") + (echo_reply(packet) or b"")


def test_two_pipes_carry_records() -> None:
    reading, to_child = os.pipe()
    from_child, writing = os.pipe()
    with (
        open(to_child, "wb", 0) as requests,
        open(from_child, "rb") as replies,
        child(f"fd:{reading}:{writing}", "echo", pass_fds=(reading, writing)),
    ):
        os.close(reading)
        os.close(writing)
        for packet in PACKETS:
            requests.write(len(packet).to_bytes(2, "big") + packet)
            assert replies.read(2 + len(packet)) == len(packet).to_bytes(2, "big") + (echo_reply(packet) or b"")


def test_a_connected_udp_socket_receives_from_its_peer_only() -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as other, socket.socket(type=socket.SOCK_DGRAM) as one:
        other.bind(("127.0.0.1", 0))
        other.settimeout(SECONDS)
        one.connect(other.getsockname())
        other.connect(one.getsockname())
        with closing(threepipe.open_endpoint(f"fd:{one.detach()}")) as session:
            assert session.send(PACKETS) == 3
            assert [other.recv(1 << 16) for _ in PACKETS] == PACKETS
            other.send(PACKETS[0])
            assert list(session.receive(SECONDS)) == PACKETS[:1]


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_UNIX])
def test_an_unconnected_datagram_socket_sends_to_the_last_peer(family: socket.AddressFamily, tmp_path: Path) -> None:
    places: list[tuple[str, int] | str] = [("127.0.0.1", 0)] * 3
    if family == socket.AF_UNIX:
        places = [str(tmp_path / name) for name in "abc"]
    with ExitStack() as stack:
        one, *others = [stack.enter_context(socket.socket(family, socket.SOCK_DGRAM)) for _ in places]
        for each, place in zip((one, *others), places, strict=True):
            each.bind(place)
            each.settimeout(SECONDS)
        for other in others:
            other.connect(one.getsockname())
        session = stack.enter_context(closing(threepipe.open_endpoint(f"fd:{one.detach()}")))
        with pytest.raises(threepipe.LinkDown):
            session.send(PACKETS)
        for other in (*others, *others):
            other.send(PACKETS[0])
            assert list(session.receive(SECONDS)) == PACKETS[:1]
            assert session.send(PACKETS[1:]) == 2
            assert [other.recv(1 << 16), other.recv(1 << 16)] == PACKETS[1:]


def test_a_seqpacket_socket_ends_after_its_last_packet() -> None:
    number, other = socket_pair(socket.SOCK_SEQPACKET)
    with closing(threepipe.open_endpoint(f"fd:{number}")) as session:
        with other:
            assert not session.receive(0)
            for packet in PACKETS:
                other.send(packet)
        assert list(session.receive(SECONDS)) == PACKETS
        for _ in range(2):
            with pytest.raises(threepipe.EndpointEnded):
                session.receive(SECONDS)


def test_a_stream_socket_ends_when_the_other_end_closes() -> None:
    number, other = socket_pair(socket.SOCK_STREAM)
    with closing(threepipe.open_endpoint(f"fd:{number}")) as session:
        other.close()
        with pytest.raises(threepipe.EndpointEnded, match=f"descriptor {number} disconnected"):
            session.receive(SECONDS)


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_UNIX])
def test_a_listening_stream_serves_one_client_after_another(family: socket.AddressFamily, tmp_path: Path) -> None:
    unix = family == socket.AF_UNIX
    with socket.create_server(str(tmp_path / "socket") if unix else ("127.0.0.1", 0), family=family) as listener:
        address = f"unix:{tmp_path}/socket" if unix else f"tcp:127.0.0.1:{listener.getsockname()[1]}"
        with threepipe.open_endpoint(f"fd:{listener.detach()}") as session:
            for number in range(2):
                with threepipe.open_endpoint(address) as client:
                    sent = echo_request("10.6.7.1", "10.6.7.2", 1, number, b"hello")
                    client.send([sent])
                    with session.receive(SECONDS) as bundle:
                        assert list(map(bytes, bundle)) == [sent]


@pytest.mark.parametrize("blocking", [True, False])
@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_SEQPACKET, socket.SOCK_STREAM])
def test_close_restores_the_blocking_mode_of_a_shared_descriptor(kind: socket.SocketKind, blocking: bool) -> None:
    number, other = socket_pair(kind)
    kept = os.dup(number)
    os.set_blocking(kept, blocking)
    os.set_inheritable(number, True)
    try:
        with other, closing(threepipe.open_endpoint(f"fd:{number}")):
            assert not os.get_blocking(kept)
            assert not os.get_inheritable(number)
        assert not is_open(number)
        assert os.get_blocking(kept) == blocking
    finally:
        os.close(kept)


# Descriptors that are rejected.


def a_file(stack: ExitStack) -> int:
    return stack.enter_context(open(__file__)).fileno()


def a_folder(stack: ExitStack) -> int:
    number = os.open("/", os.O_RDONLY)
    stack.callback(os.close, number)
    return number


def a_device(stack: ExitStack) -> int:
    return stack.enter_context(open("/dev/null")).fileno()


def a_terminal(stack: ExitStack) -> int:
    numbers = os.openpty()
    for number in numbers:
        stack.callback(os.close, number)
    return numbers[1]


def a_pipe(stack: ExitStack) -> int:
    numbers = os.pipe()
    for number in numbers:
        stack.callback(os.close, number)
    return numbers[0]


def an_epoll(stack: ExitStack) -> int:
    import select

    return stack.enter_context(select.epoll()).fileno()


def a_listener(stack: ExitStack) -> int:
    listener = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
    listener.bind("")  # The kernel chooses an abstract name.
    listener.listen()
    return listener.fileno()


def a_lonely_stream(stack: ExitStack) -> int:
    return stack.enter_context(socket.socket()).fileno()


def a_netlink_socket(stack: ExitStack) -> int:
    return stack.enter_context(socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM)).fileno()


REFUSED: list[tuple[Callable[[ExitStack], int], str]] = [
    (a_file, "is a file"),
    (a_folder, "is a directory"),
    (a_device, "is a device other than a TUN device"),
    (a_terminal, "is a device other than a TUN device"),
    (a_pipe, "is one end of a pipe, which goes one way"),
    (an_epoll, "is of an unknown type"),
    (a_listener, "is an unsupported or unconnected socket"),
    (a_lonely_stream, "is an unsupported or unconnected socket"),
    (a_netlink_socket, "is an unsupported or unconnected socket"),
]


@pytest.mark.parametrize(("make", "text"), REFUSED, ids=[make.__name__ for make, _ in REFUSED])
def test_a_descriptor_without_packets_raises_and_is_unchanged(make: Callable[[ExitStack], int], text: str) -> None:
    with ExitStack() as stack:
        number = make(stack)
        os.set_inheritable(number, True)
        blocking = os.get_blocking(number)
        with pytest.raises(threepipe.InvalidSetting, match=f"descriptor {number} {text}.*; fd supports a TUN device"):
            threepipe.open_endpoint(f"fd:{number}")
        assert os.get_inheritable(number)
        assert os.get_blocking(number) == blocking


def test_pipes_in_the_wrong_order_raise_and_are_unchanged() -> None:
    with ExitStack() as stack:
        numbers = [*os.pipe(), *os.pipe()]
        for number in numbers:
            stack.callback(os.close, number)
        reading, _, _, writing = numbers
        with pytest.raises(threepipe.InvalidSetting, match=f"did you mean fd:{reading}:{writing}"):
            threepipe.open_endpoint(f"fd:{writing}:{reading}")
        with pytest.raises(threepipe.InvalidSetting, match=f"write fd:{reading} if it goes both ways"):
            threepipe.open_endpoint(f"fd:{reading}:{reading}")
        with pytest.raises(threepipe.InvalidSetting, match="is a file"):
            threepipe.open_endpoint(f"fd:{reading}:{a_file(stack)}")
        assert all(map(os.get_blocking, numbers))


@pytest.mark.parametrize("numbers", ["999999", "999999:0", "0:999999"])
def test_a_descriptor_that_is_not_open_raises(numbers: str) -> None:
    with pytest.raises(threepipe.InvalidSetting, match=r"descriptor 999999: .*must leave it open"):
        threepipe.open_endpoint(f"fd:{numbers}")


@pytest.mark.parametrize("place", ["x", "-1", "3:", ":3", "3:4:5", "0x3", "\u0663", "9" * 10, "9" * 5000])
def test_a_descriptor_that_is_not_a_number_raises(place: str) -> None:
    with pytest.raises(threepipe.InvalidSetting, match="is not a descriptor number; write fd:3"):
        threepipe.open_endpoint(f"fd:{place}")
