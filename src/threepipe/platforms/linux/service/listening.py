"""The socket of the service: where it is, and listening at it."""

import sys

assert sys.platform == "linux"

import errno
import os
import socket
from collections.abc import Callable
from pathlib import Path

from threepipe.errors import EndpointError, InvalidSetting

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

    Makes the folder, and replaces the file of a service that was killed. Raises `EndpointError`.
    """
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        try:
            listening.bind(os.fspath(path))
        except OSError as error:
            if error.errno != errno.EADDRINUSE or _answers(path):
                raise
            path.unlink()
            listening.bind(os.fspath(path))
        path.chmod(0o666)  # The policy decides who gets something.
        listening.listen(_BACKLOG)
    except OSError as error:
        listening.close()
        advice = "; another service runs there" if error.errno == errno.EADDRINUSE else "; run this as root"
        raise EndpointError(error.errno, f"{path}: {error.strerror or error}{advice}") from None
    return listening, lambda: path.unlink(missing_ok=True)


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
        return client.connect_ex(os.fspath(path)) != errno.ECONNREFUSED


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
