"""Links: the members as peers of a device, with their endpoints, and as routes of the system. Knows no bus.

Every member is a peer, and has routes by its link-local address. Their metric is higher than that of the routes of
babeld, BIRD and FRR: where a routing daemon runs on the interface, its routes win, and without one these lead directly.
"""

import logging
from collections.abc import Iterable, Sequence
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
from threepipe.wireguard.settings import PeerChange, PeerStatus

__all__ = ["FRESH", "Links", "MeshRoutes"]

log = logging.getLogger("threepipe.mesh")

FRESH = 180.0
"""Seconds since a handshake after which a peer counts as not reached: its keys are no longer used then."""


class MeshRoutes(Routes, Protocol):
    """Routes that can be set too. `KernelRoutes` are those of the system."""

    def add(self, destination: Network, next_hop: IPv6Address) -> None:
        """Route a network to the peer with that link-local address. Raises `AdapterError`."""

    def remove(self, destination: Network, next_hop: IPv6Address) -> None:
        """Undo `add`; do nothing if the route is gone. Raises `AdapterError`."""


class Links:
    """The peers and routes of a device. Not thread-safe."""

    def __init__(self, device: Device, routes: MeshRoutes, networks: Sequence[Network], keepalive: int) -> None:
        """`keepalive` is the persistent keepalive of all peers in seconds, which keeps mappings of NATs; 0 for off."""
        self.device, self.routes = device, routes
        self._networks, self._keepalive = networks, keepalive
        self._records: dict[bytes, Record] = {}
        self._tried: dict[bytes, int] = {}

    def apply(self, changes: Iterable[Change]) -> None:
        """Carry out changes of the membership, all peers in one step."""
        peers: list[PeerChange] = []
        statuses: dict[bytes, PeerStatus] = {}
        for change in changes:
            record, key = change.record, change.record.certificate.key
            if change.kind == "gone":
                peers.append(PeerChange(key, remove=True))
                self._records.pop(key, None)
                self._tried.pop(key, None)
                self._route(record, False)
                continue
            joins = change.kind == "joined"
            statuses = statuses or (statuses if joins else self.statuses())
            self._records[key] = record
            endpoint = record.endpoints[0] if record.endpoints else None
            if joins:
                peers.append(PeerChange(key, endpoint=endpoint, persistent_keepalive=self._keepalive))
                self._route(record, True)
            elif endpoint is not None and (key not in statuses or statuses[key].endpoint not in record.endpoints):
                peers.append(PeerChange(key, endpoint=endpoint, update_only=True))
        if peers:
            self.device.configure(settings.Change(peers=peers))

    def retry(self) -> None:
        """Try the next endpoint of each member that is not reached."""
        peers = []
        for key, status in self.statuses().items():
            record = self._records.get(key)
            if record is not None and len(record.endpoints) > 1 and status.handshake_age > FRESH:
                self._tried[key] = tried = (self._tried.get(key, 0) + 1) % len(record.endpoints)
                peers.append(PeerChange(key, endpoint=record.endpoints[tried], update_only=True))
        if peers:
            self.device.configure(settings.Change(peers=peers))

    def statuses(self) -> dict[bytes, PeerStatus]:
        """Return the state of all peers by public key."""
        return {peer.public_key: peer for peer in self.device.status().peers}

    def next_hop(self, address: IPv6Address) -> IPv6Address | None:
        """Return the link-local address that packets to `address` go to next. Raises `OSError`."""
        hop = self.routes.next_hop(address.packed, bytes(16))
        return None if hop is None else IPv6Address(hop)

    def _route(self, record: Record, add: bool) -> None:
        hop = link_local(record.certificate.key)
        for network in claims_of(record, self._networks):
            try:
                (self.routes.add if add else self.routes.remove)(network, hop)
            except AdapterError as error:
                log.warning("the route of %s to %s: %s", record.certificate.name, network, error.strerror)
