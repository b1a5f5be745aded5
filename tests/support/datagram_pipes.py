"""Pipes between endpoints of datagrams, and plain sockets at their other ends."""

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import threepipe
from tests.support.endpoints import SECONDS, here, opened

__all__ = ["listening", "piped", "program", "through"]


@contextmanager
def piped(*ends: threepipe.Session) -> Iterator[None]:
    """Pipe the two ends while the block runs, in a thread that must end without error."""
    with ThreadPoolExecutor(1) as executor:
        ended = executor.submit(threepipe.pipe, *ends)
        try:
            yield
        finally:
            ends[0].close()
            ended.result(SECONDS)


def program(stack: ExitStack, place: str) -> socket.socket:
    """Return a plain UDP socket that is connected to `place`."""
    plain, address = _udp(stack, place)
    plain.connect(address)
    return plain


def listening(stack: ExitStack, place: str) -> socket.socket:
    """Return a plain UDP socket at `place`."""
    plain, address = _udp(stack, place)
    plain.bind(address)
    return plain


def _udp(stack: ExitStack, place: str) -> tuple[socket.socket, tuple[str, int]]:
    """Return a new socket, and `place` as its `connect` and `bind` take it."""
    plain = stack.enter_context(socket.socket(type=socket.SOCK_DGRAM))
    plain.settimeout(SECONDS)
    host, _, port = place.partition(":")
    return plain, (host, int(port))


def through(stack: ExitStack) -> tuple[threepipe.Session, threepipe.Session, threepipe.Session, threepipe.Session]:
    """Return a caller, the two ends of a pipe between them, and a listener; the pipe is not running yet."""
    places = here(), here()
    left, listener = opened(stack, f"udp-listen:{places[0]}"), opened(stack, f"udp-listen:{places[1]}")
    caller, right = opened(stack, f"udp:{places[0]}"), opened(stack, f"udp:{places[1]}")
    return caller, left, right, listener
