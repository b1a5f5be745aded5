"""The commands of `threepipe wg` that change a running device, and the one that prints its configuration."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from threepipe.cli.completers import device_names, files
from threepipe.cli.output import warn_of_exposed_output

__all__ = ["COMMANDS"]

Name = Annotated[
    str, typer.Argument(metavar="NAME", help="The device.", show_default=False, autocompletion=device_names)
]
File = Annotated[
    Path,
    typer.Argument(metavar="FILE", help="A file of wg(8) or wg-quick(8).", show_default=False, autocompletion=files),
]


def set_(
    name: Name,
    settings: Annotated[list[str], typer.Argument(metavar="SETTING VALUE...", help="See above.", show_default=False)],
) -> None:
    """Change a running device of any userspace implementation, as wg(8) does.

    First the settings of the device: listen-port PORT, fwmark MARK, private-key
    FILE. Then peer KEY for each peer, and any of: remove, preshared-key FILE,
    endpoint HOST:PORT, persistent-keepalive SECONDS, allowed-ips NETWORK,...

    A mark or keepalive of 0 or off, and an empty file of a key, turn it off.
    Networks with + or - before them are added and removed; without signs they
    replace those that the peer has.

    Examples:
      threepipe wg set wg0 private-key private.key listen-port 51820
      threepipe wg set wg0 peer KEY endpoint host.example.org:51820
      threepipe wg set wg0 peer KEY allowed-ips 10.0.0.2,fd00::/64
      threepipe wg set wg0 peer KEY remove
    """
    from threepipe.wireguard.quick.names import resolve_patiently
    from threepipe.wireguard.quick.setting import parse_arguments
    from threepipe.wireguard.uapi_socket import configure

    configure(name, parse_arguments(settings, resolve_patiently))


def setconf(name: Name, file: File) -> None:
    """Give a running device the settings of a file, and no others.

    What wg-quick alone does, such as addresses and commands, is left out.
    """
    from threepipe.wireguard.quick.config import read_config, warn_if_exposed
    from threepipe.wireguard.quick.names import resolve_patiently
    from threepipe.wireguard.quick.setting import to_replace
    from threepipe.wireguard.uapi_socket import configure

    config = read_config(file, name)
    warn_if_exposed(file)
    configure(name, to_replace(config, resolve_patiently))


def syncconf(name: Name, file: File) -> None:
    """Change a running device to the settings of a file, while its sessions go on.

    Peers that the file lacks are removed. Without Endpoint or ListenPort in the
    file, the present one stays. What wg-quick alone does is left out.
    """
    from threepipe.wireguard.quick.config import read_config, warn_if_exposed
    from threepipe.wireguard.quick.names import resolve_patiently
    from threepipe.wireguard.quick.setting import to_synchronize
    from threepipe.wireguard.uapi_socket import configure, status_of

    config = read_config(file, name)
    warn_if_exposed(file)
    configure(name, to_synchronize(config, status_of(name), resolve_patiently))


def showconf(name: Name) -> None:
    """Print the configuration of a running device as a file of wg(8), with its keys."""
    from threepipe.wireguard.quick.config import with_status, write_config
    from threepipe.wireguard.quick.sections import Config
    from threepipe.wireguard.uapi_socket import status_of

    text = write_config(with_status(Config(name), status_of(name)))
    warn_of_exposed_output()
    typer.echo(text, nl=False)


COMMANDS: dict[str, Callable[..., None]] = {"set": set_, "setconf": setconf, "showconf": showconf, "syncconf": syncconf}
