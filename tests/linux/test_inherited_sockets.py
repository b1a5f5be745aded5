"""Inherited sockets and pipes as ends of a pipe, and the refusal of descriptors without packets."""

import os
import socket
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

import threepipe
from tests.support.inherited import PACKETS, child, is_open
from threepipe.echo import echo_reply, echo_request

SECONDS = 10.0


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
