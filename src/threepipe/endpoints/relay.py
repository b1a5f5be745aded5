"""Relay: pipes that cannot be waited for, as sockets that can; what `exec` and `stdio` are made of on Windows.

A thread a direction copies between the pipe, where it blocks, and one end of a pair of sockets, of which the
stream has the other end. Knows no records and no programs.
"""

import io
import socket
import threading
from collections.abc import Callable

from threepipe.endpoints.stream import FileStream, SocketStream, Stream
from threepipe.platforms import PIPES_CAN_BE_AWAITED

__all__ = ["RelayStream", "stream_of_files"]

_PIECE = 1 << 16  # Bytes read at once: a superpacket.
_GRACE = 2.0  # Seconds for what was written to reach the pipe, once the stream is closed, and for the threads to end.


def stream_of_files(
    reader: io.FileIO,
    writer: io.FileIO,
    last_words: Callable[[], str] = lambda: "",
    closed: Callable[[], None] | None = None,
) -> Stream:
    """A stream of two pipes, by the shortest way this system has; takes both files over.

    `closed` ends who is at their other end, and is called after closing; `last_words` is as for every stream.
    """
    if PIPES_CAN_BE_AWAITED:
        return FileStream(reader, writer, last_words, closed or (lambda: None))
    return RelayStream(reader, writer, last_words, closed)


class RelayStream:
    """Two blocking files as a stream.

    Without `closed`, a read that is under way when the stream is closed stays until something comes, which is
    lost, or until the program ends: it cannot be taken back.
    """

    def __init__(
        self,
        reader: io.FileIO,
        writer: io.FileIO,
        last_words: Callable[[], str] = lambda: "",
        closed: Callable[[], None] | None = None,
    ) -> None:
        self.last_words, self._closed = last_words, closed
        self.reader, inward = _pair()
        self.writer, outward = _pair()
        self._input, self._output = SocketStream(self.reader), SocketStream(self.writer)
        # Daemons, for neither a silent nor a deaf other end may keep the program from ending.
        self._copying_in = threading.Thread(target=_copy_in, args=(reader, inward), name="threepipe-in", daemon=True)
        self._copying_out = threading.Thread(
            target=_copy_out, args=(outward, writer), name="threepipe-out", daemon=True
        )
        self._copying_in.start()
        self._copying_out.start()

    def read(self, memory: memoryview) -> int | None:
        return self._input.read(memory)

    def pending(self) -> bool:
        return False

    def write(self, data: memoryview) -> int:
        return self._output.write(data)

    def flush(self) -> bool:
        return True

    def close(self) -> None:
        self._output.close()
        self._copying_out.join(_GRACE)
        self._input.close()
        if self._closed is not None:
            self._closed()
            self._copying_in.join(_GRACE)


def _pair() -> tuple[socket.socket, socket.socket]:
    """The stream's end and the thread's; on Windows these are TCP, which is not to wait for more to send."""
    ends = socket.socketpair()
    for end in ends:
        if end.family != getattr(socket, "AF_UNIX", None):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return ends


def _copy_in(file: io.FileIO, inward: socket.socket) -> None:
    """From the pipe, until it ends or the stream is closed."""
    with file, inward:
        try:
            while data := file.read(_PIECE):
                inward.sendall(data)
        except OSError:
            pass  # The stream was closed, or the other end has broken off, which ends it as well.


def _copy_out(outward: socket.socket, file: io.FileIO) -> None:
    """To the pipe, until the stream is closed or nobody reads the pipe any more, which the stream then hears of."""
    with file, outward:
        try:
            while data := outward.recv(_PIECE):
                rest = memoryview(data)
                while rest:
                    rest = rest[file.write(rest) :]
        except OSError:
            pass
