"""`threepipe wg`: WireGuard devices from configuration files, looking at them, and keys.

Every command is a few calls of `threepipe.wireguard` and the printing of what they return.
"""

import errno
import os
import sys
import time
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from threepipe.cli.output import complain, print_json, print_table
from threepipe.errors import EndpointError, InvalidSetting

if TYPE_CHECKING:
    from threepipe.wireguard.settings import Status

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="WireGuard devices: bring them up and down, look at them, make keys.")

_FOLDER = Path("/etc/wireguard")
_PATIENCE = 60.0  # Seconds that a device may take to end, with the commands of its file.

Which = Annotated[
    str, typer.Argument(metavar="CONFIG", help="A file NAME.conf, or a NAME with a file in /etc/wireguard.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


@app.command()
def up(
    config: Which,
    daemon: Annotated[bool, typer.Option("--daemon", help="Go on in the background once all is there.")] = False,
) -> None:
    """Be the device that a file of wg-quick(8) describes, until Ctrl-C, `threepipe wg down`, or its adapter goes.

    Addresses, routes, DNS and all else are undone at the end.
    """
    path = _path(config)
    if daemon:
        from threepipe.wireguard.quick.daemon import in_background

        raise typer.Exit(in_background(lambda ready: _up(path, ready)))
    _up(path, lambda: typer.echo(f"{path.stem} is up; Ctrl-C takes it down", err=True))


def _up(path: Path, ready: Callable[[], None]) -> None:
    from threepipe.wireguard.quick.config import read_config
    from threepipe.wireguard.quick.daemon import end_on_signals
    from threepipe.wireguard.quick.up import run

    end_on_signals()
    try:
        run(read_config(path), ready, path)
    except KeyboardInterrupt:
        pass  # Which is how it is ended.


def _path(config: str) -> Path:
    return Path(config) if config.endswith(".conf") or "/" in config else _FOLDER / f"{config}.conf"


@app.command()
def down(config: Which) -> None:
    """Take a device down, and wait until all that it did is undone."""
    from threepipe.wireguard.uapi_socket import names, take_down

    name = _path(config).stem
    if name not in names():
        raise EndpointError(None, f"there is no device {name}; threepipe wg show has those that are there")
    deadline = time.monotonic() + _PATIENCE
    ended = take_down(name, _PATIENCE)
    while ended and (_exists(name) and time.monotonic() < deadline):
        time.sleep(0.02)  # Where another program listens no more before it ends.
    if not ended or _exists(name):
        raise EndpointError(None, f"{name} has not ended after {_PATIENCE:.0f} seconds; it was told to")


def _exists(name: str) -> bool:
    from threepipe.adapter import adapters

    return any(info.name == name for info in adapters())


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="The device; by default all of them.")] = "all",
    json: Json = False,
) -> None:
    """Show devices and their peers, of any implementation that wg(8) can manage by a socket. Secrets stay hidden."""
    from threepipe.wireguard.uapi_socket import status_of

    statuses = _all() if name == "all" else {name: status_of(name)}
    if json:
        print_json({each: _told(status) for each, status in statuses.items()})
        return
    for each, status in statuses.items():
        told = _told(status)
        peers = told.pop("peers")
        assert isinstance(peers, list)
        for told_of in ({"interface": each, **told}, *peers):
            print_table(None, [(key.replace("_", " "), _shown(value)) for key, value in told_of.items()])
            typer.echo()


def _all() -> "dict[str, Status]":
    """The devices there are, without those that left only a file, and with a word for those that answer nonsense."""
    from threepipe.wireguard.uapi_socket import names, status_of

    found = {}
    for name in names():
        try:
            found[name] = status_of(name)
        except EndpointError as error:
            if error.errno not in (errno.ECONNREFUSED, errno.ENOENT):
                complain(str(error.strerror))
    return found


def _told(status: "Status") -> dict[str, object]:
    """What may be shown."""
    from threepipe.wireguard.noise import Identity
    from threepipe.wireguard.settings import key_to_text
    from threepipe.wireguard.uapi import written

    return {
        "public_key": key_to_text(Identity(status.private_key).public) if any(status.private_key) else None,
        "listen_port": status.listen_port,
        "fwmark": status.fwmark,
        "peers": [
            {
                "peer": key_to_text(peer.public_key),
                "preshared_key": any(peer.preshared_key),
                "endpoint": written(peer.endpoint) if peer.endpoint else None,
                "allowed_ips": [str(network) for network in peer.allowed_ips],
                "latest_handshake": peer.last_handshake or None,
                "received_bytes": peer.rx_bytes,
                "sent_bytes": peer.tx_bytes,
                "persistent_keepalive": peer.persistent_keepalive,
            }
            for peer in status.peers
        ],
    }


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "(hidden)" if value else "none"
    if isinstance(value, float):
        return f"{max(0, time.time() - value):.0f} seconds ago"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return "none" if value is None else str(value)


@app.command()
def genkey() -> None:
    """Print a new private key."""
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    key = bytearray(X25519PrivateKey.generate().private_bytes_raw())
    key[0] &= 248  # As wg(8) writes it: with the bits set that X25519 sets (RFC 7748, section 5).
    key[31] = key[31] & 127 | 64
    typer.echo(b64encode(key).decode())


@app.command()
def genpsk() -> None:
    """Print a new preshared key."""
    typer.echo(b64encode(os.urandom(32)).decode())


@app.command()
def pubkey() -> None:
    """Read a private key from standard input, and print its public key."""
    from threepipe.wireguard.noise import Identity
    from threepipe.wireguard.settings import key_from_text, key_to_text

    if sys.stdin.isatty():
        raise InvalidSetting("a private key is read from standard input: threepipe wg pubkey < FILE")
    typer.echo(key_to_text(Identity(key_from_text(sys.stdin.read())).public))
