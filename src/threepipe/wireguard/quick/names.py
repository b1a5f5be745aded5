"""Names of endpoints, looked up once, or again and again while there is no answer, as wg(8) does. Knows no device."""

import errno
import logging
import os
import socket
import time
from collections.abc import Callable

from threepipe.errors import EndpointError, InvalidSetting
from threepipe.wireguard.fields import hide_keys, hide_whole_keys
from threepipe.wireguard.peer_endpoint import PeerEndpoint, from_socket

__all__ = ["resolve", "resolve_patiently"]

_RETRIES = "WG_ENDPOINT_RESOLUTION_RETRIES"
_DEFAULT_RETRIES = 15
_FIRST_DELAY, _DELAY_GROWTH, _MAX_DELAY = 1.0, 1.25, 20.0
"""Seconds between attempts, and their growth from one to the next: two minutes in all for 15 retries."""

log = logging.getLogger("threepipe")


def resolve(endpoint: tuple[str, int]) -> PeerEndpoint:
    """Return the address of an endpoint, with its zone. Raises `EndpointError`: EAI_AGAIN if it may be known later."""
    host, port = endpoint
    try:
        found = socket.getaddrinfo(host, port, 0, socket.SOCK_DGRAM)
    except OSError as error:
        zone = host.partition("%")[2]
        why = f"no interface is named {zone}" if zone and error.errno == socket.EAI_NONAME else error.strerror
        raise EndpointError(error.errno, hide_whole_keys(f"endpoint {host}: {why}")) from None
    except ValueError:  # Raised also by the codec for names beyond ASCII.
        raise EndpointError(errno.EINVAL, f"endpoint {hide_keys(repr(host))} is not a valid host name") from None
    return from_socket(found[0][4])  # type: ignore[arg-type]


def resolve_patiently(endpoint: tuple[str, int], wait: Callable[[float], None] = time.sleep) -> PeerEndpoint:
    """Return the address of an endpoint, waiting for name servers that do not answer yet.

    Tries again 15 times, or as often as WG_ENDPOINT_RESOLUTION_RETRIES says, which is a number or `infinity`. Raises
    `EndpointError`, at once if there is no such name, and `InvalidSetting`.
    """
    left, delay = _retries(), _FIRST_DELAY
    while True:
        try:
            return resolve(endpoint)
        except EndpointError as error:
            if error.errno != socket.EAI_AGAIN or not left:
                raise
            log.warning(f"{error}; trying again in {delay:.1f} s")
        wait(delay)
        left, delay = left - 1, min(delay * _DELAY_GROWTH, _MAX_DELAY)


def _retries() -> float:
    text = os.environ.get(_RETRIES, str(_DEFAULT_RETRIES))
    if text == "infinity":
        return float("inf")
    if not text.isdecimal():
        raise InvalidSetting(f"{_RETRIES}={text}: give a number or infinity")
    return int(text)
