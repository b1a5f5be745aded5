"""The command line: the list of commands, and the handling of errors.

Commands only call the library and print. The library's errors become one line on standard error and exit status 1.
Wrong usage exits with 2, as in typer, and Ctrl-C with 130, as in shells.
"""

import errno
import sys
from typing import Annotated

import typer

from threepipe._version import __version__
from threepipe.cli import adapter, driver, wg
from threepipe.cli.capture import capture
from threepipe.cli.demo import demo
from threepipe.cli.doctor import doctor
from threepipe.cli.output import complain, show_warnings
from threepipe.cli.pipe import pipe
from threepipe.errors import ThreepipeError, text_of

__all__ = ["app", "main"]

GROUPS = {"adapter": adapter.app, "driver": driver.app, "wg": wg.app}
COMMANDS = (capture, demo, doctor, pipe)

app = typer.Typer(
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


for name, group in GROUPS.items():
    app.add_typer(group, name=name)
for command in COMMANDS:
    app.command()(command)


def main() -> None:
    """Run the command that the program's arguments name, and exit with its status."""
    try:
        show_warnings()
        if sys.argv[1:2] == ["wg"]:
            wg.refuse_keys(sys.argv[2:])
        app(prog_name="threepipe")
    except (ThreepipeError, OSError) as error:
        if getattr(error, "errno", None) == errno.ENOMEM:
            raise  # `__main__` says what to do.
        complain(text_of(error))
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
