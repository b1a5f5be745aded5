"""The packet path of macOS: packets pass in bundles, by recvmsg_x and sendmsg_x, while the system answers those.

The calls are not documented. The first error that is about more than room ends their use in a session, and each packet
is a call of its own from then on. macOS does not tell how many packets it took before such an error, so some of them
may be sent twice; the sources of its utun have none for packets of a valid length, while the interface exists.
"""

import errno

from threepipe.bundle import EMPTY, Bundle
from threepipe.core.packet import MAX_PACKET
from threepipe.platforms.bsd.datagrams import MAX_DATAGRAMS
from threepipe.platforms.bsd.port import FAMILY_SIZE, NOTHING, Attachment, BsdPort, ended

__all__ = ["BundledPort"]

_MANY = 16
"""The number of packets from which on a call for all of them costs Python less than a call for each."""
_NO_ROOM = frozenset({errno.EAGAIN, errno.ENOBUFS})


class BundledPort(BsdPort):
    """The traffic of a session on a socket of utun."""

    def __init__(self, attachment: Attachment) -> None:
        super().__init__(attachment)
        self._incoming = self._outgoing = attachment.system.datagrams()

    def receive(self) -> Bundle:
        """Return the packets that are ready. Drop and count those that are longer than the MTU."""
        if self._incoming is None:
            return super().receive()
        memory = self._arena.free()
        size = FAMILY_SIZE + min(self._mtu, MAX_PACKET) + 1  # A datagram that fills all of it was cut.
        try:
            lengths = self._incoming.receive(self._descriptor, memory, size)
            if not any(lengths):
                raise ended()
        except OSError as error:
            if error.errno in NOTHING:
                return EMPTY
            self._incoming = None
            return super().receive()
        self._arena.take(len(lengths) * size)
        if cut := lengths.count(size):
            self.cut += cut
            self._mtu = self._get_mtu()  # Another program has changed it.
        return Bundle.of_views(
            [
                memory[number * size + FAMILY_SIZE : number * size + length]
                for number, length in enumerate(lengths)
                if FAMILY_SIZE < length < size
            ]
        )

    def send(self, bundle: Bundle) -> Bundle:
        """Send packets until the system has no room."""
        headers, packets, done = self._headers, bundle.buffers, 0
        while self._outgoing is not None and len(packets) - done >= _MANY:
            batch = packets[done : done + MAX_DATAGRAMS]
            try:
                sent = self._outgoing.send(self._descriptor, [(headers[packet[0] >> 4], packet) for packet in batch])
            except OSError as error:
                if error.errno in _NO_ROOM:
                    return bundle[done:]
                self._outgoing = None
                break
            self.sent_packets += sent
            self.sent_bytes += sum(map(len, batch[:sent]))
            done += sent
            if sent < len(batch):
                return bundle[done:]  # The system had no room for the next.
        rest = bundle[done:] if done else bundle
        return super().send(rest) if rest else EMPTY
