"""`threepipe tls`: makes the files of both ends of a `tls` pipe."""

from pathlib import Path
from typing import Annotated

import typer

from threepipe.errors import InvalidSetting

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="Make keys and certificates for the two ends of a tls pipe.")


@app.callback()
def _group() -> None:
    """Make keys and certificates for the two ends of a tls pipe."""


@app.command()
def init(
    listener: Annotated[
        str, typer.Argument(metavar="HOST:PORT", help="Where the client reaches the listener.", show_default=False)
    ],
) -> None:
    """Make the files of both ends of a tls pipe, in folders listener and client here, and print the addresses to use.

    A private authority signs the two certificates, and its key is not kept, so
    each end accepts the other and nobody else. They are valid for ten years.
    No folder is overwritten.

    Example:
      threepipe tls init host2.example.org:4242
    """
    from threepipe.net.connect import parse_host_port

    place = parse_host_port(listener, listening=False)
    try:
        from threepipe.endpoints.authority import make_ends
    except ImportError as error:
        if (error.name or "").partition(".")[0] != "cryptography":
            raise
        raise InvalidSetting("certificates need cryptography; run: pip install cryptography") from None
    at_listener, at_client = make_ends(place, Path())
    typer.echo("made the folders listener and client; move each to its machine, and do not leave a copy of its key")
    typer.echo(f"\nat {place.host}:\n  threepipe pipe tun:tp0,address=10.6.7.2/24 \\\n    {at_listener}")
    typer.echo(f"\nat the client:\n  threepipe pipe tun:tp0,address=10.6.7.1/24 \\\n    {at_client}")
