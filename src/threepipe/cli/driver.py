"""The command `threepipe driver`: install, show and remove the driver that adapters need on Windows.

This module asks the user, shows progress and prints; `threepipe.platforms.driver` does the work.
"""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from threepipe.cli.completers import files
from threepipe.cli.output import complain, print_json, print_table

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="Install, show and remove the driver that adapters need on Windows.")


@app.command()
def install(
    source: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="FILE",
            exists=True,
            dir_okay=False,
            help="The official zip, or the DLL from it; by default it is downloaded.",
            show_default=False,
            autocompletion=files,
        ),
    ] = None,
    to: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Where to put the DLL, such as beside a program; by default this user's data folder.",
            show_default=False,
            autocompletion=files,
            file_okay=False,
        ),
    ] = None,
    architecture: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="amd64, arm64, x86 or arm; by default that of this Python.", show_default=False
        ),
    ] = None,
    accept_licence: Annotated[
        bool, typer.Option("--accept-licence", help="Accept the licence of the DLL without being asked.")
    ] = False,
) -> None:
    """Download Wintun's signed DLL from its home page, and put it where threepipe finds it.

    Its SHA-256 must be the one that threepipe knows, or nothing is unpacked.
    Windows installs the driver from it when the first adapter is created.

    Examples:
      threepipe driver install
      threepipe driver install --from wintun-0.14.1.zip --accept-licence
      threepipe driver install --architecture arm64 --to dist
    """
    from threepipe.platforms import driver

    with _progress() as progress:
        package = driver.get_package(source, architecture=architecture, progress=progress)
    if not accept_licence:
        _ask(package.licence or f"The licence of the prebuilt DLL is in the zip from {driver.HOME_PAGE}.")
    typer.echo(os.fsencode(package.install(to)))


@app.command()
def path() -> None:
    """Print the path of the DLL that adapters load.

    threepipe looks for it in this order: at the path in THREEPIPE_WINTUN, in
    the folder of the program, and in the folder that install uses. Without a
    DLL the exit status is 1.

    Example:
      threepipe driver path
    """
    from threepipe.platforms import driver

    typer.echo(os.fsencode(driver.installed_library().path))


@app.command()
def version(json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False) -> None:
    """Show the DLL with its version and hash, and the driver that Windows runs.

    Example:
      threepipe driver version
    """
    from threepipe.platforms import driver

    library = driver.installed_library()
    running = driver.running_version()
    if json:
        print_json({**library._asdict(), "running": running})
        return
    rows = [
        ("DLL", str(library.path)),
        ("SHA-256", library.sha256),
        ("version", library.version or "unknown: not the DLL that install gets"),
        ("running driver", running or "none; Windows loads it for the first adapter"),
    ]
    print_table(None, rows)


@app.command()
def remove() -> None:
    """Remove the driver from Windows, and the DLL that install put there.

    Needs administrator rights. While any program has an adapter, Windows
    refuses and nothing is removed.

    Example:
      threepipe driver remove
    """
    from threepipe.platforms import driver

    for removed in driver.uninstall():
        typer.echo(os.fsencode(removed))


def _ask(licence: str) -> None:
    if not sys.stdin.isatty():
        complain("the DLL has its own licence; to accept it, add --accept-licence")
        raise typer.Exit(1)
    typer.echo(licence)
    typer.confirm("Do you accept this licence?", abort=True)


@contextmanager
def _progress() -> Iterator[Callable[[int, int | None], None]]:
    """Show a progress bar on standard error once a download has begun."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TransferSpeedColumn

    console = Console(stderr=True)
    columns = ("downloading", BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("download", total=None, visible=False)
        yield lambda done, total: bar.update(task, completed=done, total=total, visible=True)
