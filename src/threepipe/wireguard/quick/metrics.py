"""Metrics of a device of `threepipe wg up` or `threepipe-wg`, also after it was taken over from another process."""

import errno
import logging
import threading
import time
from contextlib import ExitStack

from threepipe.errors import EndpointError, ThreepipeError, text_of
from threepipe.net.connect import HostPort
from threepipe.wireguard.device import Device

__all__ = ["serve", "serve_after_takeover"]

_SECONDS = 10.0
_INTERVAL = 0.05  # Seconds between attempts.

log = logging.getLogger("threepipe")


def serve(device: Device, interface: str, address: HostPort | None) -> ExitStack:
    """Return a context in which metrics are served at `address`; None for none. Raises as `serve_metrics` does."""
    stack = ExitStack()
    if address is not None:
        from threepipe.wireguard.metrics import serve_metrics  # Loads the library of HTTP servers.

        stack.enter_context(serve_metrics(device, interface, address))
    return stack


def serve_after_takeover(device: Device, interface: str, address: HostPort | None, over: threading.Event) -> ExitStack:
    """Return the same once the other process has left the address. If it does not, log a warning: packets pass."""
    deadline = time.monotonic() + _SECONDS
    while True:
        try:
            return serve(device, interface, address)
        except ThreepipeError as error:
            in_use = isinstance(error, EndpointError) and error.errno == errno.EADDRINUSE
            if not in_use or time.monotonic() > deadline or over.wait(_INTERVAL):
                log.warning(f"the metrics of {interface} are not served: {text_of(error)}")
                return ExitStack()
