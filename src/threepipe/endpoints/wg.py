"""The opener of `wg`, the only file here that knows `wireguard`."""

from pathlib import Path

from threepipe.endpoints.request import OpenRequest
from threepipe.errors import InvalidSetting
from threepipe.net.connect import close_on_error
from threepipe.session import Session
from threepipe.wireguard.device import Device
from threepipe.wireguard.quick.config import read_config, warn_if_exposed

__all__ = ["open_wg"]


def open_wg(request: OpenRequest[str]) -> Session:
    """Return the session of a new WireGuard device that a file configures.

    Raises `InvalidSetting`, `EndpointError` or `OSError`.
    """
    path = Path(request.parameter)
    config = read_config(path)
    warn_if_exposed(path)
    if config.private_key is None:  # Commands of the file, which may set it, run only in `wg up`.
        raise InvalidSetting(f"{path}: [Interface] has no PrivateKey; threepipe wg genkey makes one")
    with close_on_error(Device(mtu=config.mtu or 0)) as device:
        device.configure(config.change())
    status = device.status()
    request.log.info(f"listening on UDP port {status.listen_port}, with {len(status.peers)} peers")
    return device.session
