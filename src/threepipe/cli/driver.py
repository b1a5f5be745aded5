"""`threepipe driver`: get Windows' driver for adapters, look at it, and take it away.

Asks, shows progress and prints; the rest is done by `threepipe.platforms.windows.driver`.
"""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from threepipe.cli.output import complain, print_json, print_table

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="Get the driver that adapters need on Windows, and take it away.")


@app.command()
def install(
    source: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="FILE",
            exists=True,
            dir_okay=False,
            help="The official zip, or the DLL out of it; by default it is downloaded.",
            show_default=False,
        ),
    ] = None,
    to: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Where to put it, as beside a program; by default this user's data.",
            show_default=False,
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

    It is checked to be the very file that threepipe knows before anything is
    unpacked. Windows takes the driver out of it when the first adapter is made.

    Examples:
      threepipe driver install
      threepipe driver install --from wintun-0.14.1.zip --accept-licence
      threepipe driver install --architecture arm64 --to dist
    """
    from threepipe.platforms.windows import driver

    with _progress() as progress:
        package = driver.obtain(source, architecture=architecture, progress=progress)
    if not accept_licence:
        _ask(package.licence or f"The licence of the prebuilt DLL is in the zip from {driver.HOME_PAGE}.")
    typer.echo(os.fsencode(package.install(to)))


@app.command()
def path() -> None:
    """Print which DLL is loaded, and exit with 1 where there is none.

    It is looked for in this order: the file that THREEPIPE_WINTUN names, beside
    the program, and where install puts it.

    Example:
      threepipe driver path
    """
    from threepipe.platforms.windows import driver

    typer.echo(os.fsencode(driver.found().path))


@app.command()
def version(json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False) -> None:
    """Show the DLL with its version and hash, and the driver that Windows runs.

    Example:
      threepipe driver version
    """
    from threepipe.platforms.windows import driver
    from threepipe.platforms.windows.running import running_version

    found = driver.found()
    running = running_version()
    if json:
        print_json({**found._asdict(), "running": running})
        return
    rows = [
        ("DLL", str(found.path)),
        ("SHA-256", found.sha256),
        ("version", found.version or "unknown: not the one that install gets"),
        ("running driver", running or "none; Windows loads it with the first adapter"),
    ]
    print_table(None, rows)


@app.command()
def remove() -> None:
    """Take the driver out of Windows, and remove the DLL that install put there.

    It takes an administrator. Where any program has an adapter, Windows
    refuses and all stays as it is.

    Example:
      threepipe driver remove
    """
    from threepipe.platforms.windows import driver

    for removed in driver.remove():
        typer.echo(os.fsencode(removed))


def _ask(licence: str) -> None:
    if not sys.stdin.isatty():
        complain("the DLL has a licence of its own, which has to be accepted: say --accept-licence")
        raise typer.Exit(1)
    typer.echo(licence)
    typer.confirm("Do you accept this licence?", abort=True)


@contextmanager
def _progress() -> Iterator[Callable[[int, int | None], None]]:
    """A bar on standard error that tells of a download; none is shown before one has begun."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TransferSpeedColumn

    console = Console(stderr=True)
    columns = ("downloading", BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("download", total=None, visible=False)
        yield lambda done, total: bar.update(task, completed=done, total=total, visible=True)
