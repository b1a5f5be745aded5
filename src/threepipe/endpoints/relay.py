"""Relay: sockets in place of pipes, for `exec` and `stdio` on Windows, where nothing can wait for a pipe.

One thread per direction copies between a pipe, where it blocks, and one end of a socket pair; the stream has the
other end. Knows no records and no programs.
"""

import io
import socket
import threading
from collections.abc import Callable

from threepipe.endpoints.stream import FileStream, SocketStream, Stream
from threepipe.platforms import PIPES_CAN_BE_AWAITED

__all__ = ["RelayStream", "stream_of_files"]

_PIECE = 1 << 16  # Bytes read at once: a superpacket.
_GRACE = 2.0  # Seconds, after close, for written bytes to reach the pipe, and again for the reading thread to end.


def stream_of_files(
    reader: io.FileIO,
    writer: io.FileIO,
    failure: Callable[[], str] = lambda: "",
    closed: Callable[[], None] | None = None,
) -> Stream:
    """Return a stream on two pipes, and take both files over.

    `failure` is the stream's. `closed` is called after closing, and ends the program at the pipes' other ends.
    """
    if PIPES_CAN_BE_AWAITED:
        return FileStream(reader, writer, failure, closed or (lambda: None))
    return RelayStream(reader, writer, failure, closed)


class RelayStream:
    """A stream on two blocking files.

    Closing it cannot cancel a read in progress. Without `closed`, which ends the other end, the reading thread stays
    until it reads something, which is lost, or until this program ends.
    """

    is_plain = False
    is_encrypted = False

    def __init__(
        self,
        reader: io.FileIO,
        writer: io.FileIO,
        failure: Callable[[], str] = lambda: "",
        closed: Callable[[], None] | None = None,
    ) -> None:
        self.failure, self._closed = failure, closed
        self.reader, inward = _pair()
        self.writer, outward = _pair()
        self._input, self._output = SocketStream(self.reader), SocketStream(self.writer)
        # Daemons: an other end that neither writes nor reads must not keep this program from ending.
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
    """Return the stream's end and the thread's end. On Windows these are TCP, so Nagle's algorithm is disabled."""
    ends = socket.socketpair()
    for end in ends:
        if end.family != getattr(socket, "AF_UNIX", None):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return ends


def _copy_in(file: io.FileIO, inward: socket.socket) -> None:
    """Copy from the pipe until it ends or the stream is closed."""
    with file, inward:
        try:
            while data := file.read(_PIECE):
                inward.sendall(data)
        except OSError:
            pass  # The stream was closed, or the other end broke off.


def _copy_out(outward: socket.socket, file: io.FileIO) -> None:
    """Copy to the pipe until the stream is closed, or until the pipe's reader is gone, which closes the socket."""
    with file, outward:
        try:
            while data := outward.recv(_PIECE):
                rest = memoryview(data)
                while rest:
                    rest = rest[file.write(rest) :]
        except OSError:
            pass
