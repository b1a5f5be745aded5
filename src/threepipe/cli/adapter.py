"""`threepipe adapter`: create, delete, list and show adapters.

Every command makes one call of the library and prints the result. `main` handles the library's errors.
"""

import errno
import os
from collections.abc import Callable
from importlib import import_module
from typing import Annotated

import typer

from threepipe.adapter import Adapter, adapters
from threepipe.backend import AdapterInfo
from threepipe.cli.completers import adapter_names
from threepipe.cli.options import Netns
from threepipe.cli.output import complain, print_json, print_table
from threepipe.errors import AdapterNotFound

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="Create, delete, list, show and reset virtual network adapters.")

Name = Annotated[str, typer.Argument(help="Name of the adapter.", show_default=False, autocompletion=adapter_names)]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]

NewName = Annotated[
    str,
    typer.Argument(help="1 to 15 bytes; %d becomes the first free number, as in tp%d.", show_default=False),
]
Addresses = Annotated[
    list[str] | None,
    typer.Option(metavar="ADDRESS/LENGTH", help="IPv4 or IPv6 address to assign. May be repeated."),
]
Routes = Annotated[
    list[str] | None, typer.Option(metavar="NETWORK/LENGTH", help="Network to route to it. May be repeated.")
]
Mtu = Annotated[
    int | None,
    typer.Option(metavar="BYTES", help="Longest packet; by default 1500, the system's choice.", show_default=False),
]
Metric = Annotated[
    int | None, typer.Option(metavar="NUMBER", help="Metric of its routes; the system prefers the lowest.")
]
Owner = Annotated[
    str | None, typer.Option(metavar="USER", help="User who may open it without being root, by name or id.")
]
Group = Annotated[
    str | None,
    typer.Option(
        metavar="GROUP",
        help="Group whose members may open it, by name or id. With --owner, only that user, and only as a member.",
    ),
]
Queues = Annotated[int, typer.Option(metavar="NUMBER", help="Queues that a session uses in parallel.")]


@app.command()
def create(
    name: NewName,
    address: Addresses = None,
    route: Routes = None,
    mtu: Mtu = None,
    metric: Metric = None,
    netns: Netns = None,
    owner: Owner = None,
    group: Group = None,
    queues: Queues = 1,
    json: Json = False,
) -> None:
    """Create a persistent adapter and print its name.

    The adapter stays until it is deleted or the system restarts. (An adapter
    that is not persistent would go with this command.) Its link is down until
    a program opens it and starts a session. If a setting fails, no adapter is
    left behind.

    Examples:
      threepipe adapter create tp0 --address 10.6.7.1/24 --address fd00::1/64
      threepipe adapter create tp%d --route 10.8.0.0/16 --mtu 1420 --owner ann
    """
    with Adapter.create(
        name,
        addresses=address or (),
        routes=route or (),
        mtu=mtu,
        metric=metric,
        netns=netns,
        persistent=True,
        owner=owner,
        group=group,
        queues=queues,
    ) as adapter:
        if json:
            print_json(adapter.info)
        else:
            typer.echo(os.fsencode(adapter.name))  # As bytes, since the kernel accepts names that are not UTF-8.


@app.command()
def delete(name: Name, netns: Netns = None) -> None:
    """Delete a persistent adapter that no program has open.

    Example:
      threepipe adapter delete tp0
    """
    Adapter.open(name, netns=netns).delete()


@app.command()
def reset(name: Name, netns: Netns = None) -> None:
    """Undo the settings that a killed program left on a persistent adapter.

    Superpackets, packet information and the virtio header are off then, for
    programs that do not know them. Name, owner, addresses and number of
    queues stay. No program may have the adapter open.

    Example:
      threepipe adapter reset tp0
    """
    Adapter.open(name, netns=netns, offload=False).close()


@app.command("list")
def list_(netns: Netns = None, json: Json = False) -> None:
    """List the layer-3 adapters of this system, of all programs.

    Examples:
      threepipe adapter list
      threepipe adapter list --netns blue --json
    """
    found = adapters(netns)
    if json:
        print_json(found)
        return
    print_table(list(_COLUMNS), [[column(info) for column in _COLUMNS.values()] for info in found])
    for info in found:
        if info.offload_left_on:
            complain(
                f"warning: {info.name}: a killed program left superpackets on: with the next one pings may pass and TCP"
                f" not; run: threepipe adapter reset {info.name}"
            )


@app.command()
def show(name: Name, netns: Netns = None, json: Json = False) -> None:
    """Show one adapter with its statistics, without opening it.

    The counts are named from the program's side: the program receives packets
    that the system sends through the adapter, and sends packets to the system.

    Examples:
      threepipe adapter show tp0
      threepipe adapter show tp0 --json
    """
    info = next((info for info in adapters(netns) if info.name == name), None)
    if info is None:
        raise AdapterNotFound(errno.ENODEV, f"there is no adapter {name}; threepipe adapter list shows all adapters")
    if json:
        print_json(info)
        return
    counts = info.statistics._asdict().items()
    described = [(heading, detail(info)) for heading, detail in _DETAILS.items()]
    print_table(None, described + [(count.replace("_", " "), str(value)) for count, value in counts])


def _account(module: str, look_up: str, number: int | None) -> str:
    """Return the name of a user or group, its id if it has no name, or nothing for None."""
    if number is None:
        return ""
    try:
        # Imported by name, as systems without numeric user ids lack these modules.
        return str(getattr(import_module(module), look_up)(number)[0])
    except (ImportError, KeyError):
        return str(number)


_COLUMNS: dict[str, Callable[[AdapterInfo], str]] = {
    "name": lambda info: info.name,
    "index": lambda info: str(info.index),
    "MTU": lambda info: str(info.mtu),
    "link": lambda info: "up" if info.link_up else "down",
    "persistent": lambda info: "yes" if info.persistent else "no",
    "owner": lambda info: _account("pwd", "getpwuid", info.owner),
    "group": lambda info: _account("grp", "getgrgid", info.group),
    "addresses": lambda info: ", ".join([str(address) for address in info.addresses]),
}

_DETAILS: dict[str, Callable[[AdapterInfo], str]] = {
    **_COLUMNS,
    "routes": lambda info: ", ".join([str(route) for route in info.routes]),
}
