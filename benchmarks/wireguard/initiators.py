"""Many peers of one WireGuard device, each at an address of its own, that begin a handshake one after another.

A program. It reads a line with the device's public key, its port and the peers' private keys, prints `made` when the
initiations are made, waits for a line, and prints the seconds until the last peer had its response.
"""

import json
import socket
import struct
import sys
import time
from base64 import b64decode
from contextlib import ExitStack

from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from threepipe.wireguard.cookie import CookieGenerator
from threepipe.wireguard.message import RESPONSE, TYPE_COOKIE_REPLY, TYPE_RESPONSE, TYPE_TRANSPORT, type_of
from threepipe.wireguard.noise import Identity, initiate, read_response
from threepipe.wireguard.tai64n import timestamp

__all__ = ["Initiator"]

_ANSWER_SECONDS = 5.0
_TRIES = 3
"""A peer that receives a cookie tries again with it."""


class Initiator:
    """One peer. Each has another source address, because a device limits the handshakes of one address."""

    def __init__(self, number: int, private_key: bytes, device: bytes, port: int) -> None:
        self._identity = Identity(private_key)
        shared = self._identity.shared(device)
        begun = initiate(self._identity, device, shared, number, timestamp(time.time())) if shared else None
        assert begun is not None
        self._handshake, self._message = begun
        self._response = memoryview(b"")
        self._cookies = CookieGenerator(device)
        self._device = ("127.0.0.1", port)
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.settimeout(_ANSWER_SECONDS)
        self.socket.bind((f"127.1.{number >> 8}.{number & 255}", 0))

    def shake_hands(self) -> bool:
        """Send the initiation until a response comes; return False if none comes."""
        for _ in range(_TRIES):
            self.socket.sendto(self._cookies.add_macs(self._message, time.monotonic()), self._device)
            answer = memoryview(self.socket.recv(2048))
            if type_of(answer) == TYPE_RESPONSE:
                self._response = answer
                return True
            if type_of(answer) == TYPE_COOKIE_REPLY:
                self._cookies.receive(answer, time.monotonic())
        return False

    def confirm(self) -> None:
        """Send an empty packet: a device sends by new keys only when the initiator has used them."""
        keys = read_response(self._identity, self._handshake, bytes(32), self._response)
        assert keys is not None
        _, index, *_ = RESPONSE.unpack_from(self._response)
        empty = ChaCha20Poly1305(keys.send).encrypt(bytes(12), b"", None)
        self.socket.sendto(struct.pack("<IIQ", TYPE_TRANSPORT, index, 0) + empty, self._device)


def main() -> None:
    task = json.loads(sys.stdin.readline())
    device = b64decode(task["device"])
    with ExitStack() as stack:
        peers = []
        for number, key in enumerate(task["peers"], 1):
            peers.append(Initiator(number, b64decode(key), device, task["port"]))
            stack.enter_context(peers[-1].socket)
        _print("made")
        sys.stdin.readline()
        start = time.perf_counter()
        for peer in peers:
            if not peer.shake_hands():
                raise SystemExit("a handshake was not answered")
        _print(f"[{time.perf_counter() - start}]")


def _print(line: str) -> None:
    print(line, flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
