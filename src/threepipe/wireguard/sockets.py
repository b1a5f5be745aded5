"""The UDP sockets of a device: one for each address family, on the same port."""

import errno
import socket
from collections.abc import Sequence

from threepipe.errors import EndpointError
from threepipe.net.datagrams import Datagrams
from threepipe.platforms import open_datagrams

__all__ = ["mark", "open_sockets", "take_sockets"]

_ANY_ADDRESS = {socket.AF_INET: "0.0.0.0", socket.AF_INET6: "::"}
_ATTEMPTS = 16
_SHORTAGES = {
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENFILE: "raise the system's limit of open files",
    errno.ENOBUFS: "free some memory",
    errno.ENOMEM: "free some memory",
}
"""Errors that do not mean that the system lacks a family, and what to do."""


def open_sockets(port: int, fwmark: int) -> list[Datagrams]:
    """Return sockets bound to `port` (0: one that the system chooses) that mark their datagrams.

    Raises `EndpointError`.
    """
    opened = [open_datagrams(bound) for bound in _bind(port)]
    try:
        _prepared(opened)
        mark(opened, fwmark)
    except BaseException:
        for datagrams in opened:
            datagrams.socket.close()
        raise
    return opened


def take_sockets(bound: Sequence[socket.socket]) -> list[Datagrams]:
    """Return the sockets of another process, which are bound and marked."""
    return _prepared([open_datagrams(each) for each in bound])


def mark(opened: list[Datagrams], fwmark: int) -> None:
    """Mark the sockets' datagrams; 0 for no mark. Raises `EndpointError`."""
    for datagrams in opened:
        datagrams.mark(fwmark)


def _prepared(opened: list[Datagrams]) -> list[Datagrams]:
    for datagrams in opened:
        datagrams.allow_fragments()
        datagrams.report_local_addresses()
        datagrams.report_ecn()
    return opened


def _bind(port: int) -> list[socket.socket]:
    """Return a socket for each family that the system has, bound to the same port."""
    for attempt in range(_ATTEMPTS):
        opened: list[socket.socket] = []
        chosen = port
        try:
            for family, any_address in _ANY_ADDRESS.items():
                try:
                    bound = socket.socket(family, socket.SOCK_DGRAM)
                except OSError as error:
                    if error.errno in _SHORTAGES or (family == socket.AF_INET6 and not opened):
                        raise
                    continue  # The system lacks this family, and has the other.
                opened.append(bound)
                if family == socket.AF_INET6:
                    bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                bound.bind((any_address, chosen))
                chosen = bound.getsockname()[1]
            return opened
        except OSError as error:
            for bound in opened:
                bound.close()
            # A port that the system chose for one family may be in use for the other.
            if port or error.errno != errno.EADDRINUSE or attempt == _ATTEMPTS - 1:
                advice = _SHORTAGES.get(error.errno or 0, "choose another listen port")
                text = f"listening on UDP port {chosen}: {error.strerror}; {advice}"
                raise EndpointError(error.errno, text) from None
    raise AssertionError("the last attempt raises")
