"""Bundles of records, read from and written to non-blocking file descriptors with one system call a record.

Knows no platform, and what is in a record only as far as others tell. In some files virtio headers are wide (see
`threepipe.core.tunnel`); in memory none is.
"""

import errno
import io
from collections.abc import Sequence

from threepipe.core.coalesce import coalesce
from threepipe.core.packet import Packet
from threepipe.core.superpacket import HEADER_SIZE, MAX_RECORD, extract
from threepipe.core.tunnel import FILLER, MAX_WIDE_RECORD, WIDE_HEADER_SIZE, narrow

__all__ = ["FULL", "MAX_BUNDLE", "receive", "receive_packets", "send", "send_coalesced"]

MAX_BUNDLE = 256
"""Maximum number of records received at once, as in Wintun's first driver."""

FULL = frozenset({0, errno.ENOBUFS, errno.ENOMEM})
"""Error numbers of `send` that mean only: no room for now."""


def receive(file: io.FileIO, memory: memoryview, limit: int, wide: bool = False) -> list[memoryview]:
    """Read up to `limit` records that are ready, end to end into `memory`, and return views of them.

    Stops when less than `MAX_RECORD` bytes of `memory` are left, or `MAX_WIDE_RECORD` if headers are `wide`; there must
    be room for one record. The runs of tunnel superpackets are in new memory. Raises `OSError` if reading the first
    record does.
    """
    readinto, used = file.readinto, 0
    records: list[memoryview] = []
    last = len(memory) - (MAX_WIDE_RECORD if wide else MAX_RECORD)
    try:
        for _ in range(limit):
            # None if nothing is ready: no exception to pay for at the end of every bundle.
            if used > last or not (size := readinto(memory[used:])):
                break
            if wide:
                records += narrow(memory[used : used + size])
            else:
                records.append(memory[used : used + size])
            used += size
    except OSError:
        if not records:
            raise
    return records


def receive_packets(
    file: io.FileIO, memory: memoryview, limit: int, vnet_header: bool, wide: bool = False
) -> list[bytes]:
    """Read as `receive` does, and return copies of the packets that the records stand for.

    Without `vnet_header` the records are packets themselves.
    """
    readinto, packets = file.readinto, list[bytes]()
    start = WIDE_HEADER_SIZE if wide else HEADER_SIZE if vnet_header else 0
    flags_and_type = memory[:2].cast("H")
    try:
        for _ in range(limit):
            if not (size := readinto(memory)):
                break
            if vnet_header and (flags_and_type[0] or size < HEADER_SIZE):
                packets += extract(narrow(memory[:size]) if wide else [memory[:size]])
            else:
                packets.append(memory[start:size].tobytes())
    except OSError:
        if not packets:
            raise
    return packets


def send(file: io.FileIO, records: Sequence[memoryview], wide: bool = False) -> tuple[int, int]:
    """Write `records` until there is no room. Return how many were written, and 0 or the errno that stopped it."""
    write, written = file.write, 0
    try:
        for record in records:
            data = b"".join((record[:HEADER_SIZE], FILLER, record[HEADER_SIZE:])) if wide else record
            if write(data) is None:
                break
            written += 1
    except OSError as error:
        return written, error.errno or 0
    return written, 0


def send_coalesced(
    file: io.FileIO, packets: Sequence[Packet], vnet_header: bool, udp: bool, wide: bool = False
) -> tuple[Sequence[memoryview], int, int]:
    """Coalesce packets as `threepipe.core.coalesce.coalesce` does, and write the records as `send` does.

    Return the records that were not written, the number of those that were, and 0 or the errno that stopped it.
    """
    records = coalesce([memoryview(packet) for packet in packets], vnet_header, udp)
    written, error = send(file, records, wide)
    return records[written:], written, error
