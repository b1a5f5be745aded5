"""Device: the public one, which is that of `device` and can also be made from a file of wg-quick(8)."""

from collections.abc import Callable
from typing import Self

from threepipe.errors import InvalidSetting
from threepipe.net.connect import close_on_error
from threepipe.wireguard import device
from threepipe.wireguard.quick.config import read_config, warn_if_exposed
from threepipe.wireguard.quick.sections import PathLike
from threepipe.wireguard.tunnel import Event

__all__ = ["Device"]


class Device(device.Device):
    """A WireGuard device. `close` or `with` ends it. Thread-safe. In a forked child it is closed and has no keys.

    ```
    with wireguard.Device(private_key=key, listen_port=51820, peers=[PeerChange(...)]) as device:
        threepipe.pipe(adapter.start_session(), device.session)
    ```
    """

    @classmethod
    def from_config(cls, path: PathLike, *, on_event: Callable[[Event], None] | None = None) -> Self:
        """Return a device with the keys, port, mark, MTU and peers of the file at `path`.

        Names of endpoints are looked up once. Addresses, routes, DNS and commands of the file are not used, so this
        needs no privilege. A warning is logged if other users can open the file. `on_event` is as in the constructor.
        Raises `InvalidSetting` for a mistake, which names the line, and for a file without PrivateKey or with Routing;
        `EndpointError` if the file cannot be read, for a name, and for a port or mark; and `OSError`.
        """
        config = read_config(path)
        warn_if_exposed(path)
        if config.private_key is None:  # Commands of the file, which may set it, run only in `wg up`.
            raise InvalidSetting(f"{path}: [Interface] has no PrivateKey; threepipe wg genkey makes one")
        if config.routing:
            text = "Routing needs an adapter; use threepipe wg up, or make a Device with routing=NextHopRouting(...)"
            raise InvalidSetting(f"{path}: {text}")
        with close_on_error(cls(mtu=config.mtu or 0, on_event=on_event)) as made:
            made.configure(config.change())
        return made
