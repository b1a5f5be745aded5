"""Addresses of endpoints, parsed and checked in full before anything is opened."""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, NamedTuple

from threepipe.endpoints.grammar import split_address
from threepipe.endpoints.kinds import KINDS, Kind
from threepipe.endpoints.request import Side
from threepipe.errors import InvalidSetting
from threepipe.session import Session
from threepipe.settings import unknown_name

__all__ = ["EndpointAddress", "parse_address"]


class EndpointAddress(NamedTuple):
    """An address that can be opened, unless this machine or the network refuses."""

    text: str
    """The address as it was written."""
    kind: Kind
    parameter: Any
    options: Mapping[str, Any]
    """Values by name; a list for a repeatable option."""
    side: Side

    def load(self) -> Callable[..., Session]:
        """Return the opener, with the modules that it needs."""
        module, _, function = self.kind.opener.partition(":")
        opener: Callable[..., Session] = getattr(import_module(module), function)
        return opener


def parse_address(text: str, side: Side = "left") -> EndpointAddress:
    """Parse `text`, and check its kind, parameter and options, for an endpoint at `side` of a pipe.

    Opens nothing and asks no operating system. Raises `InvalidSetting`.
    """
    parts = split_address(text)
    try:
        kind = KINDS.get(parts.kind)
        if kind is None:
            raise unknown_name("kind", parts.kind, KINDS)
        parameter = kind.read_parameter(parts.parameter)
        options = kind.read_options(parts.options, side)
        kind.check(parameter, options)
    except InvalidSetting as error:
        raise InvalidSetting(f"address {text!r}: {error}") from None
    return EndpointAddress(text, kind, parameter, options, side)
