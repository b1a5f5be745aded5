"""Join two machines by UDP: python vpn.py NAME ADDRESS [PEER], such as python vpn.py tp0 10.6.7.1/24 192.0.2.2

Without PEER it waits for the other end, and answers where the last packet came from. Nothing is encrypted.
"""

import contextlib
import socket
import sys
import threading

import threepipe

PORT = 4242
MTU = 1500 - 20 - 8  # Each packet travels behind the headers of IPv4 and UDP.


class Link:
    """The datagrams between the two machines. Each holds one packet."""

    def __init__(self, peer: str = "") -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("0.0.0.0", PORT))
        self.peer = (peer, PORT) if peer else None

    def from_adapter(self, session: threepipe.Session) -> None:
        """Send the peer the packets from the adapter, until the session is closed."""
        for bundle in session:
            for packet in bundle:
                if self.peer:
                    self.socket.sendto(packet, self.peer)

    def to_adapter(self, session: threepipe.Session) -> None:
        """Send the packets from the peer to the adapter."""
        while True:
            packet, sender = self.socket.recvfrom(65536)
            if session.send([packet], drop_invalid=True):  # Else it is not an IP packet, or the ring is full.
                self.peer = sender


def main(name: str, address: str, peer: str = "") -> None:
    link = Link(peer)
    with threepipe.Adapter.create(name, addresses=[address], mtu=MTU) as adapter, adapter.start_session() as session:
        print(f"{adapter.name} is up with {address}", flush=True)
        threading.Thread(target=link.from_adapter, args=(session,)).start()
        link.to_adapter(session)  # Ends by Ctrl-C; closing the session then ends the thread.


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main(*sys.argv[1:])
