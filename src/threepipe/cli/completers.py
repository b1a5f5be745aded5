"""The words that complete an argument or an option, asked of this machine. Shells ask by way of `completion`."""

import socket
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import typer

__all__ = [
    "FILES",
    "adapter_names",
    "capture_names",
    "configs",
    "device_fields",
    "device_names",
    "files",
    "impairments",
    "left_addresses",
    "mesh_interfaces",
    "namespaces",
    "pipes",
    "right_addresses",
    "tun_options",
]

FILES = "\0"
"""The description of a completion that stands for the names of files, which the shell knows."""

Completion = str | tuple[str, str]
"""A word, or a word and its description."""


def files(incomplete: str) -> Iterable[Completion]:
    return [(incomplete, FILES)]


def namespaces() -> Iterable[Completion]:
    from threepipe import platforms

    return platforms.namespace_names()


def adapter_names(ctx: typer.Context) -> Iterable[Completion]:
    return _adapters(ctx.params.get("netns"))


def _adapters(netns: str | None = None) -> list[str]:
    from threepipe.adapter import adapters

    return [info.name for info in adapters(netns)]


def capture_names(ctx: typer.Context) -> Iterable[Completion]:
    return [*adapter_names(ctx), *([] if ctx.params.get("netns") else pipes())]


def pipes() -> Iterable[Completion]:
    from threepipe.capture.client import running_pipes

    return [(pipe.name, f"{pipe.left} {pipe.right}") for pipe in running_pipes()]


def configs(incomplete: str) -> Iterable[Completion]:
    """Return the devices of files in /etc/wireguard, and the files in this folder; or all files if none fits."""
    from threepipe.wireguard.quick.config import FOLDERS

    names = {path.stem for folder in FOLDERS for path in folder.glob("*.conf")}
    named = [*sorted(names), *sorted(path.name for path in Path().glob("*.conf"))]
    return [name for name in named if name.startswith(incomplete)] or files(incomplete)


def device_names() -> Iterable[Completion]:
    from threepipe.wireguard.uapi_socket import names

    return names()


def mesh_interfaces() -> Iterable[Completion]:
    from threepipe.mesh.control import interfaces

    return interfaces()


def device_fields() -> Iterable[Completion]:
    from threepipe.wireguard.quick.showing import FIELDS

    return FIELDS


def impairments(incomplete: str) -> Iterable[Completion]:
    from threepipe.filters.impairment import SETTINGS

    before, comma, last = incomplete.rpartition(",")
    if last.startswith("towards="):
        return [f"{before}{comma}towards={end}" for end in ("left", "right")]
    return [(f"{before}{comma}{name}=", setting.help) for name, setting in SETTINGS.items()]


def left_addresses(incomplete: str) -> Iterable[Completion]:
    return _addresses(incomplete, "left")


def right_addresses(incomplete: str) -> Iterable[Completion]:
    return _addresses(incomplete, "right")


def tun_options(incomplete: str) -> Iterator[Completion]:
    """Yield the completions of an address of the kind `tun` without its kind."""
    prefix = "tun:"
    for completion in _addresses(prefix + incomplete, "left"):
        value, help = (completion, "") if isinstance(completion, str) else completion
        yield value.removeprefix(prefix), help


def _addresses(text: str, side: str) -> Iterable[Completion]:
    """Return the completions of an address at one end of a pipe: its kind, its parameter, or its last option."""
    from threepipe.endpoints.grammar import COMMAND
    from threepipe.endpoints.kinds import KINDS

    head, colon, parameter = text.partition(":")
    name = head.partition(",")[0]
    kind = KINDS.get(name)
    if kind is None or head == text == name:
        return [(f"{name}:" if kind.parameter else name, kind.help) for name, kind in KINDS.items()]
    if colon and "," not in (head if name == COMMAND else parameter):
        words = _words(_PARAMETERS.get(name), parameter)
        return [(f"{head}:{word}", help) for word, help in words]
    if colon and name == COMMAND:
        return files(text)
    before, _, last = text.rpartition(",")
    option_name, equals, value = last.partition("=")
    options = {option.name: option for option in kind.options if option.side in (None, side)}
    if equals:
        words = _words(_VALUES.get(options[option_name].value), value) if option_name in options else []
        return [(f"{before},{option_name}={word}", help) for word, help in words]
    given = {part.partition("=")[0] for part in before.split(",")[1:]}
    return [
        (f"{before},{option.name}{'=' if option.value else ''}", option.help)
        for option in options.values()
        if option.repeatable or option.name not in given
    ]


def _words(complete: Callable[[str], Iterable[Completion]] | None, text: str) -> list[tuple[str, str]]:
    found = complete(text) if complete is not None else ()
    return [(word, "") if isinstance(word, str) else word for word in found]


_PARAMETERS: dict[str, Callable[[str], Iterable[Completion]]] = {
    "exec": files,
    "pcap": files,
    "tun": lambda _: _adapters(),
    "unix": files,
    "unix-listen": files,
    "wg": configs,
}
"""The completions of the parameters of kinds."""

_VALUES: dict[str, Callable[[str], Iterable[Completion]]] = {
    "FILE": files,
    "NAME": lambda _: [name for _, name in socket.if_nameindex()],
    "NAMESPACE": lambda _: namespaces(),
    "on|off": lambda _: ("on", "off"),
}
"""The completions of the values of options, by the way in which help writes them."""
