"""What the commands print: tables for people, JSON for programs, complaints for standard error.

Owns the way things look, and knows nothing of what they mean.
"""

import dataclasses
import json
import logging
import sys
from collections.abc import Iterable, Sequence

import typer

__all__ = ["complain", "print_json", "print_table", "printable", "show_warnings"]

_UNLIMITED = 10_000
"""Columns where there is no terminal: whoever reads lines wants each row to be one."""


def complain(text: str) -> None:
    """One line on standard error, which says where it comes from."""
    typer.echo(f"threepipe: {printable(text)}", err=True)


def print_json(value: object) -> None:
    """`value` as JSON on standard output; what has named fields becomes an object, and addresses strings."""
    typer.echo(json.dumps(_plain(value), indent=2))


def print_table(headings: Sequence[str] | None, rows: Iterable[Sequence[str]], **styles: str) -> None:
    """A table on standard output, as wide as the terminal; `styles` says how cells of a certain text look.

    Without `headings` the first column has the names of what stands in the second.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(width=None if sys.stdout.isatty() else _UNLIMITED)
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0), show_header=bool(headings))
    for heading in headings or ("", ""):
        table.add_column(heading, overflow="fold")
    for row in rows:
        # Text, for a name may look like markup.
        table.add_row(*[Text(printable(cell), styles.get(cell, "")) for cell in row])
    with console.capture() as captured:
        console.print(table)
    typer.echo("\n".join([line.rstrip() for line in captured.get().splitlines()]))


def printable(text: str) -> str:
    """`text` on one line and without control characters, which names of interfaces and files may have."""
    return "".join([char if char.isprintable() else char.encode("unicode_escape").decode() for char in text])


def show_warnings() -> None:
    """Let what the library logs, from warnings up, be seen on standard error."""
    log = logging.getLogger("threepipe")
    if not any(isinstance(handler, _Complaints) for handler in log.handlers):
        log.addHandler(_Complaints(logging.WARNING))


class _Complaints(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        complain(f"{record.levelname.lower()}: {record.getMessage()}")


def _plain(value: object) -> object:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    elif isinstance(value, tuple) and hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, (bool, int, float)) else str(value)
