"""Pipes over TLS: the native loop does what Python's does, with the same counts and ends."""

import socket
import ssl
import struct
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import NamedTuple

import pytest

from tests.support.endpoints import SECONDS, Place, gone, opened, packet, record
from tests.support.stream_pipes import Piped, answered, take
from tests.support.waiting import come_true
from threepipe.endpoints.connection import Connection
from threepipe.pump import interrupt

if sys.platform == "win32":
    pytest.skip("Windows has no such descriptors", allow_module_level=True)

pytestmark = pytest.mark.usefixtures("loop")


class Secured(NamedTuple):
    """A pipe from a TLS client to a program."""

    pipe: Piped
    client: socket.socket
    program: socket.socket


@pytest.fixture
def secured(stack: ExitStack, secure: Place) -> Secured:
    pipe = Piped(stack, opened(stack, secure.listening), None)
    pipe.start()
    client = stack.enter_context(secure.connect())
    (program,) = pipe.programs
    pipe.programs.insert(0, client)
    pipe.greet()
    return Secured(pipe, client, program)


def test_packets_of_all_sizes_pass_in_order_both_ways_and_are_counted(secured: Secured) -> None:
    sizes = [20, 1400, 65535, 40, 9000, 21, 65535, 1500] * 20
    data = b"".join(record(packet(number, size)) for number, size in enumerate(sizes))
    for source, target in (secured[1:], secured[:0:-1]):
        with ThreadPoolExecutor(1) as executor:
            executor.submit(source.sendall, data)
            assert take(target, len(data)) == data
    counts = 161, 100 + sum(sizes)
    for end in (secured.pipe.left, secured.pipe.right):
        assert come_true(lambda end=end: end.statistics[:2] == end.statistics[3:5] == counts)  # type: ignore[misc]
        assert end.statistics.sent_dropped == 0


def test_the_next_client_is_served(secure: Place, secured: Secured) -> None:
    secured.client.close()
    for number in range(3):
        with secure.connect() as client:
            client.sendall(record(packet(number)))
            assert take(secured.program, 102) == record(packet(number))
            secured.program.sendall(record(packet(number + 9)))
            assert take(client, 102) == record(packet(number + 9))


def test_bytes_that_are_not_tls_end_the_connection_and_the_next_client_is_served(
    secure: Place, secured: Secured
) -> None:
    answered(secured.pipe)  # Until the connection has been lent.
    with socket.socket(fileno=secured.client.detach()) as bare:
        bare.settimeout(SECONDS)
        bare.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert gone(bare)
        with secure.connect() as client:
            client.sendall(record(packet(1)))
            assert take(secured.program, 102) == record(packet(1))


def test_the_native_loop_leaves_only_the_bytes_to_python(
    secured: Secured, loop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    answered(secured.pipe)  # Until the connection has been lent.
    calls: list[Connection] = []
    read = Connection.read

    def noted(connection: Connection, memory: memoryview, limit: int) -> tuple[list[memoryview], int]:
        calls.append(connection)
        return read(connection, memory, limit)

    monkeypatch.setattr(Connection, "read", noted)
    data = b"".join(record(packet(number, 1400)) for number in range(300))
    for source, target in (secured[1:], secured[:0:-1]):
        with ThreadPoolExecutor(1) as executor:
            executor.submit(source.sendall, data)
            assert take(target, len(data)) == data
    assert bool(calls) == (loop == "python")


def test_packets_that_wait_for_room_are_sent_once_the_client_reads(secured: Secured) -> None:
    left = secured.pipe.left
    data = b"".join(record(packet(number, 1400)) for number in range(1 << 14))  # More than sockets hold.
    with ThreadPoolExecutor(1) as executor:
        executor.submit(secured.program.sendall, data)
        before = -1
        while before < (before := left.statistics.sent_packets):
            come_true(lambda: left.statistics.sent_packets > before, 0.2)
        for number in range(5):  # They pass the other way meanwhile.
            secured.client.sendall(record(packet(number)))
            assert come_true(lambda number=number: left.statistics.received_packets == 2 + number)  # type: ignore[misc]
        interrupt(left)
        assert take(secured.client, len(data)) == data
    assert left.statistics.sent_dropped == 0


def test_a_client_that_resets_the_connection_is_followed_by_the_next(secure: Place, secured: Secured) -> None:
    answered(secured.pipe)  # Until the connection has been lent.
    with socket.socket(fileno=secured.client.detach()) as bare:
        bare.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    left = secured.pipe.left
    assert come_true(lambda: not secured.program.send(record(packet(1))) or left.statistics.sent_dropped > 0)
    with secure.connect() as client:
        client.sendall(record(packet(2)))
        assert take(secured.program, 102) == record(packet(2))


def test_packets_for_a_client_that_resets_the_connection_instead_of_reading_are_counted_as_dropped(
    secured: Secured,
) -> None:
    answered(secured.pipe)  # Until the connection has been lent.
    data = memoryview(b"".join(record(packet(number, 1400)) for number in range(1 << 14)))  # More than sockets hold.
    secured.program.settimeout(0.2)
    with pytest.raises(TimeoutError):
        secured.program.sendall(data)
    with socket.socket(fileno=secured.client.detach()) as bare:
        bare.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    left, right = secured.pipe.left, secured.pipe.right
    assert come_true(lambda: left.statistics.sent_dropped > 0)
    assert come_true(lambda: left.statistics.sent_packets + left.statistics.sent_dropped == right.statistics[0])


def test_closing_the_pipe_sends_the_last_packets_and_ends_the_connection(secured: Secured) -> None:
    data = b"".join(record(packet(number, 1400)) for number in range(100))
    secured.program.sendall(data)
    assert take(secured.client, len(data)) == data
    secured.pipe.left.close()
    assert secured.client.recv(1) == b""
    assert secured.pipe.thread is not None
    assert secured.pipe.thread.result(SECONDS) is None


def test_the_end_of_the_program_ends_the_pipe_after_its_packets(secured: Secured) -> None:
    assert isinstance(secured.client, ssl.SSLSocket)
    data = b"".join(record(packet(number, 1400)) for number in range(500))
    with ThreadPoolExecutor(1) as executor:
        sending = executor.submit(secured.program.sendall, data)
        sending.add_done_callback(lambda _: secured.program.shutdown(socket.SHUT_WR))
        assert take(secured.client, len(data)) == data
    assert secured.pipe.thread is not None
    assert secured.pipe.thread.result(SECONDS) is None
