"""`threepipe wg invite`: makes the files of both ends for a new peer, and shows one as a QR code."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from threepipe.cli.completers import configs
from threepipe.cli.output import complain, warn_of_exposed_output
from threepipe.errors import EndpointError, InvalidSetting

if TYPE_CHECKING:
    from threepipe.wireguard.quick.invite import Invitation

__all__ = ["invite"]


def invite(
    server: Annotated[
        str,
        typer.Argument(
            metavar="CONFIG",
            help="The server: NAME.conf, or NAME for /etc/wireguard/NAME.conf.",
            autocompletion=configs,
        ),
    ],
    name: Annotated[str, typer.Argument(metavar="NAME", help="The new peer; its file is NAME.conf in this folder.")],
    endpoint: Annotated[
        str, typer.Option(metavar="HOST[:PORT]", help="Where the peer reaches the server.", show_default=False)
    ],
    everything: Annotated[
        bool, typer.Option("--all-traffic", help="Send all of the peer's packets through the server.")
    ] = False,
    dns: Annotated[
        list[str] | None, typer.Option(metavar="ADDRESS", help="A DNS server for the peer. Repeatable.")
    ] = None,
    qr: Annotated[bool, typer.Option("--qr", help="Show the peer's file as a QR code, for a phone.")] = False,
) -> None:
    """Add a peer to a WireGuard server: its section in the server's file, and a file of its own.

    The peer gets keys, a preshared key and the next free addresses. A server
    that is running knows it at once. If the server's file is not there, it is
    made, with new private networks. No file is overwritten.

    Examples:
      threepipe wg invite wg0 laptop --endpoint vpn.example.org
      threepipe wg invite ./lab.conf phone --endpoint 192.0.2.1:443 --qr
    """
    from threepipe.wireguard.quick.config import config_path
    from threepipe.wireguard.quick.invite import invite as make

    draw = _drawer() if qr else None
    server_path = config_path(server)
    client_path = config_path(name, Path())
    made = make(server_path, client_path, endpoint, everything=everything, dns=dns or ())
    addresses = ", ".join(str(address.ip) for address in made.client.addresses)
    typer.echo(f"{'made' if made.new_server else 'changed'} {server_path}: {made.client.name} is a peer, {addresses}")
    typer.echo(f"made {client_path}: bring it there by a safe way, then delete it here, as it has private keys")
    known = _tell(made, server_path)
    if draw is not None:
        warn_of_exposed_output()
        typer.echo(draw(made.text))
    if not known:
        raise typer.Exit(1)


def _tell(made: "Invitation", path: Path) -> bool:
    """Add the peer to the server if it is running. Return False if that fails, which is reported."""
    from threepipe.wireguard.settings import Change
    from threepipe.wireguard.uapi_socket import configure, names

    name = made.server.name
    try:
        if name not in names():
            typer.echo(f"next: threepipe wg up {path}")
            return True
        configure(name, Change(peers=(made.change,)))
    except EndpointError as error:
        complain(f"{name} was not told of the peer: {error.strerror}; then run: threepipe wg syncconf {name} {path}")
        return False
    typer.echo(f"{name} is running and knows the peer already")
    return True


def _drawer() -> Callable[[str], str]:
    """Return the function that draws a text as a QR code of half blocks. Raises `InvalidSetting` without segno."""
    try:
        import segno
    except ImportError:
        raise InvalidSetting('a QR code needs segno; run: pip install "threepipe[qr]"') from None

    def draw(text: str) -> str:
        drawn = io.StringIO()
        segno.make_qr(text, error="l", boost_error=False).terminal(drawn, border=2, compact=True)
        return drawn.getvalue()

    return draw
