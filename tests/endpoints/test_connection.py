"""Connections whose other end goes at a moment that real streams do not choose."""

from typing import cast

import pytest

from tests.support.endpoints import packet, record
from threepipe.endpoints.connection import Connection, Disconnected
from threepipe.endpoints.listener import Listener
from threepipe.endpoints.request import RateLimitedLog
from threepipe.endpoints.stream import Stream
from threepipe.endpoints.stream_port import StreamPort
from threepipe.errors import LinkDown
from threepipe.net.doorbell import Doorbell
from threepipe.net.watch import Watch
from threepipe.session import Session


class Scripted:
    """A stream in memory, which can be told to fail."""

    is_encrypted = True

    def __init__(self) -> None:
        self.reader = self.writer = Doorbell()
        self.unread = b""
        self.written = b""
        self.room: int | None = None  # Bytes accepted at a time; None: all.
        self.fails = False
        self.closed = 0

    def read(self, memory: memoryview) -> int | None:
        self.flush()
        size = len(self.unread)
        memory[:size] = self.unread
        self.unread = b""
        return size or None

    def pending(self) -> bool:
        return False

    def write(self, data: memoryview) -> int:
        self.flush()
        accepted = data[: self.room]
        self.written += accepted
        return len(accepted)

    def flush(self) -> bool:
        if self.fails:
            raise ConnectionResetError("reset")
        return True

    def close(self) -> None:
        self.closed += 1
        self.reader.close()


def test_another_loop_reads_and_writes_bytes_until_the_stream_fails() -> None:
    stream = Scripted()
    connection = Connection(cast(Stream, stream), "it")
    stream.unread = b"abc"
    assert [bytes(connection.receive_bytes(9) or b""), connection.receive_bytes(9)] == [b"abc", None]
    stream.room = 4
    assert connection.send_bytes(b"abcdef") is False
    assert connection.send_bytes(b"")
    stream.room = 0
    assert connection.send_bytes(b"gh") is False
    connection.take_back(b"", b"i", None)
    stream.room = None
    assert connection.flush()
    assert stream.written == b"abcdefghi"
    stream.fails = True
    assert connection.send_bytes(b"lost") is None
    end = connection.receive_bytes(9)
    assert end is not None
    assert not end
    connection.take_back(b"", b"", 0)
    with pytest.raises(Disconnected, match=r"broke off.*reset"):
        connection.read(memoryview(bytearray(100)), 1)
    connection.close()


def test_a_closed_connection_takes_no_packets_and_closes_its_stream_once() -> None:
    stream = Scripted()
    connection = Connection(cast(Stream, stream), "it")
    connection.close()
    connection.close()
    with pytest.raises(Disconnected):
        connection.write([memoryview(packet(1))])
    assert stream.closed == 1


def test_a_stream_that_fails_is_a_disconnection() -> None:
    stream = Scripted()
    connection = Connection(cast(Stream, stream), "it")
    stream.fails = True
    with pytest.raises(Disconnected, match=r"broke off \(reset\)"):
        connection.write([memoryview(packet(1))])
    with pytest.raises(Disconnected, match=r"broke off \(reset\)"):
        connection.flush()
    connection.close()


def test_a_packet_of_which_a_stream_takes_a_part_is_written_whole_before_the_next() -> None:
    stream = Scripted()
    with Session(StreamPort(RateLimitedLog("test"), Connection(cast(Stream, stream), "it"))) as session:
        stream.room = 30
        assert session.send_packet(packet(1))
        assert not session.send_packet(packet(2))
        stream.room = 0
        assert not session.send_packet(packet(3))
        stream.room = None
        assert session.send_packet(packet(4))
        assert stream.written == record(packet(1)) + record(packet(4))
        assert session.statistics[3:] == (2, 200, 2, 2)


def test_a_packet_for_a_stream_that_fails_is_dropped_and_counted() -> None:
    stream = Scripted()
    with Session(StreamPort(RateLimitedLog("test"), Connection(cast(Stream, stream), "it"))) as session:
        stream.fails = True
        with pytest.raises(LinkDown, match="it disconnected"):
            session.send_packet(packet(1))
        stream.fails = False
        assert session.send_packet(packet(2))
        assert session.statistics[3:] == (1, 100, 1, 1)


def test_a_session_closes_although_its_stream_fails() -> None:
    stream = Scripted()
    session = Session(StreamPort(RateLimitedLog("test"), Connection(cast(Stream, stream), "it")))
    stream.fails = True
    session.close()
    assert stream.closed == 1


class Accepting:
    """A listener that accepts a connection just when the client's packets arrive."""

    def __init__(self, stream: Scripted) -> None:
        self._stream = stream

    def watch(self, readable: Watch) -> None: ...

    def accept(self, readable: Watch) -> bool:
        self._stream.unread = record(packet(1))
        return True

    def close(self) -> None: ...


def test_packets_that_arrive_while_others_connect_are_received() -> None:
    stream = Scripted()
    supply = cast(Listener, Accepting(stream))
    with Session(StreamPort(RateLimitedLog("test"), Connection(cast(Stream, stream), "it"), supply)) as session:
        assert list(session.receive(0)) == [packet(1)]
