"""Many peers of one WireGuard device, simulated by one socket: each has keys and a source address of its own.

A program. It reads a line with the device's public key, its port and the number of peers, shakes hands for all of them,
and prints `ready`. For each further line, a number, it sends so many packets of 100 bytes from each peer in turn, and
prints `sent`. Its peers read nothing.
"""

import hashlib
import itertools
import json
import socket
import struct
import sys
import time
from base64 import b64decode
from ipaddress import IPv6Address

from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from threepipe.wireguard.cookie import CookieGenerator
from threepipe.wireguard.message import RESPONSE, TYPE_COOKIE_REPLY, TYPE_RESPONSE, TYPE_TRANSPORT, type_of
from threepipe.wireguard.noise import Handshake, Identity, initiate, read_response
from threepipe.wireguard.tai64n import timestamp

__all__ = ["SIZE", "address", "identity", "packet"]

SIZE = 100
_IP_PKTINFO = 8  # <linux/in.h>; Python 3.11 has no name for it.
_TRIES = 5
_SECONDS = 5.0
_PADDED = 112
_BURST = 50
"""Packets between pauses, so that the device's socket has room for them."""
_BASE = int(IPv6Address("fd12::"))
_IPV6 = struct.Struct("!IHBB16s16s")


def identity(number: int) -> Identity:
    """Return the keys of a peer."""
    return Identity(hashlib.sha256(f"peer {number}".encode()).digest())


def address(number: int) -> bytes:
    """Return the address of a peer inside the tunnel."""
    return (_BASE + 0x10000 + number).to_bytes(16)


def packet(source: bytes, destination: bytes) -> bytes:
    """Return a packet of `SIZE` bytes."""
    size = SIZE - _IPV6.size
    return _IPV6.pack(6 << 28, size, 59, 64, source, destination) + bytes(size)


class _Peer:
    def __init__(self, number: int, device: bytes, port: int, outside: socket.socket) -> None:
        self._identity, self._device, self._port, self._socket = identity(number), device, port, outside
        self._cookies = CookieGenerator(device)
        local = socket.inet_aton(f"127.{1 + (number >> 16)}.{number >> 8 & 255}.{number & 255}")
        self._from = [(socket.IPPROTO_IP, _IP_PKTINFO, struct.pack("=I4s4s", 0, local, bytes(4)))]
        self._packet = packet(address(number), address(0)) + bytes(_PADDED - SIZE)
        self._counter = itertools.count()
        self._number = number
        self._index = 0
        self._key = ChaCha20Poly1305(bytes(32))

    def shake_hands(self) -> None:
        shared = self._identity.shared(self._device)
        begun = initiate(self._identity, self._device, shared, self._number, timestamp(time.time())) if shared else None
        assert begun is not None
        handshake, message = begun
        for _ in range(_TRIES):
            self._send(self._cookies.add_macs(message, time.monotonic()))
            answer = memoryview(self._socket.recv(2048))
            if type_of(answer) == TYPE_RESPONSE:
                return self._use(handshake, answer)
            if type_of(answer) == TYPE_COOKIE_REPLY:
                self._cookies.receive(answer, time.monotonic())
        raise SystemExit("a handshake was not answered")

    def _use(self, handshake: Handshake, response: memoryview) -> None:
        keys = read_response(self._identity, handshake, bytes(32), response)
        assert keys is not None
        _, self._index, *_ = RESPONSE.unpack_from(response)
        self._key = ChaCha20Poly1305(keys.send)
        self._seal(b"")

    def send_packet(self) -> None:
        self._seal(self._packet)

    def _seal(self, text: bytes) -> None:
        counter = next(self._counter)
        sealed = self._key.encrypt(struct.pack("<IQ", 0, counter), text, None)
        self._send(struct.pack("<IIQ", TYPE_TRANSPORT, self._index, counter) + sealed)

    def _send(self, message: bytes) -> None:
        self._socket.sendmsg([message], self._from, 0, ("127.0.0.1", self._port))


def main() -> None:
    task = json.loads(sys.stdin.readline())
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as outside:
        outside.bind(("0.0.0.0", 0))
        outside.settimeout(_SECONDS)
        peers = [_Peer(number, b64decode(task["device"]), task["port"], outside) for number in task["peers"]]
        for peer in peers:
            peer.shake_hands()
        _print("ready")
        for line in sys.stdin:
            for number, peer in enumerate(peer for _ in range(int(line)) for peer in peers):
                peer.send_packet()
                if number % _BURST == _BURST - 1:
                    time.sleep(0.005)
            _print("sent")


def _print(line: str) -> None:
    print(line, flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
