"""The whole state of a tunnel as bytes: keys, counters, windows and timers, with which another process goes on.

The layout is the same for pure Python and the native core. Times are those of the clock in `clock`, so both processes
run on one machine since one boot. Knows no sockets; the number of the layout is `takeover.VERSION`.

A message counter that two tunnels use would give away what both messages say. So the caller lets one tunnel alone go
on, and the memory of the other be wiped.
"""

import ipaddress
import struct
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from math import isnan
from typing import Any, NamedTuple

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from threepipe.core import fast
from threepipe.core.transport import STATE
from threepipe.settings import Network
from threepipe.wireguard.machine import Outgoing, StateMachine
from threepipe.wireguard.noise import Handshake
from threepipe.wireguard.peer import NEVER, Keypair, Peer
from threepipe.wireguard.peer_endpoint import PeerEndpoint
from threepipe.wireguard.settings import Change

__all__ = [
    "Reader",
    "Writer",
    "read_machine",
    "read_packets",
    "read_runs",
    "wipe",
    "write_machine",
    "write_packets",
    "write_runs",
]

_NUMBER, _TIME, _FLAG = struct.Struct("<Q"), struct.Struct("<d"), struct.Struct("<?")
_NOTHING = float("nan")  # A time that is None.


class Writer:
    """Collects parts, and joins them once, so that no copies of keys are left behind in memory that was outgrown."""

    def __init__(self) -> None:
        self._parts: list[bytes | bytearray | memoryview] = []

    def number(self, value: int) -> None:
        """Write a number of 64 bits."""
        self._parts.append(_NUMBER.pack(value))

    def time(self, value: float | None) -> None:
        """Write a time, perhaps None or infinite."""
        self._parts.append(_TIME.pack(_NOTHING if value is None else value))

    def flag(self, value: bool) -> None:
        """Write True or False."""
        self._parts.append(_FLAG.pack(value))

    def data(self, value: bytes | bytearray | memoryview) -> None:
        """Write bytes. A bytearray is wiped by `joined`."""
        self.number(len(value))
        self._parts.append(value)

    def optional(self, value: bytes | None) -> None:
        """Write bytes or None."""
        self.flag(value is not None)
        if value is not None:
            self.data(value)

    def text(self, value: str) -> None:
        """Write a text."""
        self.data(value.encode())

    def joined(self) -> bytearray:
        """Return all parts in new memory, which the caller wipes, and wipe those that can be."""
        memory = bytearray(sum(map(len, self._parts)))
        start = 0
        for part in self._parts:
            memory[start : start + len(part)] = part
            start += len(part)
            if isinstance(part, bytearray):
                wipe(part)
        self._parts.clear()
        return memory


class Reader:
    """Reads what a `Writer` wrote. Its methods raise ValueError at the end of the memory."""

    def __init__(self, memory: bytes | bytearray | memoryview) -> None:
        self._rest = memoryview(memory)

    def number(self) -> int:
        """Read a number."""
        return int(_NUMBER.unpack(self._take(_NUMBER.size))[0])

    def time(self) -> Any:
        """Read a time, perhaps None."""
        (value,) = _TIME.unpack(self._take(_TIME.size))
        return None if isnan(value) else value

    def flag(self) -> bool:
        """Read True or False."""
        return bool(_FLAG.unpack(self._take(_FLAG.size))[0])

    def view(self) -> memoryview:
        """Read bytes without a copy."""
        return self._take(self.number())

    def data(self) -> bytes:
        """Read bytes."""
        return bytes(self.view())

    def optional(self) -> bytes | None:
        """Read bytes or None."""
        return self.data() if self.flag() else None

    def text(self) -> str:
        """Read a text."""
        return self.data().decode()

    def end(self) -> None:
        """Raise ValueError unless everything was read."""
        if self._rest:
            raise ValueError(f"the state has {len(self._rest)} bytes too many")

    def _take(self, size: int) -> memoryview:
        if size > len(self._rest):
            raise ValueError("the state ends too early")
        taken, self._rest = self._rest[:size], self._rest[size:]
        return taken


class _Kind(NamedTuple):
    """How attributes of one kind are written and read."""

    write: Callable[[Writer, Any], None]
    read: Callable[[Reader], Any]


NUMBER = _Kind(Writer.number, Reader.number)
TIME = _Kind(Writer.time, Reader.time)
FLAG = _Kind(Writer.flag, Reader.flag)
DATA = _Kind(Writer.data, Reader.data)
OPTIONAL = _Kind(Writer.optional, Reader.optional)

_PEER: dict[str, _Kind] = {
    "preshared_key": DATA,
    "static_static": OPTIONAL,
    "local": OPTIONAL,
    "persistent_keepalive": NUMBER,
    "last_timestamp": DATA,
    "greatest_timestamp": DATA,
    "refusal_told": FLAG,
    "handshake_at": TIME,
    "attempts_since": TIME,
    "retry_at": TIME,
    "initiation_sent": TIME,
    "initiation_received": TIME,
    "keys_since": TIME,
    "sent_last_minute_handshake": FLAG,
}
_TRAFFIC: dict[str, _Kind] = {
    "unanswered_since": TIME,
    "keepalive_owed_since": TIME,
    "need_another_keepalive": FLAG,
    "last_traversal": TIME,
    "check_scheduled": FLAG,
}
_KEYPAIRS = ("current", "previous", "next")


def wipe(memory: bytearray) -> None:
    """Write zeros over `memory`."""
    memory[:] = bytes(len(memory))


def write_machine(writer: Writer, machine: StateMachine) -> None:
    """Write the state of a device, without datagrams that are ready to be sent."""
    writer.data(machine.private_key)
    writer.data(machine.timestamps.latest)
    secret, until = machine.handshakes.checker.secret if machine.handshakes else (b"", 0.0)
    writer.data(secret)
    writer.time(until)
    _write_counts(writer, machine.rejected)
    peers = list(machine.peers)
    writer.number(len(peers))
    for peer in peers:
        writer.data(peer.public_key)
        _write_attributes(writer, peer, _PEER)
        writer.time(peer.check_at)
        _write_traffic(writer, peer)
        _write_endpoint(writer, peer.endpoint)
        _write_networks(writer, machine.peers.allowed.of(peer))
        for part in peer.cookie_generator.state:
            writer.time(part) if isinstance(part, float) else writer.data(part)
        _write_handshake(writer, peer)
        for name in _KEYPAIRS:
            _write_keypair(writer, getattr(peer, name))
        writer.number(len(peer.staged))
        for record, vnet_header in peer.staged:
            writer.flag(vnet_header)
            writer.data(record)


def read_machine(reader: Reader, machine: StateMachine) -> None:
    """Have a new machine go on from a state. Raises ValueError; the machine is of no use then."""
    machine.configure(Change(reader.data()), 0.0)
    machine.timestamps.latest = reader.data()
    secret = reader.data(), reader.time()
    if machine.handshakes:
        machine.handshakes.checker.secret = secret
    machine.rejected.update(_read_counts(reader))
    for _ in range(reader.number()):
        peer = machine.peers.add(reader.data())
        for name, kind in _PEER.items():
            setattr(peer, name, kind.read(reader))
        check_at = reader.time()
        _read_traffic(reader, peer)
        peer.endpoint = _read_endpoint(reader)
        for network in _read_networks(reader):
            machine.peers.allowed.insert(network, peer)
        peer.cookie_generator.state = reader.data(), reader.data(), reader.time()
        _read_handshake(reader, machine, peer)
        for name in _KEYPAIRS:
            _read_keypair(reader, machine, peer, name)
        peer.staged = deque(
            (memoryview(bytearray(record)), flag) for flag, record in _pairs(reader, Reader.flag, Reader.view)
        )
        if check_at != NEVER:
            machine.schedule.check_by(peer, check_at)
        machine.peers.note_change(peer)


def write_runs(writer: Writer, outgoing: Iterable[Outgoing]) -> None:
    """Write datagrams that wait for room."""
    runs = [(endpoint, local, run) for endpoint, local, each in outgoing for run in each]
    writer.number(len(runs))
    for endpoint, local, (memory, size, ecn) in runs:
        _write_endpoint(writer, endpoint)
        writer.optional(local)
        writer.number(size)
        writer.number(ecn)
        writer.data(memory)


def read_runs(reader: Reader) -> Iterable[Outgoing]:
    """Read datagrams that wait for room."""
    for _ in range(reader.number()):
        endpoint, local = _read_endpoint(reader), reader.optional()
        size, ecn = reader.number(), reader.number()
        if endpoint is None or not size:
            raise ValueError("the state has datagrams without a destination or a size")
        yield Outgoing(endpoint, local, [(memoryview(bytearray(reader.view())), size, ecn)])


def write_packets(writer: Writer, packets: Sequence[bytes]) -> None:
    """Write IP packets."""
    writer.number(len(packets))
    for packet in packets:
        writer.data(packet)


def read_packets(reader: Reader) -> list[bytes]:
    """Read IP packets."""
    return [reader.data() for _ in range(reader.number())]


def _write_attributes(writer: Writer, owner: object, kinds: dict[str, _Kind]) -> None:
    for name, kind in kinds.items():
        kind.write(writer, getattr(owner, name))


def _pairs(
    reader: Reader, first: Callable[[Reader], Any], second: Callable[[Reader], Any]
) -> Iterable[tuple[Any, Any]]:
    for _ in range(reader.number()):
        yield first(reader), second(reader)


def _write_counts(writer: Writer, counts: Counter[str]) -> None:
    writer.number(len(counts))
    for reason, count in counts.items():
        writer.text(reason)
        writer.number(count)


def _read_counts(reader: Reader) -> dict[str, int]:
    return dict(_pairs(reader, Reader.text, Reader.number))


def _write_traffic(writer: Writer, peer: Peer) -> None:
    writer.number(peer.traffic.rx_bytes)
    writer.number(peer.traffic.tx_bytes)
    _write_attributes(writer, peer.traffic, _TRAFFIC)


def _read_traffic(reader: Reader, peer: Peer) -> None:
    traffic = peer.traffic
    traffic.received(0.0, False, reader.number())
    traffic.count_sent(reader.number())
    for name, kind in _TRAFFIC.items():
        setattr(traffic, name, kind.read(reader))


def _write_endpoint(writer: Writer, endpoint: PeerEndpoint | None) -> None:
    writer.flag(endpoint is not None)
    if endpoint is not None:
        writer.text(endpoint[0])
        writer.number(endpoint[1])


def _read_endpoint(reader: Reader) -> PeerEndpoint | None:
    return (reader.text(), reader.number()) if reader.flag() else None


def _write_networks(writer: Writer, networks: Iterable[Network]) -> None:
    listed = list(networks)
    writer.number(len(listed))
    for network in listed:
        writer.data(network.network_address.packed)
        writer.number(network.prefixlen)


def _read_networks(reader: Reader) -> Iterable[Network]:
    for address, length in _pairs(reader, Reader.data, Reader.number):
        yield ipaddress.ip_network((address, length))


def _write_handshake(writer: Writer, peer: Peer) -> None:
    handshake = peer.handshake
    assert handshake is None or handshake.ephemeral is not None  # It is an initiator's.
    writer.flag(handshake is not None)
    if handshake is not None and handshake.ephemeral is not None:
        writer.number(peer.handshake_index)
        writer.data(handshake.chain)
        writer.data(handshake.hash)
        writer.data(handshake.ephemeral.private_bytes_raw())


def _read_handshake(reader: Reader, machine: StateMachine, peer: Peer) -> None:
    if reader.flag():
        peer.handshake_index = reader.number()
        chain, mixed, private = reader.data(), reader.data(), reader.data()
        peer.handshake = Handshake(chain, mixed, X25519PrivateKey.from_private_bytes(private))
        machine.peers.indices[peer.handshake_index] = (peer, None)


def _write_keypair(writer: Writer, keypair: Keypair | None) -> None:
    writer.flag(keypair is not None)
    if keypair is not None:
        writer.time(keypair.created)
        writer.flag(keypair.initiator)
        writer.data(keypair.transport.state())


def _read_keypair(reader: Reader, machine: StateMachine, peer: Peer, name: str) -> None:
    if not reader.flag():
        return
    created, initiator, state = reader.time(), reader.flag(), reader.view()
    if len(state) != STATE.size:
        raise ValueError("the state of a keypair has a wrong size")
    keypair = Keypair.resumed(fast.Transport.from_state(state), created, initiator=initiator)
    setattr(peer, name, keypair)
    machine.peers.indices[keypair.transport.local_index] = (peer, keypair)
