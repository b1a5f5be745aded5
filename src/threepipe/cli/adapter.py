"""`threepipe adapter`: make, remove and look at adapters.

Every command is one call of the library and the printing of what it returns; what the library
refuses passes through to `main`.
"""

import errno
import os
from collections.abc import Callable
from importlib import import_module
from typing import Annotated

import typer

from threepipe.adapter import Adapter, adapters
from threepipe.backend import AdapterInfo
from threepipe.cli.output import print_json, print_table
from threepipe.errors import AdapterNotFound

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="Make, remove and look at virtual network adapters.")

Name = Annotated[str, typer.Argument(help="Name of the adapter.", show_default=False)]
Netns = Annotated[
    str | None,
    typer.Option(metavar="NAMESPACE", help="Network namespace it is in: a name, a path or a process id."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


@app.command()
def create(
    name: Annotated[
        str,
        typer.Argument(
            help="At most 15 bytes; a %d in it becomes the first free number, as in tp%d.",
            show_default=False,
        ),
    ],
    address: Annotated[
        list[str] | None,
        typer.Option(metavar="ADDRESS/LENGTH", help="An address of its own, IPv4 or IPv6. May be repeated."),
    ] = None,
    route: Annotated[
        list[str] | None,
        typer.Option(metavar="NETWORK/LENGTH", help="A network to be reached through it. May be repeated."),
    ] = None,
    mtu: Annotated[
        int | None,
        typer.Option(metavar="BYTES", help="Longest packet; by default the system's choice, 1500.", show_default=False),
    ] = None,
    metric: Annotated[
        int | None,
        typer.Option(metavar="NUMBER", help="How its routes stand beside others, the smallest first."),
    ] = None,
    netns: Netns = None,
    owner: Annotated[
        str | None, typer.Option(metavar="USER", help="User, by name or id, who may use it without being root.")
    ] = None,
    group: Annotated[
        str | None, typer.Option(metavar="GROUP", help="Group, by name or id, whose members may use it.")
    ] = None,
    queues: Annotated[int, typer.Option(help="Queues that programs may open side by side.")] = 1,
    json: Json = False,
) -> None:
    """Make a persistent adapter and print its name.

    It is always persistent, for an adapter that is not goes with the program
    that made it, and this one ends at once. It stays until it is deleted or
    the system restarts, and its link is down until a program opens it and
    starts a session. What cannot be made in full leaves nothing.

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
            typer.echo(os.fsencode(adapter.name))  # Bytes, for it is any that the kernel took.


@app.command()
def delete(name: Name, netns: Netns = None) -> None:
    """Remove a persistent adapter that no program has open.

    Example:
      threepipe adapter delete tp0
    """
    Adapter.open(name, netns=netns).delete()


@app.command("list")
def list_(netns: Netns = None, json: Json = False) -> None:
    """List the layer-3 adapters of this system, whoever made them.

    Examples:
      threepipe adapter list
      threepipe adapter list --netns blue --json
    """
    found = adapters(netns)
    if json:
        print_json(found)
        return
    print_table(list(_COLUMNS), [[column(info) for column in _COLUMNS.values()] for info in found])


@app.command()
def show(name: Name, netns: Netns = None, json: Json = False) -> None:
    """Show one adapter with its statistics, without opening it.

    Its packets are counted from the program's side: received are those that
    the system sent through it, sent are those that the program did.

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
    """The name of a user or group, or the id where it has none; nothing for None."""
    if number is None:
        return ""
    try:
        # By name, for systems whose users have no numbers lack these modules.
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
