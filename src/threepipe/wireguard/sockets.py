"""The UDP sockets of a device: one of each family, on the same port; and who sent what they receive."""

import errno
import socket

from threepipe.errors import EndpointError
from threepipe.net.datagrams import Datagrams
from threepipe.platforms import open_datagrams
from threepipe.wireguard.settings import Endpoint

__all__ = ["endpoint_of", "mark", "open_sockets"]

_FAMILIES = (socket.AF_INET, socket.AF_INET6)
_TRIES = 16


def endpoint_of(source: tuple[str, int] | tuple[str, int, int, int]) -> Endpoint:
    """Who sent a datagram, as endpoints are written."""
    if len(source) == 4 and source[3]:
        return f"{source[0].partition('%')[0]}%{source[3]}", source[1]
    return source[0], source[1]


def _bound(port: int) -> list[socket.socket]:
    """A socket of each family that the system has, bound to the same port."""
    for attempt in range(_TRIES):
        opened: list[socket.socket] = []
        chosen = port
        try:
            for family in _FAMILIES:
                try:
                    bound = socket.socket(family, socket.SOCK_DGRAM)
                except OSError:
                    continue  # A system without this family.
                opened.append(bound)
                if family == socket.AF_INET6:
                    bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                bound.bind(("::" if family == socket.AF_INET6 else "0.0.0.0", chosen))
                chosen = bound.getsockname()[1]
            return opened
        except OSError as error:
            for bound in opened:
                bound.close()
            if port or error.errno != errno.EADDRINUSE or attempt == _TRIES - 1:
                raise EndpointError(
                    error.errno,
                    f"UDP port {chosen} cannot be listened on ({error.strerror}); choose another listen port",
                ) from None
    raise AssertionError("the last attempt raises")


def mark(opened: list[Datagrams], fwmark: int) -> None:
    """Mark what they send, 0 for no mark. Raises `EndpointError`."""
    for datagrams in opened:
        datagrams.mark(fwmark)


def open_sockets(port: int, fwmark: int) -> list[Datagrams]:
    """Sockets bound to `port` (0: one that the system chooses), whose datagrams are marked. Raises `EndpointError`."""
    opened = [open_datagrams(bound) for bound in _bound(port)]
    try:
        for datagrams in opened:
            datagrams.allow_fragments()
            datagrams.tell_addresses()
        mark(opened, fwmark)
    except BaseException:
        for datagrams in opened:
            datagrams.socket.close()
        raise
    return opened
