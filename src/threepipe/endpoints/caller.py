"""Caller: the program at the other end of a stream, and the records it speaks in.

A record is the packet's length, 16 bits big-endian, and the packet. A length of 0 is no packet and
allowed, for programs that want to keep a connection busy. Anything else that is no IP packet shows
that the other end speaks something else, and ends it: there is no way to find the next record.
Knows nothing of listening, sessions and waiting.
"""

import threading
from collections.abc import Sequence

from threepipe.core import fast
from threepipe.core.packet import Packet, is_packet
from threepipe.endpoints.stream import Stream

__all__ = ["Caller", "CallerLeft"]

_LENGTH = 2  # Bytes before each packet.
_MAX_RECORD = _LENGTH + 0xFFFF
_READ = 1 << 18  # Bytes read at once: 170 packets of 1500 bytes.
_WRITE = 1 << 18
_SHOWN = 40  # Bytes of what is no packet that a complaint shows.


class CallerLeft(Exception):
    """The other end is gone; the text says how, and is empty where it went as it should."""


class Caller:
    """One thread may read while another writes."""

    def __init__(self, stream: Stream, name: str) -> None:
        """`name`: who it is, for people."""
        self.stream = stream
        self.name = name
        self.proven = False
        """Whether a whole packet has come from it."""
        self.more = False
        """Whether there are whole packets left of what was read."""
        self._rest = b""  # What came after the last whole record.
        self._fault = ""  # Why nothing more can be read, once the packets before it were given out.
        self._unsent = memoryview(b"")  # The rest of a record that was partly written.
        self._lock = threading.Lock()  # Writing and closing.
        self._closed = False

    def read(self, memory: memoryview, limit: int) -> tuple[list[memoryview], int]:
        """At most `limit` packets that are ready, at the start of `memory`, and how much of it they take.

        `memory` has room for a record at least. Raises `CallerLeft`.
        """
        if self._fault:
            raise CallerLeft(self._fault)
        rest = self._rest
        end = min(len(rest), len(memory))
        memory[:end] = rest[:end]
        if not self.more:
            # Once and not until there are packets: who sends empty records all the time is not to have it all.
            end += self._read(memory[end : end + _READ])
        packets, used = self._parse(memory[:end], limit)
        self._rest = bytes(memory[used:end]) + rest[end:]
        if self._fault and not packets:
            raise CallerLeft(self._fault)
        return packets, used

    def prove(self) -> bool:
        """Whether it has sent a packet by now, which `read` gives later. Raises `CallerLeft`."""
        memory = memoryview(bytearray(_MAX_RECORD))
        end = len(self._rest)
        memory[:end] = self._rest
        end += self._read(memory[end:])
        packets, used = self._parse(memory[:end], 1)
        self.more = bool(packets)
        self._rest = bytes(memory[0 if packets else used : end])
        if self._fault:
            raise CallerLeft(self._fault)
        return self.proven

    @property
    def ready(self) -> bool:
        """Whether `read` has something to say without anything coming in."""
        return self.more or bool(self._fault) or self.stream.pending()

    def _read(self, memory: memoryview) -> int:
        try:
            size = self.stream.read(memory)
        except OSError as error:
            raise CallerLeft(f"broke off ({error.strerror or error})") from None
        if size == 0:
            raise CallerLeft(f"ended in the middle of a record{self._sample(self._rest)}" if self._rest else "")
        return size or 0

    def _parse(self, data: memoryview, limit: int) -> tuple[list[memoryview], int]:
        """The packets at the start of `data`, and how many bytes they took."""
        packets: list[memoryview] = []
        position, end = 0, len(data)
        self.more = False
        while position + _LENGTH <= end:
            start = position + _LENGTH
            following = start + (data[position] << 8 | data[position + 1])
            if following > end:
                break
            if len(packets) == limit:
                self.more = True
                break
            if following > start:
                packets.append(data[start:following])
            position = following
        if packets and not fast.measure(packets, vnet_header=False)[2]:
            bad = next(index for index, packet in enumerate(packets) if not is_packet(packet))
            self._fault = f"sent a record of {len(packets[bad])} bytes that is no IP packet{self._sample(packets[bad])}"
            self.more = False
            del packets[bad:]
            position = end
        self.proven = self.proven or bool(packets)
        return packets, position

    def _sample(self, data: Packet) -> str:
        """The beginning of what it sent, where it may be a message for people."""
        return "" if self.proven else f" ({bytes(data[:_SHOWN])!r}); is there a threepipe at the other end?"

    def write(self, packets: Sequence[memoryview]) -> int:
        """Write records until there is no room, and return how many packets were taken. Raises `CallerLeft`.

        What is left to be written of them writes `flush`.
        """
        taken = 0
        with self._lock:
            while taken < len(packets) and self._flush():
                parts: list[bytes | memoryview] = []
                ends: list[int] = []
                size = 0
                for packet in packets[taken:]:
                    length = len(packet)
                    parts += (length.to_bytes(_LENGTH, "big"), packet)
                    size += _LENGTH + length
                    ends.append(size)
                    if size >= _WRITE:
                        break
                data = memoryview(b"".join(parts))
                if not (written := self._write(data)):
                    break
                whole = next(index for index, end in enumerate(ends) if end >= written)
                self._unsent = data[written : ends[whole]]
                taken += whole + 1
        return taken

    def flush(self) -> bool:
        """Whether all that was taken is on its way. Raises `CallerLeft`."""
        with self._lock:
            return self._flush()

    def _flush(self) -> bool:
        if self._unsent:
            self._unsent = self._unsent[self._write(self._unsent) :]
        try:
            return not self._unsent and (self._closed or self.stream.flush())
        except OSError as error:
            raise CallerLeft(f"broke off ({error.strerror or error})") from None

    def _write(self, data: memoryview) -> int:
        if self._closed:
            raise CallerLeft("")
        try:
            return self.stream.write(data)
        except OSError as error:
            raise CallerLeft(f"broke off ({error.strerror or error})") from None

    def close(self) -> None:
        with self._lock:
            if not self._closed:
                self._closed = True
                self.stream.close()
