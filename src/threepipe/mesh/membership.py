"""Membership: which nodes a network has, by the records that are heard. Knows no bus, no disk, no device and no clock.

A node is a member while its newest record is good, its certificate too, and no node with an earlier certificate claims
an address or prefix that overlaps with its own. All nodes decide the same from the same records, in whatever order they
come. While the bus is away, nobody's record expires; afterwards each node has the time of a record to be heard again.
"""

import logging
from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from ipaddress import IPv6Address, ip_network
from typing import Literal, NamedTuple

from threepipe.mesh.records import Record, Refused, node_address
from threepipe.settings import Network

__all__ = ["MAX_LIFETIME", "MAX_SKEW", "Change", "Membership", "claims_of"]

log = logging.getLogger("threepipe.mesh")

MAX_SKEW = 60_000
"""Milliseconds by which a record may be from the future."""
MAX_LIFETIME = 86_400_000
"""Milliseconds for which a record may be good."""
_MAX_TOLD = 1000


class Change(NamedTuple):
    """A node that has joined, has other endpoints, or is gone."""

    kind: Literal["joined", "moved", "gone"]
    record: Record


def claims_of(record: Record, networks: Iterable[Network]) -> tuple[Network, ...]:
    """Return the node's own address, as a network, and its prefixes: the destinations of packets to it."""
    address = node_address(networks, record.certificate.key)
    return (*([ip_network(address)] if address else []), *record.prefixes)


class Membership:
    """The nodes that this one knows. Times are milliseconds since 1970."""

    def __init__(self, authority: bytes, networks: Sequence[Network]) -> None:
        """Trust the authority with that public key. Nodes announce prefixes inside `networks` alone."""
        self.changes: list[Change] = []
        """What has changed; its user empties it."""
        self.refused: Counter[str] = Counter()
        """How many records were refused, by reason: the `kind` of `Refused`."""
        self._authority, self._networks = authority, networks
        self._known: dict[str, Record] = {}
        self._members: dict[str, Record] = {}
        self._claims = _Claims()
        self._online_since: int | None = None
        self._told: dict[str, set[str]] = {}

    @property
    def members(self) -> dict[str, Record]:
        """The records of the members by name. Do not change it."""
        return self._members

    @property
    def known(self) -> dict[str, Record]:
        """The newest record of every node, of those that are gone too: by them older ones are refused."""
        return self._known

    def address_of(self, record: Record) -> IPv6Address | None:
        """Return the address of a node."""
        return node_address(self._networks, record.certificate.key)

    def restore(self, texts: Iterable[str], now: int) -> None:
        """Begin with records that this node has kept, the oldest first."""
        for text in texts:
            try:
                record = Record.parse(text.encode(), self._authority)
                self._check_certificate(record, now)
            except Refused as refusal:
                log.info("a kept record is left out: %s", refusal)
                continue
            self._known[record.certificate.name] = record
        for name in list(self._known):
            self._settle(name, now)

    def online(self, now: int) -> None:
        """Let records expire, as the bus is there."""
        self._online_since = now

    def away(self) -> None:
        """Let no record expire, as the bus is away."""
        self._online_since = None

    def hear(self, name: str, data: bytes, now: int) -> bool:
        """Take a record that the bus has under `name`. Return True if it is news; False if it was refused or known."""
        known = self._known.get(name)
        if known is not None and known.text.encode() == data:
            return False  # The bus repeats the last record of each node whenever it is asked.
        try:
            record = Record.parse(data, self._authority, known.certificate if known else None)
            self._check(name, record, known, now)
        except Refused as refusal:
            self._refuse(name, refusal.kind, str(refusal))
            return False
        self._known[name] = record
        self._told.pop(name, None)
        self._settle(name, now)
        return True

    def expire(self, now: int) -> None:
        """Let the records go whose time is over."""
        for name in [*self._claims.names()]:
            if not self._lives(self._known[name], now):
                self._settle(name, now)
        for name in [name for name, record in self._known.items() if record.certificate.expires <= now]:
            del self._known[name]

    def _check(self, name: str, record: Record, known: Record | None, now: int) -> None:
        """Raise `Refused` unless the record, which is signed, may replace the known one."""
        certificate = record.certificate
        if certificate.name != name:
            raise Refused("forged", f"it is a record of {certificate.name}")
        if known is not None and certificate.issued < known.certificate.issued:
            raise Refused("superseded", "its certificate was replaced by a newer one")
        if known is not None and record.sequence <= known.sequence:
            raise Refused("replayed", f"it is {known.sequence - record.sequence} ms older than the one known")
        if record.sequence > now + MAX_SKEW:
            ahead = (record.sequence - now) / 1000
            raise Refused("future", f"it is of a time {ahead:.0f} s from now; set the clocks, there or here")
        if record.expires <= now:
            raise Refused("expired", f"it has expired {(now - record.expires) / 1000:.0f} s ago; are the clocks right?")
        if record.lifetime > MAX_LIFETIME:
            raise Refused("malformed", "it is good for more than a day")
        self._check_certificate(record, now)

    def _check_certificate(self, record: Record, now: int) -> None:
        if record.certificate.expires <= now:
            raise Refused("certificate", "its certificate has expired; have the authority sign a new one")
        for prefix in record.prefixes:
            if not _within(prefix, record.certificate.prefixes):
                raise Refused("prefix", f"it announces {prefix}, which its certificate does not grant")
            if not _within(prefix, self._networks):
                raise Refused("prefix", f"it announces {prefix}, which is outside the network's {self._listed()}")

    def _listed(self) -> str:
        return ", ".join(map(str, self._networks))

    def _lives(self, record: Record, now: int) -> bool:
        if record.left or record.certificate.expires <= now:
            return False
        since = self._online_since
        return since is None or now < max(record.expires, since + record.lifetime)

    def _settle(self, name: str, now: int) -> None:
        """Bring what the node claims up to date, and judge all nodes that this concerns."""
        record = self._known[name]
        claims = claims_of(record, self._networks) if self._lives(record, now) else ()
        concerned = {name}
        if claims != self._claims.of(name):
            concerned |= self._claims.rivals(name)
            self._claims.put(name, claims)
            concerned |= self._claims.rivals(name)
        found = [change for each in sorted(concerned) for change in self._judge(each)]
        self.changes += sorted(found, key=lambda change: change.kind != "gone")  # What is claimed becomes free first.

    def _judge(self, name: str) -> Iterator[Change]:
        record, member = self._known[name], self._members.get(name)
        winner = self._winner(name) if self._claims.of(name) else None
        if winner == name:
            self._members[name] = record
            if member is None or _is_other(member, record):
                if member is not None:
                    yield Change("gone", member)
                yield Change("joined", record)
            elif member.endpoints != record.endpoints:
                yield Change("moved", record)
            return
        if winner is not None:
            self._refuse(name, "clash", f"it claims what {winner}, which has the earlier certificate, has already")
        if member is not None:
            del self._members[name]
            yield Change("gone", member)

    def _winner(self, name: str) -> str:
        """Return the node with the earliest certificate of those that claim the same."""
        return min({name} | self._claims.rivals(name), key=self._rank)

    def _rank(self, name: str) -> tuple[int, bytes]:
        certificate = self._known[name].certificate
        return certificate.issued, certificate.key

    def _refuse(self, name: str, kind: str, text: str) -> None:
        """Count and log a refusal; each kind once until a record is accepted, as a hostile bus can repeat them."""
        self.refused[kind] += 1
        if len(self._told) >= _MAX_TOLD:
            self._told.clear()
        told = self._told.setdefault(name, set())
        if kind not in told:
            told.add(kind)
            log.warning("the record of %s is refused (%s): %s", name, kind, text)


def _is_other(member: Record, record: Record) -> bool:
    return member.certificate.key != record.certificate.key or member.prefixes != record.prefixes


def _within(prefix: Network, networks: Iterable[Network]) -> bool:
    return any(each.version == prefix.version and prefix.subnet_of(each) for each in networks)  # type: ignore[arg-type]


class _Claims:
    """Networks and the names that claim them, found by overlap: equal ones, those around, and those inside."""

    def __init__(self) -> None:
        self._of: dict[str, tuple[Network, ...]] = {}
        self._sorted: list[tuple[int, int, int, str]] = []  # Version, first address, prefix length, name.
        self._lengths: Counter[tuple[int, int]] = Counter()

    def names(self) -> Iterable[str]:
        return self._of

    def of(self, name: str) -> tuple[Network, ...]:
        return self._of.get(name, ())

    def put(self, name: str, claims: tuple[Network, ...]) -> None:
        for network in self._of.pop(name, ()):
            del self._sorted[bisect_left(self._sorted, (*_place(network), name))]
            self._lengths[network.version, network.prefixlen] -= 1
        for network in claims:
            insort(self._sorted, (*_place(network), name))
            self._lengths[network.version, network.prefixlen] += 1
        if claims:
            self._of[name] = claims

    def rivals(self, name: str) -> set[str]:
        """Return the other names that claim an address of those that this one claims."""
        return {each for network in self.of(name) for each in self._overlapping(network)} - {name}

    def _overlapping(self, network: Network) -> Iterator[str]:
        version, first, length = _place(network)
        last = int(network.broadcast_address)
        yield from self._between((version, first), (version, last + 1))
        for (kind, shorter), count in self._lengths.items():
            if count and kind == version and shorter < length:
                base = first >> (network.max_prefixlen - shorter) << (network.max_prefixlen - shorter)
                yield from self._between((version, base, shorter), (version, base, shorter + 1))

    def _between(self, low: tuple[int, ...], high: tuple[int, ...]) -> Iterator[str]:
        for index in range(bisect_left(self._sorted, low), bisect_left(self._sorted, high)):
            yield self._sorted[index][3]


def _place(network: Network) -> tuple[int, int, int]:
    return network.version, int(network.network_address), network.prefixlen
