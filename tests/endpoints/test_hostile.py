"""Hostile peers: a listener logs each fault and serves the next honest caller."""

import os
import random
import re
import select
import socket
import struct
import sys
import threading
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

import threepipe
from tests.support.descriptors import no_free_descriptor
from tests.support.endpoints import (
    HTTP,
    SECONDS,
    Place,
    at_work,
    gone,
    joined,
    junk,
    opened,
    packet,
    received,
    record,
    served,
)
from tests.support.sessions import readable
from tests.support.waiting import come_true
from threepipe.echo import echo_reply, echo_request

if sys.platform == "win32":
    pytest.skip("Windows has neither all these kinds nor limits of descriptors", allow_module_level=True)

import resource

RESET = struct.pack("ii", 1, 0)  # struct linger: close discards unsent data and resets the connection.
LOGGER = "threepipe.endpoints"
MANY = 1000


RUBBISH = {
    "random": junk(5000),
    "no version": record(b"\x00" * 100),
    "version 5": record(b"\x55" * 100),
    "short": record(b"\x45"),
    "IPv6 of 39 bytes": record(b"\x60" * 39),
    "longest, none": record(b"\xff" * 65535),
    "good, then bad": record(packet(1)) + record(b"\0" * 65535),
    "empty, then bad": b"\0" * 1000 + record(b"?"),
    "HTTP": HTTP,
    "a banner with version 4": b"SSH-2.0-OpenSSH_9.2p1\r\n",
    "a banner with version 6": b"Welcome to this machine\n",
    "half a record of no version": record(b"\0" * 1000)[:500],
    "half a record of another length": record(b"\x45\0\0\x7b" + bytes(1000))[:500],
    "good, then half a bad one": record(packet(1)) + record(b"\0" * 100)[:-1],
}


@pytest.mark.parametrize("what", RUBBISH)
def test_a_peer_that_sends_no_records_is_disconnected(
    stack: ExitStack, place: Place, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    with at_work(opened(stack, place.listening)):
        with place.connect() as program:
            program.sendall(RUBBISH[what])
            assert gone(program)
        served(place)
    (line,) = [line.getMessage() for line in caplog.records if line.name == LOGGER]
    assert line.startswith(place.listening)
    assert re.search("(that|which) is not an IP packet|but an IPv4 packet of 123", line)
    assert len(line) < 600


HALVES = {
    "half a length": b"\0",
    "a length alone": b"\xff\xff",
    "half a record": record(packet(1, 1000))[:500],
    "a half after a whole": record(packet(1)) + record(packet(2))[:-1],
}


@pytest.mark.parametrize(
    ("place", "reset"),  # Unix sockets have no such reset.
    [("tcp", False), ("unix", False), ("tls", False), ("tcp", True), ("tls", True)],
    indirect=["place"],
)
@pytest.mark.parametrize("what", HALVES)
def test_a_peer_that_leaves_in_mid_record_is_logged(
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
        return  # A reset may discard the record on its way; the listener then has seen none.
    assert len(lines) == 1, lines
    assert any(
        text in lines[0]
        for text in ("ended in the middle of a record", "broke off", "closed before", "the TLS handshake")
    )


@pytest.mark.parametrize("place", ["tcp", "unix"], indirect=True)  # With TLS, a certificate makes a peer the caller.
@pytest.mark.parametrize("what", ["half a length", "a length alone", "half a record"])
def test_a_peer_that_stalls_in_mid_record_makes_room_for_the_next(stack: ExitStack, place: Place, what: str) -> None:
    with at_work(opened(stack, place.listening)), place.connect() as program:
        program.sendall(HALVES[what])
        served(place)
        assert gone(program)


def test_a_fault_after_a_packet_is_found_without_more_data(stack: ExitStack, place: Place) -> None:
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


@pytest.mark.parametrize("sent", [HTTP, RUBBISH["a banner with version 4"], RUBBISH["a banner with version 6"]])
def test_text_sent_byte_by_byte_ends_the_connection(stack: ExitStack, place: Place, sent: bytes) -> None:
    with at_work(opened(stack, place.listening)), place.connect() as program:
        for byte in sent[:8]:
            try:
                program.sendall(bytes([byte]))
            except OSError:
                break
        assert gone(program)


def test_later_packets_may_state_another_length(stack: ExitStack, place: Place) -> None:
    listener, caller = joined(stack, place)
    odd = b"\x45\0\0\x7b" + bytes(1000)
    assert caller.send([odd, packet(1)]) == 2
    assert received(listener, 2) == [odd, packet(1)]


def test_records_sent_byte_by_byte_are_received(stack: ExitStack, place: Place) -> None:
    with at_work(opened(stack, place.listening)), place.connect() as program, program.makefile("rb") as replies:
        request = echo_request("10.1.1.1", "10.1.1.2", 1, 2, b"slow")
        for byte in b"\0\0" + record(request) + b"\0\0":
            program.sendall(bytes([byte]))
        assert replies.read(2 + len(request)) == record(echo_reply(request) or b"")


def test_longest_and_empty_records_are_received(stack: ExitStack, place: Place) -> None:
    with at_work(opened(stack, place.listening)), place.connect() as program, program.makefile("rb") as replies:
        request = echo_request("10.1.1.1", "10.1.1.2", 1, 2, bytes(65535 - 28))
        assert len(request) == 65535
        for _ in range(3):
            program.sendall(b"\0\0" + record(request))
            assert replies.read(2 + len(request)) == record(echo_reply(request) or b"")


def test_endless_empty_records_do_not_delay_timeout_and_close(stack: ExitStack, place: Place) -> None:
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
    """Send empty records until the other end accepts no more."""
    try:
        while True:
            program.sendall(bytes(1 << 18))
    except OSError:
        pass


def test_records_buffered_inside_tls_are_received(stack: ExitStack, tmp_path: Path) -> None:
    # The rest of the receive memory is just enough for the longest record. A TLS record completes its last byte;
    # the other data of that TLS record is no longer in the socket.
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


# Peers that do not read.


def test_a_caller_that_never_reads_costs_bounded_memory(stack: ExitStack, place: Place) -> None:
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
            with ThreadPoolExecutor(1) as executor:  # A receive writes the rest of the last record.
                last = executor.submit(replies.read, 1402)
                while not last.done():
                    listener.receive(0.01)
                assert last.result() == record(packet(taken[-1], 1400))
            assert listener.send([packet(7)]) == 1
            assert replies.read(102) == record(packet(7))


def test_a_caller_that_never_reads_stops_the_source_and_not_the_listener(stack: ExitStack, place: Place) -> None:
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


def test_close_does_not_wait_for_a_caller_that_never_reads(stack: ExitStack, place: Place) -> None:
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


# Many peers, and silent peers.


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
def test_a_thousand_silent_connections_do_not_keep_out_a_caller(
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


def test_a_silent_first_caller_makes_room_for_one_that_sends(stack: ExitStack, tmp_path: Path) -> None:
    for kind in ("tcp", "unix"):
        folder = tmp_path / kind
        folder.mkdir()
        place = Place(kind, folder)
        listener = opened(stack, place.listening)
        with place.connect() as silent, place.connect() as speaking:  # Both are connected before the listener accepts.
            speaking.sendall(record(packet(1)))
            assert received(listener, 1) == [packet(1)]
            assert gone(silent)
            assert listener.send([packet(2)]) == 1
            assert speaking.recv(1 << 16) == record(packet(2))


@pytest.mark.parametrize("sent", [b"", b"\x16\x03\x01\x02\x00\x01", HTTP])
def test_connections_reset_before_accept_are_skipped(stack: ExitStack, place: Place, sent: bytes) -> None:
    listener = opened(stack, place.listening)
    for _ in range(5):
        with place.connect_bare() as program:
            program.sendall(sent)
            program.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    with at_work(listener):
        served(place)


def test_a_storm_of_faulty_connections_does_not_keep_out_a_caller(stack: ExitStack, place: Place) -> None:
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
                pass  # The listener has closed it already.
        served(place)


def test_a_caller_is_refused_without_a_free_descriptor_and_the_next_is_served(
    stack: ExitStack, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = Place("tcp", tmp_path)
    listener = opened(stack, place.listening)
    with place.connect() as program:
        program.sendall(record(packet(1)))
        with no_free_descriptor():
            assert not listener.receive(0)
            assert not readable(listener)  # So a loop does not spin.
        with pytest.raises(ConnectionError):
            program.recv(1)
    assert "a connection could not be accepted (Too many open files)" in caplog.text
    with place.connect() as program:
        program.sendall(record(packet(1)))
        assert received(listener, 1) == [packet(1)]
