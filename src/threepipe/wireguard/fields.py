"""Fields: tables of the keys that a text format has, and the parsers of values that the formats share.

The formats are wg-quick's files (`quick.config`) and the configuration protocol (`uapi`). A parser takes the text of a
value, and raises `ValueError` with a text that says what is wrong with it.
"""

import ipaddress
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

__all__ = ["MAX_KEEPALIVE", "MAX_MARK", "MAX_PORT", "Field", "Fields", "number", "parse_endpoint"]

MAX_PORT = MAX_KEEPALIVE = 0xFFFF
MAX_MARK = 0xFFFFFFFF


class Field(NamedTuple):
    """The setting that a key names, and the parser of its value."""

    setting: str
    parse: Callable[[str], Any]


Fields: TypeAlias = Mapping[str, Field]
"""The fields of a format or of a part of it, by key."""


def number(maximum: int, *, any_base: bool = False) -> Callable[[str], int]:
    """Return a parser of numbers from 0 to `maximum`: of decimal digits or, with `any_base`, as Python writes them."""

    def parse(text: str) -> int:
        try:
            if any_base or (text.isascii() and text.isdigit()):
                value = int(text, 0 if any_base else 10)
                if 0 <= value <= maximum:
                    return value
        except ValueError:
            pass
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
    elif ":" in host or any(character.isspace() for character in host):
        host = ""
    if not host:
        raise ValueError("write it as NAME:PORT, ADDRESS:PORT or [ADDRESS]:PORT")
    return host, number(MAX_PORT)(port)
