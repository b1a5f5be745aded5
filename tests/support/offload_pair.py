"""Two networks joined by a pipe between two adapters of the kernel, with or without offload."""

import hashlib
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import threepipe
from tests.support.kernel import Network
from threepipe import Adapter, Session
from threepipe.demo.stream import chunks

SIZE = 8 << 20
FAMILIES = ("10.77.0.", "fd77::")


class Pair:
    """Two networks with an adapter and a session each, for a test to join."""

    def __init__(self, stack: ExitStack, offload: tuple[bool, bool] = (True, True)) -> None:
        self.networks = [Network() for _ in offload]
        for network in self.networks:
            stack.callback(network.namespace.close)
        self.adapters = [
            stack.enter_context(
                Adapter.create(
                    "tp0",
                    netns=network.path,
                    addresses=[f"10.77.0.{side}/24", f"fd77::{side}/64"],
                    offload=offload[side - 1],
                )
            )
            for side, network in enumerate(self.networks, 1)
        ]
        left, right = self.adapters
        self.sessions = (left.start_session(), right.start_session())

    def faults(self) -> dict[str, int]:
        """Return the kernels' counts of bad checksums and lengths."""
        found: dict[str, int] = {}
        for network in self.networks:
            for name, count in re.findall(r"^(\S*(?:Csum|Hdr)\S*Err\S*)\s+(\d+)", network.run("nstat", "-az"), re.M):
                found[name] = found.get(name, 0) + int(count)
        assert found, "nstat names no such counters"
        return {name: count for name, count in found.items() if count}


@contextmanager
def joined(a: Session, b: Session, move: Callable[[Session, Session], None]) -> Iterator[None]:
    """Run `move(source, target)` in a thread for each direction, until the block ends."""
    threads = [threading.Thread(target=move, args=ends) for ends in ((a, b), (b, a))]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        a.close()
        b.close()
        for thread in threads:
            thread.join()


def look_at_every_packet(source: Session, target: Session) -> None:
    """Pass on single packets, and check that none exceeds an MTU of 1500."""
    try:
        for bundle in source:
            packets = list(bundle)
            assert max(map(len, packets)) <= 1500
            target.send(packets, timeout=None)
    except threepipe.SessionClosed:
        pass


def pass_on(source: Session, target: Session) -> None:
    try:
        for bundle in source:
            with bundle:
                target.send(bundle, None, drop_invalid=True)
    except threepipe.SessionClosed:
        pass


def transfer(pair: Pair, prefix: str) -> None:
    """Send a stream of the kernel's TCP from the first network to the second, and compare hashes."""
    family = socket.AF_INET6 if ":" in prefix else socket.AF_INET
    listener = pair.networks[1].namespace.run(lambda: socket.create_server((f"{prefix}2", 0), family=family))
    sender = pair.networks[0].namespace.run(lambda: socket.socket(family))
    with listener, sender:
        listener.settimeout(20)
        sender.settimeout(20)
        sender.connect(listener.getsockname()[:2])
        receiver, _ = listener.accept()
        with receiver:
            receiver.settimeout(20)

            def send() -> None:
                for chunk in chunks(SIZE):
                    sender.sendall(chunk)
                sender.shutdown(socket.SHUT_WR)

            thread = threading.Thread(target=send)
            thread.start()
            digest = hashlib.sha256()
            while data := receiver.recv(1 << 20):
                digest.update(data)
            thread.join()
    expected = hashlib.sha256()
    for chunk in chunks(SIZE):
        expected.update(chunk)
    assert digest.digest() == expected.digest()
