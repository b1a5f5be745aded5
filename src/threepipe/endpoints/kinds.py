"""The table of kinds: what an address may say. Help and documentation are made from it; it opens nothing.

A kind's opener is a function, named here and loaded when it is used, that gets what was said after
the kind (`place`) and its options by name.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from threepipe.adapter import DEFAULT_CAPACITY
from threepipe.errors import InvalidSetting

__all__ = ["KINDS", "Kind", "Option", "options_of"]


class Option(NamedTuple):
    """One that is not `repeatable` may stand in an address once; `value` is empty for one that is just named."""

    name: str
    value: str
    help: str
    read: Callable[[str], Any] = str
    repeatable: bool = False

    @property
    def written(self) -> str:
        return f"{self.name}={self.value}" if self.value else self.name


class Kind(NamedTuple):
    """`place` is how help writes what comes after the colon, in brackets where it may be missing."""

    name: str
    place: str
    help: str
    opener: str
    options: tuple[Option, ...] = ()

    @property
    def written(self) -> str:
        return f"{self.name}:{self.place}" if self.place else self.name


def _switch(text: str) -> bool:
    try:
        return {"on": True, "off": False}[text]
    except KeyError:
        raise ValueError("say on or off") from None


def _positive(text: str) -> float:
    if not 0 < (number := float(text)) < float("inf"):
        raise ValueError("give a number greater than 0")
    return number


_ADAPTER = (
    Option("address", "ADDRESS/LENGTH", "an address of its own, IPv4 or IPv6", repeatable=True),
    Option("route", "NETWORK/LENGTH", "a network to be reached through it", repeatable=True),
    Option("mtu", "BYTES", "its longest packet; by default the system's choice, 1500", int),
    Option("metric", "NUMBER", "how its routes stand beside others, the smallest first", int),
    Option("dns", "ADDRESS", "a server to ask for names while it is there; on Windows", repeatable=True),
    Option("search", "DOMAIN", "a domain to look for short names in; on Windows", repeatable=True),
    Option("netns", "NAMESPACE", "the network namespace it is in: a name, a path or a process id"),
    Option("persistent", "", "it stays when the pipe ends"),
    Option("owner", "USER", "who may open a persistent one without being root"),
    Option("group", "GROUP", "whose members may open a persistent one"),
    Option("capacity", "BYTES", f"what may wait for the pipe, a power of two; by default {DEFAULT_CAPACITY}", int),
    Option("queues", "NUMBER", "queues the system fills side by side; by default 1", int),
    Option(
        "offload",
        "on|off",
        "superpackets; by default on, without the native core only between two adapters",
        _switch,
    ),
)
_REUSE = Option("reuse", "on|off", "take the next caller when one has left; by default on", _switch)
_BIND = Option("bind", "HOST:PORT", "the own address to send from")
_FILES = (
    Option("cert", "FILE", "the own certificate, PEM"),
    Option("key", "FILE", "its key, PEM, not encrypted"),
    Option("ca", "FILE", "the authority that the other end's certificate is from, PEM"),
)
_NAME = Option("name", "NAME", "the name in the listener's certificate; by default HOST")
_SPEED = Option("speed", "FACTOR", "replay so many times as fast; by default 1", _positive)
_LOOP = Option("loop", "", "begin again at the end, for ever")

_SOCKETS = "threepipe.endpoints.opening"

KINDS = {
    kind.name: kind
    for kind in (
        Kind("tun", "NAME", "an adapter of this system: the persistent one of that name, or a new one that goes with"
             " the pipe; a %d in the name becomes the first free number", f"{_SOCKETS}:open_tun", _ADAPTER),
        Kind("udp", "HOST:PORT", "one packet a datagram", f"{_SOCKETS}:open_udp", (_BIND,)),
        Kind("udp-listen", "[HOST:]PORT", "the same, with whoever sent the last packet", f"{_SOCKETS}:open_udp_listen"),
        Kind("tcp", "HOST:PORT", "a stream of records", f"{_SOCKETS}:open_tcp"),
        Kind("tcp-listen", "[HOST:]PORT", "the same, with one caller at a time", f"{_SOCKETS}:open_tcp_listen",
             (_REUSE,)),
        Kind("tls", "HOST:PORT", "records over TLS 1.3; both ends show certificates", f"{_SOCKETS}:open_tls",
             (*_FILES, _NAME)),
        Kind("tls-listen", "[HOST:]PORT", "the same, with one caller at a time", f"{_SOCKETS}:open_tls_listen",
             (*_FILES, _REUSE)),
        Kind("unix", "PATH", "records over a Unix socket", f"{_SOCKETS}:open_unix"),
        Kind("unix-listen", "PATH", "the same, with one caller at a time", f"{_SOCKETS}:open_unix_listen", (_REUSE,)),
        Kind("stdio", "", "records on standard input and output; may be written -", f"{_SOCKETS}:open_stdio"),
        Kind("exec", "COMMAND", "records to and from a program that is started, by no shell", f"{_SOCKETS}:open_exec"),
        Kind("fd", "NUMBER[:NUMBER]", "an inherited descriptor: a TUN of any sort, a datagram socket with a packet in"
             " each, or a stream of records; or two pipes, the one to read from first",
             "threepipe.endpoints.inherited:open_fd"),
        Kind("pcap", "PATH", "as LEFT, replays a pcap or pcapng file with its timing; as RIGHT, writes one (pcapng)",
             "threepipe.endpoints.recording:open_pcap", (_SPEED, _LOOP)),
        Kind("wg", "CONFIG", "the peers of a WireGuard device, from a file of wg-quick; its addresses, routes and"
             " commands are not looked at", "threepipe.endpoints.wg:open_wg"),
        Kind("echo", "", "answers ICMP echo requests of both families", f"{_SOCKETS}:open_echo"),
        Kind("discard", "", "takes everything and gives nothing", f"{_SOCKETS}:open_discard"),
        Kind("memory", "[NAME]", "joined to the next one of that name in this process", f"{_SOCKETS}:open_memory"),
    )
}  # fmt: skip


def options_of(kind: Kind, given: tuple[tuple[str, str | None], ...]) -> dict[str, Any]:
    """The options `given` in an address, read: by name, those that are repeatable in lists.

    Raises `InvalidSetting` for one that the kind does not have, or that cannot be read.
    """
    known = {option.name: option for option in kind.options}
    values: dict[str, Any] = {}
    for name, text in given:
        if (option := known.get(name)) is None:
            has = f"it has {', '.join(known)}" if known else "it has none"
            raise InvalidSetting(f"{kind.name} has no option {name!r}: {has}")
        if (text is None) == bool(option.value):
            raise InvalidSetting(f"option {name} of {kind.name} is written {option.written}")
        if name in values and not option.repeatable:
            raise InvalidSetting(f"option {name} of {kind.name} is given twice")
        try:
            value = True if text is None else option.read(text)
        except ValueError as error:
            raise InvalidSetting(f"{name}={text} of {kind.name}: {error}; write {option.written}") from None
        if option.repeatable:
            values.setdefault(name, []).append(value)
        else:
            values[name] = value
    return values
