"""The demonstration's stream: its content, and `main`, the program at each end, which runs in its own process."""

import hashlib
import socket
import sys
from collections.abc import Callable, Iterator

__all__ = ["chunks", "main"]

_CHUNK = 1 << 20  # Bytes.
_STALL_TIMEOUT = 5.0  # Seconds.


def chunks(size: int, length: int = _CHUNK) -> Iterator[bytes]:
    """Yield `size` bytes in chunks of `length`. All chunks differ, and each call yields the same."""
    filler = hashlib.shake_128(b"threepipe").digest(length)
    for number, start in enumerate(range(0, size, length)):
        yield (number.to_bytes(8, "big") + filler)[: min(length, size - start)]


def main(role: str, fd: int, size: int) -> None:
    """Send or receive (the `role`) `size` bytes by the inherited, connected stream socket `fd`.

    The receiver prints its progress in bytes. Both ends finally print "= BYTES SHA256" of the bytes they transferred.
    They end early when nothing moves for 5 seconds, as when the program between them is killed.
    """
    digest = hashlib.sha256()
    done = 0
    with socket.socket(fileno=fd) as stream:
        stream.settimeout(_STALL_TIMEOUT)
        try:
            for chunk in _ROLES[role](stream, size):
                digest.update(chunk)
                done += len(chunk)
                if role == "receive":  # The sender's output is only read once it has ended.
                    print(done, flush=True)  # noqa: T201
        except OSError as error:
            print(f"the demonstration failed to {role}: {error}", file=sys.stderr)  # noqa: T201
    print("=", done, digest.hexdigest(), flush=True)  # noqa: T201


def _send(stream: socket.socket, size: int) -> Iterator[bytes]:
    for chunk in chunks(size):
        stream.sendall(chunk)
        yield chunk


def _receive(stream: socket.socket, size: int) -> Iterator[bytes]:
    buffer = memoryview(bytearray(_CHUNK))
    left = size
    while left:
        used = 0
        while used < min(_CHUNK, left) and (got := stream.recv_into(buffer[used:])):
            used += got
        if not used:
            return
        left -= used
        yield bytes(buffer[:used])


_ROLES: dict[str, Callable[[socket.socket, int], Iterator[bytes]]] = {"send": _send, "receive": _receive}
