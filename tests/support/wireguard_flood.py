"""A flood of handshake initiations by a sender that knows only the public key of a device.

Under such load a device demands cookies before any other check (section 5.4.7 of WireGuard's paper).
"""

import base64
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.kernel import Network, udp_socket
from tests.support.wireguard_peers import End
from threepipe.wireguard.cookie import CookieGenerator
from threepipe.wireguard.message import COOKIE_REPLY_SIZE, INITIATION, TYPE_INITIATION

__all__ = ["flooded"]

_HOSTS = ("198.51.100.1", "198.51.100.2")
_PORT = 51820
_BURST, _PAUSE = 300, 0.05
"""Messages in a burst, and seconds between bursts: a queue of wireguard-go should have some 128 of them at once."""


@contextmanager
def flooded(end: End) -> Iterator[threading.Event]:
    """Flood `end` over a link of its own during the block; set the event when it demands a cookie."""
    attacker = Network()
    try:
        attacker.run("ip", "link", "add", "flood", "type", "veth", "peer", "name", "flood", "netns", end.network.path)
        for network, host in zip((attacker, end.network), _HOSTS, strict=True):
            network.run("ip", "address", "add", f"{host}/24", "dev", "flood")
            network.run("ip", "link", "set", "flood", "up")
        with udp_socket(attacker, _HOSTS[0]) as sock:
            asked, over = threading.Event(), threading.Event()
            thread = threading.Thread(target=_flood, args=(sock, _message(end), asked, over))
            thread.start()
            try:
                yield asked
            finally:
                over.set()
                thread.join()
    finally:
        attacker.namespace.close()


def _message(end: End) -> bytes:
    """Return an initiation in which only mac1 is right."""
    generator = CookieGenerator(base64.b64decode(end.public_key))
    message = INITIATION.pack(TYPE_INITIATION, 7, os.urandom(32), os.urandom(48), os.urandom(28))
    return generator.add_macs(message, time.monotonic())


def _flood(sock: socket.socket, message: bytes, asked: threading.Event, over: threading.Event) -> None:
    sock.setblocking(False)
    while not over.wait(_PAUSE):
        try:
            for _ in range(_BURST):
                sock.sendto(message, (_HOSTS[1], _PORT))
        except BlockingIOError:
            pass  # The socket has no room for more.
        try:
            while len(sock.recv(2048)) != COOKIE_REPLY_SIZE:
                continue
            asked.set()
        except BlockingIOError:
            pass
