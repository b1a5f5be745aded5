"""One end of the demonstration's stream: what it carries, and `main`, which runs in a process of its own."""

import hashlib
import socket
import sys
from collections.abc import Callable, Iterator

__all__ = ["chunks", "main"]

_CHUNK = 1 << 20
_STALLED_SECONDS = 5.0


def chunks(size: int, length: int = _CHUNK) -> Iterator[bytes]:
    """`size` bytes in pieces of `length`, every piece another, the same each time."""
    filler = hashlib.shake_128(b"threepipe").digest(length)
    for number, start in enumerate(range(0, size, length)):
        yield (number.to_bytes(8, "big") + filler)[: min(length, size - start)]


def main(role: str, fd: int, size: int) -> None:
    """Be one end: `role` is send or receive, `fd` an inherited, connected stream socket, `size` in bytes.

    The receiver prints the number of bytes done as it goes, both at last "= BYTES SHA256", of what they
    got done. Ends early when nothing moves for a while, as when the program between the ends is killed.
    """
    digest = hashlib.sha256()
    done = 0
    with socket.socket(fileno=fd) as stream:
        stream.settimeout(_STALLED_SECONDS)
        try:
            for chunk in _ROLES[role](stream, size):
                digest.update(chunk)
                done += len(chunk)
                if role == "receive":  # Nobody reads what the sender prints until it has ended.
                    print(done, flush=True)  # noqa: T201
        except OSError as error:
            print(f"the demonstration's {role} stopped: {error}", file=sys.stderr)  # noqa: T201
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
