"""The settings of a device and its peers, changes to these, and status. Pure data.

The names are those of wg(8) and of its configuration protocol. Knows neither files nor sockets.
"""

import binascii
import ipaddress
import re
from base64 import b64decode, b64encode
from collections.abc import Iterable
from dataclasses import dataclass, field

from threepipe.errors import InvalidSetting
from threepipe.settings import Network
from threepipe.wireguard.fields import hide_keys
from threepipe.wireguard.peer_endpoint import PeerEndpoint

__all__ = [
    "Change",
    "PeerChange",
    "PeerStatus",
    "Status",
    "check_device_name",
    "is_device_name",
    "key_from_text",
    "key_to_text",
    "parse_networks",
]

KEY_SIZE = 32
_DEVICE_NAME = re.compile(r"[a-zA-Z0-9_=+.-]{1,15}")


@dataclass(frozen=True, slots=True)
class PeerChange:
    """A change to one peer. A field that is None leaves its setting as it is, unless all peers are replaced."""

    public_key: bytes
    remove: bool = False
    update_only: bool = False
    """Change the peer if it exists, and do not add it. Where all peers are replaced, none exists before."""
    preshared_key: bytes | None = field(default=None, repr=False)
    """32 bytes; all zero for none."""
    endpoint: PeerEndpoint | None = None
    persistent_keepalive: int | None = None
    """Seconds, 65535 at most; 0 for off."""
    replace_allowed_ips: bool = False
    allowed_ips: tuple[Network, ...] = ()
    """Networks to add, and to take from the peers that have them."""
    removed_ips: tuple[Network, ...] = ()
    """Networks to remove, if this peer has them."""


@dataclass(frozen=True, slots=True)
class Change:
    """A change to a device. A field that is None leaves its setting as it is."""

    private_key: bytes | None = field(default=None, repr=False)
    """32 bytes; all zero for none."""
    listen_port: int | None = None
    """A UDP port; 0 for one that the system chooses."""
    fwmark: int | None = None
    """The mark of the datagrams sent, for policy routing; 0 for none."""
    replace_peers: bool = False
    """Remove the peers that are not among `peers`, and what those that are have set; their sessions stay."""
    peers: tuple[PeerChange, ...] = ()

    def check(self) -> None:
        """Raise `InvalidSetting` for a value that is out of range."""
        _check_key("private", self.private_key)
        _check_number("listen port", self.listen_port, 0xFFFF)
        _check_number("fwmark", self.fwmark, 0xFFFFFFFF)
        for peer in self.peers:
            _check_key("public", peer.public_key)
            _check_key("preshared", peer.preshared_key)
            _check_number("persistent keepalive", peer.persistent_keepalive, 0xFFFF)
            if peer.endpoint is not None:
                _check_endpoint(*peer.endpoint)


def _check_key(what: str, key: bytes | None) -> None:
    if key is not None and len(key) != KEY_SIZE:
        raise InvalidSetting(f"a {what} key has {KEY_SIZE} bytes, not {len(key)}")


def _check_number(what: str, number: int | None, most: int) -> None:
    if number is not None and not 0 <= number <= most:
        raise InvalidSetting(f"{what} {number}: give 0 to {most}")


def _check_endpoint(host: str, port: int) -> None:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        raise InvalidSetting(f"endpoint {hide_keys(host)}: give an IP address; look names up first") from None
    _check_number(f"endpoint {host}: port", port, 0xFFFF)


@dataclass(frozen=True, slots=True)
class PeerStatus:
    """A peer at one moment."""

    public_key: bytes
    preshared_key: bytes = field(default=bytes(KEY_SIZE), repr=False)
    endpoint: PeerEndpoint | None = None
    allowed_ips: tuple[Network, ...] = ()
    persistent_keepalive: int = 0
    last_handshake: float = 0.0
    """Seconds since 1970; 0 if there was none. For display: it moves with the wall clock, so that its age is right."""
    rx_bytes: int = 0
    """Bytes of authentic UDP payload received."""
    tx_bytes: int = 0
    handshake_age: float = float("inf")
    """Seconds since the last handshake, of a clock that does not jump; infinite if there was none, or if unknown."""


@dataclass(frozen=True, slots=True)
class Status:
    """A device at one moment."""

    private_key: bytes = field(default=bytes(KEY_SIZE), repr=False)
    public_key: bytes = bytes(KEY_SIZE)
    listen_port: int = 0
    fwmark: int = 0
    peers: tuple[PeerStatus, ...] = ()


def is_device_name(name: str) -> bool:
    """Return True if a device can have that name: one that wg-quick(8) takes, and that an interface can have.

    It is part of the paths of files, and of commands, to which none of its characters means anything.
    """
    return bool(_DEVICE_NAME.fullmatch(name)) and name not in (".", "..")


def check_device_name(name: str) -> str:
    """Return `name`; raise `InvalidSetting` if no device can have it."""
    if not is_device_name(name):
        told = hide_keys(repr(name))
        raise InvalidSetting(f"{told} cannot be the name of a device: give 1 to 15 letters (a-z), digits or _=+.-")
    return name


def key_from_text(text: str) -> bytes:
    """Parse a key in base64, as wg(8) prints it. Raises `InvalidSetting`, which does not show the text."""
    try:
        key = b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != KEY_SIZE:
        raise InvalidSetting("invalid WireGuard key: expected 44 base64 characters (threepipe wg genkey makes one)")
    return key


def key_to_text(key: bytes) -> str:
    """Return the key in base64, as wg(8) prints it."""
    return b64encode(key).decode()


def parse_networks(texts: Iterable[str]) -> tuple[Network, ...]:
    """Parse allowed IPs such as 10.0.0.0/8 or fd00::1. Host bits are cleared, as by wg(8). Raises `InvalidSetting`."""
    networks: list[Network] = []
    for text in texts:
        try:
            if "%" in text:
                raise ValueError("an allowed IP has no zone")
            networks.append(ipaddress.ip_network(text.strip(), strict=False))
        except ValueError as error:
            told = hide_keys(f"allowed IP {text!r}: {error}")
            raise InvalidSetting(f"{told}; write it like 10.0.0.0/8 or fd00::1/128") from None
    return tuple(networks)
