"""Hostile ends: whatever comes to a listener, it goes on, says what was wrong, and serves the next honest caller."""

import os
import random
import select
import socket
import ssl
import struct
import sys
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import trustme

import threepipe
from tests.support.endpoints import SECONDS, Place, at_work, here, issue, opened, packet, received, record, served
from tests.support.waiting import come_true
from threepipe.echo import echo_reply, echo_request

if sys.platform == "win32":
    pytest.skip("Windows has neither all these kinds nor limits of descriptors", allow_module_level=True)

import resource

RESET = struct.pack("ii", 1, 0)  # struct linger: closing throws away what is unsent, and says so.
LOGGER = "threepipe.endpoints"
MANY = 1000


def junk(size: int) -> bytes:
    """Bytes that begin with a record that is no IP packet."""
    return record(b"\0" * 30) + random.Random(size).randbytes(size)


def gone(program: socket.socket) -> bool:
    """Whether the listener hangs up on this one, in time."""
    try:
        while program.recv(1 << 16):
            pass
    except ConnectionError:
        pass
    return True


HTTP = b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n"

RUBBISH = {
    "random": junk(5000),
    "no version": record(b"\x00" * 100),
    "version 5": record(b"\x55" * 100),
    "short": record(b"\x45"),
    "IPv6 of 39 bytes": record(b"\x60" * 39),
    "longest, none": record(b"\xff" * 65535),
    "good, then bad": record(packet(1)) + record(b"\0" * 65535),
    "empty, then bad": b"\0" * 1000 + record(b"?"),
}


@pytest.mark.parametrize("what", RUBBISH)
def test_who_speaks_something_else_is_sent_away(
    stack: ExitStack, place: Place, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    with at_work(opened(stack, place.listening)):
        with place.connect() as program:
            program.sendall(RUBBISH[what])
            assert gone(program)
        served(place)
    (line,) = [line.getMessage() for line in caplog.records if line.name == LOGGER]
    assert line.startswith(place.listening)
    assert "that is not an IP packet" in line
    assert len(line) < 600


HALVES = {
    "half a length": b"\0",
    "a length alone": b"\xff\xff",
    "half a record": record(packet(1, 1000))[:500],
    "a half after a whole": record(packet(1)) + record(packet(2))[:-1],
    "HTTP": HTTP,
}


@pytest.mark.parametrize(
    ("place", "reset"),  # Unix sockets are not reset this way.
    [("tcp", False), ("unix", False), ("tls", False), ("tcp", True), ("tls", True)],
    indirect=["place"],
)
@pytest.mark.parametrize("what", HALVES)
def test_who_leaves_in_mid_record_is_told_of(
    stack: ExitStack, place: Place, what: str, reset: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with at_work(opened(stack, place.listening)):
        with place.connect() as program:
            program.sendall(HALVES[what])
            if reset:
                program.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        served(place)
    lines = [line.getMessage() for line in caplog.records if line.name == LOGGER]
    if reset and place.kind == "tls" and not lines:
        return  # What was on its way is lost with a reset; then there was no record, for all anybody can tell.
    assert len(lines) == 1, lines
    assert any(
        text in lines[0]
        for text in ("ended in the middle of a record", "broke off", "closed before", "the TLS handshake")
    )


@pytest.mark.parametrize("place", ["tcp", "unix"], indirect=True)  # With TLS, who has a certificate is the caller.
@pytest.mark.parametrize("what", ["half a length", "a length alone", "half a record", "HTTP"])
def test_who_stays_in_mid_record_keeps_nobody_out(stack: ExitStack, place: Place, what: str) -> None:
    with at_work(opened(stack, place.listening)), place.connect() as program:
        program.sendall(HALVES[what])
        served(place)
        assert gone(program)


def test_the_fault_after_a_good_packet_is_found_without_more_coming(stack: ExitStack, place: Place) -> None:
    listener = opened(stack, place.listening)
    with ThreadPoolExecutor(1) as executor:
        calling = executor.submit(place.connect)
        while not calling.done():
            listener.receive(0.01)
    with calling.result() as program:
        program.sendall(record(packet(1)) + record(b"no packet"))
        assert received(listener, 1) == [packet(1)]
        assert select.select([listener], [], [], SECONDS)[0]
        assert not listener.receive(0)
        assert gone(program)


def test_bytes_may_come_one_at_a_time(stack: ExitStack, place: Place) -> None:
    with at_work(opened(stack, place.listening)), place.connect() as program, program.makefile("rb") as replies:
        request = echo_request("10.1.1.1", "10.1.1.2", 1, 2, b"slow")
        for byte in b"\0\0" + record(request) + b"\0\0":
            program.sendall(bytes([byte]))
        assert replies.read(2 + len(request)) == record(echo_reply(request) or b"")


def test_the_longest_and_the_empty_record(stack: ExitStack, place: Place) -> None:
    with at_work(opened(stack, place.listening)), place.connect() as program, program.makefile("rb") as replies:
        request = echo_request("10.1.1.1", "10.1.1.2", 1, 2, bytes(65535 - 28))
        assert len(request) == 65535
        for _ in range(3):
            program.sendall(b"\0\0" + record(request))
            assert replies.read(2 + len(request)) == record(echo_reply(request) or b"")


def test_endless_empty_records_do_not_hold_up_time_and_closing(stack: ExitStack, place: Place) -> None:
    listener = opened(stack, place.listening)
    with ThreadPoolExecutor(1) as executor:
        calling = executor.submit(place.connect)
        while not calling.done():
            listener.receive(0.01)
        with calling.result() as program:
            flooding = executor.submit(flood, program)
            assert not listener.receive(0.3)
            closing = threading.Thread(target=listener.close, daemon=True)
            closing.start()
            closing.join(SECONDS)
            stuck = closing.is_alive()
            if stuck:
                program.shutdown(socket.SHUT_RDWR)
            flooding.result(SECONDS)
            assert not stuck


def flood(program: socket.socket) -> None:
    """Empty records until nobody takes them any more."""
    try:
        while True:
            program.sendall(bytes(1 << 18))
    except OSError:
        pass


def test_what_tls_has_taken_from_the_socket_already_is_not_left_there(stack: ExitStack, tmp_path: Path) -> None:
    # The rest of the memory packets are received into is just enough for the longest record, of which a
    # piece of TLS completes the last byte; what else is in that piece is in no socket any more.
    place = Place("tls", tmp_path)
    listener = opened(stack, place.listening)
    with ThreadPoolExecutor(1) as executor:
        calling = executor.submit(place.connect)
        while not calling.done():
            listener.receive(0.01)
        with calling.result() as program:
            sizes = [65535] * 14 + [65480, 65535, 100]
            packets = [packet(number, size) for number, size in enumerate(sizes)]
            held = []
            for each in packets[:-2]:
                sending = executor.submit(program.sendall, record(each))
                held.append(listener.receive(SECONDS))
                assert list(held[-1]) == [each]
                sending.result(SECONDS)
            sending = executor.submit(program.sendall, record(packets[-2]) + record(packets[-1]))
            found: list[bytes] = []
            while len(found) < 2 and select.select([listener], [], [], SECONDS)[0]:
                held.append(listener.receive(0))
                found += map(bytes, held[-1])
            assert found == packets[-2:]


# Who does not read.


def test_a_caller_that_never_reads_costs_bounded_memory_and_gets_whole_records(stack: ExitStack, place: Place) -> None:
    listener = opened(stack, place.listening)
    with ThreadPoolExecutor(1) as executor:
        calling = executor.submit(place.connect)
        while not calling.done():
            listener.receive(0.01)
    with calling.result() as program:
        program.sendall(record(packet(0)))
        assert received(listener, 1) == [packet(0)]
        tracemalloc.start()
        try:
            taken, refused = [], 0
            for number in range(30_000):
                each = packet(number, 1400)
                if listener.send([each]):
                    taken.append(number)
                else:
                    refused += 1
                    if refused > 1000:
                        break
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert refused > 1000
        assert listener.statistics.sent_dropped == refused
        assert peak < 4 << 20
        with program.makefile("rb") as replies:
            for number in taken[:-1]:
                assert replies.read(1402) == record(packet(number, 1400))
            with ThreadPoolExecutor(1) as executor:  # The rest of the last is written by whoever receives.
                last = executor.submit(replies.read, 1402)
                while not last.done():
                    listener.receive(0.01)
                assert last.result() == record(packet(taken[-1], 1400))
            assert listener.send([packet(7)]) == 1
            assert replies.read(102) == record(packet(7))


def test_a_caller_that_never_reads_holds_the_near_end_and_not_the_listener(stack: ExitStack, place: Place) -> None:
    near, far = threepipe.MemoryAdapter.pair()
    with near, far, near.start_session() as program_session:
        listener = opened(stack, place.listening)
        with ThreadPoolExecutor(1) as executor:
            ended = executor.submit(threepipe.pipe, listener, far.start_session())
            try:
                with place.connect() as program:
                    program.sendall(record(packet(0)))
                    assert received(program_session, 1) == [packet(0)]
                    while program_session.send([packet(1, 1400)] * 200, 0.2):
                        pass
                    assert listener.statistics.sent_dropped == 0
                with place.connect() as program, program.makefile("rb") as replies:
                    program.sendall(record(packet(2)))
                    assert received(program_session, 1) == [packet(2)]
                    assert program_session.send([packet(3)], SECONDS) == 1
                    while replies.read(int.from_bytes(replies.read(2), "big")) != packet(3):
                        pass
            finally:
                listener.close()
                ended.result(SECONDS)


def test_closing_does_not_wait_for_who_never_reads(stack: ExitStack, place: Place) -> None:
    listener = opened(stack, place.listening)
    with ThreadPoolExecutor(1) as executor:
        calling = executor.submit(place.connect)
        while not calling.done():
            listener.receive(0.01)
    with calling.result() as program:
        program.sendall(record(packet(0)))
        assert received(listener, 1) == [packet(0)]
        while listener.send([packet(1, 9000)] * 100) == 100:
            pass
        closing = threading.Thread(target=listener.close, daemon=True)
        closing.start()
        closing.join(SECONDS)
        assert not closing.is_alive()


# Many, and silent ones.


@contextmanager
def many_descriptors() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * MANY
    if hard != resource.RLIM_INFINITY and hard < wanted:
        pytest.skip(f"a process may have {hard} descriptors here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.skipif(sys.platform != "linux", reason="counts descriptors in /proc")
def test_a_thousand_connections_that_say_nothing(
    stack: ExitStack, place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    stack.enter_context(many_descriptors())
    with at_work(opened(stack, place.listening)):
        served(place)
        before = len(os.listdir("/proc/self/fd"))
        silent = [stack.enter_context(place.connect_bare()) for _ in range(MANY)]
        served(place)
        assert come_true(lambda: len(os.listdir("/proc/self/fd")) <= before + MANY + 20)
        for program in silent[:-20]:
            assert gone(program)
        served(place)
    lines = [line.getMessage() for line in caplog.records if line.name == LOGGER]
    assert any("sent nothing and was closed in favor" in line for line in lines)
    assert len(lines) <= 6, lines


def test_a_silent_first_caller_makes_room_for_one_who_speaks(stack: ExitStack, tmp_path: Path) -> None:
    for kind in ("tcp", "unix"):
        folder = tmp_path / kind
        folder.mkdir()
        place = Place(kind, folder)
        listener = opened(stack, place.listening)
        with place.connect() as silent, place.connect() as speaking:  # Both are there before anybody looks.
            speaking.sendall(record(packet(1)))
            assert received(listener, 1) == [packet(1)]
            assert gone(silent)
            assert listener.send([packet(2)]) == 1
            assert speaking.recv(1 << 16) == record(packet(2))


@pytest.mark.parametrize("sent", [b"", b"\x16\x03\x01\x02\x00\x01", HTTP])
def test_connections_that_are_reset_before_they_are_accepted(stack: ExitStack, place: Place, sent: bytes) -> None:
    listener = opened(stack, place.listening)
    for _ in range(5):
        with place.connect_bare() as program:
            program.sendall(sent)
            program.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    with at_work(listener):
        served(place)


def test_a_storm_of_connections_of_all_sorts(stack: ExitStack, place: Place) -> None:
    choose = random.Random(place.kind)
    with at_work(opened(stack, place.listening)):
        held: list[socket.socket] = []
        for _ in range(200):
            program = stack.enter_context(place.connect_bare())
            try:
                program.sendall(choose.choice([b"", b"\0", HTTP, choose.randbytes(200), record(b"\x45" * 19)]))
                match choose.randrange(4):
                    case 0:
                        program.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                        program.close()
                    case 1:
                        program.shutdown(socket.SHUT_WR)
                    case 2:
                        program.close()
                    case _:
                        held.append(program)
            except OSError:
                pass  # It was sent away already.
        served(place)


def test_no_descriptor_left_for_a_caller_is_told_and_overcome(
    stack: ExitStack, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = Place("tcp", tmp_path)
    listener = opened(stack, place.listening)
    with place.connect() as program:
        program.sendall(record(packet(1)))
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        with open(os.devnull) as lowest_free:
            limit = lowest_free.fileno()
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
            assert not listener.receive(0)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert "a connection could not be accepted (Too many open files)" in caplog.text
        assert received(listener, 1) == [packet(1)]


# TLS.


def refused(program: ssl.SSLSocket) -> bool:
    """In TLS 1.3 a client learns what became of its certificate when it reads."""
    with program, pytest.raises((ssl.SSLError, ConnectionError)):
        program.recv(1)
    return True


def test_who_shows_no_certificate(stack: ExitStack, secure: Place, caplog: pytest.LogCaptureFixture) -> None:
    with at_work(opened(stack, secure.listening)):
        assert refused(secure.secure(secure.connect_bare(), ""))
        served(secure)
    assert "failed the TLS handshake (PEER_DID_NOT_RETURN_A_CERTIFICATE)" in caplog.text


def test_who_shows_a_certificate_of_another_authority(
    stack: ExitStack, secure: Place, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    issue(trustme.CA(), tmp_path, "stranger", "client")
    with at_work(opened(stack, secure.listening)):
        assert refused(secure.secure(secure.connect_bare(), "stranger"))
        served(secure)
    assert "failed the TLS handshake (CERTIFICATE_VERIFY_FAILED)" in caplog.text


def test_who_speaks_an_older_tls(stack: ExitStack, secure: Place, tmp_path: Path) -> None:
    with at_work(opened(stack, secure.listening)):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(tmp_path / "ca.pem")
        context.load_cert_chain(tmp_path / "client.pem", tmp_path / "client.key")
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        with secure.connect_bare() as bare, pytest.raises((ssl.SSLError, ConnectionError)):
            context.wrap_socket(bare, server_hostname=bare.getpeername()[0])
        served(secure)


@pytest.mark.parametrize("sent", [b"", b"\x16", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", junk(0), HTTP])
def test_who_stalls_in_the_handshake_keeps_nobody_out(stack: ExitStack, secure: Place, sent: bytes) -> None:
    with at_work(opened(stack, secure.listening)), secure.connect_bare() as stalled:
        stalled.sendall(sent)
        served(secure)


def test_plain_records_at_a_tls_listener(stack: ExitStack, secure: Place, caplog: pytest.LogCaptureFixture) -> None:
    with at_work(opened(stack, secure.listening)):
        with secure.connect_bare() as program:
            program.sendall(record(packet(1)))
            assert gone(program)
        served(secure)
    assert "failed the TLS handshake" in caplog.text


def test_random_bytes_after_the_handshake(stack: ExitStack, secure: Place, caplog: pytest.LogCaptureFixture) -> None:
    with at_work(opened(stack, secure.listening)):
        with secure.connect() as program:
            assert isinstance(program, ssl.SSLSocket)
            with socket.socket(fileno=os.dup(program.fileno())) as beneath:
                beneath.settimeout(SECONDS)
                beneath.sendall(random.Random(1).randbytes(100))
                assert gone(beneath)
        served(secure)
    assert "broke off" in caplog.text


# UDP.


DATAGRAMS = {
    "empty": b"",
    "a byte": b"\x45",
    "no version": bytes(1000),
    "the longest": b"\xff" * 65507,
    "IPv6 of 39 bytes": b"\x60" * 39,
}


@pytest.mark.parametrize("what", DATAGRAMS)
@pytest.mark.parametrize("known", [False, True])
def test_datagrams_that_are_no_packets_are_dropped(
    stack: ExitStack, what: str, known: bool, caplog: pytest.LogCaptureFixture
) -> None:
    place = here()
    listener = opened(stack, f"udp-listen:{place}")
    honest, hostile = (stack.enter_context(datagrams_to(place)) for _ in "ab")
    if known:
        hostile.send(packet(0))
        assert received(listener, 1) == [packet(0)]
    for _ in range(20):
        hostile.send(DATAGRAMS[what])
    honest.send(packet(1))
    assert received(listener, 1) == [packet(1)]
    assert listener.send([packet(2)]) == 1
    assert honest.recv(1 << 16) == packet(2)
    assert listener.statistics.received_packets == 1 + known
    lines = [line.getMessage() for line in caplog.records]
    assert len(lines) == 1, lines
    assert "sent a datagram that is not an IP packet" in lines[0]


def datagrams_to(place: str) -> socket.socket:
    connected = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    connected.settimeout(SECONDS)
    host, _, port = place.partition(":")
    connected.connect((host, int(port)))
    return connected


def test_who_sends_no_packets_is_not_answered(stack: ExitStack) -> None:
    place = here()
    with at_work(opened(stack, f"udp-listen:{place}")):
        honest, hostile = (stack.enter_context(datagrams_to(place)) for _ in "ab")
        for number in range(50):
            request = echo_request("10.1.1.1", "10.1.1.2", 1, number)
            hostile.send(b"\x30" * 100)
            honest.send(request)
            hostile.send(b"")
            assert honest.recv(1 << 16) == echo_reply(request)
        hostile.setblocking(False)
        with pytest.raises(BlockingIOError):
            hostile.recv(1)


def test_a_flood_of_datagrams_costs_bounded_memory_and_closing_ends_it(stack: ExitStack) -> None:
    place = here()
    listener = opened(stack, f"udp-listen:{place}")
    stop = threading.Event()

    def send(program: socket.socket, data: Callable[[], bytes]) -> None:
        while not stop.is_set():
            try:
                program.send(data())
            except OSError:
                pass  # Nobody is there any more.

    choose = random.Random(1)
    with ThreadPoolExecutor(2) as executor:
        for data in (lambda: choose.randbytes(choose.randrange(2000)), lambda: packet(1, 1400)):
            executor.submit(send, stack.enter_context(datagrams_to(place)), data)
        tracemalloc.start()
        try:
            for _ in range(60):
                with listener.receive(SECONDS) as bundle:
                    listener.send(bundle, 0, drop_invalid=True)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
            stop.set()
    assert peak < 16 << 20
