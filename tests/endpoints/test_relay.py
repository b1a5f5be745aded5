"""Streams over pipes that cannot be waited for; and what is waited for on systems that have select() alone."""

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
    """A stream, and the descriptors of the two pipes at its other end."""

    def __init__(self) -> None:
        read, self.input = os.pipe()
        self.output, write = os.pipe()
        self.ended = threading.Event()
        self.stream = RelayStream(io.FileIO(read, "r"), io.FileIO(write, "w"), closed=self.end)

    def end(self) -> None:
        """As a program does that is made to end."""
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
    """What comes until there are `size` bytes, or the end."""
    found = b""
    memory = memoryview(bytearray(size))
    while len(found) < size and ready(stream.reader, selectors.EVENT_READ):
        if not (count := stream.read(memory)):
            break
        found += memory[:count]
    return found


def test_what_is_written_arrives_and_what_is_given_is_read(far: Far) -> None:
    assert far.stream.read(memoryview(bytearray(9))) is None
    os.write(far.input, b"hello")
    assert read(far.stream, 5) == b"hello"
    assert far.stream.write(memoryview(b"answer")) == 6
    assert far.stream.flush()
    assert os.read(far.output, 100) == b"answer"


def test_much_goes_through_in_order_and_a_full_pipe_is_waited_for(far: Far) -> None:
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


def test_the_end_of_the_pipe_is_the_end_after_all_that_came(far: Far) -> None:
    os.write(far.input, b"last")
    os.close(far.input)
    far.input = -1
    assert read(far.stream, 100) == b"last"
    assert far.stream.read(memoryview(bytearray(1))) == 0


def test_nobody_reads_any_more(far: Far) -> None:
    os.close(far.output)
    far.output = -1
    with pytest.raises(ConnectionError):
        write_on(far.stream)


def write_on(stream: RelayStream) -> None:
    while ready(stream.writer, selectors.EVENT_WRITE):
        stream.write(memoryview(b"x" * 1000))


def test_closing_writes_what_was_taken_ends_the_other_end_and_leaves_no_thread() -> None:
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


def test_files_may_come_while_somebody_waits_where_only_select_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
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
    """As sessions wait: a wait may end early, and who waits looks again."""
    file.setblocking(False)
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:  # And not so many times: until the other one has heard, waiting does not wait.
        watch.wait(SECONDS)
        try:
            return bool(file.recv(1, socket.MSG_PEEK))
        except BlockingIOError:
            pass
    return False
