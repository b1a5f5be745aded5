"""Shuttle: moves bundles both ways between an adapter and a device in one thread, which is what pure Python is best at.

Two threads would fight for the GIL at each system call. It knows both as ports.
"""

import selectors

from threepipe.backend import Counts, Port
from threepipe.bundle import Bundle
from threepipe.core.descriptor import MAX_BUNDLE
from threepipe.core.packet import is_packet
from threepipe.core.pump import Loan
from threepipe.errors import InvalidPacket, LinkDown
from threepipe.net.doorbell import Doorbell

__all__ = ["Shuttle"]


class Shuttle:
    """Between the port that lent its descriptors and another one, until a bell rings."""

    def __init__(self, loan: Loan, device: Port, bell: Doorbell, counts: tuple[Counts, Counts]) -> None:
        adapter, end = loan.port, loan.end
        self._bells = (loan.bell, bell)
        self._ways = (
            (adapter, end.received, device, counts[1]),
            (device, counts[0], adapter, end.sent),
        )

    def run(self) -> None:
        """Raises what the ports raise, but for `LinkDown`."""
        with selectors.DefaultSelector() as selector:
            for bell in self._bells:
                selector.register(bell, selectors.EVENT_READ)
            for way in self._ways:
                selector.register(way[0].readable, selectors.EVENT_READ, way)
            while True:
                ready = [key.data for key, _ in selector.select()]
                if None in ready:
                    return
                for source, received, target, sent in ready:
                    if bundle := source.receive(MAX_BUNDLE):
                        received[0] += len(bundle)
                        received[1] += bundle.nbytes
                        received[2] += 1
                        if not self._send(bundle, target, sent):
                            return

    def _send(self, bundle: Bundle, target: Port, counts: Counts) -> bool:
        """Send a bundle, and wait for room; False where a bell rang meanwhile, and the rest is dropped."""
        try:
            bundle.check()
        except InvalidPacket:
            valid = [packet for packet in bundle if is_packet(packet)]
            counts[3] += len(bundle) - len(valid)
            bundle = Bundle.of_views(valid)
        while bundle:
            packets, size = len(bundle), bundle.nbytes
            try:
                bundle = target.send(bundle)
            except LinkDown:
                counts[3] += packets  # It may come up again.
                return True
            counts[0] += packets - len(bundle)
            counts[1] += size - bundle.nbytes
            counts[2] += 1
            if bundle and not self._wait_for_room(target):
                counts[3] += len(bundle)
                return False
        return True

    def _wait_for_room(self, target: Port) -> bool:
        """False where a bell rang."""
        with selectors.DefaultSelector() as selector:
            for bell in self._bells:
                selector.register(bell, selectors.EVENT_READ, bell)
            selector.register(target.writable, selectors.EVENT_READ)
            return all(key.data is None for key, _ in selector.select())
