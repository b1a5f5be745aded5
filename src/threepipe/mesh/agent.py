"""Agent: connects the bus, the membership, the links and the probes of one node, in an event loop.

It publishes the node's record, and renews it before it expires and when the node's endpoints change. It takes the
records of the others, and changes the device accordingly, in another thread. Knows neither NATS nor the system;
`joining` makes the parts.
"""

import asyncio
import logging
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from ipaddress import IPv6Address
from itertools import chain, repeat
from typing import Any, TypeAlias

from threepipe.errors import EndpointError
from threepipe.mesh.bus import Bus
from threepipe.mesh.links import FRESH, Links
from threepipe.mesh.membership import MAX_SKEW, Membership
from threepipe.mesh.records import MAX_ENDPOINTS, Record, node_address
from threepipe.mesh.store import Store
from threepipe.net.connect import HostPort
from threepipe.settings import Network
from threepipe.wireguard.keys import link_local
from threepipe.wireguard.peer_endpoint import PeerEndpoint

__all__ = ["Agent", "Endpoints", "Probe", "now"]

log = logging.getLogger("threepipe.mesh")

_TICK = 0.5  # Seconds between looks for expired records.
_FIRST_LOOKS, _LOOK = (1.0, 2.0), 5.0  # Seconds between looks at endpoints.
_PROBE = 1.0  # Seconds that a node has to answer.
_RETRY = 1.0  # Seconds until a bus that refuses is asked again.
_JUMP = 5_000
"""Milliseconds. A larger jump of the clock is a sign that it was set, or that the machine has slept."""
_REMEMBERED = 16
_ASKED = 3  # Nodes that are asked which endpoint of this one they see.
_REFRESH = 0.3, 0.45
"""The part of a record's time after which it is renewed: at random, so that nodes do not all do it at once."""
_SAID = {"joined": "has joined", "moved": "has moved", "gone": "is gone"}
_DOUBLES = {
    True: "another agent uses the name and the keys of this node, %s; end one of the two",
    False: "the authority has signed other keys for the name %s; to be a member again, have it sign this node",
}

Endpoints: TypeAlias = tuple[Sequence[PeerEndpoint], Sequence[PeerEndpoint]]
Probe: TypeAlias = Callable[[IPv6Address, float], Awaitable[tuple[float, PeerEndpoint | None] | None]]
"""A function that takes the address of a node, and the seconds that it has to answer. It returns the round trip in
seconds, and the endpoint of this node as that one sees it; None for no answer."""


def now() -> int:
    """Return the time in milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def _skew() -> int:
    """Return the milliseconds between `now` and the monotonic clock, which nobody sets."""
    return now() - time.monotonic_ns() // 1_000_000


class Agent:
    """One node of a network."""

    def __init__(
        self,
        store: Store,
        networks: Sequence[Network],
        bus: Bus,
        links: Links,
        *,
        expiry: float,
        endpoints: Callable[[], Endpoints],
        probe: Probe,
    ) -> None:
        """Take the keys and the certificate of `store`. Raises as that does.

        `expiry` is the seconds after which the others forget this node, if they hear no new record. `endpoints` returns
        the given endpoints, and those of the machine's interfaces; it is called in another thread.
        """
        self.certificate, authority = store.certificate()
        self.name = self.certificate.name
        self.address = node_address(networks, self.certificate.key)
        self.membership = Membership(authority, networks)
        self.links = links
        self.is_online = False
        """True while the bus is connected."""
        self.sequence = 0
        self._store, self._keys, self._bus = store, store.keys(), bus
        self._expiry = round(expiry * 1000)
        self._own_endpoints, self._probe = endpoints, probe
        self._published: tuple[PeerEndpoint, ...] | None = None
        self._found: Endpoints = ((), ())
        self._seen: Sequence[PeerEndpoint] = ()
        self._own = deque[bytes](maxlen=_REMEMBERED)
        """The last records that this agent has put: a slow bus returns them late."""
        self._leaving = False
        self._is_hidden = False
        """True while the bus has other data in place of this node's record, so that new nodes do not get it."""
        self._skew = _skew()
        self._due = asyncio.Event()
        self._changed = asyncio.Event()

    # As the listener of the bus.

    def heard(self, name: str, data: bytes) -> None:
        """Take a record of the bus."""
        if name == self.name and data in self._own:
            return
        if self.membership.hear(name, data, now()):
            record = self.membership.known[name]
            self._keep(record)
            if name == self.name:
                log.warning(_DOUBLES[record.certificate.key == self.certificate.key], name)
        elif name == self.name:
            self._is_hidden = True
        self._changed.set()

    def online(self) -> None:
        """Publish a record at once. Records expire again once the bus has taken it."""
        self.is_online = True
        self._due.set()

    def away(self) -> None:
        """Let no record expire while the bus is away."""
        self.is_online = False
        self.membership.away()

    def _keep(self, record: Record) -> None:
        try:
            self._store.keep(record.certificate.name, record.text)
        except EndpointError as error:
            log.warning("%s", error.strerror)

    # The life of the agent.

    async def run(self, over: Callable[[], bool], ready: Callable[[], None] = lambda: None) -> None:
        """Join, call `ready`, and stay until `over` returns True; call `over` twice a second."""
        self.membership.restore(self._store.records(), now())
        if (own := self.membership.known.get(self.name)) is not None:
            self.sequence = own.sequence
        await self._look()
        works = [self._bus.run(self), self._publish_always(), self._apply_always(), self._look_always()]
        tasks = [asyncio.ensure_future(work) for work in works]
        try:
            self._changed.set()
            ready()
            while not over():
                self._mind_clock()
                self.membership.expire(now())
                if self.membership.changes:
                    self._changed.set()
                if self._is_hidden:
                    self._is_hidden = False
                    self._due.set()
                done, _ = await asyncio.wait(tasks, timeout=_TICK, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()  # Raises, as none of them ends by itself.
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _mind_clock(self) -> None:
        """After a jump of the clock, let no record expire until the bus takes one: this node heard nobody meanwhile."""
        before, self._skew = self._skew, _skew()
        if abs(self._skew - before) > _JUMP:
            log.info("the clock was set, or this machine has slept")
            self.membership.away()
            self._due.set()

    async def leave(self) -> str | None:
        """Tell the others that this node leaves. Return the reason if they cannot be told."""
        self._leaving = True
        try:
            await self._publish()
        except EndpointError as error:
            return f"{error.strerror}; the others forget this node {self._expiry / 1000:.0f} s after its last record"
        return None

    async def _publish(self) -> None:
        time, left, endpoints = now(), self._leaving, self._endpoints()
        is_ahead = self.sequence > time + MAX_SKEW  # The clock was wrong; nobody has accepted that.
        self.sequence = time if is_ahead else max(time, self.sequence + 1)
        record = Record.sign(
            self.certificate,
            self._keys.signer,
            self.sequence,
            self.sequence + self._expiry,
            () if left else endpoints,
            () if left else self.certificate.prefixes,
            left,
        )
        data = record.text.encode()
        if not self.membership.hear(self.name, data, now()):
            return  # Others would refuse it too; the membership has logged the reason.
        self._own.append(data)
        self._keep(record)
        try:
            await self._bus.put(self.name, data)
        except EndpointError:
            self.membership.away()  # It may not take those of others either.
            raise
        if self.is_online:
            self.membership.online(now())
        self._published = endpoints

    async def _publish_always(self) -> None:
        told: str | None = None
        while True:
            self._due.clear()
            wait = self._expiry / 1000 * random.uniform(*_REFRESH)
            try:
                await self._publish()
                told = None
            except EndpointError as error:
                if self.is_online:
                    wait = min(wait, _RETRY)
                    if error.strerror != told:
                        told = error.strerror
                        log.warning("%s", told)
            with suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._due.wait()

    async def _apply_always(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            changes, self.membership.changes = self.membership.changes, []
            for change in changes:
                log.info("%s %s", change.record.certificate.name, _SAID[change.kind])
            if others := [change for change in changes if not self._is_own(change.record)]:
                await asyncio.to_thread(self.links.apply, others)

    def _is_own(self, record: Record) -> bool:
        return record.certificate.key == self.certificate.key

    # Endpoints.

    async def _look_always(self) -> None:
        pauses = chain(_FIRST_LOOKS, repeat(_LOOK))
        while True:
            await asyncio.sleep(next(pauses))
            await self._look()
            await asyncio.to_thread(self.links.retry, self._published or ())

    async def _look(self) -> None:
        """Find the endpoints of this node, and publish them if they are new."""
        self._found = await asyncio.to_thread(self._own_endpoints)
        statuses = await asyncio.to_thread(self.links.statuses)
        reached = [key for key, status in statuses.items() if status.handshake_age <= FRESH]
        asked = random.sample(reached, min(_ASKED, len(reached)))
        answers = await asyncio.gather(*[self._probe(link_local(key), _PROBE) for key in asked])
        if any(answers):
            self._seen = sorted({answer[1] for answer in answers if answer and answer[1]})
        if self._published is not None and self._published != self._endpoints():
            self._due.set()

    def _endpoints(self) -> tuple[PeerEndpoint, ...]:
        """Return all endpoints of this node: the given ones, those that others see, and those of its interfaces."""
        given, own = self._found
        found = dict.fromkeys((*given, *self._seen, *own))
        return tuple(each for each in found if not self.membership.is_inside(each[0]))[:MAX_ENDPOINTS]

    # Status.

    async def status(self) -> dict[str, Any]:
        """Return the state of this node and of the others, for JSON."""
        statuses = await asyncio.to_thread(self.links.statuses)
        members = dict(sorted(self.membership.members.items()))
        by_hop = {link_local(record.certificate.key): name for name, record in members.items()}
        nodes = await asyncio.gather(*[
            self._node(record, statuses, by_hop) for record in members.values() if not self._is_own(record)
        ])  # fmt: skip
        return {
            "name": self.name,
            "address": str(self.address),
            "member": any(self._is_own(record) for record in members.values()),
            "bus": self.is_online,
            "endpoints": [str(HostPort(*each)) for each in self._published or ()],
            "prefixes": [str(each) for each in self.certificate.prefixes],
            "certificate_expires": self.certificate.expires / 1000,
            "refused": dict(self.membership.refused),
            "nodes": nodes,
        }

    async def _node(self, record: Record, statuses: Any, by_hop: dict[Any, str]) -> dict[str, Any]:
        certificate = record.certificate
        status, address = statuses.get(certificate.key), self.membership.address_of(record)
        age = status.handshake_age if status and status.handshake_age < float("inf") else None
        hop, trip = self.links.next_hop(address), None
        via = None if hop is None else by_hop.get(hop, str(hop))
        if via and (via != certificate.name or (age is not None and age <= FRESH)):
            answer = await self._probe(address, _PROBE)
            trip = answer and round(answer[0], 6)
        return {
            "name": certificate.name,
            "address": str(address),
            "prefixes": [str(each) for each in record.prefixes],
            "next_hop": via,
            "endpoint": str(HostPort(*status.endpoint)) if status and status.endpoint else None,
            "round_trip": trip,
            "handshake_age": age,
            "expires": record.expires / 1000,
        }
