"""The sections of a configuration file of wg-quick(8), as data. Reads no files; `config` does."""

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import SupportsIndex

from threepipe.settings import MAX_MTU, Address, Network, check_mtu, parse_addresses
from threepipe.wireguard.fields import MAX_KEEPALIVE, MAX_MARK, MAX_PORT
from threepipe.wireguard.peer_endpoint import PeerEndpoint
from threepipe.wireguard.quick.names import resolve
from threepipe.wireguard.settings import Change, PeerChange, check_device_name
from threepipe.wireguard.values import (
    EndpointLike,
    KeyLike,
    NetworkLike,
    fill,
    if_given,
    parse_networks,
    to_host_and_port,
    to_key,
    to_kind,
    to_kinds,
    to_number,
)

__all__ = ["Config", "PathLike", "PeerConfig"]

PathLike = str | os.PathLike[str]
"""The path of a file."""


@dataclass(frozen=True, slots=True, init=False)
class PeerConfig:
    """A section [Peer]."""

    public_key: bytes
    preshared_key: bytes | None = field(repr=False)
    allowed_ips: tuple[Network, ...]
    """Networks to add, and to take from the peers that have them."""
    endpoint: tuple[str, int] | None
    """The name or address, and the port."""
    persistent_keepalive: int
    removed_ips: tuple[Network, ...]
    """Networks to remove once `allowed_ips` are added, those with a minus."""
    replace_allowed_ips: bool
    """False to keep the networks of an earlier section of the same peer, as there are signs."""

    def __init__(
        self,
        public_key: KeyLike,
        preshared_key: KeyLike | None = None,
        allowed_ips: Iterable[NetworkLike] = (),
        endpoint: EndpointLike | None = None,
        persistent_keepalive: SupportsIndex = 0,
        removed_ips: Iterable[NetworkLike] = (),
        replace_allowed_ips: bool = True,
    ) -> None:
        """Take keys as bytes or in base64, and the endpoint and networks as text too. Raises `InvalidSetting`."""
        fill(
            self,
            public_key=to_key(public_key, "public"),
            preshared_key=if_given(to_key, preshared_key, "preshared"),
            allowed_ips=parse_networks(allowed_ips),
            endpoint=if_given(to_host_and_port, endpoint),
            persistent_keepalive=to_number(persistent_keepalive, "persistent keepalive", MAX_KEEPALIVE),
            removed_ips=parse_networks(removed_ips),
            replace_allowed_ips=replace_allowed_ips,
        )

    def changes(self, look_up: Callable[[tuple[str, int]], PeerEndpoint]) -> Iterator[PeerChange]:
        """Yield the changes that configure the peer."""
        yield PeerChange(
            self.public_key,
            preshared_key=self.preshared_key,
            endpoint=look_up(self.endpoint) if self.endpoint else None,
            persistent_keepalive=self.persistent_keepalive,
            replace_allowed_ips=self.replace_allowed_ips,
            allowed_ips=self.allowed_ips,
        )
        if self.removed_ips:
            yield PeerChange(self.public_key, update_only=True, removed_ips=self.removed_ips)


@dataclass(frozen=True, slots=True, init=False)
class Config:
    """A configuration file."""

    name: str
    """The name of the interface: that of the file, without its suffix."""
    private_key: bytes | None = field(repr=False)
    """None if a command of the file sets it, as in wg-quick(8)."""
    listen_port: int | None
    fwmark: int | None
    addresses: tuple[Address, ...]
    dns: tuple[str, ...]
    """Name servers and search domains."""
    mtu: int | None
    table: str
    """The table for routes: its number or its name for ip(8), `auto`, or `off` for no routes."""
    pre_up: tuple[str, ...]
    post_up: tuple[str, ...]
    pre_down: tuple[str, ...]
    post_down: tuple[str, ...]
    save: bool
    """Write the state of the device to the file when it ends."""
    peers: tuple[PeerConfig, ...]
    routing: tuple[Network, ...]
    """The networks of a mesh, whose packets are routed by next hops; none for routing by allowed IPs."""

    def __init__(
        self,
        name: str,
        private_key: KeyLike | None = None,
        listen_port: SupportsIndex | None = None,
        fwmark: SupportsIndex | None = None,
        addresses: Iterable[str | Address] = (),
        dns: Iterable[str] = (),
        mtu: SupportsIndex | None = None,
        table: str = "auto",
        pre_up: Iterable[str] = (),
        post_up: Iterable[str] = (),
        pre_down: Iterable[str] = (),
        post_down: Iterable[str] = (),
        save: bool = False,
        peers: Iterable[PeerConfig] = (),
        routing: Iterable[NetworkLike] = (),
    ) -> None:
        """Take the key as bytes or in base64, and addresses as text too. Raises `InvalidSetting`."""
        size = if_given(to_number, mtu, "MTU", MAX_MTU)
        fill(
            self,
            name=check_device_name(to_kind(name, str, "name", "give a str")),
            private_key=if_given(to_key, private_key, "private"),
            listen_port=if_given(to_number, listen_port, "listen port", MAX_PORT),
            fwmark=if_given(to_number, fwmark, "fwmark", MAX_MARK),
            addresses=parse_addresses(addresses),
            dns=_texts(dns, "dns"),
            mtu=size if size is None else check_mtu(size, ipv6=False),
            table=to_kind(table, str, "table", "give a str"),
            pre_up=_texts(pre_up, "pre_up"),
            post_up=_texts(post_up, "post_up"),
            pre_down=_texts(pre_down, "pre_down"),
            post_down=_texts(post_down, "post_down"),
            save=save,
            peers=to_kinds(peers, PeerConfig, "peers", "give objects of PeerConfig"),
            routing=parse_networks(routing),
        )

    def change(self, look_up: Callable[[tuple[str, int]], PeerEndpoint] = resolve) -> Change:
        """Return the change that configures a new device, after looking up endpoints. Raises `EndpointError`."""
        peers = [change for peer in self.peers for change in peer.changes(look_up)]
        return Change(self.private_key, self.listen_port, self.fwmark, replace_peers=True, peers=peers)


def _texts(values: Iterable[str], what: str) -> tuple[str, ...]:
    return to_kinds(values, str, what, "give texts")
