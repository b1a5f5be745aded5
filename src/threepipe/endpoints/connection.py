"""Connection: packets as records on a stream, from and to one program at the other end.

A record is the packet's length, 16 bits big-endian, and the packet. A record of length 0 holds no packet and is
skipped; programs send it to keep a connection alive. Any other record that is not an IP packet ends the connection,
because the other end speaks another protocol and the start of the next record is unknown.

Records are judged by their first bytes, before the rest arrives: the first two letters of a banner, read as a length,
would else begin a record of 20,000 bytes that never come. The version does not give all text away, as most letters look
like version 4 or 6, so the first record must also have the length that its packet's header states. Later ones need not:
a stranger's packet with a wrong length must not end a connection that works.

Knows nothing of listening, sessions and waiting.
"""

import codecs
import os
import threading
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from typing import Any, Self

from threepipe.core import fast
from threepipe.core.packet import MIN_HEADER, SHORTEST
from threepipe.endpoints.stream import Stream

__all__ = ["Connection", "Disconnected"]

_LENGTH = 2  # Bytes before each packet.
_MAX_RECORD = _LENGTH + 0xFFFF
_READ = 1 << 18  # Bytes read at once: 170 packets of 1500 bytes.
_WRITE = 1 << 18
_SAMPLE = 40  # Bytes before the fault that an error shows.
_LENGTH_FIELD = {4: (2, 0), 6: (4, 40)}
"""IP version -> offset of the header's 16-bit length, and the bytes it does not count (RFC 791, RFC 8200)."""
_CONTROLS = "\t\r\n\x1b"
"""The control characters of text, with the one that sets colours."""
_ADVICE = "check that the other end runs threepipe, and that nothing else prints there, such as a login shell"


class Disconnected(Exception):
    """The other end is gone. The text says why; it is empty for an orderly end."""


class Connection:
    """The records of one stream. One thread may read while another writes."""

    def __init__(self, stream: Stream, name: str) -> None:
        """`name` stands for the other end in logs and errors."""
        self.stream = stream
        self.name = name
        self.established = False
        """True once the other end has sent a whole packet or, over TLS, finished the handshake."""
        self.has_packets = False
        """True while whole packets are left of the bytes read."""
        self._speaks = False  # True once a whole packet has arrived.
        self._broken = ""  # The error of reading.
        self._unread = b""  # Bytes read beyond the packets given out.
        self._fault = ""  # The reason to disconnect once the packets before it are given out.
        self._unsent = memoryview(b"")  # The rest of a record that is partly written.
        self._received = memoryview(b"")  # For `receive_bytes`, which allocates it.
        self._lock = threading.Lock()  # Guards writing and closing.
        self._closed = False

    @classmethod
    def resumed(cls, stream: Stream, state: Mapping[str, Any]) -> Self:
        """Return a connection that goes on from the `state` of another one with the same stream."""
        connection = cls(stream, state["name"])
        connection.established, connection._speaks = state["established"], state["speaks"]
        connection._unread, unsent = (b64decode(state[name]) for name in ("unread", "unsent"))
        connection._unsent = memoryview(unsent)
        connection.has_packets, connection._fault, connection._broken = (
            state[name] for name in ("has_packets", "fault", "broken")
        )
        return connection

    def state(self) -> dict[str, Any]:
        """Return everything but the stream, for JSON. Call it while nobody reads or writes."""
        return {
            "name": self.name,
            "established": self.established,
            "speaks": self._speaks,
            "unread": b64encode(self._unread).decode(),
            "unsent": b64encode(self._unsent).decode(),
            "has_packets": self.has_packets,
            "fault": self._fault,
            "broken": self._broken,
        }

    def read(self, memory: memoryview, limit: int) -> tuple[list[memoryview], int]:
        """Return at most `limit` packets, which lie at the start of `memory`, and the number of bytes they take.

        `memory` has room for one record at least. Raises `Disconnected`.
        """
        if self._fault:
            raise Disconnected(self._fault)
        unread = self._unread
        end = min(len(unread), len(memory))
        memory[:end] = unread[:end]
        if not self.has_packets:
            # One read, not as many as it takes to get packets: endless empty records must not starve others.
            end += self._read(memory[end : end + _READ])
        packets, used = self._parse(memory[:end], limit)
        self._unread = bytes(memory[used:end]) + unread[end:]
        if self._fault and not packets:
            raise Disconnected(self._fault)
        return packets, used

    def read_packet(self, memory: memoryview) -> bytes:
        """Read once, and return the packet if that gives one alone. If it does not, `read` has all that was read."""
        if not self._speaks or self._unread or self.has_packets or self._fault or self._broken:
            return b""
        try:
            size = self.stream.read(memory)
        except OSError as error:
            self._broken = error.strerror or str(error)
            return b""
        if not size:  # An end can be read again.
            return b""
        packet = memory[_LENGTH:size].tobytes()
        if packet and memory[0] << 8 | memory[1] == len(packet) >= SHORTEST[packet[0]]:
            return packet
        self._unread, self.has_packets = memory[:size].tobytes(), True
        return b""

    @property
    def unread(self) -> bytes | None:
        """The bytes read of an incomplete record, if another loop may go on with the stream; else None.

        It may not before the other end has sent a packet, nor while the rest of an accepted record is unsent.
        """
        plain = self.stream.is_plain and self._speaks and not (self.ready or self._broken or self._unsent)
        return self._unread if plain else None

    def receive_bytes(self, limit: int) -> memoryview | None:
        """Read for another loop, as `RecordsHandler` says. `read` raises an error later."""
        if len(self._received) < limit:
            self._received = memoryview(bytearray(limit))
        try:
            size = self.stream.read(self._received[:limit])
        except OSError as error:
            self._broken = error.strerror or str(error)
            size = 0
        return None if size is None else self._received[:size]

    def send_bytes(self, data: bytes) -> bool | None:
        """Write for another loop, as `RecordsHandler` says."""
        with self._lock:
            if data:
                self._unsent = memoryview(data)
            try:
                return self._flush()
            except Disconnected:  # `read` meets the end, after the packets that were sent before it.
                self._unsent = memoryview(b"")
                return None

    def take_back(self, unread: bytes, unsent: bytes, error: int | None) -> None:
        """Go on after another loop: with bytes that it read, and with those that it accepted and did not write.

        `error` is the errno of reading, 0 if it is this one's turn for another reason, else None.
        """
        self._unread = unread
        kept = bytes(self._unsent) if self.stream.is_encrypted else b""  # Of `send_bytes`.
        self._unsent = memoryview(kept + unsent)
        self.has_packets = error is not None and bool(unread)  # Look at them before reading more.
        if error:
            self._broken = os.strerror(error)

    def try_establish(self) -> bool:
        """Read once, and return True if the other end has sent a packet, which `read` then returns.

        Raises `Disconnected`.
        """
        memory = memoryview(bytearray(_MAX_RECORD))
        end = len(self._unread)
        memory[:end] = self._unread
        end += self._read(memory[end:])
        packets, used = self._parse(memory[:end], 1)
        self.has_packets = bool(packets)
        self._unread = bytes(memory[0 if packets else used : end])
        if self._fault:
            raise Disconnected(self._fault)
        return self.established

    @property
    def ready(self) -> bool:
        """True if `read` would return packets or raise before more bytes arrive."""
        return self.has_packets or bool(self._fault) or self.stream.pending()

    def _read(self, memory: memoryview) -> int:
        if self._broken:
            raise Disconnected(f"broke off ({self._broken})")
        try:
            size = self.stream.read(memory)
        except OSError as error:
            raise Disconnected(f"broke off ({error.strerror or error})") from None
        if size == 0:
            sample = self._sample(self._unread[:_SAMPLE])
            raise Disconnected(f"ended in the middle of a record{sample}" if self._unread else "")
        return size or 0

    def _parse(self, data: memoryview, limit: int) -> tuple[list[memoryview], int]:
        """Return the packets at the start of `data`, and the number of bytes their records take."""
        packets: list[memoryview] = []
        position, end = 0, len(data)
        self.has_packets = False
        partial: tuple[int, memoryview] | None = None
        while position + _LENGTH <= end:
            start = position + _LENGTH
            length = data[position] << 8 | data[position + 1]
            following = start + length
            if following > end:
                partial = length, data[start:end]
                break
            if len(packets) == limit:
                self.has_packets = True
                break
            if following > start:
                packets.append(data[start:following])
            position = following
        _, _, valid = fast.measure(packets, vnet_header=False)
        if not (valid and self._speaks):
            self._check(packets)
        if partial is not None and not self._fault:
            self._fault = self._judge(*partial, first=not packets)
        if self._fault:
            self.has_packets = False
            position = end
        self._speaks = self._speaks or bool(packets)
        self.established = self.established or self._speaks
        return packets, position

    def _check(self, packets: list[memoryview]) -> None:
        """Remove the first packet that is at fault, and those after it."""
        for index, packet in enumerate(packets):
            if fault := self._judge(len(packet), packet, first=not index):
                self._fault = fault
                del packets[index:]
                return

    def _judge(self, length: int, data: memoryview, *, first: bool) -> str:
        """Return the fault of a record of `length` bytes that begins with `data`, or "" if none is known yet."""
        start = length.to_bytes(_LENGTH, "big") + bytes(data[: _SAMPLE - _LENGTH])
        fault = "that is not an IP packet"
        version = data[0] >> 4 if data else min(MIN_HEADER)
        if length >= MIN_HEADER.get(version, _MAX_RECORD):
            offset, more = _LENGTH_FIELD[version]
            if self._speaks or not first or len(data) < offset + 2:
                return ""
            stated = int.from_bytes(data[offset : offset + 2], "big") + more
            if stated in (more, length):  # Superpackets and jumbograms state 0.
                return ""
            fault = f"but an IPv{version} packet of {stated}"
        if text := _text(start):
            return f"sent text, which is not an IP packet: {text!r}; {_ADVICE}"
        return f"sent a record of {length} bytes {fault}{self._sample(start)}"

    def _sample(self, start: bytes) -> str:
        """Return the beginning of a record for an error, unless the other end is known to speak in records."""
        if self._speaks:
            return ""
        text = _text(start)
        return f" ({repr(text) if text else start.hex(' ')}); {_ADVICE}"

    def write(self, packets: Sequence[memoryview]) -> int:
        """Write records until the stream is full, and return the number of packets accepted. Raise `Disconnected`.

        `flush` writes the rest of an accepted record.
        """
        accepted = 0
        with self._lock:
            while accepted < len(packets) and self._flush():
                parts: list[bytes | memoryview] = []
                ends: list[int] = []
                size = 0
                for packet in packets[accepted:]:
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
                accepted += whole + 1
        return accepted

    def write_packet(self, packet: bytes) -> bool | None:
        """Write one record. Return None if it was not accepted, and False if `flush` has to write its rest."""
        data = memoryview(len(packet).to_bytes(_LENGTH, "big") + packet)
        with self._lock:
            if self._unsent or self._closed:
                return None
            try:
                if not (written := self.stream.write(data)):
                    return None
                self._unsent = data[written:]
                return not self._unsent and self.stream.flush()
            except OSError:
                return None  # Writing again fails, too.

    def flush(self) -> bool:
        """Write the rest of accepted records, and return True once all is written. Raise `Disconnected`."""
        with self._lock:
            return self._flush()

    def _flush(self) -> bool:
        if self._unsent:
            self._unsent = self._unsent[self._write(self._unsent) :]
        try:
            return not self._unsent and (self._closed or self.stream.flush())
        except OSError as error:
            raise Disconnected(f"broke off ({error.strerror or error})") from None

    def _write(self, data: memoryview) -> int:
        if self._closed:
            raise Disconnected("")
        try:
            return self.stream.write(data)
        except OSError as error:
            raise Disconnected(f"broke off ({error.strerror or error})") from None

    def close(self) -> None:
        with self._lock:
            if not self._closed:
                self._closed = True
                self.stream.close()


def _text(data: bytes) -> str:
    """Return `data` as text if all of it is printable, but for a character that is cut at its end; else ""."""
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(data)
    except UnicodeDecodeError:
        return ""
    return text if all(char.isprintable() or char in _CONTROLS for char in text) else ""
