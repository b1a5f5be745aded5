"""Fields: tables of the keys that a text format has, and the parsers of values that the formats share.

The formats are wg-quick's files (`quick.config`) and the configuration protocol (`uapi`). A parser takes the text of a
value, and raises `ValueError` with a text about its fault. That text may hold the value, so callers that show it use
`hide_keys`.
"""

import ipaddress
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple, TypeAlias

__all__ = [
    "MAX_KEEPALIVE",
    "MAX_MARK",
    "MAX_PORT",
    "SPACE",
    "Field",
    "Fields",
    "hide_keys",
    "hide_whole_keys",
    "number",
    "parse_endpoint",
    "parse_sign",
]

MAX_PORT = MAX_KEEPALIVE = 0xFFFF
MAX_MARK = 0xFFFFFFFF
SPACE = " \t\n\v\f\r"
"""The white space of wg(8). Lines end with a line feed only: the other ends of lines that Python knows are text."""
_WHOLE_KEY = re.compile(r"(?<![A-Za-z0-9+/])(?:[A-Za-z0-9+/]{43}=|[0-9A-Fa-f]{64})(?![A-Za-z0-9+/=])")
_KEY = re.compile(r"[A-Za-z0-9+/_-]{20,}=*")
"""A key in base64, of either alphabet, or in hex, perhaps misspelled, or a large part of one."""
_HIDDEN = "(hidden)"
_DIGITS = "0123456789abcdef"


class Field(NamedTuple):
    """The setting that a key names, and the parser of its value."""

    setting: str
    parse: Callable[[str], Any]


Fields: TypeAlias = Mapping[str, Field]
"""The fields of a format or of a part of it, by key."""


def hide_keys(text: str) -> str:
    """Return `text` without keys and possible parts of keys: any 20 characters of base64 in a row.

    For errors and logs about text from outside, as a secret may stand where it does not belong.
    """
    return _KEY.sub(_HIDDEN, text)


def hide_whole_keys(text: str) -> str:
    """Return `text` without complete keys, for text such as commands, in which paths have as many characters."""
    return _WHOLE_KEY.sub(_HIDDEN, text)


def number(maximum: int, *, hexadecimal: bool = False, octal: bool = False) -> Callable[[str], int]:
    """Return a parser of numbers from 0 to `maximum`: of decimal digits, which may begin with zeros.

    With `hexadecimal`, `0x` begins a hexadecimal number, and with `octal`, `0` an octal one, as in C.
    """

    def parse(text: str) -> int:
        base, digits = 10, text
        if hexadecimal and text.startswith("0x"):
            base, digits = 16, text[2:]
        elif octal and text.startswith("0"):
            base = 8
        # Python's int() takes more: other scripts, underscores, signs, white space, and prefixes like 0b.
        if digits and set(digits.lower()) <= set(_DIGITS[:base]):
            with suppress(ValueError):  # There are too many digits.
                value = int(digits, base)
                if value <= maximum:
                    return value
        raise ValueError(f"{text!r} is not a number from 0 to {maximum}")

    return parse


def parse_endpoint(text: str) -> tuple[str, int]:
    """Parse `NAME:PORT`, `ADDRESS:PORT` or, for IPv6, `[ADDRESS]:PORT`."""
    host, _, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        try:
            host = str(ipaddress.IPv6Address(host[1:-1]))
        except ValueError:
            host = ""
    elif any(character.isspace() or character in ":=+/" for character in host):  # The latter as in keys.
        host = ""
    if not host:
        raise ValueError("write it as NAME:PORT, ADDRESS:PORT or [ADDRESS]:PORT")
    return host, number(MAX_PORT)(port)


def parse_sign(text: str, signs: str) -> tuple[str, str]:
    """Return the sign, one of `signs`, that an allowed IP begins with, or an empty string; and the rest.

    wg(8) adds networks without a sign or with a plus, and removes those with a minus.
    """
    return (text[0], text[1:]) if text and text[0] in signs else ("", text)
