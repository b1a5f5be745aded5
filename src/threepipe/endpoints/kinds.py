"""The table of kinds and their options: help and documentation are made from it. It opens nothing.

The opener of a kind is a function, named here and loaded when it is used. It gets the parameter in an
`OpenRequest`, and the options by name.
"""

import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

from threepipe.adapter import DEFAULT_CAPACITY
from threepipe.endpoints.grammar import split_command
from threepipe.endpoints.request import Side
from threepipe.errors import InvalidSetting
from threepipe.net.connect import check_host_name, parse_host_port
from threepipe.settings import (
    AdapterSettings,
    WindowsSettings,
    check_capacity,
    parse_addresses,
    parse_routes,
    unknown_name,
)

__all__ = ["KINDS", "NEW_NAMESPACE", "Kind", "Option"]

NEW_NAMESPACE = "new"
"""The value of the option netns for a network namespace that is made for the adapter."""

_MAX_MARK = 0xFFFFFFFF  # A mark has 32 bits.
_SHA256 = re.compile(r"[0-9a-f]{64}")
_DESCRIPTORS = re.compile(r"([0-9]{1,9})(?::([0-9]{1,9}))?")


class Option(NamedTuple):
    """An option: `name=VALUE`, or `name` alone if `value` is empty."""

    name: str
    value: str
    help: str
    read: Callable[[str], Any] = str
    """Return the value of a text; raise `ValueError` or `InvalidSetting`."""
    repeatable: bool = False
    required: bool = False
    side: Side | None = None
    """The only side of a pipe at which the option means something."""

    @property
    def usage(self) -> str:
        return f"{self.name}={self.value}" if self.value else self.name


class Kind(NamedTuple):
    """A kind of endpoint; `parameter` is how help writes what follows the colon, in brackets if it is optional."""

    name: str
    parameter: str
    help: str
    opener: str
    options: tuple[Option, ...] = ()
    read: Callable[[str], Any] = str
    """Return the value of a parameter; raise `InvalidSetting`."""
    check: Callable[[Any, dict[str, Any]], object] = lambda parameter, options: None
    """Raise `InvalidSetting` if the parameter and the options do not go together."""

    @property
    def usage(self) -> str:
        return f"{self.name}:{self.parameter}" if self.parameter else self.name

    def read_parameter(self, text: str) -> Any:
        """Return the value of `text`. Raise `InvalidSetting` if it is missing, not wanted or wrong."""
        optional = not self.parameter or (self.parameter.startswith("[") and self.parameter.endswith("]"))
        if not text and not optional:
            raise InvalidSetting(f"{self.name} needs a parameter; write {self.usage}")
        if text and not self.parameter:
            raise InvalidSetting(f"{self.name} takes no parameter; write {self.usage}")
        return self.read(text)

    def read_options(self, given: Sequence[tuple[str, str | None]], side: Side) -> dict[str, Any]:
        """Return the values of the options `given`, by name, those of a repeatable option in a list.

        Raises `InvalidSetting`.
        """
        known = {option.name: option for option in self.options}
        values: dict[str, Any] = {}
        for name, text in given:
            if (option := known.get(name)) is None:
                if not known:
                    raise InvalidSetting(f"unknown option {name!r} of {self.name}; it has no options")
                raise unknown_name("option", name, known, self.name)
            if name in values and not option.repeatable:
                raise InvalidSetting(f"option {name} of {self.name} is given twice")
            value = self._read_option(option, text, side)
            if option.repeatable:
                values.setdefault(name, []).append(value)
            else:
                values[name] = value
        if any(option.required and option.name not in values for option in self.options):
            needed = ", ".join(option.usage for option in self.options if option.required)
            raise InvalidSetting(f"{self.name} needs {needed}")
        return values

    def _read_option(self, option: Option, text: str | None, side: Side) -> Any:
        if (text is None) == bool(option.value):
            raise InvalidSetting(f"option {option.name} of {self.name} is written {option.usage}")
        if option.side not in (None, side):
            raise InvalidSetting(f"option {option.name} of {self.name} is for the {option.side} end of a pipe only")
        try:
            return True if text is None else option.read(text)
        except InvalidSetting:
            raise
        except ValueError as error:
            raise InvalidSetting(f"{option.name}={text} of {self.name}: {error}; write {option.usage}") from None


def _switch(text: str) -> bool:
    try:
        return {"on": True, "off": False}[text]
    except KeyError:
        raise ValueError("expected on or off") from None


def _integer(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError("expected a whole number") from None


def _mark(text: str) -> int:
    try:
        number = int(text, 0)
    except ValueError:
        number = 0
    if not 0 < number <= _MAX_MARK:
        raise ValueError(f"expected a whole number from 1 to {_MAX_MARK:#x}")
    return number


def _count(text: str) -> int:
    if (number := _integer(text)) < 1:
        raise ValueError("expected 1 or more")
    return number


def _positive(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise ValueError("expected a number greater than 0")
    return number


def _capacity(text: str) -> int:
    return check_capacity(_integer(text))


def _only(parse: Callable[[list[str]], Sequence[Any]]) -> Callable[[str], Any]:
    """Return a reader of one text, made of a parser of several."""
    return lambda text: parse([text])[0]


def _server(text: str) -> Any:
    return WindowsSettings(dns=[text]).dns[0]


def _domain(text: str) -> str:
    return WindowsSettings(search=[text]).search[0]


def _command(text: str) -> list[str]:
    if not (words := split_command(text)):
        raise InvalidSetting("exec needs a command, as in exec:'ssh host threepipe pipe tun:t0 -'")
    return words


def _descriptors(text: str) -> tuple[int, ...]:
    """Return one descriptor to read from and write to, or one for each."""
    if (match := _DESCRIPTORS.fullmatch(text)) is None:
        raise InvalidSetting(f"{text!r} is not a descriptor number; write fd:3, or fd:3:4 for two pipes")
    numbers = tuple(int(number) for number in match.groups() if number is not None)
    if len(numbers) > len(set(numbers)):
        raise InvalidSetting(f"descriptor {numbers[0]} is given twice; write fd:{numbers[0]} if it goes both ways")
    return numbers


def _fingerprint(text: str) -> str:
    """Return a SHA-256 as 64 small hexadecimal digits. The colons that OpenSSL prints are allowed."""
    digits = text.replace(":", "").lower()
    if not _SHA256.fullmatch(digits):
        raise InvalidSetting(
            f"{text!r} is not a SHA-256 fingerprint; print it with: openssl x509 -in FILE -noout -fingerprint -sha256"
        )
    return digits


_NOT_IN_A_NEW_NAMESPACE = ("persistent", "owner", "group", "queues", "dns", "search")


def _check_adapter(name: str, options: dict[str, Any]) -> AdapterSettings:
    if "default-route" in options and "netns" in options:
        raise InvalidSetting("default-route is for the namespace of this process; run threepipe there, without netns")
    if options.get("netns") == NEW_NAMESPACE and (
        given := [each for each in _NOT_IN_A_NEW_NAMESPACE if each in options]
    ):
        raise InvalidSetting(f"an adapter with netns=new has one queue and ends with the pipe; drop {', '.join(given)}")
    names = ("mtu", "metric", "persistent", "owner", "group", "queues")
    settings = {option: options[option] for option in names if option in options}
    addresses, routes = tuple(options.get("address", ())), tuple(options.get("route", ()))
    return AdapterSettings(name, addresses, routes, **settings).checked()


def _check_retry(parameter: object, options: dict[str, Any]) -> None:
    if "retry" in options and "forever" in options:
        raise InvalidSetting("retry gives up and forever does not; drop one of the two")
    if "interval" in options and not options.keys() & {"retry", "forever"}:
        raise InvalidSetting("interval is the pause of retry or forever; add one of the two")


def _check_exec(parameter: object, options: dict[str, Any]) -> None:
    _check_retry(parameter, options)
    if "datagrams" in options and options.keys() & {"retry", "forever"}:
        raise InvalidSetting("a program with datagrams is started once; leave out retry and forever")


_ADAPTER = (
    Option("address", "ADDRESS/LENGTH", "an address of the adapter, IPv4 or IPv6", _only(parse_addresses), True),
    Option("route", "NETWORK/LENGTH", "a network to reach through the adapter", _only(parse_routes), True),
    Option("default-route", "MARK", "send all of this machine's packets through the adapter, except to networks with"
           " routes of their own and those that have this mark; Linux only", _mark),
    Option("mtu", "BYTES", "the longest packet; by default the system's choice, 1500", _integer),
    Option("metric", "NUMBER", "the priority of its routes, the smallest first", _integer),
    Option("dns", "ADDRESS", "a DNS server to use while it exists; Windows only", _server, True),
    Option("search", "DOMAIN", "a domain to complete short names with; Windows only", _domain, True),
    Option("netns", "NAMESPACE", "its network namespace: a name, a path, a process id, or new for one that is made"
           " for it and for the command of --run, without privilege"),
    Option("persistent", "", "keep the adapter when the pipe ends"),
    Option("owner", "USER", "a user who may open a persistent adapter without being root"),
    Option("group", "GROUP", "a group whose members may open it; with owner as well, only that user as a member"),
    Option("capacity", "BYTES", f"receive buffer, a power of two; by default {DEFAULT_CAPACITY}", _capacity),
    Option("queues", "NUMBER", "queues that the system fills in parallel; by default 1", _integer),
    Option("offload", "on|off", "superpackets; by default on, without the native core only between two adapters",
           _switch),
)  # fmt: skip
_REUSE = Option("reuse", "on|off", "accept the next client when one disconnects; by default on", _switch)
_SOCKET = (
    Option("mark", "NUMBER", "a mark of its packets for the rules of policy routing, such as 0x7069; not on Windows",
           _mark),
    Option("interface", "NAME", "the interface to use, whatever the routes say; on the BSDs only macOS can do it"),
)  # fmt: skip
_RETRY = (
    Option("retry", "NUMBER", "connect again after a failed attempt or the end of the connection, and give up after so"
           " many failed attempts in a row", _count),
    Option("forever", "", "the same, without giving up"),
    Option("interval", "SECONDS", "the pause before the first attempt, which doubles up to a minute; by default 1",
           _positive),
)  # fmt: skip
_BIND = Option("bind", "HOST:PORT", "the local address to send from", partial(parse_host_port, listening=True))
_FILES = (
    Option("cert", "FILE", "the certificate of this end, PEM", required=True),
    Option("key", "FILE", "the key of that certificate, PEM, not encrypted", required=True),
    Option("ca", "FILE", "the authority that issued the other end's certificate, PEM", required=True),
    Option("crl", "FILE", "the authority's revocation list, PEM; with intermediate authorities, one list of each"),
    Option("fingerprint", "SHA256", "the fingerprint of the other end's certificate, or one of several",
           _fingerprint, True),
)  # fmt: skip
_NAME = Option("name", "NAME", "the name in the listener's certificate; by default HOST", check_host_name)
_CLIENT = Option("name", "NAME", "a name in the client's certificate, or one of several; by default any", str, True)
_DATAGRAMS = Option("datagrams", "", "packets as datagrams, one in each, on a socket whose number the program has in"
                    " VPNFD, and where its arguments have {fd}")  # fmt: skip
_SPEED = Option("speed", "FACTOR", "how much faster than recorded to replay; by default 1", _positive, side="left")
_LOOP = Option("loop", "", "start again at the end, forever", side="left")
_REPAIR = Option(
    "repair",
    "on|off",
    "complete packets that their sender left to its network card to complete; by default on",
    _switch,
    side="left",
)

_OPENERS = "threepipe.endpoints.openers"
_ADAPTERS = "threepipe.endpoints.adapter_openers"
_remote = partial(parse_host_port, listening=False)
_local = partial(parse_host_port, listening=True)

KINDS = {
    kind.name: kind
    for kind in (
        Kind("tun", "NAME", "an adapter of this system: the persistent one of that name, or a new one that is removed"
             " with the pipe; a %d in the name becomes the first free number", f"{_ADAPTERS}:open_tun", _ADAPTER,
             check=_check_adapter),
        Kind("udp", "HOST:PORT", "one packet per datagram", f"{_OPENERS}:open_udp", (_BIND, *_SOCKET), _remote),
        Kind("udp-listen", "[HOST:]PORT", "the same, with the sender of the last packet as the other end",
             f"{_OPENERS}:open_udp_listen", _SOCKET, _local),
        Kind("tcp", "HOST:PORT", "a stream of records", f"{_OPENERS}:open_tcp", (*_SOCKET, *_RETRY), _remote,
             _check_retry),
        Kind("tcp-listen", "[HOST:]PORT", "the same, with one client at a time", f"{_OPENERS}:open_tcp_listen",
             (_REUSE, *_SOCKET), _local),
        Kind("tls", "HOST:PORT", "records over TLS 1.3; both ends present certificates", f"{_OPENERS}:open_tls",
             (*_FILES, _NAME, *_SOCKET, *_RETRY), _remote, _check_retry),
        Kind("tls-listen", "[HOST:]PORT", "the same, with one client at a time", f"{_OPENERS}:open_tls_listen",
             (*_FILES, _CLIENT, _REUSE, *_SOCKET), _local),
        Kind("unix", "PATH", "records over a Unix socket", f"{_OPENERS}:open_unix", _RETRY,
             check=_check_retry),
        Kind("unix-listen", "PATH", "the same, with one client at a time", f"{_OPENERS}:open_unix_listen", (_REUSE,)),
        Kind("stdio", "", "records on standard input and output; may be written -", f"{_OPENERS}:open_stdio"),
        Kind("exec", "COMMAND", "records to and from a program, which is started without a shell; options stand before"
             " the colon, as in exec,forever:COMMAND", f"{_OPENERS}:open_exec", (_DATAGRAMS, *_RETRY), _command,
             _check_exec),
        Kind("fd", "NUMBER[:NUMBER]", "an inherited descriptor: a TUN device, a datagram socket (one packet per"
             " datagram), a stream of records or its listener; or two pipes, first the one to read",
             "threepipe.endpoints.inherited:open_fd", (), _descriptors),
        Kind("pcap", "PATH", "as LEFT, replays a pcap or pcapng file with its timing; as RIGHT, writes one (pcapng)",
             "threepipe.endpoints.recording:open_pcap", (_SPEED, _LOOP, _REPAIR)),
        Kind("wg", "CONFIG", "the peers of a WireGuard device, from a wg-quick file; its addresses, routes and"
             " commands are ignored", "threepipe.endpoints.wg:open_wg"),
        Kind("echo", "", "answers ICMP echo requests, IPv4 and IPv6", f"{_OPENERS}:open_echo"),
        Kind("discard", "", "accepts every packet and sends none", f"{_OPENERS}:open_discard"),
        Kind("memory", "[NAME]", "connects to the next one of that name in this process", f"{_ADAPTERS}:open_memory"),
    )
}  # fmt: skip
