"""Membership: decides by records which nodes a network has. Knows no bus, no disk, no device and no clock.

A node is a member while its newest record and its certificate are valid, and no node with an earlier certificate claims
the same address or prefix. A prefix may be inside one of another node: packets go by the longest. All nodes decide the
same from the same records, in any order. While the bus is away, no record expires; afterwards each node has the
lifetime of its record to be heard again.
"""

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Literal, NamedTuple

from threepipe.mesh.records import Record, Refused, node_address
from threepipe.settings import Network

__all__ = ["MAX_LIFETIME", "MAX_SKEW", "Change", "Membership", "claims_of"]

log = logging.getLogger("threepipe.mesh")

MAX_SKEW = 60_000
"""Milliseconds by which a record may be from the future."""
MAX_LIFETIME = 86_400_000
"""Milliseconds for which a record may be valid."""
_MAX_TOLD, _MAX_NAME = 1000, 63


class Change(NamedTuple):
    """A node that has joined, has other endpoints, or is gone."""

    kind: Literal["joined", "moved", "gone"]
    record: Record


def claims_of(record: Record, networks: Iterable[Network]) -> tuple[Network, ...]:
    """Return the node's own address, as a network, and its prefixes: the destinations of packets to it."""
    return tuple(dict.fromkeys((ip_network(node_address(networks, record.certificate.key)), *record.prefixes)))


class Membership:
    """The nodes that this one knows. Times are milliseconds since 1970."""

    def __init__(self, authority: bytes, networks: Sequence[Network]) -> None:
        """Trust the authority with that public key. Nodes may announce only prefixes inside `networks`."""
        self.changes: list[Change] = []
        """The changes that nobody has carried out yet; the user of this object empties the list."""
        self.refused: Counter[str] = Counter()
        """The number of refused records by reason, the `kind` of `Refused`."""
        self.known: dict[str, Record] = {}
        """The newest record of every node, also of those that are gone, so that older ones are refused."""
        self.members: dict[str, Record] = {}
        """The records of the members by name."""
        self._authority, self._networks = authority, networks
        self._claims: dict[str, tuple[Network, ...]] = {}
        self._claimants: dict[Network, set[str]] = {}
        self._online_since: int | None = None
        self._told: dict[str, set[str]] = {}

    def address_of(self, record: Record) -> IPv6Address:
        """Return the address of a node."""
        return node_address(self._networks, record.certificate.key)

    def is_inside(self, host: str) -> bool:
        """Return True if an address is in the mesh: as an endpoint it would lead back into the tunnel."""
        address = ip_address(host)
        return any(address in network for network in self._networks)

    def restore(self, texts: Iterable[str], now: int) -> None:
        """Begin with records that this node has kept, the oldest first."""
        for text in texts:
            try:
                record = Record.parse(text.encode(), self._authority)
                self._check_claims(record, now)
            except Refused as refusal:
                log.info("a kept record is left out: %s", refusal)
                continue
            self.known[record.certificate.name] = record
        for name in list(self.known):
            self._settle(name, now)

    def online(self, now: int) -> None:
        """Let records expire while the bus is connected."""
        if self._online_since is None:
            self._online_since = now

    def away(self) -> None:
        """Let no record expire while the bus is away."""
        self._online_since = None

    def hear(self, name: str, data: bytes, now: int) -> bool:
        """Take a record that the bus has under `name`. Return True if it is new, False if it is known or refused."""
        known = self.known.get(name)
        if known is not None and known.text.encode() == data:
            return False  # The bus repeats the last record of each node on every connection.
        try:
            record = Record.parse(data, self._authority, known.certificate if known else None)
            self._check(name, record, known, now)
        except Refused as refusal:
            self._refuse(name, refusal.kind, str(refusal))
            return False
        self.known[name] = record
        self._told.pop(name, None)
        self._settle(name, now)
        return True

    def expire(self, now: int) -> None:
        """Remove the members whose records have expired, and forget the nodes whose certificates have."""
        for name in [*self._claims]:
            if not self._lives(self.known[name], now):
                self._settle(name, now)
        for name in [name for name, record in self.known.items() if record.certificate.expires <= now]:
            del self.known[name]

    def _check(self, name: str, record: Record, known: Record | None, now: int) -> None:
        """Raise `Refused` unless the record, which is signed, may replace the known one."""
        certificate = record.certificate
        if certificate.name != name:
            raise Refused("forged", f"it is a record of {certificate.name}")
        if known is not None and certificate.issued < known.certificate.issued:
            raise Refused("superseded", "its certificate was replaced by a newer one")
        if known is not None and record.sequence <= known.sequence <= now + MAX_SKEW:  # Otherwise a clock was set back.
            raise Refused("replayed", f"it is {known.sequence - record.sequence} ms older than the one known")
        if record.sequence > now + MAX_SKEW:
            ahead = (record.sequence - now) / 1000
            raise Refused(
                "future", f"it was signed {ahead:.0f} s in the future; set the clock of that node, or of this one"
            )
        if record.expires <= now:
            raise Refused("expired", f"it has expired {(now - record.expires) / 1000:.0f} s ago; are the clocks right?")
        if record.lifetime > MAX_LIFETIME:
            raise Refused("malformed", "it is valid for more than a day")
        self._check_claims(record, now)

    def _check_claims(self, record: Record, now: int) -> None:
        if record.certificate.expires <= now:
            raise Refused("certificate", "its certificate has expired; have the authority sign a new one")
        for prefix in record.prefixes:
            if not _within(prefix, record.certificate.prefixes):
                raise Refused("prefix", f"it announces {prefix}, which its certificate does not grant")
            if not _within(prefix, self._networks):
                raise Refused(
                    "prefix",
                    f"it announces {prefix}, which is outside the network's {', '.join(map(str, self._networks))}",
                )
        for host, _ in record.endpoints:
            if self.is_inside(host):
                raise Refused("endpoint", f"its endpoint {host} is inside the mesh; only the tunnel itself leads there")

    def _lives(self, record: Record, now: int) -> bool:
        if record.left or record.certificate.expires <= now:
            return False
        since = self._online_since
        return since is None or now < max(record.expires, since + record.lifetime)

    def _settle(self, name: str, now: int) -> None:
        """Update the claims of a node, and judge all nodes that share one of them."""
        record = self.known[name]
        claims = claims_of(record, self._networks) if self._lives(record, now) else ()
        concerned = self._claimants_with(name)
        if claims != self._claims.get(name, ()):
            for network in self._claims.pop(name, ()):
                self._claimants[network].discard(name)
                if not self._claimants[network]:
                    del self._claimants[network]
            for network in claims:
                self._claimants.setdefault(network, set()).add(name)
            if claims:
                self._claims[name] = claims
            concerned |= self._claimants_with(name)
        found = [change for each in sorted(concerned) for change in self._judge(each)]
        self.changes += sorted(
            found, key=lambda change: change.kind != "gone"
        )  # Claims become free before others get them.

    def _judge(self, name: str) -> Iterator[Change]:
        record, member = self.known[name], self.members.get(name)
        # Among nodes with the same claim, the one with the earliest certificate wins.
        winner = min(self._claimants_with(name), key=self._rank) if name in self._claims else None
        if winner == name:
            self.members[name] = record
            if member is None or _is_other(member, record):
                if member is not None:
                    yield Change("gone", member)
                yield Change("joined", record)
            elif member.endpoints != record.endpoints:
                yield Change("moved", record)
            return
        if winner is not None:
            self._refuse(name, "clash", f"{winner} has the same address or prefix, and the earlier certificate")
        if member is not None:
            del self.members[name]
            yield Change("gone", member)

    def _claimants_with(self, name: str) -> set[str]:
        """Return the name, and those of all nodes that share a claim with it."""
        return {name}.union(*[self._claimants[network] for network in self._claims.get(name, ())])

    def _rank(self, name: str) -> tuple[int, bytes]:
        certificate = self.known[name].certificate
        return certificate.issued, certificate.key

    def _refuse(self, name: str, kind: str, text: str) -> None:
        """Count a refusal, and log it, each kind once until a record is accepted: a hostile bus can repeat them."""
        self.refused[kind] += 1
        if len(self._told) >= _MAX_TOLD:
            self._told.clear()
        told = self._told.setdefault(name, set())
        if kind not in told:
            told.add(kind)
            told_name = ascii(name[:_MAX_NAME])[1:-1]  # The bus may have invented any name.
            log.warning("the record of %s is refused (%s): %s", told_name, kind, text)


def _is_other(member: Record, record: Record) -> bool:
    return member.certificate.key != record.certificate.key or member.prefixes != record.prefixes


def _within(prefix: Network, networks: Iterable[Network]) -> bool:
    return any(each.version == prefix.version and prefix.subnet_of(each) for each in networks)  # type: ignore[arg-type]
