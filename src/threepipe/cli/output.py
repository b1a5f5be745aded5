"""The output of all commands: tables for people, JSON for programs, and errors on standard error.

This file knows the form of the output, and not its meaning.
"""

import contextlib
import logging
import sys
from collections.abc import Iterable, Sequence
from typing import Annotated

import typer

from threepipe.errors import hide_given_keys

__all__ = [
    "Quiet",
    "Verbose",
    "complain",
    "log_level",
    "print_json",
    "print_json_line",
    "print_table",
    "printable",
    "show_log",
    "show_warnings",
    "warn_of_exposed_output",
]

_STDOUT = 1
_UNLIMITED = 10_000
"""Columns without a terminal, so that each row is one line for grep and its like."""


def complain(text: str) -> None:
    """Print one line on standard error, with the program's name; do nothing if nobody can read it any more."""
    with contextlib.suppress(OSError):  # The terminal is gone, for example, and the program must still undo its work.
        typer.echo(f"threepipe: {printable(hide_given_keys(text))}", err=True)


def warn_of_exposed_output() -> None:
    """Warn if standard output is a file that every user can open, before a key is written to it, as wg(8) does."""
    from threepipe import platforms

    if platforms.is_exposed(_STDOUT):
        complain("the key is written to a file that other users can open; run umask 077 before, or chmod 600 the file")


def print_json(value: object) -> None:
    """Print `value` as JSON on standard output: values with named fields as objects, addresses as strings."""
    import json

    typer.echo(json.dumps(_plain(value), indent=2))


def print_json_line(value: object) -> None:
    """Print `value` as `print_json` does, on one line, at once."""
    import json

    typer.echo(json.dumps(_plain(value)))
    sys.stdout.flush()


def print_table(headings: Sequence[str] | None, rows: Iterable[Sequence[str]], **styles: str) -> None:
    """Print a table on standard output, as wide as the terminal. `styles` maps the text of cells to their style.

    A table without `headings` has two columns, names and values.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(width=None if sys.stdout.isatty() else _UNLIMITED)
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0), show_header=bool(headings))
    for heading in headings or ("", ""):
        table.add_column(heading, overflow="fold")
    for row in rows:
        # As `Text`, since a name may look like markup.
        table.add_row(*[Text(printable(cell), styles.get(cell, "")) for cell in row])
    with console.capture() as captured:
        console.print(table)
    typer.echo("\n".join([line.rstrip() for line in captured.get().splitlines()]))


def printable(text: str) -> str:
    """Return `text` on one line, with control characters escaped, as names of interfaces and files may have them."""
    return "".join([char if char.isprintable() else char.encode("unicode_escape").decode() for char in text])


Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Print more about what happens.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print only warnings and errors.")]


def log_level(verbose: bool, quiet: bool, usual: int = logging.WARNING) -> int:
    """Return the level from which the library's log is shown. Raise `BadParameter` for both options."""
    if verbose and quiet:
        raise typer.BadParameter("--verbose and --quiet exclude each other; drop one of the two")
    return logging.DEBUG if verbose else logging.WARNING if quiet else usual


def show_log(level: int) -> None:
    """Print the library's log, from `level` up, on standard error; warnings and errors at least."""
    if level >= logging.WARNING:
        return
    log = logging.getLogger("threepipe")
    log.setLevel(level)
    for handler in log.handlers:
        if isinstance(handler, _WarningHandler):
            handler.setLevel(level)


def show_warnings() -> None:
    """Print the library's log, from warnings up, on standard error."""
    log = logging.getLogger("threepipe")
    if not any(isinstance(handler, _WarningHandler) for handler in log.handlers):
        log.addHandler(_WarningHandler(logging.WARNING))


class _WarningHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        level = f"{record.levelname.lower()}: " if record.levelno >= logging.WARNING else ""
        complain(f"{level}{record.getMessage()}")


def _plain(value: object) -> object:
    import dataclasses

    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    elif isinstance(value, tuple) and hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, (bool, int, float)) else str(value)
