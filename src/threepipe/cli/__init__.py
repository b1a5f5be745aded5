"""The command line: the handling of its options and errors. `commands` has the commands.

Commands only call the library and print. The library's errors become one line on standard error and exit status 1.
Wrong usage exits with 2, as in typer, and Ctrl-C with 130, as in shells.
"""

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from threepipe._version import __version__
from threepipe.cli.commands import Commands
from threepipe.cli.output import complain, show_warnings
from threepipe.errors import ThreepipeError, hide_given_keys, text_of

__all__ = ["app", "main"]

_WrongUsage: type[Exception] = typer.BadParameter.__mro__[1]
"""UsageError, whose module differs between versions of typer."""


class _Commands(TyperGroup):
    """All commands. Errors about their arguments pass here, before they are formatted."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands = Commands(dict(self.commands))

    def make_context(self, *arguments: Any, **more: Any) -> Any:
        with _without_keys():
            return super().make_context(*arguments, **more)

    def invoke(self, ctx: Any) -> Any:
        with _without_keys():
            return super().invoke(ctx)


@contextmanager
def _without_keys() -> Iterator[None]:
    """Hide the keys in errors of the block about wrong usage."""
    try:
        yield
    except _WrongUsage as error:
        error.message = hide_given_keys(error.message)  # type: ignore[attr-defined]
        raise


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"threepipe {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Create virtual network adapters, whose IP packets programs read and write.

    threepipe is a dumb layer-3 pipe. To see what this machine offers, start with:
      threepipe doctor
    """


def main() -> None:
    """Run the command that the program's arguments name, and exit with its status."""
    try:
        show_warnings()
        if sys.argv[1:2] == ["wg"]:
            from threepipe.cli.keys import refuse_keys

            refuse_keys(sys.argv[2:])
        if (line := os.environ.get("_THREEPIPE_COMPLETE")) is not None:
            from threepipe.cli.completion import answer

            sys.exit(answer(typer.main.get_command(app), line))
        app(prog_name="threepipe")
    except (ThreepipeError, OSError) as error:
        if getattr(error, "errno", None) == errno.ENOMEM:
            raise  # `__main__` says what to do.
        complain(text_of(error))
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
