"""Streams over pipes that no system call can wait for, and waiting on systems with select() alone."""

import io
import os
import selectors
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from threepipe.endpoints.relay import RelayStream
from threepipe.net.watch import Watch

SECONDS = 10.0


class Far:
    """A stream, and the far descriptors of its two pipes."""

    def __init__(self) -> None:
        read, self.input = os.pipe()
        self.output, write = os.pipe()
        self.ended = threading.Event()
        self.stream = RelayStream(io.FileIO(read, "r"), io.FileIO(write, "w"), closed=self.end)

    def end(self) -> None:
        """Close both descriptors, as a program does when it exits."""
        self.ended.set()
        self.close()

    def close(self) -> None:
        for name in ("input", "output"):
            if (number := getattr(self, name)) >= 0:
                os.close(number)
                setattr(self, name, -1)


@pytest.fixture
def far() -> Iterator[Far]:
    with closing(far := Far()), closing(far.stream):
        yield far


def ready(file: socket.socket, event: int) -> bool:
    with selectors.DefaultSelector() as selector:
        selector.register(file, event)
        return bool(selector.select(SECONDS))


def read(stream: RelayStream, size: int) -> bytes:
    """Read until there are `size` bytes, or the end."""
    found = b""
    memory = memoryview(bytearray(size))
    while len(found) < size and ready(stream.reader, selectors.EVENT_READ):
        if not (count := stream.read(memory)):
            break
        found += memory[:count]
    return found


def test_written_bytes_arrive_and_sent_bytes_are_read(far: Far) -> None:
    assert far.stream.read(memoryview(bytearray(9))) is None
    os.write(far.input, b"hello")
    assert read(far.stream, 5) == b"hello"
    assert far.stream.write(memoryview(b"answer")) == 6
    assert far.stream.flush()
    assert os.read(far.output, 100) == b"answer"


def test_two_megabytes_arrive_in_order_through_a_full_pipe(far: Far) -> None:
    data = b"".join(number.to_bytes(4, "big") for number in range(500_000))

    def take() -> bytes:
        found = b""
        while len(found) < len(data):
            found += os.read(far.output, 1 << 16)
        return found

    rest = memoryview(data)
    while taken := far.stream.write(rest):
        rest = rest[taken:]
    with ThreadPoolExecutor(1) as executor:
        taking = executor.submit(take)
        while rest:
            assert ready(far.stream.writer, selectors.EVENT_WRITE)
            rest = rest[far.stream.write(rest) :]
        assert taking.result(SECONDS) == data


def test_the_end_of_the_pipe_is_read_after_all_its_data(far: Far) -> None:
    os.write(far.input, b"last")
    os.close(far.input)
    far.input = -1
    assert read(far.stream, 100) == b"last"
    assert far.stream.read(memoryview(bytearray(1))) == 0


def test_a_write_without_a_reader_raises_connection_error(far: Far) -> None:
    os.close(far.output)
    far.output = -1
    with pytest.raises(ConnectionError):
        write_on(far.stream)


def write_on(stream: RelayStream) -> None:
    while ready(stream.writer, selectors.EVENT_WRITE):
        stream.write(memoryview(b"x" * 1000))


def test_close_flushes_and_ends_the_program_and_the_threads() -> None:
    far = Far()
    before = {thread for thread in threading.enumerate() if thread.name.startswith("threepipe-")}
    assert len(before) == 2
    assert far.stream.write(memoryview(b"goodbye")) == 7
    output = os.dup(far.output)
    far.stream.close()
    assert far.ended.is_set()
    assert os.read(output, 100) == b"goodbye"
    os.close(output)
    assert not [thread for thread in before if thread.is_alive()]


def test_files_added_to_a_select_watch_wake_its_waiters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selectors, "DefaultSelector", selectors.SelectSelector)
    ours, theirs = socket.socketpair()
    with ours, theirs, closing(Watch()) as watch, ThreadPoolExecutor(2) as executor:
        waiting = [executor.submit(wait_until_told, watch, ours) for _ in range(2)]
        watch.watch(ours, selectors.EVENT_READ)
        theirs.send(b"x")
        assert [each.result(SECONDS) for each in waiting] == [True, True]
        watch.watch(ours, 0)
        watch.wait(0)


def wait_until_told(watch: Watch, file: socket.socket) -> bool:
    """Wait as sessions do: a wait may end early, and the caller checks again."""
    file.setblocking(False)
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:  # Until the other thread has noticed, waits return at once.
        watch.wait(SECONDS)
        try:
            return bool(file.recv(1, socket.MSG_PEEK))
        except BlockingIOError:
            pass
    return False
