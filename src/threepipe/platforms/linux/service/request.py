"""The requests of callers to the service, read strictly: everything in them may be hostile.

A request is one message: a JSON object with `op`, and the arguments of that operation. No other key is taken.
"""

import sys

assert sys.platform == "linux"

import json
import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from threepipe.errors import InvalidSetting
from threepipe.settings import (
    MAX_CAPACITY,
    AdapterSettings,
    check_mtu,
    parse_addresses,
    parse_routes,
)

__all__ = ["MAX_REQUEST", "Request", "parse_request"]

MAX_REQUEST = 1 << 16
"""Bytes of the longest request."""
_MAX_ITEMS = 256
_MAX_TEXT = 256


class Request(NamedTuple):
    """A request of a caller, checked."""

    operation: str
    arguments: Mapping[str, Any]
    """The checked arguments; of `create` the settings."""


def parse_request(data: bytes) -> Request:
    """Return the request in a message. Raises `InvalidSetting`."""
    try:
        message = json.loads(data)
    except (ValueError, RecursionError):
        raise InvalidSetting("the request is not a JSON object; send one message for each request") from None
    if not isinstance(message, dict) or not isinstance(message.get("op"), str):
        raise InvalidSetting("the request is not a JSON object with an op; send one message for each request")
    operation = message.pop("op")
    if operation not in _OPERATIONS:
        raise InvalidSetting(f"the service knows no operation {operation[:_MAX_TEXT]!r}; give one of its own")
    arguments: dict[str, Any] = {}
    for name, (read, default) in _OPERATIONS[operation].items():
        value = message.pop(name, default)
        if value is _REQUIRED:
            raise InvalidSetting(f"the request has no {name}; add it")
        arguments[name] = value if value is None and default is None else read(name, value)
    if message:
        raise InvalidSetting(f"the request has {next(iter(message))[:_MAX_TEXT]!r}, which {operation} does not take")
    if operation == "create":
        return Request(operation, {"settings": AdapterSettings(**arguments).checked()})
    if operation == "mtu":
        check_mtu(arguments["mtu"], ipv6=False)
    return Request(operation, arguments)


def _text(name: str, value: object) -> str:
    if not isinstance(value, str) or len(value) > _MAX_TEXT:
        raise InvalidSetting(f"{name} is not a text of at most {_MAX_TEXT} characters; give one")
    try:
        os.fsencode(value)
    except UnicodeError:
        raise InvalidSetting(f"{name} has characters that no name has; choose another") from None
    return value


def _number(low: int, high: int) -> Callable[[str, object], int]:
    def read(name: str, value: object) -> int:
        if type(value) is not int or not low <= value <= high:
            raise InvalidSetting(f"{name} is not a number from {low} to {high}; give one")
        return value

    return read


def _switch(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise InvalidSetting(f"{name} is neither true nor false; give one of the two")
    return value


def _list(parse: Callable[[list[str]], tuple[Any, ...]]) -> Callable[[str, object], tuple[Any, ...]]:
    def read(name: str, value: object) -> tuple[Any, ...]:
        if not isinstance(value, (list, tuple)) or len(value) > _MAX_ITEMS:
            raise InvalidSetting(f"{name} is not a list of at most {_MAX_ITEMS} items; give one")
        return parse([_text(name, each) for each in value])

    return read


def _one(parse: Callable[[list[str]], tuple[Any, ...]]) -> Callable[[str, object], Any]:
    return lambda name, value: parse([_text(name, value)])[0]


_REQUIRED = object()
_U32 = 0xFFFFFFFF
_OPERATIONS: dict[str, dict[str, tuple[Callable[[str, Any], Any], object]]] = {
    "create": {
        "name": (_text, _REQUIRED),
        "addresses": (_list(parse_addresses), ()),
        "routes": (_list(parse_routes), ()),
        "mtu": (_number(0, _U32), None),
        "metric": (_number(0, _U32), None),
        "netns": (_text, None),
        "offload": (_switch, True),
        "queues": (_number(1, 255), 1),
        "packet_information": (_switch, False),
    },
    "info": {},
    "running": {},
    "room": {"capacity": (_number(1, MAX_CAPACITY), _REQUIRED)},
    "mtu": {"mtu": (_number(0, _U32), _REQUIRED)},
    "add_address": {"item": (_one(parse_addresses), _REQUIRED)},
    "add_route": {"item": (_one(parse_routes), _REQUIRED)},
    "remove_address": {"item": (_one(parse_addresses), _REQUIRED)},
    "remove_route": {"item": (_one(parse_routes), _REQUIRED)},
}
"""Each operation with its arguments: how each is read, and its default."""
