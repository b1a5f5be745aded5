"""Opening a WireGuard device as an endpoint: `wg:CONFIG`. Between `endpoints`, which names it, and `device`."""

from pathlib import Path

from threepipe.endpoints.request import Asked
from threepipe.session import Session
from threepipe.wireguard.device import Device
from threepipe.wireguard.quick.config import read_config

__all__ = ["open_wg"]


def open_wg(asked: Asked) -> Session:
    """The inside of the device that a file describes. Raises `InvalidSetting`, `EndpointError` and `OSError`."""
    config = read_config(Path(asked.place))
    device = Device(mtu=config.mtu or 0)
    try:
        device.configure(config.change())
    except BaseException:
        device.close()
        raise
    status = device.status()
    asked.complaints.tell(f"listens on UDP port {status.listen_port}, and has {len(status.peers)} peers")
    return device.session
