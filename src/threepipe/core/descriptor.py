"""Bundles of records read from and written to non-blocking file descriptors, one record a system call.

Knows no platform, and not what a record is: a packet, or one with a header.
"""

import errno
import io
from collections.abc import Sequence

from threepipe.core.superpacket import MAX_RECORD

__all__ = ["FULL", "MAX_BUNDLE", "receive", "send"]

MAX_BUNDLE = 256
"""Records received at once at most: an exchange of Wintun's first driver."""

FULL = frozenset({0, errno.ENOBUFS, errno.ENOMEM})
"""What `send` says where there is no room now, and no more is wrong."""


def receive(file: io.FileIO, memory: memoryview, limit: int) -> list[memoryview]:
    """Up to `limit` records that are ready, end to end in `memory`, which has room for one at least.

    Stops where the rest of `memory` has less than `MAX_RECORD` bytes. Raises `OSError` where reading the
    first one does.
    """
    readinto, used = file.readinto, 0
    records: list[memoryview] = []
    last = len(memory) - MAX_RECORD
    try:
        while used <= last and len(records) < limit:
            # None where nothing is ready: no exception to pay for at the end of every bundle.
            if not (size := readinto(memory[used:])):
                break
            records.append(memory[used : used + size])
            used += size
    except OSError:
        if not records:
            raise
    return records


def send(file: io.FileIO, records: Sequence[memoryview]) -> tuple[int, int]:
    """Write `records` until there is no room: how many were written, and the errno of what stopped it or 0."""
    write, written = file.write, 0
    try:
        for record in records:
            if write(record) is None:
                break
            written += 1
    except OSError as error:
        return written, error.errno or 0
    return written, 0
