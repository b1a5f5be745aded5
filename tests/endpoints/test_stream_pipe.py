"""Pipes between streams of records: the native loop does what Python's does, with the same counts and ends."""

import os
import socket
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import count

import pytest

import threepipe
from tests.support.endpoints import SECONDS, Place, opened, packet, posix, record
from tests.support.stream_pipes import Piped, answered, take
from tests.support.waiting import come_true
from threepipe.endpoints.stream_port import StreamPort
from threepipe.errors import EndpointError

if sys.platform == "win32":
    pytest.skip("Windows has no such descriptors", allow_module_level=True)

pytestmark = pytest.mark.usefixtures("loop")

PLAIN = ["tcp", "unix"]


def test_packets_of_all_sizes_pass_in_order_both_ways_and_are_counted(piped: Piped) -> None:
    sizes = [20, 1400, 65535, 40, 9000, 21, 65535, 1500] * 20
    data = b"".join(record(packet(number, size)) for number, size in enumerate(sizes))
    for source, target in (piped.programs, piped.programs[::-1]):
        with ThreadPoolExecutor(1) as executor:
            executor.submit(source.sendall, data)
            assert take(target, len(data)) == data
    counts = 161, 100 + sum(sizes)
    for end in (piped.left, piped.right):
        assert come_true(lambda end=end: end.statistics[:2] == end.statistics[3:5] == counts)  # type: ignore[misc]
        assert end.statistics.sent_dropped == 0


def test_records_cut_at_every_byte_pass(piped: Piped) -> None:
    data = record(packet(1, 20)) + b"\0\0" + record(packet(2, 33))
    for cut in range(1, len(data)):
        source, target = piped.programs
        source.sendall(data[:cut])
        source.sendall(data[cut:])
        assert take(target, len(data) - 2) == data.replace(b"\0\0" + record(packet(2, 33)), record(packet(2, 33)))


def test_the_end_of_a_stream_ends_the_pipe_after_its_packets(piped: Piped) -> None:
    source, target = piped.programs
    data = b"".join(record(packet(number, 1400)) for number in range(500))
    with ThreadPoolExecutor(1) as executor:
        executor.submit(source.sendall, data).add_done_callback(lambda _: source.shutdown(socket.SHUT_WR))
        assert take(target, len(data) + 1) == data
    assert piped.thread is not None
    assert piped.thread.result(SECONDS) is None
    assert come_true(lambda: piped.right.statistics.sent_packets == 501)


def test_answers_pass_after_one_direction_has_ended(piped: Piped) -> None:
    source, target = piped.programs
    source.shutdown(socket.SHUT_WR)
    target.sendall(record(packet(7)))
    assert take(source, 102) == record(packet(7))


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (record(b"\0" * 30), "sent a record of 30 bytes that is not an IP packet"),
        (b"\x40\x00\x60", "ended in the middle of a record"),
        (b"\x00\x05", "sent a record of 5 bytes that is not an IP packet"),
        (b"Password: ", "sent text, which is not an IP packet"),
        (record(packet(9)) + b"\x40\x00\x10", "sent a record of 16384 bytes that is not an IP packet"),
    ],
)
def test_a_record_that_is_not_a_packet_ends_the_pipe_with_its_reason(piped: Piped, data: bytes, text: str) -> None:
    source, _ = piped.programs
    source.sendall(record(packet(1)) + data)
    source.shutdown(socket.SHUT_WR)
    assert piped.thread is not None
    with pytest.raises(EndpointError, match=text):
        piped.thread.result(SECONDS)
    assert piped.left.statistics.received_packets == 2 + (packet(9) in data)


def test_a_connection_that_breaks_off_ends_the_pipe_with_the_error(stack: ExitStack) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        host, port = server.getsockname()
        left = opened(stack, f"tcp:{host}:{port}")
        accepted, _ = server.accept()
    piped = Piped(stack, left, None)
    piped.programs.insert(0, accepted)
    accepted.settimeout(SECONDS)
    piped.start()
    piped.greet()
    answered(piped)
    accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, bytes([1, 0, 0, 0, 0, 0, 0, 0]))
    accepted.close()
    assert piped.thread is not None
    with pytest.raises(EndpointError, match="Connection reset by peer"):
        piped.thread.result(SECONDS)


def test_a_program_that_does_not_read_holds_up_only_its_direction(piped: Piped) -> None:
    source, target = piped.programs
    stopped = threading.Event()
    last = record(packet(1 << 20, 1400))

    def flood() -> int:
        for number in count():
            if stopped.is_set():
                source.sendall(last)
                return number + 1
            source.sendall(record(packet(number, 1400)))
        raise AssertionError

    with ThreadPoolExecutor(1) as executor:
        flooding = executor.submit(flood)
        before = -1
        while before < (before := piped.right.statistics.sent_packets):
            come_true(lambda: piped.right.statistics.sent_packets > before, 0.2)
        for number in range(100):
            target.sendall(record(packet(number)))
            assert take(source, 102) == record(packet(number))
        stopped.set()
        for number in count():
            if (found := take(target, 1402)) == last:
                break
            assert found == record(packet(number, 1400))
        sent = flooding.result(SECONDS)
        assert number + 1 == sent
    assert come_true(lambda: piped.right.statistics.sent_packets == sent + 1)
    assert piped.right.statistics.sent_dropped == 0


def test_closing_ends_a_wait_for_room_and_never_cuts_a_record_that_is_read(piped: Piped) -> None:
    source, target = piped.programs
    source.setblocking(False)
    number = 0
    try:
        while True:
            number += source.send(record(packet(number, 1400))) == 1402
    except BlockingIOError:
        pass
    with ThreadPoolExecutor(1) as executor:
        closing = executor.submit(piped.left.close)
        data = b""
        while more := target.recv(1 << 20):
            data += more
        closing.result(SECONDS)
    counts = piped.right.statistics
    assert len(data) % 1402 == 0
    assert counts.sent_packets == 1 + len(data) // 1402
    assert piped.left.statistics.received_packets == counts.sent_packets + counts.sent_dropped


@pytest.mark.parametrize("kind", PLAIN)
def test_the_next_client_is_served_and_another_is_refused(stack: ExitStack, kind: str, tmp_path: object) -> None:
    place = Place(kind, tmp_path)  # type: ignore[arg-type]
    piped = Piped(stack, opened(stack, place.listening), None)
    piped.start()
    program = piped.programs[0]
    for number in range(4):
        with place.connect() as client:
            for turn in range(3):
                client.sendall(record(packet(number)))
                assert take(program, 102) == record(packet(number))
                program.sendall(record(packet(turn)))
                assert take(client, 102) == record(packet(turn))
                with place.connect() as other:
                    other.settimeout(SECONDS)
                    assert other.recv(1) == b""
    assert come_true(lambda: piped.left.statistics[3:] == (12, 1200, 12, 0))


@posix
def test_programs_and_pipes_pass_packets(stack: ExitStack) -> None:
    piped = Piped(stack, opened(stack, "exec:cat"), None)
    piped.start()
    (program,) = piped.programs
    for start in range(0, 200, 20):
        data = b"".join(record(packet(number, 1400)) for number in range(start, start + 20))
        program.sendall(data)
        assert take(program, len(data)) == data
    assert piped.left.statistics[:2] == (200, 200 * 1400)
    assert come_true(lambda: piped.left.statistics[3:5] == (200, 200 * 1400))


def test_a_stream_is_joined_with_datagrams(stack: ExitStack) -> None:
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    stack.enter_context(its)
    its.settimeout(SECONDS)
    piped = Piped(stack, None, opened(stack, f"fd:{ours.detach()}"))
    piped.start()
    (program,) = piped.programs
    for number in range(300):
        program.sendall(record(packet(number, 500)))
        assert its.recv(1 << 16) == packet(number, 500)
        its.send(packet(number, 700))
        assert take(program, 702) == record(packet(number, 700))


def test_the_native_loop_runs_no_python_for_a_packet(
    stack: ExitStack, loop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    piped = Piped(stack)
    piped.start()
    piped.greet()
    if loop == "python":
        return
    for _ in range(3):  # Until both ports have been lent.
        piped.greet()
    calls: list[str] = []
    monkeypatch.setattr(StreamPort, "receive", lambda *_: calls.append("receive"))
    monkeypatch.setattr(StreamPort, "send", lambda *_: calls.append("send"))
    for _ in range(50):
        piped.greet()
    assert calls == []
    monkeypatch.undo()


def test_the_native_loop_goes_on_after_kept_packets_that_had_no_room(
    stack: ExitStack, loop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    stack.enter_context(its)
    its.settimeout(SECONDS)
    piped = Piped(stack, None, opened(stack, f"fd:{ours.detach()}"))
    (program,) = piped.programs
    program.sendall(b"".join(record(packet(number)) for number in range(3)))
    assert piped.left.receive_packet(SECONDS) == packet(0)  # The session keeps the others.
    filled = 0
    while piped.right.send([packet(100)]):
        filled += 1
    piped.start()
    its.send(packet(7))
    assert take(program, 102) == record(packet(7))  # The loop runs, and the packets wait.
    calls: list[StreamPort] = []
    receive = StreamPort.receive

    def noted(port: StreamPort) -> threepipe.Bundle:
        calls.append(port)
        return receive(port)

    monkeypatch.setattr(StreamPort, "receive", noted)
    for number in [100] * filled + [1, 2]:
        assert its.recv(1 << 16) == packet(number)
    calls.clear()
    for number in range(3, 6):
        program.sendall(record(packet(number)))
        assert its.recv(1 << 16) == packet(number)
    assert bool(calls) == (loop == "python")


def test_packets_that_another_thread_sends_while_a_pipe_waits_mix_only_as_whole_records(piped: Piped) -> None:
    source, target = piped.programs
    others = [packet(number, 60000) for number in range(1, 61)]
    own = [packet(number) for number in range(100, 300)]
    with ThreadPoolExecutor(2) as executor:
        executor.submit(source.sendall, b"".join(map(record, others)))
        assert come_true(lambda: piped.left.statistics.received_packets > 1)
        sending = [executor.submit(piped.right.send, [data], SECONDS) for data in own]
        received = [take(target, int.from_bytes(take(target, 2), "big")) for _ in range(len(others) + len(own))]
        assert all(sent.result(SECONDS) == 1 for sent in sending)
    assert [data for data in received if len(data) == 60000] == others
    assert sorted(data for data in received if len(data) == 100) == own


def test_a_native_loop_whose_end_is_out_of_date_asks_for_it_again(
    stack: ExitStack, loop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lend = StreamPort.lend
    lent: list[object] = []

    def lend_late(port: StreamPort) -> object:
        if (end := lend(port)) is not None:
            lent.append(end)
        return (
            None if len(lent) == 3 else end
        )  # As if another thread had used the stream after the pump asked for both.

    monkeypatch.setattr(StreamPort, "lend", lend_late)
    piped = Piped(stack)
    for program, end in zip(piped.programs, (piped.left, piped.right), strict=True):
        program.sendall(record(packet(0)))
        assert end.receive_packet(SECONDS) == packet(0)  # Now the stream is known to carry records.
    piped.start()
    if loop == "native":
        assert come_true(lambda: len(lent) > 6)  # The pump has asked for both again.
    source, target = piped.programs
    source.sendall(record(packet(1)))
    assert take(target, 102) == record(packet(1))


def test_packets_that_another_thread_takes_from_a_pipe_are_whole(piped: Piped) -> None:
    source, target = piped.programs
    packets = [packet(number, 1000) for number in range(100)]
    data = b"".join(map(record, packets))
    taken: list[bytes] = []
    for start in range(0, len(data), 700):
        source.sendall(data[start : start + 700])
        taken += piped.left.receive(0).copies()
    assert come_true(lambda: piped.left.statistics.received_packets == 1 + len(packets))
    passed = [take(target, 1002)[2:] for _ in range(len(packets) - len(taken))]
    assert sorted(taken + passed) == packets


def test_packets_that_a_session_keeps_pass_first(stack: ExitStack) -> None:
    piped = Piped(stack)
    piped.programs[0].sendall(b"".join(record(packet(number)) for number in range(5)))
    assert piped.left.receive_packet(SECONDS) == packet(0)
    piped.start()
    assert take(piped.programs[1], 4 * 102) == b"".join(record(packet(number)) for number in range(1, 5))


def test_kept_packets_without_room_hold_up_only_their_direction(stack: ExitStack) -> None:
    piped = Piped(stack)
    source, target = piped.programs
    for program, end in zip((target, source), (piped.right, piped.left), strict=True):
        program.sendall(record(packet(0)))
        assert end.receive_packet(SECONDS) == packet(0)
    source.sendall(b"".join(record(packet(number)) for number in range(1, 6)))
    assert piped.left.receive_packet(SECONDS) == packet(1)  # The session keeps the others.
    filled = 0
    while sent := piped.right.send([packet(100, 60000)] * 100):
        filled += sent
    piped.start()
    for number in range(50):
        target.sendall(record(packet(number)))
        assert take(source, 102) == record(packet(number))
    for _ in range(filled):
        assert take(target, 60002) == record(packet(100, 60000))
    assert take(target, 4 * 102) == b"".join(record(packet(number)) for number in range(2, 6))
    assert come_true(lambda: piped.right.statistics.sent_packets == filled + 4)


def test_a_kept_packet_that_is_partly_written_is_finished_before_the_next(stack: ExitStack) -> None:
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    stack.enter_context(its)
    (reader, hers), (his, writer) = os.pipe(), os.pipe()
    with open(his, "rb") as target, open(hers, "wb") as greeting:
        left, right = opened(stack, f"fd:{ours.detach()}"), opened(stack, f"fd:{reader}:{writer}")
        greeting.write(record(packet(0)))
        greeting.flush()
        assert right.receive_packet(SECONDS) == packet(0)  # Now the stream is known to carry records.
        packets = [packet(number, 60000) for number in range(1, 4)]
        for data in packets:
            its.send(data)
        assert left.receive_packet(SECONDS) == packets[0]  # The session keeps the others: more than a pipe holds.
        piped = Piped(stack, left, right)
        piped.start()
        assert come_true(lambda: right.statistics.sent_packets == 2)
        its.send(packet(4))
        for data in (*packets[1:], packet(4)):
            assert target.read(len(record(data))) == record(data)
