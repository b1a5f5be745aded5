"""The packet path of OpenBSD with TUNSCAP: records pass whole in both directions, with a `tun_hdr` before each.

Superpackets of TCP stay whole, and packets to be sent are coalesced. A record that the system cannot take, or refuses
for its length, is split and written packet by packet.
"""

import errno
from collections.abc import Sequence

from threepipe.bundle import EMPTY, Bundle
from threepipe.core import fast
from threepipe.core.descriptor import MAX_BUNDLE
from threepipe.core.superpacket import GSO_NONE, GSO_TYPE, HEADER_SIZE, MAX_RECORD, plain_records
from threepipe.platforms.bsd.port import FAMILY_SIZE, NO_ROOM, NOTHING, BsdPort, ended
from threepipe.platforms.bsd.tun_hdr import PLAIN, TUN_HDR, tun_hdr, virtio_header

__all__ = ["OffloadPort"]

_FRONT = TUN_HDR.size + FAMILY_SIZE
_REFUSED = frozenset({errno.EMSGSIZE, errno.EINVAL})


class OffloadPort(BsdPort):
    """The traffic of a session on a descriptor with TUNSCAP."""

    def receive(self) -> Bundle:
        """Return the records that are ready."""
        readv, descriptor = self._system.readv, self._descriptor
        front = bytearray(_FRONT)
        memory = self._arena.free()
        records: list[memoryview] = []
        used, last = 0, len(memory) - MAX_RECORD
        try:
            while used <= last and len(records) < MAX_BUNDLE:
                size = readv(descriptor, (front, memory[used + HEADER_SIZE :])) - _FRONT
                if size > 0:
                    end = used + HEADER_SIZE + size
                    header = virtio_header(front[: TUN_HDR.size], memory[used + HEADER_SIZE : end])
                    if header is not None:
                        memory[used : used + HEADER_SIZE] = header
                        records.append(memory[used:end])
                        used = end
                elif size == -_FRONT:
                    raise ended()
        except OSError as error:
            if not records and error.errno not in NOTHING:
                raise self._failure(error) from None
        self._arena.take(used)
        return Bundle.of_records(records)

    def send(self, bundle: Bundle) -> Bundle:
        """Write records until the system has no room."""
        records = self._outgoing(bundle)
        for done, record in enumerate(records):
            try:
                left = self._write(record)
            except OSError as error:
                if done or error.errno in NO_ROOM:
                    return Bundle.of_records(records[done:])
                raise self._failure(error) from None
            if left:
                return Bundle.of_records([*plain_records(left), *records[done + 1 :]])
        return EMPTY

    def _outgoing(self, bundle: Bundle) -> Sequence[memoryview]:
        if (records := bundle.records) is None:
            return fast.coalesce(list(bundle), False, False)
        return fast.coalesce(records, True, False) if len(records) > 1 else records

    def _write(self, record: memoryview) -> Sequence[memoryview]:
        """Write a record; return packets of it that had no room after others of it had been taken."""
        header = tun_hdr(record)
        if header is not None:
            try:
                self._write_packet(header, record[HEADER_SIZE:])
            except OSError as error:
                if error.errno not in _REFUSED or record[GSO_TYPE] == GSO_NONE:
                    if not self._is_unwanted(error, record[HEADER_SIZE:]):
                        raise
                    self.refused += 1
            else:
                return ()
            if record[GSO_TYPE] == GSO_NONE:
                return ()
        packets = fast.split([record])
        for done, packet in enumerate(packets):
            try:
                self._write_packet(PLAIN, packet)
            except OSError as error:
                if self._is_unwanted(error, packet):
                    self.refused += 1
                elif done:
                    return packets[done:]
                else:
                    raise
        return ()

    def _write_packet(self, header: bytes, packet: memoryview) -> None:
        self._system.writev(self._descriptor, (header, self._headers[packet[0] >> 4], packet))
