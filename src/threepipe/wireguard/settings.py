"""The settings of a device and its peers, changes to these, and status. Pure data.

The names are those of wg(8) and of its configuration protocol. Knows neither files nor sockets.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import SupportsIndex

from threepipe.errors import InvalidSetting
from threepipe.settings import Network
from threepipe.wireguard.fields import MAX_KEEPALIVE, MAX_MARK, MAX_PORT, hide_keys
from threepipe.wireguard.peer_endpoint import PeerEndpoint
from threepipe.wireguard.values import (
    KEY_SIZE,
    EndpointLike,
    KeyLike,
    NetworkLike,
    fill,
    if_given,
    parse_networks,
    to_endpoint,
    to_key,
    to_kinds,
    to_number,
)

__all__ = ["Change", "PeerChange", "PeerStatus", "Status", "check_device_name", "is_device_name"]

_DEVICE_NAME = re.compile(r"[a-zA-Z0-9_=+.-]{1,15}")


@dataclass(frozen=True, slots=True, init=False)
class PeerChange:
    """A change to one peer. A field that is None leaves its setting as it is, unless all peers are replaced."""

    public_key: bytes
    remove: bool
    update_only: bool
    """Change the peer if it exists, and do not add it. Where all peers are replaced, none exists before."""
    preshared_key: bytes | None = field(repr=False)
    """32 bytes; all zero for none."""
    endpoint: PeerEndpoint | None
    persistent_keepalive: int | None
    """Seconds, 65535 at most; 0 for off."""
    replace_allowed_ips: bool
    allowed_ips: tuple[Network, ...]
    """Networks to add, and to take from the peers that have them."""
    removed_ips: tuple[Network, ...]
    """Networks to remove, if this peer has them."""

    def __init__(
        self,
        public_key: KeyLike,
        remove: bool = False,
        update_only: bool = False,
        preshared_key: KeyLike | None = None,
        endpoint: EndpointLike | None = None,
        persistent_keepalive: SupportsIndex | None = None,
        replace_allowed_ips: bool = False,
        allowed_ips: Iterable[NetworkLike] = (),
        removed_ips: Iterable[NetworkLike] = (),
    ) -> None:
        """Take keys as bytes or in base64, and endpoints and networks as text too. Raises `InvalidSetting`."""
        fill(
            self,
            public_key=to_key(public_key, "public"),
            remove=remove,
            update_only=update_only,
            preshared_key=if_given(to_key, preshared_key, "preshared"),
            endpoint=if_given(to_endpoint, endpoint),
            persistent_keepalive=if_given(to_number, persistent_keepalive, "persistent keepalive", MAX_KEEPALIVE),
            replace_allowed_ips=replace_allowed_ips,
            allowed_ips=parse_networks(allowed_ips),
            removed_ips=parse_networks(removed_ips),
        )


@dataclass(frozen=True, slots=True, init=False)
class Change:
    """A change to a device. A field that is None leaves its setting as it is."""

    private_key: bytes | None = field(repr=False)
    """32 bytes; all zero for none."""
    listen_port: int | None
    """A UDP port; 0 for one that the system chooses."""
    fwmark: int | None
    """The mark of the datagrams sent, for policy routing; 0 for none."""
    replace_peers: bool
    """Remove the peers that are not among `peers`, and what those that are have set; their sessions stay."""
    peers: tuple[PeerChange, ...]

    def __init__(
        self,
        private_key: KeyLike | None = None,
        listen_port: SupportsIndex | None = None,
        fwmark: SupportsIndex | None = None,
        replace_peers: bool = False,
        peers: Iterable[PeerChange] = (),
    ) -> None:
        """Take the key as bytes or in base64. Raises `InvalidSetting`."""
        fill(
            self,
            private_key=if_given(to_key, private_key, "private"),
            listen_port=if_given(to_number, listen_port, "listen port", MAX_PORT),
            fwmark=if_given(to_number, fwmark, "fwmark", MAX_MARK),
            replace_peers=replace_peers,
            peers=to_kinds(peers, PeerChange, "peers", "give objects of PeerChange"),
        )


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
    has_session: bool = False
    """True if there are keys to send data with now; False if that is unknown, as of a device in another process."""


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
