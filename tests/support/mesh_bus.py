"""A bus in memory, an authority, and nodes with signed records, for tests of a mesh without NATS."""

import asyncio
from collections.abc import Sequence
from ipaddress import IPv6Address

from threepipe.errors import EndpointError
from threepipe.mesh import Certificate, Keys, Listener, Record
from threepipe.mesh.agent import now
from threepipe.mesh.records import public_part
from threepipe.settings import Network
from threepipe.wireguard import generate_key, key_to_text, parse_networks

__all__ = ["AUTHORITY", "NETWORKS", "YEAR", "FakeBus", "FakeProber", "Hub", "Signer"]

AUTHORITY = bytes(range(32))
NETWORKS = parse_networks(["fd12::/48", "10.42.0.0/16"])
YEAR = 365 * 86_400_000


class Signer:
    """A node with its keys, which has its certificate and its records signed. Times are milliseconds since now."""

    def __init__(
        self, name: str, prefixes: Sequence[str] = (), *, issued: int = 0, expires: int = YEAR, seed: bytes = AUTHORITY
    ) -> None:
        self.begin = now()
        self.keys = Keys(generate_key(), generate_key())
        self.request = self.keys.request(name)
        self.name, self.prefixes = name, parse_networks(prefixes)
        self.certificate = self.certify(issued, expires, seed)

    def certify(self, issued: int = 0, expires: int = YEAR, seed: bytes = AUTHORITY) -> Certificate:
        """Return a new certificate for the same keys."""
        begin = self.begin
        return Certificate.issue(seed, self.request, self.prefixes, begin + issued, begin + expires)

    def record(
        self,
        sequence: int = 0,
        expires: int = 60_000,
        endpoints: Sequence[tuple[str, int]] = (("192.0.2.1", 51820),),
        prefixes: Sequence[str] | None = None,
        left: bool = False,
    ) -> Record:
        announced: Sequence[Network] = self.prefixes if prefixes is None else parse_networks(prefixes)
        times = self.begin + sequence, self.begin + expires
        return Record.sign(self.certificate, self.keys.signer, *times, endpoints, announced, left)

    def text(self) -> str:
        """Return the certificate as its file has it."""
        return f"{self.certificate.text}\n{key_to_text(public_part(AUTHORITY))}\n"


class Hub:
    """The server of a bus: the last record of each name, and those who listen."""

    def __init__(self) -> None:
        self.records: dict[str, bytes] = {}
        self.listeners: list[Listener] = []
        self.up = True
        self.changed = asyncio.Event()

    def put(self, name: str, data: bytes) -> None:
        self.records[name] = data
        for listener in self.listeners:
            listener.heard(name, data)

    def go(self, up: bool) -> None:
        """Start or stop the server."""
        self.up = up
        self.changed.set()
        self.changed = asyncio.Event()


class FakeBus:
    """The connection of one node to a hub."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    async def run(self, listener: Listener) -> None:
        while True:
            if self._hub.up:
                listener.online()
                for name, data in self._hub.records.items():
                    listener.heard(name, data)
                self._hub.listeners.append(listener)
            changed = self._hub.changed
            try:
                await changed.wait()
            finally:
                if listener in self._hub.listeners:
                    self._hub.listeners.remove(listener)
                    listener.away()

    async def put(self, name: str, data: bytes) -> None:
        if not self._hub.up:
            raise EndpointError(None, "the bus is away")
        self._hub.put(name, data)


class FakeProber:
    """Answers of probes, by the address: the round trip and the endpoint that is seen."""

    def __init__(self) -> None:
        self.answers: dict[IPv6Address, tuple[float, tuple[str, int] | None]] = {}

    async def probe(self, address: IPv6Address, seconds: float) -> tuple[float, tuple[str, int] | None] | None:
        return self.answers.get(address)
