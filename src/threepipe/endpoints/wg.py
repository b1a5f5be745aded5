"""The opener of `wg`, the only file here that knows `wireguard`."""

from pathlib import Path

from threepipe.endpoints.request import OpenRequest
from threepipe.net.connect import close_on_error
from threepipe.session import Session
from threepipe.wireguard.device import Device
from threepipe.wireguard.quick.config import read_config

__all__ = ["open_wg"]


def open_wg(request: OpenRequest[str]) -> Session:
    """Return the session of a new WireGuard device that a file configures.

    Raises `InvalidSetting`, `EndpointError` or `OSError`.
    """
    config = read_config(Path(request.parameter))
    with close_on_error(Device(mtu=config.mtu or 0)) as device:
        device.configure(config.change())
    status = device.status()
    request.log.info(f"listening on UDP port {status.listen_port}, with {len(status.peers)} peers")
    return device.session
