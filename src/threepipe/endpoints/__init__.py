"""Endpoints: the sources and sinks of packets, opened by socat-like addresses.

`grammar` splits an address, `kinds` is the table of kinds and options, `address` checks one by the other, and the
openers that the table names open it.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from threepipe.endpoints.address import EndpointAddress, parse_address
from threepipe.endpoints.request import OpenRequest, RateLimitedLog, Side
from threepipe.session import Session

if TYPE_CHECKING:
    from threepipe.endpoints.parts import Part, Taken
    from threepipe.platforms import Enclosure

__all__ = ["open_address", "open_endpoint"]


def open_endpoint(address: str, *, side: Side = "left", once: bool = False, offload: bool = True) -> Session:
    """Open the endpoint at `address`, for `pipe` or to receive and send; closing it closes everything it made.

    An address is `KIND[:PARAMETER][,option[=value]]...`, such as `tun:tp0,address=10.6.7.1/24` or
    `udp:vpn.example.org:4242`; `threepipe pipe --help` has the table.

    Args:
        address: The address.
        side: The end of a pipe, for `pcap`, which replays at the left and writes at the right.
        once: End listeners when their first client disconnects.
        offload: Pass superpackets at adapters whose address does not say.

    Raises:
        InvalidSetting: The address cannot work on any machine.
        EndpointError: This machine or the network refused.
        AdapterError: As `Adapter.create` raises it.
    """
    return open_address(parse_address(address, side), once=once, offload=offload)


def open_address(
    address: EndpointAddress,
    *,
    once: bool = False,
    offload: bool = True,
    lost: Callable[[str], None] = lambda _: None,
    enclosed: "Callable[[Enclosure], None]" = lambda _: None,
    taken: "Taken | None" = None,
    opened: "Callable[[Part], None]" = lambda _: None,
) -> Session:
    """Open the endpoint at a parsed address. `once`, `offload` and the exceptions are as in `open_endpoint`.

    `lost` is called with a text if the other end closes a connection that this end made, and it is not made again.
    `enclosed` is called with the namespaces that were made for an adapter; the session owns them. `taken` is the end of
    another process, to go on with. `opened` is called with the end as another process can go on with it.
    """
    options = {name.replace("-", "_"): value for name, value in address.options.items()}
    names = {option.name for option in address.kind.options}
    if once and "reuse" in names:
        options["reuse"] = False
    if "offload" in names:
        options.setdefault("offload", offload)
    request = OpenRequest(address.parameter, address.side, RateLimitedLog(address.text), lost, enclosed, taken, opened)
    return address.load()(request, **options)
