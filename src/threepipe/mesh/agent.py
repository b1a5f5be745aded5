"""Agent: joins the bus, the membership, the links and the probes of one node, in an event loop.

It publishes the node's record, anew before each expiry and when its endpoints change, takes those of the others, and
changes the device by them, in another thread. Knows neither NATS nor the system; `joining` makes the parts.
"""

import asyncio
import logging
import random
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, suppress
from ipaddress import IPv6Address, ip_address
from itertools import chain, repeat
from typing import Any, Protocol, TypeAlias

from threepipe.errors import EndpointError
from threepipe.mesh.bus import Bus
from threepipe.mesh.links import FRESH, Links
from threepipe.mesh.membership import Change, Membership
from threepipe.mesh.records import MAX_ENDPOINTS, Record
from threepipe.mesh.store import Store
from threepipe.net.connect import HostPort
from threepipe.settings import Network
from threepipe.wireguard.keys import link_local
from threepipe.wireguard.peer_endpoint import PeerEndpoint

__all__ = ["Agent", "Endpoints", "Prober", "now"]

log = logging.getLogger("threepipe.mesh")

_TICK = 0.5  # Seconds between looks at what has expired.
_FIRST_LOOKS, _LOOK = (1.0, 2.0), 5.0  # Seconds between looks at endpoints.
_PROBE = 1.0  # Seconds that a node has to answer.
_REMEMBERED = 16
_ASKED = 3  # Nodes that are asked how they see this one.
_REFRESH = 0.3, 0.45
"""The part of a record's time after which it is renewed: at random, so that nodes do not all do it at once."""


Endpoints: TypeAlias = tuple[Sequence[PeerEndpoint], Sequence[PeerEndpoint]]


def now() -> int:
    """Return the time in milliseconds since 1970."""
    return time.time_ns() // 1_000_000


class Prober(Protocol):
    """What the agent needs of `Probes`, which answer while they are entered."""

    async def __aenter__(self) -> object: ...

    async def __aexit__(self, *_: object) -> None: ...

    async def probe(self, address: IPv6Address, seconds: float) -> tuple[float, PeerEndpoint | None] | None:
        """Return the round trip to a node in seconds, and the endpoint that it sees; None for no answer in time."""


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
        announce: Sequence[Network] | None = None,
        endpoints: Callable[[], Endpoints] = lambda: ((), ()),
        prober: Prober | None = None,
    ) -> None:
        """Take the keys and the certificate of `store`. Raises as that does.

        `expiry` is the seconds after which the others forget this node, if they do not hear it. `announce` are the
        prefixes that lead to it, by default all that its certificate grants. `endpoints` returns those that were
        given, and those of the machine's interfaces; it is called in another thread.
        """
        self.certificate, authority = store.certificate()
        self.membership = Membership(authority, networks)
        self.links = links
        self.is_online = False
        """True while the bus is there."""
        self.sequence = 0
        self._store, self._keys, self._bus = store, store.keys(), bus
        self._expiry = round(expiry * 1000)
        self._announce = self.certificate.prefixes if announce is None else tuple(announce)
        self._own_endpoints, self._prober = endpoints, prober
        self._published: tuple[PeerEndpoint, ...] | None = None
        self._found: Endpoints = ((), ())
        self._seen: Sequence[PeerEndpoint] = ()
        self._own = deque[bytes](maxlen=_REMEMBERED)
        """The last records that were put: a slow bus tells of them later."""
        self._leaving = False
        self._due = asyncio.Event()
        self._changed = asyncio.Event()

    @property
    def name(self) -> str:
        """The node's name."""
        return self.certificate.name

    # As the listener of the bus.

    def heard(self, name: str, data: bytes) -> None:
        """Take a record of the bus."""
        if name == self.name and data in self._own:
            return
        if self.membership.hear(name, data, now()):
            self._keep(self.membership.known[name])
            if name == self.name:
                log.warning("another agent uses the name and the keys of this node, %s; end one of the two", name)
        self._changed.set()

    def online(self) -> None:
        """Publish at once, as the bus is there."""
        self.is_online = True
        self.membership.online(now())
        self._due.set()

    def away(self) -> None:
        """Let no record expire, as the bus is away."""
        self.is_online = False
        self.membership.away()

    def _keep(self, record: Record) -> None:
        try:
            if self._store.keep(record.text) > 2 * len(self.membership.known) + 100:
                self._store.compact([each.text for each in self.membership.known.values()])
        except EndpointError as error:
            log.warning("%s", error.strerror)

    # The life of the agent.

    async def run(self, over: Callable[[], bool], ready: Callable[[], None] = lambda: None) -> None:
        """Join, call `ready`, and stay until `over` returns True, which is asked twice a second."""
        self.membership.restore(self._store.records(), now())
        if (own := self.membership.known.get(self.name)) is not None:
            self.sequence = own.sequence
        async with AsyncExitStack() as stack:
            if self._prober is not None:
                await stack.enter_async_context(self._prober)
            await self._look()
            works = [self._bus.run(self), self._publish_always(), self._apply_always(), self._look_always()]
            tasks = [asyncio.ensure_future(work) for work in works]
            stack.push_async_callback(_cancel, tasks)
            self._changed.set()
            ready()
            while not over():
                self.membership.expire(now())
                if self.membership.changes:
                    self._changed.set()
                done, _ = await asyncio.wait(tasks, timeout=_TICK, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()  # Raises, as none of them ends by itself.

    async def leave(self) -> str | None:
        """Tell the others that this node leaves. Return the reason if they cannot be told."""
        self._leaving = True
        try:
            await self._publish()
        except EndpointError as error:
            return f"{error.strerror}; the others forget this node {self._expiry / 1000:.0f} s after its last record"
        return None

    async def _publish(self) -> None:
        left = self._leaving
        self.sequence = max(now(), self.sequence + 1)
        endpoints = () if left else self._endpoints()
        record = Record.sign(
            self.certificate,
            self._keys.signer,
            self.sequence,
            self.sequence + self._expiry,
            endpoints,
            () if left else self._announce,
            left,
        )
        self._own.append(record.text.encode())
        self.membership.hear(self.name, record.text.encode(), now())
        self._keep(record)
        await self._bus.put(self.name, record.text.encode())
        self._published = endpoints

    async def _publish_always(self) -> None:
        while True:
            self._due.clear()
            wait = self._expiry / 1000 * random.uniform(*_REFRESH)
            try:
                await self._publish()
            except EndpointError as error:
                if self.is_online:
                    log.warning("%s", error.strerror)
                    wait = min(wait, 1.0)
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
            if others := [change for change in changes if not self._is_own(change)]:
                await asyncio.to_thread(self.links.apply, others)

    def _is_own(self, change: Change) -> bool:
        return change.record.certificate.key == self.certificate.key

    # Endpoints.

    async def _look_always(self) -> None:
        pauses = chain(_FIRST_LOOKS, repeat(_LOOK))
        while True:
            await asyncio.sleep(next(pauses))
            await self._look()
            await asyncio.to_thread(self.links.retry, self._published or ())

    async def _look(self) -> None:
        """Find out where this node is reached, and publish it if that is new."""
        self._found = await asyncio.to_thread(self._own_endpoints)
        statuses = await asyncio.to_thread(self.links.statuses)
        reached = [key for key, status in statuses.items() if status.handshake_age <= FRESH]
        asked = random.sample(reached, min(_ASKED, len(reached)))
        answers = await asyncio.gather(*[self._probe(link_local(key)) for key in asked])
        if any(answers):
            self._seen = sorted({answer[1] for answer in answers if answer and answer[1] and _is_plain(answer[1])})
        if self._published is not None and self._published != self._endpoints():
            self._due.set()

    def _endpoints(self) -> tuple[PeerEndpoint, ...]:
        """Return all endpoints of this node: those given, those that others see, and those of its interfaces."""
        given, own = self._found
        return tuple(dict.fromkeys((*given, *self._seen, *own)))[:MAX_ENDPOINTS]

    async def _probe(self, address: IPv6Address) -> tuple[float, PeerEndpoint | None] | None:
        return None if self._prober is None else await self._prober.probe(address, _PROBE)

    # Status.

    async def status(self) -> dict[str, Any]:
        """Return what is known about the network, for JSON."""
        statuses = await asyncio.to_thread(self.links.statuses)
        members = dict(sorted(self.membership.members.items()))
        by_hop = {link_local(record.certificate.key): name for name, record in members.items()}
        nodes = await asyncio.gather(*[
            self._node(record, statuses, by_hop) for name, record in members.items() if name != self.name
        ])  # fmt: skip
        own = self.membership.known.get(self.name)
        return {
            "name": self.name,
            "address": _text(own and self.membership.address_of(own)),
            "member": self.name in self.membership.members,
            "bus": self.is_online,
            "endpoints": [str(HostPort(*each)) for each in self._published or ()],
            "prefixes": [str(each) for each in self._announce],
            "certificate_expires": self.certificate.expires / 1000,
            "refused": dict(self.membership.refused),
            "nodes": nodes,
        }

    async def _node(self, record: Record, statuses: Any, by_hop: dict[Any, str]) -> dict[str, Any]:
        certificate = record.certificate
        status, address = statuses.get(certificate.key), self.membership.address_of(record)
        age = None if status is None or status.handshake_age == float("inf") else status.handshake_age
        hop = None if address is None else self.links.next_hop(address)
        via = None if hop is None else by_hop.get(hop, str(hop))
        trip = None
        if address is not None and via is not None and (via != certificate.name or (age is not None and age <= FRESH)):
            answer = await self._probe(address)
            trip = answer and round(answer[0], 6)
        return {
            "name": certificate.name,
            "address": _text(address),
            "prefixes": [str(each) for each in record.prefixes],
            "next_hop": via,
            "endpoint": None if status is None or status.endpoint is None else str(HostPort(*status.endpoint)),
            "round_trip": trip,
            "handshake_age": age,
            "received_bytes": status.rx_bytes if status else 0,
            "sent_bytes": status.tx_bytes if status else 0,
            "expires": record.expires / 1000,
        }


_SAID = {"joined": "has joined", "moved": "has moved", "gone": "is gone"}


def _is_plain(endpoint: PeerEndpoint) -> bool:
    return not ip_address(endpoint[0].partition("%")[0]).is_link_local


def _text(value: object) -> str | None:
    return None if value is None else str(value)


async def _cancel(tasks: Sequence[asyncio.Future[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
