"""Messages between two processes of threepipe on a socket of whole messages (SOCK_SEQPACKET): JSON, and descriptors.

An error passes with its class, errno and text, and is raised again at the other end.
"""

import sys

assert sys.platform == "linux"

import errno
import json
import os
import socket
import struct
from collections.abc import Sequence
from typing import Any

from threepipe import errors
from threepipe.errors import AdapterError, ThreepipeError

__all__ = ["MAX_DESCRIPTORS", "MAX_MESSAGE", "answer_of", "close_all", "encode_error", "receive", "send"]

MAX_MESSAGE = 1 << 17
"""Bytes of the longest message."""
_INT = struct.Struct("i")
MAX_DESCRIPTORS = 253  # SCM_MAX_FD of <net/scm.h>.


def send(peer: socket.socket, message: dict[str, Any], descriptors: Sequence[int] = ()) -> None:
    """Send one message with descriptors. Raises `OSError`, with EMSGSIZE for one that `receive` would cut off."""
    data = json.dumps(message).encode()
    if len(data) > MAX_MESSAGE:
        raise OSError(errno.EMSGSIZE, os.strerror(errno.EMSGSIZE))
    socket.send_fds(peer, [data], list(descriptors))


def receive(peer: socket.socket, flags: int = 0) -> tuple[dict[str, Any] | None, list[int]]:
    """Return a message of a trusted process, or None once the other end is closed, and its descriptors.

    The descriptors are not inheritable. `flags` are as of recvmsg(2). Raises `OSError`, and ValueError or
    RecursionError if it is not JSON.
    """
    try:
        data, ancillary = _receive(peer, flags)
    except ConnectionResetError:  # The other end closed and left messages unread; its own ones still wait here.
        data, ancillary = _receive(peer, flags)
    descriptors = [
        number
        for level, kind, content in ancillary
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS)
        for (number,) in _INT.iter_unpack(content[: len(content) // _INT.size * _INT.size])
    ]
    try:
        return (json.loads(data) if data else None), descriptors
    except BaseException:
        close_all(descriptors)
        raise


def _receive(peer: socket.socket, flags: int) -> tuple[bytes, list[tuple[int, int, bytes]]]:
    # Not by socket.recv_fds, which ignores its flags (seen in CPython 3.11 and 3.12).
    size = socket.CMSG_SPACE(MAX_DESCRIPTORS * _INT.size)
    return peer.recvmsg(MAX_MESSAGE, size, socket.MSG_CMSG_CLOEXEC | flags)[:2]


def encode_error(error: Exception) -> dict[str, Any]:
    """Return the message that tells of `error`."""
    kind = type(error).__name__ if isinstance(error, ThreepipeError) else AdapterError.__name__
    text = getattr(error, "strerror", None) or str(error)
    return {"error": kind, "errno": getattr(error, "errno", None), "text": text}


def answer_of(message: dict[str, Any] | None, who: str) -> dict[str, Any]:
    """Return an answer, or raise the error in it; for None, an error that the process `who` has ended."""
    if message is None:
        raise AdapterError(None, f"{who} has ended; start it again")
    if "error" not in message:
        return message
    kind = getattr(errors, message["error"], AdapterError)
    if issubclass(kind, OSError):
        raise kind(message["errno"], message["text"])
    raise kind(message["text"])


def close_all(descriptors: Sequence[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
