"""WireGuard's transport messages: sealing bundles and opening messages; and the record of a peer's traffic.

A message is 16 bytes of header (type 4, the receiver's index, a counter; little-endian), and the packet sealed by
ChaCha20-Poly1305 with the counter as its nonce (WireGuard's paper, section 5.4.6). Knows neither peers nor handshakes:
the caller decides whose keys these are, and for how long.
"""

import struct
from collections.abc import Iterator, Sequence

from threepipe.core.ecn import by_ecn
from threepipe.core.superpacket import split

__all__ = ["MAX_RUN", "MAX_SEGMENTS", "REJECT_AFTER_MESSAGES", "STATE", "WINDOW", "Traffic", "Transport"]

MAX_SEGMENTS, MAX_RUN = 64, 65000
"""Maximum datagrams and bytes of a run: the limits of one call (UDP_SEGMENT), less the headers of IP and UDP."""
REJECT_AFTER_MESSAGES = 2**64 - 2**13 - 1
WINDOW = 8192
"""Counters below the highest received one that are still accepted, once each."""
_BITMAP = WINDOW // 8  # Bytes.
WINDOW_SIZE = 8 + _BITMAP
"""Bytes of a window: the highest counter plus one (64 bits, little-endian), and a bit for each counter."""

STATE = struct.Struct(f"<IIQ32s32s{WINDOW_SIZE}s")
"""A state: the local and the remote index, the counter of the next message, the keys to send and to receive with, and
the replay window."""

_HEADER = struct.Struct("<IIQ")
_COUNTER = struct.Struct("<Q")
_NONCE = struct.Struct("<4xQ")
_LENGTH = struct.Struct("!H")
_TYPE = 4
_TAG = 16
_OVERHEAD = _HEADER.size + _TAG
_UNIT = 16  # Packets are padded to a multiple of this many bytes.
_ZEROS = bytes(_UNIT)


class Transport:
    """The keys of one keypair, with the sending counter and the replay window."""

    __slots__ = ("_receive_key", "_send_key", "_window", "_wiped", "counter", "local_index", "remote_index")

    def __init__(
        self, send_key: bytes | bytearray, receive_key: bytes | bytearray, local_index: int, remote_index: int
    ) -> None:
        """Take two keys of 32 bytes, and the indices (32 bits) of messages received and sent."""
        self._send_key, self._receive_key = bytearray(send_key), bytearray(receive_key)
        self.local_index, self.remote_index = local_index, remote_index
        self.counter = 0
        """The counter of the next message."""
        self._window = bytearray(WINDOW_SIZE)
        self._wiped = False

    def reserve(self, messages: int) -> int | None:
        """Reserve `messages` counters; return the first, or None when exhausted."""
        counter = self.counter
        if counter + messages > REJECT_AFTER_MESSAGES:
            return None
        self.counter += messages
        return counter

    def seal(
        self, counter: int, count: int, records: Sequence[memoryview], vnet_header: bool, mtu: int
    ) -> list[tuple[memoryview, int, int]]:
        """Seal the packets that `records` stand for, with `count` counters from `counter` on, which were reserved.

        With `vnet_header` the records have a virtio header (see `superpacket`), else they are packets. A packet is
        padded with zeros to a multiple of 16 bytes, but not beyond `mtu` bytes (0: no limit). Returns runs of at most
        64 messages and 65000 bytes: the memory, the size of each message in it, except that the last may be shorter,
        and the ECN field that all its packets have (see `ecn`). Returns nothing once the keys are wiped.

        Raises ValueError, and seals nothing, if there are more packets than counters or if the counters were not
        reserved: one that is used twice gives away what both messages say.
        """
        packets = split(records) if vnet_header else records
        groups = [(group, ecn) for ecn, alike in by_ecn(packets) for group in _runs(alike, mtu)]
        messages = sum([len(group) for group, _ in groups])
        if messages > count or counter + count > self.counter:
            raise ValueError(
                f"cannot seal {messages} messages with {count} counters; reserve as many as there are packets"
            )
        key = bytes(self._send_key)  # A copy, so that it is not wiped meanwhile.
        return [] if self._wiped else _seal(key, self.remote_index, counter, groups)

    def open(self, memory: memoryview, size: int) -> tuple[list[memoryview], list[tuple[bytes, int]], int, int, int]:
        """Open messages in place, which lie end to end in `memory`; all have `size` bytes, but the last may be shorter.

        Stops at the first one that is not a transport message for `local_index`. Accepts each counter once, and only
        the last 8192 below the highest. Returns

        - the IP packets, as views of `memory` without padding; contents that are not a whole IP packet are left out;
        - their source addresses of 4 or 16 bytes, each with the number of packets in a row that have it;
        - how many bytes of `memory` were used;
        - how many messages were authentic and new, keepalives included, and their bytes; 0 once the keys are wiped.
        """
        key = bytes(self._receive_key)
        if self._wiped:
            return [], [], len(memory), 0, 0
        return _open(key, self.local_index, self._window, memory, size)

    def state(self) -> bytearray:
        """Return the whole state (see `STATE`), for `from_state` in another process; the caller wipes it.

        Only one transport may go on from it: a counter that is used twice gives away what both messages say. Raises
        ValueError once the keys are wiped.
        """
        if self._wiped:
            raise ValueError("the transport has no state, because its keys are wiped")
        state = bytearray(STATE.size)
        STATE.pack_into(
            state, 0, self.local_index, self.remote_index, self.counter, self._send_key, self._receive_key, self._window
        )
        return state

    @staticmethod
    def from_state(state: bytes | bytearray | memoryview) -> "Transport":
        """Return a transport that goes on from `state`. Raises ValueError for one of another size."""
        if len(state) != STATE.size:
            raise ValueError(f"invalid state: expected {STATE.size} bytes")
        local_index, remote_index, counter, send_key, receive_key, window = STATE.unpack(state)
        made = Transport(send_key, receive_key, local_index, remote_index)
        made.counter = counter
        made._window[:] = window
        return made

    def wipe(self) -> None:
        """Write zeros over both keys; nothing is sealed or opened any more."""
        self._wiped = True
        for key in (self._send_key, self._receive_key):
            key[:] = bytes(len(key))


def _seal(
    key: bytes, index: int, counter: int, groups: list[tuple[list[tuple[memoryview, int]], int]]
) -> list[tuple[memoryview, int, int]]:
    from cryptography.hazmat.primitives.ciphers.aead import (
        ChaCha20Poly1305,
    )  # Loaded by programs that seal, and by no others.

    encrypt = ChaCha20Poly1305(key).encrypt_into
    header, nonce = _HEADER.pack_into, _NONCE.pack
    runs = []
    for group, ecn in groups:
        size = len(group[0][0]) + group[0][1] + _OVERHEAD
        memory = memoryview(bytearray(size * (len(group) - 1) + len(group[-1][0]) + group[-1][1] + _OVERHEAD))
        start = 0
        for packet, padding in group:
            header(memory, start, _TYPE, index, counter)
            place = memory[start + 16 : start + size]
            encrypt(nonce(counter), b"".join((packet, _ZEROS[:padding])) if padding else packet, None, place)
            start += size
            counter += 1
        runs.append((memory, size, ecn))
    return runs


def _runs(packets: Sequence[memoryview], mtu: int) -> Iterator[list[tuple[memoryview, int]]]:
    """Yield the packets and their padding, in groups that make one run each."""
    group: list[tuple[memoryview, int]] = []
    size = most = 0
    for packet in packets:
        length = len(packet)
        last = length % mtu if mtu and length > mtu else length
        padding = -last % _UNIT
        if mtu and last + padding > mtu:
            padding = mtu - last
        length += padding
        if group and (len(group) == most or length > size):
            yield group
            group = []
        if not group:
            size, most = length, max(1, min(MAX_SEGMENTS, MAX_RUN // (length + _OVERHEAD)))
        group.append((packet, padding))
        if length < size:
            yield group
            group = []
    if group:
        yield group


def _open(
    key: bytes, index: int, window: bytearray, memory: memoryview, size: int
) -> tuple[list[memoryview], list[tuple[bytes, int]], int, int, int]:
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

    decrypt = ChaCha20Poly1305(key).decrypt_into
    nonce, read = _NONCE.pack, _HEADER.unpack_from
    packets: list[memoryview] = []
    sources: list[tuple[bytes, int]] = []
    source, count = b"", 0
    start = authentic = total = 0
    end = len(memory)
    (upcoming,) = _COUNTER.unpack_from(window)
    while start + _OVERHEAD <= end:
        kind, receiver, counter = read(memory, start)
        if kind != _TYPE or receiver != index:
            break
        stop = min(start + size, end)
        place = memory[start + 16 : stop]
        start = stop
        if len(place) < _TAG:
            continue
        in_order = counter == upcoming < REJECT_AFTER_MESSAGES
        if not in_order and not _is_new(window, upcoming, counter):
            continue
        plain = place[:-_TAG]
        try:
            decrypt(nonce(counter), place, None, plain)
        except InvalidTag:
            continue
        if not in_order:
            _advance(window, upcoming, counter)
        window[8 + (counter >> 3) % _BITMAP] |= 1 << (counter & 7)
        if counter >= upcoming:
            upcoming = counter + 1
        authentic += 1
        total += len(place) + 16
        if not (packet := _packet(plain)):
            continue
        address = (packet[12:16] if packet[0] >> 4 == 4 else packet[8:24]).tobytes()
        if address != source:
            if count:
                sources.append((source, count))
            source, count = address, 0
        count += 1
        packets.append(packet)
    _COUNTER.pack_into(window, 0, upcoming)
    if count:
        sources.append((source, count))
    return packets, sources, start, authentic, total


def _packet(plain: memoryview) -> memoryview:
    """Return the IP packet at the start of `plain`; nothing if it holds no packet, or only a part of one."""
    length = 0
    if len(plain) >= 20:
        version = plain[0] >> 4
        if version == 4:
            (length,) = _LENGTH.unpack_from(plain, 2)
            length = length if length >= 20 else 0
        elif version == 6 and len(plain) >= 40:
            length = _LENGTH.unpack_from(plain, 4)[0] + 40
    return plain[:length] if length <= len(plain) else plain[:0]


def _is_new(window: bytearray, upcoming: int, counter: int) -> bool:
    if counter >= upcoming:
        return counter < REJECT_AFTER_MESSAGES
    return counter + WINDOW >= upcoming and not window[8 + (counter >> 3) % _BITMAP] >> (counter & 7) & 1


def _advance(window: bytearray, upcoming: int, counter: int) -> None:
    """Mark the counters between the highest so far and this one as not received."""
    if counter - upcoming >= WINDOW:
        window[8:] = bytes(_BITMAP)
    else:
        for passed in range(upcoming, counter):
            window[8 + (passed >> 3) % _BITMAP] &= ~(1 << (passed & 7))


class Traffic:
    """The times and bytes of one peer's traffic, noted for every bundle, from which its timers follow.

    Times are in seconds of a clock that does not jump.
    """

    __slots__ = (
        "check_scheduled",
        "keepalive_owed_since",
        "last_traversal",
        "need_another_keepalive",
        "rx_bytes",
        "tx_bytes",
        "unanswered_since",
    )

    def __init__(self) -> None:
        self.rx_bytes = self.tx_bytes = 0
        """Bytes of messages, handshakes included."""
        self.unanswered_since: float | None = None
        """Time of the first data sent since the last message received."""
        self.keepalive_owed_since: float | None = None
        """Time of the first data received since the last message sent."""
        self.need_another_keepalive = False
        """True if more data followed that first data."""
        self.last_traversal = float("-inf")
        """Time of the last authentic message in either direction."""
        self.check_scheduled = False
        """True while a timer check is scheduled; the check clears it first."""

    def sent(self, now: float, data: bool, size: int) -> bool:
        """Note that messages of `size` bytes were sent. Return True if a timer check has to be scheduled."""
        self.tx_bytes += size
        self.keepalive_owed_since = None
        self.last_traversal = now
        if data and self.unanswered_since is None:
            self.unanswered_since = now
        watched, self.check_scheduled = self.check_scheduled, True
        return not watched

    def count_sent(self, size: int) -> None:
        """Note the size in bytes of messages for which `sent` was called before they were sealed."""
        self.tx_bytes += size

    def received(self, now: float, data: bool, size: int) -> bool:
        """Note that authentic messages of `size` bytes arrived. Return True if a timer check has to be scheduled."""
        self.rx_bytes += size
        self.unanswered_since = None
        self.last_traversal = now
        if data:
            if self.keepalive_owed_since is None:
                self.keepalive_owed_since = now
            else:
                self.need_another_keepalive = True
        watched, self.check_scheduled = self.check_scheduled, True
        return not watched
