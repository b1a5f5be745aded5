"""Names of endpoints whose addresses are not known at once: waiting for them, as wg(8) does when a device comes up.

Knows no device. `config.resolve` looks one up, once.
"""

import logging
import os
import socket
import time
from collections.abc import Callable

from threepipe.errors import EndpointError, InvalidSetting
from threepipe.wireguard.peer_endpoint import PeerEndpoint
from threepipe.wireguard.quick.config import resolve

__all__ = ["resolve_patiently"]

_RETRIES = "WG_ENDPOINT_RESOLUTION_RETRIES"
_BY_DEFAULT = 15
_FIRST, _GROWTH, _LONGEST = 1.0, 1.25, 20.0
"""Seconds between tries, and by what each is longer than the one before: two minutes for 15."""

log = logging.getLogger("threepipe")


def resolve_patiently(endpoint: tuple[str, int], wait: Callable[[float], None] = time.sleep) -> PeerEndpoint:
    """The address of an endpoint, which is tried again while nobody can say, as when there is no network yet.

    So often as WG_ENDPOINT_RESOLUTION_RETRIES says, a number or `infinity`; by default 15 times. Raises
    `EndpointError` where there is no such name, or enough of it, and `InvalidSetting`.
    """
    left, delay = _retries(), _FIRST
    while True:
        try:
            return resolve(endpoint)
        except EndpointError as error:
            if error.errno != socket.EAI_AGAIN or not left:
                raise
            log.warning(f"{error}; looked up again in {delay:.1f} s")
        wait(delay)
        left, delay = left - 1, min(delay * _GROWTH, _LONGEST)


def _retries() -> float:
    text = os.environ.get(_RETRIES, str(_BY_DEFAULT))
    if text == "infinity":
        return float("inf")
    if not text.isdecimal():
        raise InvalidSetting(f"{_RETRIES}={text}: give a number, or infinity")
    return int(text)
