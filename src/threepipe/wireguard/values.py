"""Values that programs give: one function for each kind, which takes its usual forms and returns the only one inside.

A value that cannot work raises `InvalidSetting`, and an object of another kind `TypeError`. The texts say what to give,
and show no keys.
"""

import binascii
import ipaddress
import operator
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable
from typing import Any, SupportsIndex, TypeAlias, TypeVar

from threepipe.errors import InvalidSetting
from threepipe.settings import Address, Network, Server
from threepipe.wireguard.fields import MAX_PORT, hide_keys, parse_endpoint
from threepipe.wireguard.peer_endpoint import PeerEndpoint, SocketAddress, from_socket

__all__ = [
    "KEY_SIZE",
    "EndpointLike",
    "KeyLike",
    "NetworkLike",
    "fill",
    "if_given",
    "key_from_text",
    "key_to_text",
    "parse_networks",
    "to_endpoint",
    "to_host_and_port",
    "to_key",
    "to_kind",
    "to_kinds",
    "to_number",
]

KEY_SIZE = 32

Value = TypeVar("Value")
Kind: TypeAlias = type[Any] | tuple[type[Any], ...]
"""A type or types, as for `isinstance`."""
KeyLike: TypeAlias = bytes | str
"""The bytes of a key, or its text in base64, as wg(8) prints it."""
NetworkLike: TypeAlias = str | Network | Address | Server
"""A network, or its text; an address stands for itself, and one with a prefix length for its network."""
EndpointLike: TypeAlias = str | SocketAddress | tuple[Server, int]
"""`ADDRESS:PORT` or `[ADDRESS]:PORT`, or an address and a port, as sockets and `socket.getaddrinfo` have them."""

_NETWORK_KINDS = (
    *(str, ipaddress.IPv4Network, ipaddress.IPv6Network),
    *(ipaddress.IPv4Address, ipaddress.IPv6Address),  # And IPv4Interface and IPv6Interface, which are derived.
)
_MAX_SCOPE = 0xFFFFFFFF
_ENDPOINT_FORMS = "give a text such as 192.0.2.1:51820 or [2001:db8::1]:51820, or a tuple of an address and a port"


def fill(target: object, **values: object) -> None:
    """Set the attributes of an object of a frozen dataclass."""
    for name, value in values.items():
        object.__setattr__(target, name, value)


def if_given(convert: Callable[..., Value], value: Any, *arguments: Any) -> Value | None:
    """Return `convert(value, *arguments)`, or None for None."""
    return None if value is None else convert(value, *arguments)


def to_kind(value: Any, kind: Kind, what: str, advice: str) -> Any:
    """Return `value`, an object of `kind`."""
    if not isinstance(value, kind):
        raise TypeError(f"{what}: {advice}, not {type(value).__name__}")
    return value


def to_kinds(values: Iterable[Any], kind: Kind, what: str, advice: str) -> tuple[Any, ...]:
    """Return `values` as a tuple, all objects of `kind`. A single value is not taken for a list of its parts."""
    if isinstance(values, (kind, str, bytes)) or not isinstance(values, Iterable):
        raise TypeError(f"{what}: give a list, even for one, not {type(values).__name__}")
    return tuple(to_kind(value, kind, what, advice) for value in values)


def to_number(value: SupportsIndex, what: str, maximum: int) -> int:
    """Return a whole number from 0 to `maximum`."""
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{what}: give a whole number from 0 to {maximum}, not {type(value).__name__}") from None
    if not 0 <= number <= maximum:
        raise InvalidSetting(f"{what} {number}: give 0 to {maximum}")
    return number


def to_key(value: KeyLike, what: str = "WireGuard") -> bytes:
    """Return the 32 bytes of a key."""
    if isinstance(value, str):
        return _decode(value, what)
    if not isinstance(value, (bytes, bytearray, memoryview)):
        name = type(value).__name__
        raise TypeError(f"a {what} key: give its {KEY_SIZE} bytes, or its base64 text as wg(8) prints it, not {name}")
    key = bytes(value)
    if len(key) != KEY_SIZE:
        raise InvalidSetting(f"a {what} key has {KEY_SIZE} bytes, not {len(key)}; give its text in base64 as a str")
    return key


def key_from_text(text: str) -> bytes:
    """Parse a key in base64, as wg(8) prints it. Raises `InvalidSetting`, which does not show the text."""
    return _decode(to_kind(text, str, "a WireGuard key", "give its base64 text as a str"), "WireGuard")


def key_to_text(key: KeyLike) -> str:
    """Return the key in base64, as wg(8) prints it. Raises `InvalidSetting`."""
    return b64encode(to_key(key)).decode()


def _decode(text: str, what: str) -> bytes:
    try:
        key = b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != KEY_SIZE:
        raise InvalidSetting(f"invalid {what} key: expected 44 base64 characters (threepipe wg genkey makes one)")
    return key


def parse_networks(networks: Iterable[NetworkLike]) -> tuple[Network, ...]:
    """Parse allowed IPs such as 10.0.0.0/8 or fd00::1. Host bits are cleared, as by wg(8). Raises `InvalidSetting`."""
    values = to_kinds(networks, _NETWORK_KINDS, "allowed IPs", "give networks, or texts such as 10.0.0.0/8")
    return tuple(_to_network(value) for value in values)


def _to_network(value: NetworkLike) -> Network:
    text = str(value)
    try:
        if "%" in text:
            raise ValueError("an allowed IP has no zone")
        return ipaddress.ip_network(text.strip(), strict=False)
    except ValueError as error:
        told = hide_keys(f"allowed IP {text!r}: {error}")
        raise InvalidSetting(f"{told}; write it like 10.0.0.0/8 or fd00::1/128") from None


def to_host_and_port(value: EndpointLike) -> tuple[str, int]:
    """Return the name or address, and the port, of an endpoint."""
    if isinstance(value, str):
        try:
            return parse_endpoint(value)
        except ValueError as error:
            raise InvalidSetting(hide_keys(f"endpoint {value!r}: {error}")) from None
    if not isinstance(value, (tuple, list)) or len(value) not in (2, 4):
        given = f"{len(value)} values" if isinstance(value, (tuple, list)) else type(value).__name__
        raise TypeError(f"endpoint: {_ENDPOINT_FORMS}, not {given}")
    host, *numbers = value
    if isinstance(host, (ipaddress.IPv4Address, ipaddress.IPv6Address)):
        host = str(host)
    to_kind(host, str, "endpoint", _ENDPOINT_FORMS)
    told = f"endpoint {hide_keys(host)}:"
    port = to_number(numbers[0], f"{told} port", MAX_PORT)
    flow_and_scope = [to_number(number, f"{told} scope", _MAX_SCOPE) for number in numbers[1:]]
    return from_socket((host, port, *flow_and_scope))  # type: ignore[arg-type]


def to_endpoint(value: EndpointLike) -> PeerEndpoint:
    """Return an endpoint with an address. A name raises `InvalidSetting`, as only its user can wait for a look-up."""
    host, port = to_host_and_port(value)
    try:
        return str(ipaddress.ip_address(host)), port
    except ValueError:
        advice = "give an IP address; look names up first, as by socket.getaddrinfo()"
        raise InvalidSetting(f"endpoint {hide_keys(host)}: {advice}") from None
