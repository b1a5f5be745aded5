"""Endpoints: the places that packets come from and go to, by socat-like addresses.

This file joins the grammar, the table of kinds and their openers; each of them knows only itself.
"""

from importlib import import_module

from threepipe.endpoints.address import parse_address
from threepipe.endpoints.kinds import KINDS, options_of
from threepipe.endpoints.request import Asked, Complaints, Side
from threepipe.errors import InvalidSetting
from threepipe.session import Session

__all__ = ["open_endpoint"]


def open_endpoint(address: str, *, side: Side = "left", once: bool = False, offload: bool = True) -> Session:
    """Open what `address` names, for `pipe` or to receive and send by; closing it closes all it made.

    `KIND[:PLACE][,option[=value]]...`, such as `tun:tp0,address=10.6.7.1/24` or `udp:vpn.example.org:4242`;
    `threepipe pipe --help` has the table. `side` is where it stands in a pipe, which makes a difference to
    `pcap` alone: it replays at the left, and writes at the right. `once` has listeners end when their first caller
    leaves. `offload` is for adapters whose address does not say whether they pass superpackets.

    Raises `InvalidSetting` for addresses that cannot be, `EndpointError` for what this machine or the
    network refuses, and what `Adapter.create` does.
    """
    kind_name, place, given = parse_address(address)
    kind = KINDS.get(kind_name)
    if kind is None:
        raise InvalidSetting(f"address {address!r}: {kind_name!r} is no kind; there are {', '.join(KINDS)}")
    if bool(place) < ((kind.place != "" and not kind.place.startswith("[")) or "PORT" in kind.place):
        raise InvalidSetting(f"address {address!r}: {kind.name} is written {kind.written}")
    if place and not kind.place:
        raise InvalidSetting(f"address {address!r}: {kind.name} is written without a place")
    options = options_of(kind, given)
    names = [option.name for option in kind.options]
    if once and "reuse" in names:
        options["reuse"] = False
    if "offload" in names:
        options.setdefault("offload", offload)
    module, _, function = kind.opener.partition(":")
    opened: Session = getattr(import_module(module), function)(Asked(place, side, Complaints(address)), **options)
    return opened
