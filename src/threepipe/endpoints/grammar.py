"""The grammar of addresses, `KIND[:PARAMETER][,option[=value]]...` as in socat, and of commands.

Knows no kinds and no options: `kinds` has those.
"""

import shlex
from typing import NamedTuple

from threepipe.errors import InvalidSetting

__all__ = ["AddressParts", "split_address", "split_command"]

STDIO = "-"
COMMAND = "exec"
_QUOTABLE = frozenset(",'\"\\")  # The characters that a backslash makes literal.


class AddressParts(NamedTuple):
    """The parts of an address, unchecked."""

    kind: str
    parameter: str
    options: tuple[tuple[str, str | None], ...]
    """Names and values in the order given; a value is None without an equals sign."""


def split_address(text: str) -> AddressParts:
    """Split `text` into kind, parameter and options. The first colon ends the kind; commas separate the options.

    Quotes (single or double) and backslashes make characters literal, as in a shell. A backslash before any other
    character than a comma, quote or backslash stays, because Windows' paths contain them. `exec:` takes the rest of
    the text as its command, because commands have commas and quotes of their own; options of `exec` come before its
    colon. Raises `InvalidSetting`.
    """
    if text == STDIO:
        return AddressParts("stdio", "", ())
    kind, colon, command = text.partition(":")
    if colon and kind.partition(",")[0] == COMMAND:
        _, *options = _fields(kind)
        return AddressParts(COMMAND, command, _options(text, options))
    head, *options = _fields(text)
    kind, _, parameter = head.partition(":")
    return AddressParts(kind, parameter, _options(text, options))


def _options(text: str, options: list[str]) -> tuple[tuple[str, str | None], ...]:
    """Return the names and values of the options of the address `text`."""
    parsed = []
    for option in options:
        name, equals, value = option.partition("=")
        if not name:
            raise InvalidSetting(f"address {text!r}: an option has no name; write ,option or ,option=value")
        parsed.append((name, value if equals else None))
    return tuple(parsed)


def _fields(text: str) -> list[str]:
    """Return the parts between unquoted commas, without their quotes."""
    fields, quote = [""], ""
    characters = iter(text)
    for character in characters:
        if character == "\\" and quote != "'":
            if (character := next(characters, "")) == "":
                raise InvalidSetting(f"address {text!r} ends with a backslash; write \\\\ for a literal one")
            fields[-1] += character if character in _QUOTABLE else f"\\{character}"
        elif quote:
            if character == quote:
                quote = ""
            else:
                fields[-1] += character
        elif character in "'\"":
            quote = character
        elif character == ",":
            fields.append("")
        else:
            fields[-1] += character
    if quote:
        raise InvalidSetting(f"address {text!r}: a quote ({quote}) is not closed; write \\{quote} for a literal one")
    return fields


def split_command(command: str) -> list[str]:
    """Split `command` into words as a shell does. On Windows a backslash is literal, because paths contain it.

    Raises `InvalidSetting` if a quote is not closed.
    """
    from threepipe import platforms  # The table of kinds, which help is made of, needs no platform.

    lexer = shlex.shlex(command, posix=True, punctuation_chars=False)
    lexer.whitespace_split, lexer.commenters = True, ""
    lexer.escape = platforms.COMMAND_ESCAPE
    try:
        return list(lexer)
    except ValueError as error:
        raise InvalidSetting(f"command {command!r}: {error}") from None
