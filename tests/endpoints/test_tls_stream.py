"""TlsStream: bytes, ends and errors that arrive together, and bytes without room."""

import select
import socket
import ssl
import struct
from contextlib import ExitStack

import pytest

from tests.support.endpoints import SECONDS, Place, posix
from threepipe.endpoints.credentials import Credentials
from threepipe.endpoints.tls_stream import TlsStream

pytestmark = posix

DATA = bytes(range(256)) * (1 << 14)  # 4 MiB: more than sockets hold.
RESET = struct.pack("ii", 1, 0)
"""SO_LINGER, so that closing resets the connection."""


def pair() -> tuple[socket.socket, socket.socket]:
    """Return a socket that has connected, and the one that was accepted for it."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        caller = socket.create_connection(server.getsockname(), SECONDS)
        accepted, _ = server.accept()
    return caller, accepted


def credentials(place: Place, side: str) -> Credentials:
    return Credentials(*(str(place.folder / name) for name in (f"{side}.pem", f"{side}.key", "ca.pem")))


class Connected:
    """Both ends of a TLS connection, and their sockets."""

    def __init__(self, stack: ExitStack, place: Place) -> None:
        self.sockets = caller, accepted = pair()
        context = credentials(place, "client").context(server=False)
        self.caller = TlsStream(caller, context, lambda _: None, place.host)
        self.listener = TlsStream(accepted, credentials(place, "server").context(server=True), lambda _: None)
        for end, stream in zip(self.sockets, (self.caller, self.listener), strict=True):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            stack.callback(stream.close)
        while not (self.caller.handshake() & self.listener.handshake()):
            select.select(self.sockets, [], [], SECONDS)

    def send_bare(self, data: bytes) -> None:
        """Send bytes that are not TLS's in the caller's place."""
        assert self.sockets[0].send(data) == len(data)


def arrived(stream: TlsStream) -> bool:
    return bool(select.select([stream.reader], [], [], SECONDS)[0])


def receive(stream: TlsStream, size: int, at_once: int = 1 << 18) -> bytes:
    """Read that many bytes, or all until the end."""
    data, memory = b"", memoryview(bytearray(at_once))
    while len(data) < size:
        if (count := stream.read(memory)) is None:
            assert arrived(stream)
        elif count:
            data += memory[:count]
        else:
            break
    return data


def test_a_failed_handshake_tells_its_reason_though_the_other_end_is_gone(stack: ExitStack, secure: Place) -> None:
    caller, accepted = pair()
    with caller:
        caller.sendall(b"\x16\x03\x01\x00\x05hello")  # A handshake message of a wrong type.
        caller.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    listener = TlsStream(accepted, credentials(secure, "server").context(server=True), lambda _: None)
    stack.callback(listener.close)
    with pytest.raises(ssl.SSLError, match=r"(?i)unexpected.message"):  # Not that the alert cannot be sent.
        listener.handshake()


@pytest.fixture
def connected(stack: ExitStack, secure: Place) -> Connected:
    return Connected(stack, secure)


def test_bytes_without_room_are_written_later(connected: Connected) -> None:
    caller, listener = connected.caller, connected.listener
    assert caller.write(memoryview(DATA)) == len(DATA)
    assert not caller.flush()
    assert caller.write(memoryview(b"more")) == 0
    data = b""
    while not caller.flush():
        data += receive(listener, 1)
    assert caller.write(memoryview(b"more")) == 4
    assert data + receive(listener, len(DATA) + 4 - len(data)) == DATA + b"more"


def test_one_read_takes_all_records_that_one_recv_brings(connected: Connected) -> None:
    for _ in range(10):
        assert connected.caller.write(memoryview(DATA[:1000])) == 1000
    memory = memoryview(bytearray(1 << 18))
    assert arrived(connected.listener)
    assert connected.listener.read(memory) == 10_000
    assert not connected.listener.pending()
    assert connected.listener.read(memory) is None


def test_a_small_memory_leaves_bytes_pending(connected: Connected) -> None:
    connected.caller.write(memoryview(DATA[:40_000]))
    memory = memoryview(bytearray(100))
    assert arrived(connected.listener)
    assert connected.listener.read(memory) == 100
    assert connected.listener.pending()
    assert receive(connected.listener, 39_900, 100) == DATA[100:40_000]


def test_an_end_that_arrives_with_bytes_is_read_after_them(connected: Connected) -> None:
    connected.caller.write(memoryview(b"last"))
    with pytest.raises(ssl.SSLWantReadError):  # The other end stays connected, and waits for the answer.
        connected.caller._secured.unwrap()
    assert connected.caller.flush()
    assert receive(connected.listener, 4) == b"last"
    for _ in range(2):
        assert arrived(connected.listener)
        assert receive(connected.listener, 1) == b""


def test_a_fault_that_arrives_with_bytes_is_raised_after_them(connected: Connected) -> None:
    connected.caller.write(memoryview(b"last"))
    connected.send_bare(b"GET / HTTP/1.1\r\n\r\n")
    assert receive(connected.listener, 4) == b"last"
    for _ in range(2):
        assert arrived(connected.listener)
        with pytest.raises(ssl.SSLError, match=r"(?i)wrong.version.number"):
            receive(connected.listener, 1)


def test_closing_is_told_to_the_other_end_though_bytes_of_it_are_unread(connected: Connected) -> None:
    connected.caller.write(memoryview(DATA[:40_000]))
    assert arrived(connected.listener)
    assert connected.listener.read(memoryview(bytearray(100))) == 100
    connected.listener.close()
    assert arrived(connected.caller)
    assert connected.caller.read(memoryview(bytearray(100))) == 0  # A cut would be noticed only by the next read.


def test_bytes_that_are_not_tls_are_an_error(connected: Connected) -> None:
    connected.send_bare(b"GET / HTTP/1.1\r\n\r\n")
    assert arrived(connected.listener)
    with pytest.raises(ssl.SSLError, match=r"(?i)wrong.version.number"):
        receive(connected.listener, 1)


def test_a_cut_is_an_end(connected: Connected) -> None:
    connected.caller.write(memoryview(b"last"))
    connected.sockets[0].shutdown(socket.SHUT_WR)
    assert receive(connected.listener, 5) == b"last"


@pytest.mark.parametrize("sent", [b"", b"x"])
def test_a_reset_is_an_end_after_bytes_and_a_refusal_before(connected: Connected, sent: bytes) -> None:
    connected.caller.write(memoryview(sent))
    assert receive(connected.listener, len(sent)) == sent
    connected.sockets[0].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    connected.sockets[0].close()
    if sent:
        assert receive(connected.listener, 1) == b""
    else:
        with pytest.raises(ConnectionResetError, match="the other end does not accept this one"):
            receive(connected.listener, 1)
