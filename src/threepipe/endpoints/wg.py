"""The opener of `wg`, the only file here that knows `wireguard`."""

from threepipe.endpoints.request import OpenRequest
from threepipe.session import Session
from threepipe.wireguard.opening import Device

__all__ = ["open_wg"]


def open_wg(request: OpenRequest[str]) -> Session:
    """Return the session of a new WireGuard device that a file configures.

    Raises `InvalidSetting`, `EndpointError` or `OSError`.
    """
    device = Device.from_config(request.parameter)
    status = device.status()
    request.log.info(f"listening on UDP port {status.listen_port}, with {len(status.peers)} peers")
    return device.session
