"""Addresses of endpoints: reading `KIND[:PLACE][,option[=value]]...`, socat's way to write them.

Knows the grammar only: which kinds and options there are stands in `kinds`.
"""

from typing import NamedTuple

from threepipe.errors import InvalidSetting

__all__ = ["Address", "parse_address"]

STDIO = "-"
COMMAND = "exec:"
_QUOTABLE = frozenset(",'\"\\")  # What a backslash takes the meaning of.


class Address(NamedTuple):
    """What an address says, not looked up yet."""

    kind: str
    place: str
    options: tuple[tuple[str, str | None], ...]
    """Names, in the order given, with their values; None where there is no equals sign."""


def parse_address(text: str) -> Address:
    """Take `text` apart. The first colon ends the kind, commas part the options.

    What is meant literally stands in single or double quotes or behind a backslash, as in a shell; but before
    what has no meaning of its own a backslash is just that, for Windows' paths have them. A command is taken as
    it is, for it has commas and quotes of its own. Raises `InvalidSetting`.
    """
    if text == STDIO:
        return Address("stdio", "", ())
    if text.startswith(COMMAND):
        return Address("exec", text.removeprefix(COMMAND), ())
    head, *options = _fields(text)
    kind, _, place = head.partition(":")
    parsed = []
    for option in options:
        name, equals, value = option.partition("=")
        if not name:
            raise InvalidSetting(f"address {text!r}: an option without a name; write ,option or ,option=value")
        parsed.append((name, value if equals else None))
    return Address(kind, place, tuple(parsed))


def _fields(text: str) -> list[str]:
    """The parts between commas that are not quoted, without their quotes."""
    fields, quote = [""], ""
    characters = iter(text)
    for character in characters:
        if character == "\\" and quote != "'":
            if (character := next(characters, "")) == "":
                raise InvalidSetting(f"address {text!r} ends with a backslash; a literal one is written twice")
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
        raise InvalidSetting(f"address {text!r}: a quote ({quote}) is not closed; a literal one is written \\{quote}")
    return fields
