"""Endpoints: the places that packets come from and go to, by socat-like addresses.

This file joins the grammar, the table of kinds and their openers; each of them knows only itself.
"""

from importlib import import_module

from threepipe.endpoint import Endpoint
from threepipe.endpoints.address import parse_address
from threepipe.endpoints.asked import Asked, Side
from threepipe.endpoints.complaints import Complaints
from threepipe.endpoints.kinds import KINDS, options_of
from threepipe.errors import InvalidSetting

__all__ = ["open_endpoint"]


def open_endpoint(address: str, *, side: Side = "left", once: bool = False) -> Endpoint:
    """Open what `address` names, for `pipe` or to receive and send by; closing it closes all it made.

    `KIND[:PLACE][,option[=value]]...`, such as `tun:tp0,address=10.6.7.1/24` or `udp:vpn.example.org:4242`;
    `threepipe pipe --help` has the table. `side` is where it stands in a pipe, which makes a difference to
    `pcap` alone: it replays at the left, and writes at the right. `once` has listeners end when their first caller
    leaves.

    Raises `InvalidSetting` for addresses that cannot be, `EndpointError` for what this machine or the
    network refuses, and what `Adapter.create` does.
    """
    kind_name, place, given = parse_address(address)
    kind = KINDS.get(kind_name)
    if kind is None:
        raise InvalidSetting(f"address {address!r}: {kind_name!r} is no kind; there are {', '.join(KINDS)}")
    if bool(place) < ((kind.place != "" and not kind.place.startswith("[")) or "PORT" in kind.place):
        raise InvalidSetting(f"address {address!r}: {kind.name} is written {kind.name}:{kind.place}")
    if place and not kind.place:
        raise InvalidSetting(f"address {address!r}: {kind.name} is written without a place")
    options = options_of(kind, given)
    if once and any(option.name == "reuse" for option in kind.options):
        options["reuse"] = False
    module, _, function = kind.opener.partition(":")
    opened: Endpoint = getattr(import_module(module), function)(Asked(place, side, Complaints(address)), **options)
    return opened
