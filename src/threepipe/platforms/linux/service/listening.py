"""The socket of the service: where it is, and listening at it."""

import sys

assert sys.platform == "linux"

import errno
import os
import socket
from collections.abc import Callable
from pathlib import Path

from threepipe.errors import EndpointError, InvalidSetting
from threepipe.net.connect import remover, turn_at

__all__ = ["inherit", "listen", "socket_path"]

_DEFAULT = Path("/run/threepipe-serve/socket")
_VARIABLE = "THREEPIPE_SERVE"
_BACKLOG = 128


def socket_path() -> Path | None:
    """Return the path of the service's socket: that of THREEPIPE_SERVE, which may be empty to have none."""
    text = os.environ.get(_VARIABLE)
    return _DEFAULT if text is None else Path(text) if text else None


def listen(path: Path) -> tuple[socket.socket, Callable[[], None]]:
    """Listen at `path`, where everybody may connect, and return the socket and a function that removes its file.

    Makes the folder, and replaces the file of a service that was killed, but no other file. Raises `EndpointError`.
    """
    text = os.fspath(path)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        with turn_at(text):
            if _is_stale(path):
                path.unlink()
            listening.bind(text)
            path.chmod(0o666)  # The policy decides about callers.
            listening.listen(_BACKLOG)
            return listening, remover(text)
    except OSError as error:
        listening.close()
        advice = "; run this as root"
        if error.errno == errno.EADDRINUSE:
            advice = f"; another {'service runs' if path.is_socket() else 'file is'} there, so choose another path"
        raise EndpointError(error.errno, f"{path}: {error.strerror or error}{advice}") from None


def _is_stale(path: Path) -> bool:
    """Return True for the file of a socket at which nobody listens any more."""
    if not path.is_socket():
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as probe:
        probe.setblocking(False)  # If its queue is full, there is a listener.
        return probe.connect_ex(os.fspath(path)) == errno.ECONNREFUSED


def inherit(number: int) -> socket.socket:
    """Return the listening socket that systemd left open as descriptor `number`. Raises `InvalidSetting`."""
    text = f"descriptor {number} is not a listening Unix socket of whole messages; use ListenSequentialPacket="
    try:
        listening = socket.socket(fileno=number)
    except OSError:
        raise InvalidSetting(text) from None
    kind = (listening.family, listening.type)
    if kind != (socket.AF_UNIX, socket.SOCK_SEQPACKET) or not listening.getsockopt(
        socket.SOL_SOCKET, socket.SO_ACCEPTCONN
    ):
        listening.detach()
        raise InvalidSetting(text)
    listening.set_inheritable(False)
    return listening
