"""Two WireGuard devices, joined by loopback, each piped to an adapter whose far end is a socket of the test."""

import contextlib
import io
import os
import socket
import threading
from collections.abc import Iterator

import threepipe
from tests.support.wireguard_pair import new_key, packet
from threepipe import wireguard
from threepipe.core.superpacket import HEADER_SIZE, split
from threepipe.core.tunnel import WIDE_HEADER_SIZE
from threepipe.platforms.linux.port import LinuxPort
from threepipe.platforms.linux.tun import Offload
from threepipe.session import Session
from threepipe.wireguard import Change, Device, PeerChange, parse_networks
from threepipe.wireguard.constants import Timing
from threepipe.wireguard.noise import Identity

__all__ = ["LEFT", "RIGHT", "SECONDS", "Adapter", "End", "back", "exchange", "joined", "numbered"]

SECONDS = 20.0
LEFT, RIGHT = ("10.0.0.1", "fd00::1"), ("10.0.0.2", "fd00::2")


class Adapter:
    """A session like that of an adapter; `far` takes the place of the kernel."""

    def __init__(self, offload: Offload) -> None:
        near, self.far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        near.setblocking(False)
        self.far.settimeout(SECONDS)
        for end in (near, self.far):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        size = 0 if offload is Offload.NONE else WIDE_HEADER_SIZE if offload.wide else HEADER_SIZE
        self._header = bytes(size)  # Of a plain packet.
        self.file = io.FileIO(near.detach(), "r+")
        self.session = Session(LinuxPort([self.file], self.file, "tp0", offload, lambda: None))

    def send(self, *packets: bytes) -> None:
        for data in packets:
            self.far.send(self._header + data)

    def close(self) -> None:
        self.session.close()
        self.far.close()
        self.file.close()

    def receive(self, count: int) -> list[bytes]:
        packets: list[bytes] = []
        while len(packets) < count:
            record = bytearray(self.far.recv(1 << 17))
            del record[HEADER_SIZE : len(self._header)]  # The rest of a wide header.
            packets += map(bytes, split([memoryview(record)]) if self._header else [record])
        return packets


class End:
    """A device, piped to an adapter of its own."""

    def __init__(self, key: bytes, offload: Offload, timing: Timing | None) -> None:
        self.public = Identity(key).public
        self.events: list[wireguard.Event] = []
        self.device = Device(private_key=key, mtu=1420, timing=timing, on_event=self.events.append)
        self.adapter = Adapter(offload)
        self.failure: BaseException | None = None
        self.thread = threading.Thread(target=self.run)

    def run(self) -> None:
        try:
            threepipe.pipe(self.adapter.session, self.device.session)
        except threepipe.ThreepipeError as error:
            self.failure = error

    def know(self, other: "End", *allowed: str, endpoint: bool = False, host: str = "127.0.0.1") -> None:
        place = (host, other.device.status().listen_port) if endpoint else None
        change = PeerChange(other.public, endpoint=place, allowed_ips=parse_networks(allowed))
        self.device.configure(Change(peers=(change,)))

    def handshakes(self) -> int:
        return sum(event.name == "handshake" for event in self.events)

    def close(self) -> None:
        self.device.close()
        self.thread.join(SECONDS)
        assert not self.thread.is_alive()
        self.adapter.close()


@contextlib.contextmanager
def joined(offload: Offload = Offload.TCP_AND_UDP, timing: Timing | None = None) -> Iterator[tuple[End, End]]:
    left, right = (End(new_key(), offload, timing) for _ in range(2))
    left.know(right, *RIGHT, endpoint=True)
    right.know(left, *LEFT)
    for end in (left, right):
        end.thread.start()
    try:
        yield left, right
    finally:
        left.close()
        right.close()


def numbered(count: int, version: int = 0, size: int = 1000) -> list[bytes]:
    """Return numbered packets from the left to the right."""
    return [
        packet(LEFT[version], RIGHT[version], number.to_bytes(4, "big") + os.urandom(size)) for number in range(count)
    ]


def back(data: bytes) -> bytes:
    return packet(RIGHT[0], LEFT[0], data)


def exchange(left: End, right: End) -> None:
    there, here = numbered(1)[0], back(os.urandom(20))
    left.adapter.send(there)
    assert right.adapter.receive(1) == [there]
    right.adapter.send(here)
    assert left.adapter.receive(1) == [here]
