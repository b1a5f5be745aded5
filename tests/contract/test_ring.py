"""The ring: its layout, its rules, its corruption, and random operations against a model."""

import pickle
import random
import sys
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.ring_model import ENDED, PROPERTY, Ring, allocate, exercise, receive
from threepipe import InvalidSetting, RingCorrupt, RingEnded
from threepipe.claims import ClaimingReader, ClaimingWriter
from threepipe.core.packet import MAX_PACKET
from threepipe.ring import MAX_CAPACITY, MIN_CAPACITY, check_capacity, record_length, ring_size


@pytest.fixture
def ring() -> Ring:
    return Ring()


def test_a_ring_has_the_layout_of_the_driver(ring: Ring) -> None:
    assert len(ring.buffer) == 12 + 0x20000 + 0x10000
    assert ring.words == (0, 0, 0)
    assert ring.writer.write([b"abcde", b"", b"fghi"]) == 3
    order = sys.byteorder
    expected = [(5).to_bytes(4, order), b"abcde\0\0\0", (0).to_bytes(4, order), (4).to_bytes(4, order), b"fghi"]
    assert bytes(ring.buffer[12:36]) == b"".join(expected)
    assert ring.words == (0, 24, 0)
    assert ring.read_all() == [b"abcde", b"", b"fghi"]
    assert ring.words == (24, 24, 0)


def test_every_power_of_two_between_the_limits_is_a_capacity() -> None:
    capacity = MIN_CAPACITY
    while capacity <= MAX_CAPACITY:
        assert check_capacity(capacity) == capacity
        assert ring_size(capacity) == capacity + 0x1000C
        capacity *= 2
    assert (MIN_CAPACITY, MAX_CAPACITY) == (128 * 1024, 64 * 1024 * 1024)


def test_any_other_capacity_raises() -> None:
    for capacity in (-0x20000, 0, 1, 0x10000, 0x1FFFF, 0x20001, 0x30000, 0x3FFFFFF, 0x4000001, 1 << 27):
        for use in (check_capacity, ring_size, lambda size: ClaimingReader(bytearray(0x40000), size)):
            with pytest.raises(InvalidSetting, match="give a power of two from 131072"):
                use(capacity)


def test_a_buffer_that_is_too_small_raises() -> None:
    needed = ring_size(MIN_CAPACITY)
    for make in (
        lambda buffer: ClaimingReader(buffer, MIN_CAPACITY),
        lambda buffer: ClaimingWriter(buffer, MIN_CAPACITY, print),
    ):
        with pytest.raises(InvalidSetting, match=f"needs a buffer of {needed} bytes, not {needed - 1}"):
            make(bytearray(needed - 1))
        make(bytearray(needed + 1)).close()


def test_a_record_is_padded_to_four_bytes() -> None:
    assert [record_length(size) for size in range(10)] == [4, 8, 8, 8, 8, 12, 12, 12, 12, 16]
    assert record_length(MAX_PACKET) == 65540


@pytest.mark.parametrize("start", [0, 4, 0x1FFFC, 0x10000])
def test_all_but_four_bytes_of_a_ring_can_be_used(start: int) -> None:
    ring = Ring()
    ring.move_to(start)
    assert ring.writer.write([b"\x45" * (MAX_PACKET - 3), b"\x46" * (0x10000 - 8)]) == 2
    assert ring.words == (start, (start - 4) & 0x1FFFF, 0)
    assert ring.writer.write([b""]) == 0
    assert ring.writer.allocate(0) is None
    assert ring.read_all() == [b"\x45" * (MAX_PACKET - 3), b"\x46" * (0x10000 - 8)]
    assert ring.writer.write([b""]) == 1


def test_a_packet_one_byte_too_long_does_not_fit(ring: Ring) -> None:
    ring.writer.write([bytes(0x10000 - 4)])
    assert ring.writer.allocate(0x10000 - 7) is None
    assert ring.writer.write([bytes(0x10000 - 7)]) == 0
    assert ring.writer.allocate(0x10000 - 8) is not None


def test_a_full_ring_rejects_the_newest_packets(ring: Ring) -> None:
    packets = [index.to_bytes(2, "big") + bytes(998) for index in range(200)]
    fitting = (0x20000 - 4) // 1004
    assert ring.writer.write(packets) == fitting
    assert ring.writer.write(packets[fitting:]) == 0
    assert ring.read_all() == packets[:fitting]
    assert ring.writer.write(packets[fitting:]) == 200 - fitting


@pytest.mark.parametrize("bulk", [True, False])
def test_a_record_at_the_end_of_the_ring_is_contiguous(bulk: bool) -> None:
    ring = Ring()
    ring.move_to(0x1FFFC)
    longest = bytes(range(256)) * 256
    if bulk:
        assert ring.writer.write([longest[:MAX_PACKET]]) == 1
    else:
        allocated = ring.writer.allocate(MAX_PACKET)
        assert allocated is not None
        allocated.data[:] = longest[:MAX_PACKET]
        ring.writer.send(allocated)
    assert ring.words == (0x1FFFC, 0xFFFF + 1, 0)
    assert ring.buffer[12 + 0x20000 : -1] == longest[:MAX_PACKET]
    received = ring.reader.receive()
    assert received is not None
    assert received.data == longest[:MAX_PACKET]
    ring.reader.release(received)
    assert ring.words == (0x10000, 0x10000, 0)


def test_packets_are_published_in_the_order_of_allocation(ring: Ring) -> None:
    first, second, third = allocate(ring, b"1111", b"2222", b"3333")
    assert ring.reader.receive() is None
    ring.writer.send(second)
    assert ring.words == (0, 0, 0)
    ring.writer.send(first)
    assert ring.words == (0, 16, 0)
    ring.writer.send(third)
    assert ring.words == (0, 24, 0)
    assert ring.read_all() == [b"1111", b"2222", b"3333"]


def test_memory_is_freed_in_the_order_of_the_ring(ring: Ring) -> None:
    ring.writer.write([b"1111", b"2222", b"3333"])
    first, second, third = receive(ring, 4)
    ring.reader.release(third)
    assert ring.words == (0, 24, 0)
    ring.reader.release(first)
    assert ring.words == (8, 24, 0)
    assert bytes(second.data) == b"2222"
    ring.reader.release(second)
    assert ring.words == (24, 24, 0)


def test_a_packet_sent_or_released_twice_raises(ring: Ring) -> None:
    (packet,) = allocate(ring, b"abcd")
    ring.writer.send(packet)
    with pytest.raises(ValueError, match="returned before"):
        ring.writer.send(packet)
    (received,) = receive(ring, 1)
    ring.reader.release(received)
    with pytest.raises(ValueError, match="returned before"):
        ring.reader.release(received)


def test_views_of_a_returned_packet_are_invalid(ring: Ring) -> None:
    (packet,) = allocate(ring, b"abcd")
    ring.writer.send(packet)
    (received,) = receive(ring, 1)
    ring.reader.release(received)
    for view in (packet.data, received.data):
        with pytest.raises(ValueError, match="released"):
            bytes(view)


@pytest.mark.parametrize("end", ["reader", "writer"])
def test_an_exported_packet_can_be_returned_later(ring: Ring, end: str) -> None:
    (packet,) = allocate(ring, b"abcd")
    give_back = ring.writer.send
    if end == "reader":
        ring.writer.send(packet)
        (packet,) = receive(ring, 1)
        give_back = ring.reader.release
    holder = pickle.PickleBuffer(packet.data)
    with pytest.raises(BufferError):
        give_back(packet)
    holder.release()
    give_back(packet)
    assert ring.words == ((8, 8, 0) if end == "reader" else (0, 8, 0))


@pytest.mark.parametrize("size", [-1, 65536, 1 << 32])
def test_allocate_of_an_impossible_size_raises(ring: Ring, size: int) -> None:
    with pytest.raises(ValueError, match=f"a packet of {size} bytes; a record holds at most 65535"):
        ring.writer.allocate(size)


def test_a_write_that_raises_publishes_nothing(ring: Ring) -> None:
    def broken() -> Iterator[bytes]:
        yield b"abcd"
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        ring.writer.write(broken())
    with pytest.raises(ValueError, match="a packet of 65536 bytes"):
        ring.writer.write([b"abcd", bytes(65536)])
    assert ring.words == (0, 0, 0)
    assert ring.writer.write([b"efgh"]) == 1
    assert ring.read_all() == [b"efgh"]


def test_bulk_operations_raise_while_single_packets_are_held(ring: Ring) -> None:
    (packet,) = allocate(ring, b"abcd")
    with pytest.raises(ValueError, match="unsent; send them before"):
        ring.writer.write([b"efgh"])
    ring.writer.send(packet)
    (received,) = receive(ring, 1)
    with pytest.raises(ValueError, match="held; release them before"):
        ring.reader.read(memoryview(bytearray(9)), 1)
    ring.reader.release(received)
    assert ring.writer.write([b"efgh"]) == 1
    assert ring.read_all() == [b"efgh"]


def test_read_stops_at_the_limit_and_at_the_end_of_the_target(ring: Ring) -> None:
    ring.writer.write([b"1111", b"2222", b"33333"])
    target = memoryview(bytearray(12))
    assert ring.reader.read(target, 0) == []
    assert ring.reader.read(target[:3], 9) == []
    assert ring.reader.read(target, 1) == [4]
    assert ring.reader.read(target[:8], 9) == [4]
    assert bytes(target[:8]) == b"2222\0\0\0\0"
    assert ring.reader.read(target[:5], 9) == [5]
    assert ring.reader.read(target, 9) == []


USES: dict[str, Callable[[Ring], object]] = {
    "receive": lambda ring: ring.reader.receive(),
    "read": lambda ring: ring.reader.read(memoryview(bytearray(0x20000)), 9),
    "allocate": lambda ring: ring.writer.allocate(4),
    "write": lambda ring: ring.writer.write([b"abcd"]),
    "attach reader": lambda ring: ClaimingReader(ring.buffer, ring.capacity).receive(),
    "attach writer": lambda ring: ClaimingWriter(ring.buffer, ring.capacity, print).allocate(4),
}
OUTSIDE = [1, 2, 3, 5, 0x20000, 0x20004, 0x1FFFF, 0x80000000, 0xFFFFFFFC, 0xFFFFFFFE]


@pytest.mark.parametrize("use", ["receive", "read", "attach writer"])
def test_an_impossible_tail_raises_ring_corrupt(ring: Ring, use: str) -> None:
    for tail in OUTSIDE:
        ring.poke(4, tail)
        with pytest.raises(RingCorrupt, match=f"offset {tail:#x} lies outside of a ring of 131072 bytes"):
            USES[use](ring)


@pytest.mark.parametrize("use", ["allocate", "write", "attach reader"])
def test_an_impossible_head_raises_ring_corrupt(ring: Ring, use: str) -> None:
    for head in OUTSIDE:
        ring.poke(0, head)
        with pytest.raises(RingCorrupt, match=f"offset {head:#x} lies outside"):
            USES[use](ring)


@pytest.mark.parametrize("use", ["receive", "read"])
@pytest.mark.parametrize("start", [0, 0x1FFFC])
def test_an_impossible_record_raises_ring_corrupt(use: str, start: int) -> None:
    for content, size in [(4, 1), (8, 5), (8, 0xFFFFFFFF), (0x1FFFC, 65536), (0x1FFFC, 0x80000004), (0x10000, 65533)]:
        ring = Ring()
        ring.move_to(start)
        ring.poke(12 + start, size)
        ring.poke(4, (start + content) & 0x1FFFF)
        with pytest.raises(RingCorrupt, match=f"a record of {size} bytes where the ring holds {content}"):
            USES[use](ring)


def test_packets_before_a_corrupt_record_are_read(ring: Ring) -> None:
    ring.writer.write([b"abcd", b"efgh", b"ijkl"])
    ring.poke(12 + 16, 70000)
    target = memoryview(bytearray(100))
    assert ring.reader.read(target, 9) == [4, 4]
    assert bytes(target[:8]) == b"abcdefgh"
    for _ in range(2):
        with pytest.raises(RingCorrupt):
            ring.reader.read(target, 9)


@PROPERTY
@given(st.lists(st.integers(0, ENDED) | st.integers(0, 15).map(lambda word: 4 * word), max_size=12))
def test_any_header_written_by_the_other_side_gives_data_or_a_ring_error(words: list[int]) -> None:
    ring = Ring()
    for index, word in enumerate(words):
        ring.poke(4 * index, word)
    for use in USES.values():
        try:
            use(ring)
        except (RingCorrupt, RingEnded, ValueError):
            continue  # ValueError if a packet of an earlier use is still held.


@pytest.mark.parametrize("use", ["receive", "read"])
def test_every_read_after_the_writer_ended_raises_ring_ended(ring: Ring, use: str) -> None:
    ring.writer.write([b"what is still in it goes with it"])
    ring.writer.end()
    assert ring.words[1] == ENDED
    for _ in range(2):
        with pytest.raises(RingEnded, match="the writer has ended"):
            USES[use](ring)


@pytest.mark.parametrize("use", ["allocate", "write"])
def test_every_write_after_the_reader_ended_raises_ring_ended(ring: Ring, use: str) -> None:
    ring.reader.end()
    assert ring.words[0] == ENDED
    for _ in range(2):
        with pytest.raises(RingEnded, match="the reader has ended"):
            USES[use](ring)


def test_returning_a_packet_after_an_end_keeps_the_end(ring: Ring) -> None:
    (sent,) = allocate(ring, b"abcd")
    ring.writer.send(sent)
    (unsent,) = allocate(ring, b"efgh")
    (received,) = receive(ring, 1)
    ring.reader.end()
    ring.reader.release(received)
    ring.writer.end()
    ring.writer.send(unsent)
    assert ring.words[:2] == (ENDED, ENDED)


def test_attaching_to_an_ended_direction_raises(ring: Ring) -> None:
    ring.writer.end()
    with pytest.raises(RingEnded):
        USES["attach writer"](ring)
    ring = Ring()
    ring.writer.write([b"abcd"])
    ring.reader.end()
    with pytest.raises(RingEnded):
        USES["attach reader"](ring)


def test_attaching_continues_where_the_last_reader_and_writer_stopped(ring: Ring) -> None:
    ring.writer.write([b"abcd", b"efgh"])
    ring.reader.read(memoryview(bytearray(4)), 1)
    ClaimingWriter(ring.buffer, ring.capacity, print).write([b"ijkl"])
    (received,) = receive(ring, 1)
    assert bytes(received.data) == b"efgh"
    ring.reader.release(received)
    ring.reader = ClaimingReader(ring.buffer, ring.capacity)
    assert ring.read_all() == [b"ijkl"]


def test_an_armed_reader_is_notified_of_every_publication(ring: Ring) -> None:
    assert ring.reader.arm()
    assert ring.words[2] == 1
    assert ring.writer.write([b"abcd", b"efgh"]) == 2
    assert ring.notices == 1
    (packet,) = allocate(ring, b"ijkl")
    assert ring.notices == 1
    ring.writer.send(packet)
    assert ring.notices == 2
    ring.writer.end()
    assert ring.notices == 3


def test_a_write_that_accepts_nothing_does_not_notify(ring: Ring) -> None:
    assert ring.reader.arm()
    assert ring.writer.write([]) == 0
    ring.writer.write([bytes(60000), bytes(60000)])
    assert ring.writer.write([bytes(60000)]) == 0
    assert ring.notices == 1


def test_arm_returns_false_if_packets_arrived_before(ring: Ring) -> None:
    assert ring.reader.receive() is None
    ring.writer.write([b"abcd"])
    assert ring.notices == 0
    assert not ring.reader.arm()
    assert ring.read_all() == [b"abcd"]
    assert ring.reader.arm()
    ring.writer.end()
    assert not ring.reader.arm()


def test_a_disarmed_reader_is_not_notified(ring: Ring) -> None:
    assert ring.reader.arm()
    ring.reader.disarm()
    assert ring.words[2] == 0
    ring.writer.write([b"abcd"])
    ring.writer.end()
    assert ring.notices == 0


def test_close_releases_the_buffer(ring: Ring) -> None:
    with pytest.raises(BufferError):
        ring.buffer.append(0)
    ring.reader.close()
    ring.writer.close()
    ring.buffer.append(0)


@PROPERTY
@given(st.lists(st.lists(st.binary(max_size=40) | st.integers(0, MAX_PACKET).map(bytes), max_size=6), max_size=8))
def test_packets_written_are_read_unchanged(bundles: list[list[bytes]]) -> None:
    ring = Ring()
    for packets in bundles:
        accepted = ring.writer.write(packets)
        assert ring.read_all() == packets[:accepted]
        head, tail, _ = ring.words
        assert head == tail


def test_a_hundred_thousand_random_operations_agree_with_the_model() -> None:
    exercise(random.Random(51820), 100_000)
