"""Write the manual pages in man/ from the help of the commands.

    python tools/man_pages.py [FOLDER]

There is a page for threepipe and one for each command, in mdoc(7). The tests compare the files with the program, and
wheels install them.
"""

import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import typer

from threepipe import cli
from threepipe._version import __version__
from threepipe.capture import extcap
from threepipe.endpoints.kinds import KINDS
from threepipe.filters.impairment import SETTINGS
from threepipe.wireguard.quick import daemon

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "man"

DATE = "November 28, 2026"
"""The date in the pages, which a release renews."""
SECTIONS = {"adapter": 8, "driver": 8, "exec": 8, "mesh": 8, "wg": 8}
"""The sections of commands for the administrator; others are in section 1."""
TABLES = "Kinds, and the options of their addresses:"
"""The line in the help of `pipe` behind which the tables begin."""
SEE_ALSO = {
    "capture": [("tshark", 1), ("pcap-filter", 7)],
    "pipe": [("socat", 1)],
    "wg": [("wg", 8), ("wg-quick", 8)],
}
"""Pages of other programs."""


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    for name, text in pages().items():
        path = folder / f"man{name[-1]}" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def pages() -> dict[str, str]:
    """Return the pages by the names of their files."""
    command: Any = typer.main.get_command(cli.app)
    found = {"threepipe.1": page("threepipe", command, 1)}
    for row, each in listed(command.commands):
        name, _, section = row.partition(" ")
        found[f"{name}.{section}"] = page(name, each, int(section))
    found["threepipe-extcap.1"] = extcap_page()
    return found


def page(name: str, command: Any, section: int) -> str:
    command_name = name.partition("-")[2]
    called = f"threepipe {command_name}".strip()
    subcommands: dict[str, Any] = getattr(command, "commands", {})
    paragraphs = split(command.help or "")
    lines = [f".Dd {DATE}", f".Dt {name.upper()} {section}", f".Os threepipe {__version__}"]
    lines += [".Sh NAME", f".Nm {name}", f".Nd {macro_text(' '.join(paragraphs[0].split()).rstrip('.'))}"]
    lines += [".Sh SYNOPSIS", *synopsis(called, command)]
    if command_name:
        lines += [line for each, sub in subcommands.items() for line in synopsis(f"{called} {each}", sub)]
    lines += [".Sh DESCRIPTION", *described(paragraphs)]
    if command_name:
        lines += options(command)
        for each, sub in subcommands.items():
            lines += [f".Sh {called} {each}", *described(split(sub.help or "")), *options(sub)]
    else:
        rows = [(f".It Xr {row}", plain(first(sub))) for row, sub in listed(subcommands)]
        lines += [".Sh COMMANDS", *tagged(rows), ".Sh OPTIONS", *options(command)]
    if command_name == "pipe":
        lines += tables()
    if command_name == "wg":
        lines += [".Sh THE PROGRAM threepipe-wg", *described(split(daemon.__doc__ or ""))]
    statuses = "0 if the command did its work, 1 if it failed, and 2 if it was used wrongly."
    lines += [".Sh EXIT STATUS", *plain(statuses)]
    others = [*SEE_ALSO.get(command_name, []), ("threepipe", 1) if command_name else ("threepipe-pipe", 1)]
    references = [f"{other} {number}" for other, number in sorted(others, key=lambda other: other[::-1])]
    lines += [".Sh SEE ALSO", *[f".Xr {other} ," for other in references[:-1]], f".Xr {references[-1]}"]
    return "\n".join(lines) + "\n"


def extcap_page() -> str:
    """Return the page of the program that Wireshark starts, from its description."""
    summary, *paragraphs = split(extcap.__doc__ or "")
    lines = [f".Dd {DATE}", ".Dt THREEPIPE-EXTCAP 1", f".Os threepipe {__version__}"]
    lines += [".Sh NAME", ".Nm threepipe-extcap", f".Nd {macro_text(summary.partition(': ')[2].rstrip('.'))}"]
    lines += [".Sh SYNOPSIS", ".Nm threepipe-extcap", ".Ar QUESTION ..."]
    lines += [".Sh DESCRIPTION", *described(paragraphs)]
    lines += [".Sh SEE ALSO", ".Xr threepipe-capture 1 ,", ".Xr tshark 1 ,", ".Xr extcap 4"]
    return "\n".join(lines) + "\n"


def listed(commands: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the names and sections of the commands' pages, and the commands."""
    for name, command in commands.items():
        yield f"threepipe-{name} {SECTIONS.get(name, 1)}", command


def split(text: str) -> list[str]:
    """Return the paragraphs of a help text."""
    return [part for part in re.split(r"\n\s*\n", text.partition(TABLES)[0].strip("\n")) if part.strip()]


def first(command: Any) -> str:
    return split(command.help or "")[0]


def synopsis(called: str, command: Any) -> list[str]:
    if hasattr(command, "commands"):
        return [f'.Nm "{called}"', ".Ar COMMAND ..."]
    given = [parameter for parameter in command.params if parameter.param_type_name == "argument"]
    names = [f".Ar {macro_text(parameter.make_metavar(None, usage=True))}" for parameter in given]
    has_options = any(parameter not in given and parameter.name != "help" for parameter in command.params)
    return [f'.Nm "{called}"', *[".Op Ar OPTIONS"] * has_options, *names]


def described(paragraphs: list[str]) -> Iterator[str]:
    """Yield paragraphs; those with indented lines are examples or lists, which keep their lines."""
    for number, paragraph in enumerate(paragraphs):
        if number:
            yield ".Pp"
        head, *rest = paragraph.splitlines()
        literal = [line for line in rest if line.startswith("  ")]
        yield from plain(" ".join([head, *[line for line in rest if line not in literal]]))
        if literal:
            yield ".Bd -literal -offset 2n"
            yield from (escaped(line[2:]) for line in literal)
            yield ".Ed"


def options(command: Any) -> list[str]:
    rows = []
    for parameter in command.params:
        if parameter.param_type_name == "argument":
            tag = f".It Ar {macro_text(parameter.make_metavar(None))}"
            rows.append((tag, plain(parameter.help or "")))
        elif parameter.name != "help":
            names = " , ".join(f"Fl {name[1:]}" for name in parameter.opts)
            value = "" if parameter.is_flag else f" Ar {macro_text(parameter.metavar or 'VALUE')}"
            shown = parameter.show_default is not False and parameter.default not in (None, False, ()) and value
            default = f" By default {parameter.default}." if shown else ""
            rows.append((f".It {names}{value}", plain(f"{parameter.help or ''}{default}")))
    return tagged(rows) if rows else []


def tables() -> list[str]:
    kinds = []
    for kind in KINDS.values():
        kinds.append((f".It Cm {macro_text(kind.usage)}", plain(f"{kind.help}.")))
        for option in kind.options:
            note = " (repeatable)" if option.repeatable else " (required)" if option.required else ""
            kinds.append((f".It , Ns Cm {macro_text(option.usage)}", plain(f"{option.help}{note}.")))
    settings = [
        (f".It Cm {macro_text(f'{setting.name}={setting.example}')}", plain(f"{setting.help}."))
        for setting in SETTINGS.values()
    ]
    return [".Sh ADDRESSES", *tagged(kinds), ".Sh IMPAIRMENTS", *tagged(settings)]


def tagged(rows: Iterable[tuple[str, list[str]]]) -> list[str]:
    return [".Bl -tag -width 8n", *[line for tag, text in rows for line in (tag, *text)], ".El"]


def plain(text: str) -> list[str]:
    """Return running text as lines, each sentence on its own, as mdoc wants it."""
    sentences = re.split(r"(?<=[.?!]) +(?=[A-Z(])", " ".join(text.split()))
    return [escaped(sentence) for sentence in sentences if sentence]


def escaped(line: str) -> str:
    """Return a line of text in which roff finds no request of its own."""
    line = line.replace("\\", "\\e").replace("`", "")
    return rf"\&{line}" if line.startswith((".", "'")) else line


def macro_text(text: str) -> str:
    """Return the arguments of a macro, as one word."""
    return '"' + escaped(text).replace('"', '""') + '"'


if __name__ == "__main__":
    main()
