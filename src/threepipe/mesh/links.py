"""Links: the members as peers of a device, with their endpoints, and as routes of the system. Knows no bus.

Every member is a peer, and has routes by its link-local address. Their metric is higher than that of the routes of
babeld, BIRD and FRR: where a routing daemon runs on the interface, its routes win, and without one packets go directly.
"""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import Protocol

from threepipe.errors import AdapterError
from threepipe.mesh.membership import Change, claims_of
from threepipe.mesh.records import Record
from threepipe.settings import Network
from threepipe.wireguard import settings
from threepipe.wireguard.device import Device
from threepipe.wireguard.keys import link_local
from threepipe.wireguard.next_hops import Routes
from threepipe.wireguard.peer_endpoint import PeerEndpoint
from threepipe.wireguard.settings import PeerChange, PeerStatus

__all__ = ["FRESH", "Links", "MeshRoutes"]

log = logging.getLogger("threepipe.mesh")

FRESH = 180.0
"""Seconds since a handshake after which a peer counts as unreached: a device no longer uses the keys then."""
_CALLS = 2
"""The number of calls of `retry` for which an endpoint is tried: a device begins a handshake anew every 5 s."""


class MeshRoutes(Routes, Protocol):
    """Routes that can be set too. `KernelRoutes` are those of the system."""

    def add(self, destination: Network, next_hop: IPv6Address) -> None:
        """Route a network to the peer with that link-local address. Raises `AdapterError`."""

    def remove(self, destination: Network, next_hop: IPv6Address) -> None:
        """Undo `add`; do nothing if the route is gone. Raises `AdapterError`."""


@dataclass
class _Link:
    """A member, and the number of attempts to reach it since its last record."""

    record: Record
    tried: int = 0


class Links:
    """The peers and routes of a device. `retry` and the methods that only read may be called in other threads."""

    def __init__(self, device: Device, routes: MeshRoutes, networks: Sequence[Network], keepalive: int) -> None:
        """`keepalive` is the persistent keepalive of all peers in seconds, which keeps mappings of NATs; 0 for off."""
        self.device, self.routes = device, routes
        self._networks, self._keepalive = networks, keepalive
        self._links: dict[bytes, _Link] = {}
        self._own: frozenset[str] = frozenset()

    def apply(self, changes: Iterable[Change]) -> None:
        """Carry out changes of the membership, all peers in one step."""
        peers: list[PeerChange] = []
        statuses: dict[bytes, PeerStatus] = {}
        for change in changes:
            record, key = change.record, change.record.certificate.key
            if change.kind == "gone":
                peers.append(PeerChange(key, remove=True))
                self._links.pop(key, None)
                self._route(record, False)
                continue
            link = self._links[key] = _Link(record)
            status = None
            if change.kind == "joined":
                self._route(record, True)
            else:
                statuses = statuses or self.statuses()
                status = statuses.get(key)
            if status is not None and not _is_unreached(status):
                if status.endpoint not in record.endpoints:
                    peers.append(PeerChange(key, endpoint=self._endpoint(link), update_only=True))
                continue
            if status is not None:  # A device calls a new peer at once, and one that did not answer only after 5 s.
                peers.append(PeerChange(key, remove=True))
            peers.append(PeerChange(key, endpoint=self._endpoint(link), persistent_keepalive=self._keepalive))
        if peers:
            self.device.configure(settings.Change(peers=peers))

    def retry(self, own: Sequence[PeerEndpoint]) -> None:
        """Try the next endpoint of each member that was not reached since the last two calls.

        `own` are the endpoints of this node. A member behind the same NAT has an endpoint with the same address; it is
        tried at its last endpoints first, which are those of its interfaces.
        """
        self._own = frozenset(host for host, _ in own)
        peers = []
        for key, status in self.statuses().items():
            link = self._links.get(key)
            if link is not None and _is_unreached(status):
                link.tried += 1
                if (endpoint := self._endpoint(link)) != status.endpoint:
                    peers.append(PeerChange(key, endpoint=endpoint, update_only=True))
        if peers:
            self.device.configure(settings.Change(peers=peers))

    def statuses(self) -> dict[bytes, PeerStatus]:
        """Return the state of all peers by public key."""
        return {peer.public_key: peer for peer in self.device.status().peers}

    def endpoint_of(self, address: IPv6Address) -> PeerEndpoint | None:
        """Return the endpoint of the peer with a link-local address; None if it is not known."""
        found = [peer.endpoint for peer in self.device.status().peers if link_local(peer.public_key) == address]
        return found[0] if found else None

    def next_hop(self, address: IPv6Address) -> IPv6Address | None:
        """Return the link-local address that packets to `address` go to next. Raises `OSError`."""
        hop = self.routes.next_hop(address.packed, bytes(16))
        return None if hop is None else IPv6Address(hop)

    def _endpoint(self, link: _Link) -> PeerEndpoint | None:
        """Return the endpoint to try."""
        endpoints = link.record.endpoints
        if not endpoints:
            return None
        beside = any(host in self._own for host, _ in endpoints)
        tried = link.tried // _CALLS % len(endpoints)
        return endpoints[-1 - tried if beside else tried]

    def _route(self, record: Record, add: bool) -> None:
        hop = link_local(record.certificate.key)
        for network in claims_of(record, self._networks):
            try:
                (self.routes.add if add else self.routes.remove)(network, hop)
            except AdapterError as error:
                log.warning("the route of %s to %s: %s", record.certificate.name, network, error.strerror)


def _is_unreached(status: PeerStatus) -> bool:
    return status.handshake_age > FRESH
