"""Routing by next hops: a packet is for the peer that is the next hop of its route, in place of allowed IPs.

A next hop is an IPv6 link-local address, and each peer has the one made of its public key (`keys.link_local`). The
routes are those of a `Routes`: the system's, which a routing daemon sets, or a program's own. Results are kept until
the routes change. Packets to multicast groups of the link (ff02::/16, and any flags; 224.0.0.0/24) are for every peer.

A peer may send from the networks that it has, or, if it has none, from those of the mesh; of link-local addresses it
may use its own alone. Networks of peers may overlap. An owner is any hashable object here.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv6Address
from typing import ClassVar, Generic, Protocol, TypeVar

from threepipe.errors import InvalidSetting
from threepipe.settings import Network
from threepipe.wireguard.allowed_ips import BEFORE, AllowedIPs
from threepipe.wireguard.values import NetworkLike, fill, parse_networks

__all__ = ["EVERYONE", "Everyone", "NextHopRouting", "NextHops", "Routes"]

Owner = TypeVar("Owner")

_MAX_KNOWN = 1 << 16
_IPV4_SIZE, _IPV6_SIZE = 4, 16


class Everyone(Enum):
    """The type of `EVERYONE`."""

    EVERYONE = "everyone"


EVERYONE = Everyone.EVERYONE
"""All peers, for packets to multicast groups of the link."""


class Routes(Protocol):
    """The routes of a mesh's interface, as a device asks for them. `KernelRoutes` are those of the system."""

    def next_hop(self, destination: bytes, source: bytes) -> bytes | None:
        """Return the 16 bytes of the link-local IPv6 address that packets to `destination` go to next; None for none.

        Addresses are 4 or 16 bytes, and `source` is empty for IPv4. The device calls this with a lock held: return
        soon, without calling the device.
        """

    def changes(self) -> Sequence[Network] | None:
        """Wait until routes have changed, and return the destinations that this concerns; None after `close`."""

    def use_address(self, address: IPv6Address | None) -> None:
        """Give the interface this link-local address, that of the device's key, in place of others; None for none."""

    def close(self) -> None:
        """End `changes`, and free everything. May be called again."""


@dataclass(frozen=True, slots=True, init=False)
class NextHopRouting:
    """The setting of a device that routes by next hops."""

    networks: tuple[Network, ...]
    """The networks of the mesh: a peer without allowed IPs may send from any of their addresses."""
    routes: Routes

    def __init__(self, networks: Iterable[NetworkLike], routes: Routes) -> None:
        """Take networks as text too. Raises `InvalidSetting`. The device closes `routes`."""
        fill(self, networks=parse_networks(networks), routes=routes)
        if not self.networks:
            raise InvalidSetting("routing by next hops: give the networks of the mesh, such as fd12:3456:789a::/48")


class NextHops(Generic[Owner]):
    """The peers that are next hops, what each may send from, and the results since the last change of a route.

    Has the methods of `AllowedIPs`.
    """

    KEYS: ClassVar[Mapping[int, tuple[slice, slice]]] = {
        skipped: (slice(skipped + 16, skipped + 20), slice(skipped + 8, skipped + 40)) for skipped in BEFORE
    }
    """The bytes before a packet -> those that `find` takes: the destination of IPv4, source and destination of IPv6."""

    def __init__(self, routing: NextHopRouting) -> None:
        self._routing = routing
        self._owners: dict[bytes, Owner] = {}
        self._addresses: dict[Owner, bytes] = {}
        self._networks: dict[Owner, dict[Network, None]] = {}
        self._known: dict[bytes, Owner | Everyone | None] = {}
        # The keys of results by owner and by destination, so that forgetting some costs nothing for the others. Some
        # may be forgotten already.
        self._keys_of: dict[Owner | Everyone | None, list[bytes]] = {}
        self._keys_to: dict[bytes, list[bytes]] = {}
        self._found = 0  # Results since all were forgotten.
        self._allowed: dict[tuple[bytes, Owner], bool] = {}
        self._learned: dict[bytes, Owner] | None = None
        self._forgotten: list[Network] = []

    def add(self, owner: Owner, address: bytes) -> None:
        """Make `owner` the peer of a link-local address."""
        self._owners[address] = owner
        self._addresses[owner] = address
        self._drop(self._keys_of.pop(None, []))

    def insert(self, network: Network, owner: Owner) -> None:
        """Let `owner` send from `network`."""
        self._networks.setdefault(owner, {})[network] = None
        self._allowed.clear()

    def remove(self, network: Network, owner: Owner) -> None:
        """Take `network` from `owner`, if it has that."""
        self._networks.get(owner, {}).pop(network, None)
        self._allowed.clear()

    def remove_all(self, owner: Owner) -> None:
        """Take all networks from `owner`."""
        self._networks.pop(owner, None)
        self._allowed.clear()

    def discard(self, owner: Owner) -> None:
        """Forget `owner`."""
        self.remove_all(owner)
        if self._owners.get(address := self._addresses.pop(owner)) is owner:
            del self._owners[address]
        self._drop(self._keys_of.pop(owner, []))

    def of(self, owner: Owner) -> tuple[Network, ...]:
        """Return the networks given to `owner`, in the order of their insertion."""
        return tuple(self._networks.get(owner, ()))

    def sources(self, owner: Owner) -> tuple[Network, ...]:
        """Return the networks that `owner` may send from; none if it was discarded."""
        return (self.of(owner) or self._routing.networks) if owner in self._addresses else ()

    def address(self, owner: Owner) -> bytes | None:
        """Return the link-local address of `owner`; None if it was discarded."""
        return self._addresses.get(owner)

    def find(self, key: bytes) -> Owner | Everyone | None:
        """Return the owner of packets with these bytes of the header, or `EVERYONE`."""
        try:
            return self._known[key]
        except KeyError:
            destination, source = (key, b"") if len(key) == _IPV4_SIZE else (key[_IPV6_SIZE:], key[:_IPV6_SIZE])
            owner = self._look_up(destination, source)
            if self._found >= _MAX_KNOWN:
                self._forget_all()
            self._found += 1
            self._known[key] = owner
            self._keys_of.setdefault(owner, []).append(key)
            self._keys_to.setdefault(destination, []).append(key)
            if self._learned is not None and owner is not None and owner is not EVERYONE:
                self._learned[key] = owner
            return owner

    def _look_up(self, destination: bytes, source: bytes) -> Owner | Everyone | None:
        if _is_for_everyone(destination):
            return EVERYONE
        hop = destination if _is_link_local(destination) else self._routing.routes.next_hop(destination, source)
        return None if hop is None else self._owners.get(hop)

    def allows(self, source: bytes, owner: Owner) -> bool:
        """Return True if `owner` may send from an address of 4 or 16 bytes."""
        try:
            return self._allowed[source, owner]
        except KeyError:
            if _is_link_local(source):
                allowed = source == self._addresses.get(owner)
            else:
                allowed = _is_within(source, self.sources(owner))
            if len(self._allowed) >= _MAX_KNOWN:
                self._allowed.clear()
            self._allowed[source, owner] = allowed
            return allowed

    def forget(self, networks: Sequence[Network]) -> None:
        """Forget the results for destinations in these networks, as their routes have changed."""
        changed: AllowedIPs[bool] = AllowedIPs()
        wide = False
        for network in networks:
            if network.prefixlen == network.max_prefixlen:
                self._drop(self._keys_to.pop(network.network_address.packed, []))
            else:
                changed.insert(network, True)
                wide = True
        if wide:
            for destination in [each for each in self._keys_to if changed.find(each)]:
                self._drop(self._keys_to.pop(destination))
        if self._learned is not None:
            self._forgotten += networks

    def _drop(self, keys: Iterable[bytes]) -> None:
        for key in keys:
            self._known.pop(key, None)
            if self._learned is not None:
                self._learned.pop(key, None)

    def _forget_all(self) -> None:
        self._known.clear()
        self._keys_of.clear()
        self._keys_to.clear()
        self._found = 0

    def track(self) -> None:
        """Have `changes` return the results from now on."""
        self._learned = {}
        self._forget_all()

    def changes(self) -> tuple[list[Network], dict[bytes, Owner]]:
        """Return what `forget` was called with since the last call, and then the results since."""
        if not self._learned and not self._forgotten:
            return [], {}
        forgotten, self._forgotten = self._forgotten, []
        learned, self._learned = self._learned or {}, {}
        return forgotten, learned


def _is_link_local(address: bytes) -> bool:
    return address[0] == 0xFE and address[1] & 0xC0 == 0x80 and len(address) > _IPV4_SIZE


def _is_for_everyone(address: bytes) -> bool:
    if len(address) == _IPV4_SIZE:
        return address[:3] == b"\xe0\0\0"
    return address[0] == 0xFF and address[1] & 0x0F == 2  # RFC 4291, section 2.7: link-local scope.


def _is_within(address: bytes, networks: Sequence[Network]) -> bool:
    number, bits = int.from_bytes(address, "big"), 8 * len(address)
    for network in networks:
        if network.max_prefixlen == bits:
            shift = bits - network.prefixlen
            if number >> shift == int(network.network_address) >> shift:
                return True
    return False
