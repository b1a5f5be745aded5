"""`threepipe serve`: the service that makes adapters for programs without privilege."""

import logging
import os
from pathlib import Path
from typing import Annotated

import typer

__all__ = ["serve"]


def serve(
    policy: Annotated[Path, typer.Option(metavar="FILE", help="The policy: users and their adapters (TOML).")] = Path(
        "/etc/threepipe/serve.toml"
    ),
    socket: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="Where to listen; by default where programs look.", show_default=False),
    ] = None,
) -> None:
    """Make adapters for programs that lack the privilege, as a policy allows.

    Programs with threepipe ask at /run/threepipe-serve/socket (or
    THREEPIPE_SERVE) by themselves. An adapter goes with the connection of
    its program; packets never pass through the service. On SIGHUP it reads
    the policy again. See docs/security.md.

    Examples:
      threepipe serve
      threepipe serve --policy ./serve.toml --socket /run/vpn/socket
    """
    from threepipe import platforms
    from threepipe.endpoints.environment import FIRST_LISTED, count_listed

    logging.getLogger("threepipe.service").setLevel(logging.INFO)  # Each adapter is worth a line.
    for handler in logging.getLogger("threepipe").handlers:
        handler.setLevel(logging.INFO)
    listed = FIRST_LISTED if count_listed(os.environ) else None
    platforms.serve(policy, socket, listed, lambda place: typer.echo(f"serving at {place}", err=True))
