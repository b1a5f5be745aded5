"""The table of commands. Each is loaded when it is called, or when help lists it, so that starting stays fast.

A command is a function that typer turns into options and arguments, and a group is a `typer.Typer` named `app`.
"""

from collections.abc import Callable, Iterator, MutableMapping
from copy import copy
from importlib import import_module
from typing import Any

import typer

__all__ = ["Commands"]

TABLE = {
    "adapter": "adapter:app",
    "capture": "capture:capture",
    "completion": "completion:completion",
    "demo": "demo:demo",
    "doctor": "doctor:doctor",
    "driver": "driver:app",
    "exec": "exec:exec_",
    "mesh": "mesh:app",
    "pipe": "pipe:pipe",
    "ps": "ps:ps",
    "script-tun": "script_tun:script_tun",
    "serve": "serve:serve",
    "tls": "tls:app",
    "top": "ps:top",
    "wg": "wg:app",
}
"""For each command its module in this package, and its name in that module."""

STARTERS = {"exec"}
"""Commands whose options end at the first argument, as the rest is a command line of its own."""


class Commands(MutableMapping[str, Any]):
    """The commands by name, as typer makes them; one is loaded when it is looked up."""

    def __init__(self, others: dict[str, Any]) -> None:
        """`others` are commands that are loaded already."""
        self._loaded = others

    def __getitem__(self, name: str) -> Any:
        if name not in self._loaded:
            self._loaded[name] = _load(name)
        return self._loaded[name]

    def __setitem__(self, name: str, command: Any) -> None:
        self._loaded[name] = command

    def __delitem__(self, name: str) -> None:
        raise TypeError("commands are not removed")

    def __contains__(self, name: object) -> bool:
        return name in TABLE or name in self._loaded

    def __iter__(self) -> Iterator[str]:
        return iter(sorted({*TABLE, *self._loaded}))

    def __len__(self) -> int:
        return len({*TABLE, *self._loaded})


def _load(name: str) -> Any:
    """Return the command as typer makes it. Raises KeyError for an unknown one."""
    module, _, found = TABLE[name].partition(":")
    function: Callable[..., Any] | typer.Typer = getattr(import_module(f"threepipe.cli.{module}"), found)
    if isinstance(function, typer.Typer):
        command: Any = typer.main.get_group(function)
        command.name = name
    else:
        app = typer.Typer(add_completion=False)
        app.command(name, context_settings={"allow_interspersed_args": name not in STARTERS})(function)
        command = typer.main.get_command(app)
    for each in (command, *getattr(command, "commands", {}).values()):
        for parameter in each.params:
            _write_plainly(parameter)
    return command


def _write_plainly(parameter: Any) -> None:
    """Make help show an argument as LEFT, not as {left} with its type <str>, and no ranges of numbers."""
    kind = copy(parameter.type)
    if hasattr(kind, "_describe_range"):
        kind._describe_range = lambda: ""
    if parameter.param_type_name == "argument":
        parameter.metavar = parameter.metavar or str(parameter.name).upper()
        shown = parameter.metavar if parameter.required else f"[{parameter.metavar}]"
        parameter.make_metavar = lambda ctx, usage=False: shown
        if kind.get_metavar(parameter, None) is None:
            kind.get_metavar = lambda param, ctx: ""
    parameter.type = kind
