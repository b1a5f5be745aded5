"""A stream of TCP from one network to another, compared by hash."""

import hashlib
import random
import socket
import threading

from tests.support.kernel import Network

__all__ = ["MIB", "transfer"]

MIB = 1 << 20


def transfer(sending: Network, receiving: Network, address: str, size: int) -> int:
    """Send `size` bytes, whole MiB, to an address of the receiving network, and compare hashes.

    Return the number of bytes that arrived.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listener, sender = (network.namespace.run(lambda: socket.socket(family)) for network in (receiving, sending))
    with listener, sender:
        listener.settimeout(60)
        listener.bind((address, 0))
        listener.listen()
        sender.settimeout(60)
        sender.connect(listener.getsockname())
        receiver, _ = listener.accept()
        sent = hashlib.sha256()

        def send() -> None:
            block = random.Random(size).randbytes(MIB)
            for number in range(size // MIB):
                data = number.to_bytes(8, "big") + block[8:]
                sent.update(data)
                sender.sendall(data)
            sender.shutdown(socket.SHUT_WR)

        thread = threading.Thread(target=send)
        thread.start()
        with receiver:
            received, total = hashlib.sha256(), 0
            receiver.settimeout(60)
            while data := receiver.recv(MIB):
                received.update(data)
                total += len(data)
        thread.join()
    assert total == size
    assert received.digest() == sent.digest()
    return total
