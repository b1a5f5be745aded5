"""The common part of the forwarders in Python: the protocol with the harness, reading a packet, the peers' loops."""

import json
import sys
import time
from collections.abc import Callable, Mapping
from threading import Thread
from typing import Protocol

__all__ = [
    "LEFT",
    "RIGHT",
    "Role",
    "answer",
    "both_ways",
    "count_flow",
    "main",
    "peer_roles",
    "time_creation",
    "wait_until_placed",
]

LEFT, RIGHT = "left", "right"
_CREATIONS = 21
_READ_SIZE = 2048  # More than the MTU of 1500; the peers allocate a buffer of this size for each read.
_WITH_PORTS = frozenset({6, 17})  # TCP and UDP, whose headers begin with two ports.

Flows = dict[tuple[int, bytes, bytes], int]
Role = Callable[[str, str], None]


class Device(Protocol):
    """A peer's TUN interface: each call blocks and carries one packet."""

    def read(self, size: int, /) -> bytes: ...
    def write(self, packet: bytes, /) -> object: ...


def main(roles: Mapping[str, Role]) -> None:
    """Run the role that the command line names; the other arguments are the two networks."""
    role, left, right = sys.argv[1:]
    roles[role](left, right)


def wait_until_placed() -> None:
    """Report that the interfaces are made, and return when the harness has set them up."""
    _print("made")
    sys.stdin.readline()


def time_creation(create: Callable[[], None]) -> None:
    """Print how long each call of `create` took, in milliseconds."""
    times = []
    for _ in range(_CREATIONS):
        start = time.perf_counter()
        create()
        times.append((time.perf_counter() - start) * 1e3)
    _print(json.dumps(times))


def both_ways(move: Callable[[Device, Device], None], left: Device, right: Device) -> None:
    """Run `move` in a thread for each direction."""
    wait_until_placed()
    Thread(target=move, args=(right, left), daemon=True).start()
    move(left, right)


def peer_roles(open_device: Callable[[str], Device], create: Callable[[], None]) -> dict[str, Role]:
    """Return the roles of a peer whose device reads and writes one packet at a time."""
    return {
        "forward": lambda *_: both_ways(_forward, open_device(LEFT), open_device(RIGHT)),
        "look": lambda *_: both_ways(_look, open_device(LEFT), open_device(RIGHT)),
        "answer": lambda *_: _answer(open_device(LEFT)),
        "create": lambda *_: time_creation(create),
    }


def count_flow(packet: bytes | memoryview, flows: Flows) -> None:
    """Read a packet's version, protocol, addresses and ports, and count it for its flow."""
    if packet[0] >> 4 == 4:
        start, protocol, addresses = (packet[0] & 15) * 4, packet[9], bytes(packet[12:20])
    else:
        start, protocol, addresses = 40, packet[6], bytes(packet[8:40])
    flow = protocol, addresses, bytes(packet[start : start + 4]) if protocol in _WITH_PORTS else b""
    flows[flow] = flows.get(flow, 0) + 1


def answer(packet: bytes) -> bytes:
    """Return an IPv4 packet with its addresses swapped, which leaves all checksums right."""
    return packet[:12] + packet[16:20] + packet[12:16] + packet[20:]


def _answer(device: Device) -> None:
    wait_until_placed()
    read, write = device.read, device.write
    while True:
        packet = read(_READ_SIZE)
        if packet[0] >> 4 == 4:
            write(answer(packet))


def _forward(source: Device, target: Device) -> None:
    read, write = source.read, target.write
    while True:
        write(read(_READ_SIZE))


def _look(source: Device, target: Device) -> None:
    read, write = source.read, target.write
    flows: Flows = {}
    while True:
        packet = read(_READ_SIZE)
        count_flow(packet, flows)
        write(packet)


def _print(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
