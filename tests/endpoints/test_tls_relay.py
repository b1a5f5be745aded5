"""TlsRelay: the bytes of a TLS connection on a plain socket, its ends and its errors."""

import select
import socket
import ssl
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from tests.support.endpoints import SECONDS, Place, posix
from tests.support.waiting import come_true
from threepipe.endpoints import tls_relay
from threepipe.endpoints.credentials import Credentials
from threepipe.endpoints.tls_relay import TlsRelay
from threepipe.endpoints.tls_stream import TlsStream

pytestmark = posix

DATA = bytes(range(256)) * (1 << 12)  # 1 MiB: more than sockets hold.


class Related:
    """A relay, the socket of its TLS connection, and the program at the connection's other end."""

    def __init__(self, stack: ExitStack, place: Place) -> None:
        files = [str(place.folder / name) for name in ("server.pem", "server.key", "ca.pem")]
        context = Credentials(*files).context(server=True)
        with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(1) as executor:
            bare = socket.create_connection(server.getsockname(), SECONDS)
            accepted, _ = server.accept()
            accepted.settimeout(SECONDS)
            secured = executor.submit(context.wrap_socket, accepted, True, suppress_ragged_eofs=False)
            self.other = stack.enter_context(place.secure(bare, "client"))
            self.socket = secured.result()
        self.secured = TlsStream(self.socket)
        self.relay = TlsRelay(self.secured)
        stack.callback(self.relay.close)

    def receive(self, size: int = len(DATA)) -> bytes:
        """Read that many bytes of the relay, or all until its end."""
        data, memory = b"", memoryview(bytearray(1 << 16))
        while len(data) < size:
            assert select.select([self.relay.reader], [], [], SECONDS)[0]
            if not (count := self.relay.read(memory)):
                break
            data += memory[:count]
        return data

    def send(self, data: bytes) -> None:
        """Write all of `data` to the relay."""
        rest = memoryview(data)
        while rest:
            assert select.select([], [self.relay.writer], [], SECONDS)[1]
            rest = rest[self.relay.write(rest) :]

    def other_receives(self) -> bytes:
        """Read at the other end until the connection is closed."""
        data = b""
        while more := self.other.recv(1 << 16):
            data += more
        return data


@pytest.fixture
def related(stack: ExitStack, secure: Place) -> Related:
    return Related(stack, secure)


def test_bytes_pass_both_ways_and_close_sends_the_last(related: Related) -> None:
    with ThreadPoolExecutor(3) as executor:
        executor.submit(related.other.sendall, DATA)
        assert related.receive() == DATA
        arriving = executor.submit(related.other_receives)
        related.send(DATA)
        related.relay.close()
        assert arriving.result() == DATA


def test_the_other_ends_orderly_end_comes_after_its_bytes(related: Related) -> None:
    related.other.sendall(b"last")
    related.other.setblocking(False)
    with pytest.raises(ssl.SSLWantReadError):  # It has told its end, and would wait for the answer.
        related.other.unwrap()
    assert related.receive() == b"last"
    related.send(b"into the void")
    assert related.receive() == b""


def test_reading_waits_while_the_thread_moves_the_end(related: Related, monkeypatch: pytest.MonkeyPatch) -> None:
    reading, go_on = threading.Event(), threading.Event()
    read = related.secured.read

    def slow_read(memory: memoryview) -> int | None:
        reading.set()
        go_on.wait(SECONDS)
        return read(memory)

    related.other.sendall(b"x")
    assert related.receive(1) == b"x"
    monkeypatch.setattr(related.secured, "read", slow_read)
    related.other.close()
    assert reading.wait(SECONDS)
    threading.Timer(0.05, go_on.set).start()
    assert related.relay.read(memoryview(bytearray(10))) == 0


def test_bytes_that_are_not_tls_end_the_stream_with_the_error(related: Related) -> None:
    with socket.socket(fileno=related.other.detach()) as bare:
        bare.sendall(b"GET / HTTP/1.1\r\n\r\n")
        with pytest.raises(ssl.SSLError, match=r"(?i)wrong.version.number"):
            related.receive()


def test_a_connection_that_takes_no_more_bytes_ends_the_stream_with_the_error(related: Related) -> None:
    related.other.sendall(b"first")
    assert related.receive(5) == b"first"
    with socket.socket(fileno=socket.dup(related.socket.fileno())) as bare:
        bare.shutdown(socket.SHUT_WR)
    related.other.sendall(b"second")
    related.send(b"lost")
    assert related.receive(6) == b"second"
    with pytest.raises((BrokenPipeError, ssl.SSLEOFError)):
        related.receive()
    related.send(b"discarded")


def test_close_gives_up_on_an_other_end_that_does_not_read(related: Related, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls_relay, "_GRACE", 0.01)
    while related.relay.write(memoryview(DATA)):
        select.select([], [related.relay.writer], [], 0.1)
    related.relay.close()
    assert related.socket.fileno() == -1


def test_close_while_bytes_arrive_ends_the_connection(related: Related) -> None:
    with ThreadPoolExecutor(1) as executor:
        sending = executor.submit(related.other.sendall, DATA * 8)
        assert related.receive(1)
        related.relay.close()
        assert isinstance(sending.exception(SECONDS), OSError)
    assert related.socket.fileno() == -1


def test_an_error_in_the_thread_reaches_the_reader(related: Related, monkeypatch: pytest.MonkeyPatch) -> None:
    def pending() -> bool:
        raise ZeroDivisionError

    monkeypatch.setattr(related.secured, "pending", pending)
    related.other.sendall(b"x")
    assert come_true(lambda: related.socket.fileno() == -1)
    with pytest.raises(ZeroDivisionError):
        related.receive(2)
