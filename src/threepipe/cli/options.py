"""Options that several commands have."""

from typing import Annotated

import typer

from threepipe.cli.completers import namespaces

__all__ = ["Netns"]

Netns = Annotated[
    str | None,
    typer.Option(
        metavar="NAMESPACE",
        help="Network namespace of the adapter: a name, a path or a process id.",
        autocompletion=namespaces,
    ),
]
