"""Write docs/reference/commands.md, from the help of the commands."""

import inspect
import sys
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

from typer.main import get_command

from threepipe.capture.extcap import __doc__ as extcap
from threepipe.cli import app
from threepipe.wireguard.quick.daemon import __doc__ as daemon

__all__ = ["page"]

PAGE = Path(__file__).parent.parent / "docs" / "reference" / "commands.md"
START = """# Commands

The same as `--help` shows. [Pipes](../pipe.md) and [WireGuard](../wireguard.md) say more.
"""


def page() -> str:
    """Return the text of the page."""
    commands = "\n".join(_sections(get_command(app), "threepipe"))
    programs = "".join(f"\n## {name}\n\n{_text(help)}" for name, help in _programs().items())
    return f"{START}\n{commands}{programs}"


def _programs() -> dict[str, str]:
    return {"threepipe-wg": daemon or "", "threepipe-extcap": extcap or ""}


def _sections(command: Any, name: str) -> Iterator[str]:
    """Yield the section of a command, and of its commands."""
    inner: dict[str, Any] = getattr(command, "commands", {})
    context = type(command).context_class(command, info_name=name)
    usage = " ".join([name, *command.collect_usage_pieces(context)])
    text = _text(command.help or "")
    yield f"## {name}\n\n```text\n{usage}\n```\n\n{text}{_table(command, context)}"
    for each in inner:
        yield from _sections(inner[each], f"{name} {each}")


def _default(parameter: Any) -> object:
    """Return the default of a parameter; that of a file as POSIX writes it, on every system."""
    return parameter.default.as_posix() if isinstance(parameter.default, Path) else parameter.default


def _text(help: str) -> str:
    """Return help as Markdown: indented lines are shown as they are, and paragraphs flow."""
    parts = []
    for is_code, lines in groupby(inspect.cleandoc(help).splitlines(), lambda line: line.startswith("  ")):
        text = "\n".join(line[2:] if is_code else _escaped(line) for line in lines).strip("\n")
        parts.append(f"```text\n{text}\n```" if is_code else text)
    return "\n\n".join(part for part in parts if part) + "\n"


def _escaped(line: str) -> str:
    """Return a line in which nothing is Markdown but code between backticks."""
    code = False
    words = []
    for part in line.split("`"):
        words.append(part if code else "".join(f"\\{sign}" if sign in "<>*_[]|" else sign for sign in part))
        code = not code
    return "`".join(words)


def _table(command: Any, context: Any) -> str:
    rows = []
    for each in command.params:
        if each.param_type_name == "argument":
            names = each.make_metavar(context)
        else:
            value = each.metavar or ("" if each.is_flag else each.type.name.upper())
            names = " ".join([", ".join(each.opts), value]).strip()
        note = (
            "" if each.default in (None, False, "", ()) or not each.show_default else f" By default `{_default(each)}`."
        )
        rows.append(f"| `{names.replace('|', chr(92) + '|')}` | {_escaped(each.help or '')}{note} |\n")
    return "".join(["\n| Argument | |\n|---|---|\n", *rows]) if rows else ""


if __name__ == "__main__":
    PAGE.write_text(page())
    print(PAGE, file=sys.stderr)
