"""Options that several commands have."""

from typing import Annotated

import typer

from threepipe.cli.completers import namespaces

__all__ = ["Metrics", "Netns"]

Metrics = Annotated[
    str | None,
    typer.Option(
        metavar="[HOST:]PORT",
        help="Serve metrics to Prometheus at this address; a port alone is at 127.0.0.1.",
        show_default=False,
    ),
]
Netns = Annotated[
    str | None,
    typer.Option(
        metavar="NAMESPACE",
        help="Network namespace of the adapter: a name, a path or a process id.",
        autocompletion=namespaces,
    ),
]
