"""Bundles, the exchange format of Wintun's first driver, and the memory of bundles."""

import operator
import pickle
import random
import sys
from array import array
from collections import deque
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from threepipe import Bundle, InvalidPacket
from threepipe.bundle import Arena
from threepipe.core.packet import MAX_PACKET, Packet
from threepipe.core.tunnel import MAX_WIDE_RECORD

PROPERTY = settings(derandomize=True, deadline=None, max_examples=300)

PACKETS = st.builds(
    lambda version, size, fill: bytes([version << 4]) + bytes([fill]) * (size - 1),
    st.sampled_from([4, 6]),
    st.integers(40, 120) | st.just(61424),
    st.integers(0, 255),
)
# Sizes that damage a record in every way, and sizes of whole records.
RECORDS = st.builds(
    lambda size, body: size.to_bytes(4, sys.byteorder) + bytes(12) + body,
    st.integers(0, 80) | st.sampled_from([61424, 61425, 0xFFFFFFFF]),
    st.sampled_from([16, 48, 64, 80]).flatmap(lambda size: st.binary(min_size=size, max_size=size)),
)


def packet(size: int, fill: int = 0) -> bytes:
    return b"\x45" + bytes([fill]) * (size - 1)


def contents(packets: Sequence[Packet]) -> list[bytes]:
    return [bytes(item) for item in packets]


def naive_unpack(data: bytes) -> tuple[list[bytes], int]:
    """Return the packets and the byte count that the driver's write took of `data`, record by record, on copies."""
    packets: list[bytes] = []
    rest = data
    for _ in range(256):
        size = int.from_bytes(rest[:4], sys.byteorder)
        length = (16 + size + 15) // 16 * 16
        if len(rest) < 16 or length > 61440 or length > len(rest):
            break
        body = rest[16 : 16 + size]
        if (len(body) >= 20 and body[0] >> 4 == 4) or (len(body) >= 40 and body[0] >> 4 == 6):
            packets.append(body)
        rest = rest[length:]
    return packets, len(data) - len(rest)


def test_a_bundle_is_a_sequence_of_views() -> None:
    first, second, third = packet(20, 1), packet(30, 2), packet(40, 3)
    bundle = Bundle([first, second, third])
    assert len(bundle) == 3
    assert bundle
    assert bundle.nbytes == 90
    assert bundle[0] == first
    assert bundle[-1] == third
    assert contents(bundle) == [first, second, third]
    assert bundle.records is None
    assert contents(list(reversed(bundle))) == [third, second, first]
    assert second in bundle
    assert bundle.index(memoryview(third)) == 2
    assert repr(bundle) == "<Bundle of 3 packets, 90 bytes>"
    with pytest.raises(IndexError):
        bundle[3]


def test_a_bundle_keeps_the_given_objects_until_packets_are_accessed() -> None:
    packets = [packet(20), packet(30)]
    bundle = Bundle(packets)
    bundle.check()
    assert len(bundle) == 2
    assert bundle.nbytes == 50
    assert all(map(operator.is_, bundle.buffers, packets))
    first = bundle[0]
    assert bundle.buffers[0] is first
    bundle.release()
    assert repr(bundle) == "<Bundle released>"
    with pytest.raises(ValueError, match="released"):
        len(bundle)


def test_an_empty_bundle_is_false() -> None:
    assert not Bundle()
    assert Bundle().nbytes == 0
    assert Bundle().pack() == b""
    assert Bundle.unpack_from(b"")[1] == 0


def test_slices_are_bundles_over_the_same_memory() -> None:
    memory = bytearray(packet(20))
    bundle = Bundle([memory, packet(21), packet(22), packet(23)])
    assert [len(item) for item in bundle[1:3]] == [21, 22]
    assert [len(item) for item in bundle[::-2]] == [23, 21]
    assert not bundle[4:]
    head = bundle[:1]
    head[0][19] = 0xAB
    assert memory[19] == 0xAB


@pytest.mark.parametrize(
    "kind",
    [
        bytes,
        bytearray,
        memoryview,
        lambda data: memoryview(data).cast("b"),
        lambda data: memoryview(data).cast("I"),
        lambda data: memoryview(array("I", data)),
    ],
    ids=["bytes", "bytearray", "memoryview", "signed", "words", "array"],
)
def test_every_kind_of_buffer_gives_a_view_of_bytes(kind: Callable[[bytes], Packet]) -> None:
    data = packet(20, 7)
    (view,) = Bundle([kind(data)])
    assert view.format == "B"
    assert len(view) == view.nbytes == memoryview(kind(data)).nbytes
    assert bytes(view) == bytes(kind(data))


def test_a_bundle_accepts_a_generator_of_packets() -> None:
    assert [len(item) for item in Bundle(packet(size) for size in (20, 21))] == [20, 21]


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_a_bundle_of_one_bytes_object_raises_type_error(kind: type[bytes | bytearray | memoryview]) -> None:
    with pytest.raises(TypeError, match="wrap a single one in a list"):
        Bundle(kind(packet(20)))  # type: ignore[arg-type]


def test_a_bundle_of_text_raises_type_error() -> None:
    with pytest.raises(TypeError):
        Bundle(["text"])  # type: ignore[list-item]


def test_release_invalidates_the_bundle_and_its_views() -> None:
    bundle = Bundle([bytearray(packet(20)), bytearray(packet(20))])
    view = bundle[0]
    bundle.release()
    uses: list[Callable[[], object]] = [
        lambda: bundle.nbytes,
        lambda: len(bundle),
        lambda: list(bundle),
        lambda: bundle[0],
        lambda: bundle[:1],
        bundle.pack,
        lambda: bytes(view),
        lambda: view[0],
    ]
    for use in uses:
        with pytest.raises(ValueError, match="released"):
            use()
    assert repr(bundle) == "<Bundle released>"
    bundle.release()


def test_release_frees_the_memory() -> None:
    memory = bytearray(packet(20))
    bundle = Bundle([memory])
    view = bundle[0]
    with pytest.raises(BufferError):
        memory.append(0)
    bundle.release()
    memory.append(0)
    with pytest.raises(ValueError, match="released"):
        bytes(view)


def test_slices_survive_release() -> None:
    memory = bytearray(packet(20, 5))
    bundle = Bundle([memory, packet(21)])
    part, bundled = bundle[0][10:], bundle[:1]
    bundle.release()
    assert bytes(part) == b"\x05" * 10
    assert contents(bundled) == [memory]


def test_views_given_to_a_bundle_survive_its_release() -> None:
    view = memoryview(packet(20, 5))
    Bundle([view]).release()
    assert bytes(view) == packet(20, 5)


def test_release_skips_views_that_others_export() -> None:
    exported, free = bytearray(packet(20)), bytearray(packet(20))
    bundle = Bundle([exported, free])
    holder = pickle.PickleBuffer(bundle[0])
    bundle.release()
    free.append(0)
    assert holder.raw() == packet(20)
    with pytest.raises(BufferError):
        exported.append(0)
    holder.release()


def test_leaving_a_with_block_releases_the_bundle() -> None:
    memory = bytearray(packet(20))
    with Bundle([memory]) as bundle:
        assert len(bundle) == 1
    memory.append(0)
    with pytest.raises(ZeroDivisionError), Bundle([memory]) as bundle:
        raise ZeroDivisionError
    assert repr(bundle) == "<Bundle released>"


def test_pack_writes_the_layout_of_the_first_driver() -> None:
    bundle = Bundle([packet(20, 0x11), packet(32, 0x22), packet(33, 0x33)])
    assert bundle.pack() == b"".join(
        [
            *((20).to_bytes(4, sys.byteorder), bytes(12), b"\x45", b"\x11" * 19, bytes(12)),
            *((32).to_bytes(4, sys.byteorder), bytes(12), b"\x45", b"\x22" * 31),
            *((33).to_bytes(4, sys.byteorder), bytes(12), b"\x45", b"\x33" * 32, bytes(15)),
        ]
    )


def test_unpack_ignores_the_content_of_padding() -> None:
    record = (20).to_bytes(4, sys.byteorder) + b"\xff" * 12 + packet(20, 9) + b"\xee" * 12
    bundle, used = Bundle.unpack_from(record * 2)
    assert contents(bundle) == [packet(20, 9)] * 2
    assert used == 96


@PROPERTY
@given(st.lists(PACKETS, max_size=12))
def test_unpack_returns_the_packed_packets(packets: list[bytes]) -> None:
    packed = Bundle(packets).pack()
    assert contents(Bundle.unpack(packed)) == packets
    assert Bundle.unpack_from(packed)[1] == len(packed)


def test_unpacked_packets_are_views_of_the_data() -> None:
    data = bytearray(Bundle([packet(20)]).pack())
    Bundle.unpack(data)[0][19] = 0x77
    assert data[16 + 19] == 0x77


def test_unpack_accepts_views_of_other_items_than_bytes() -> None:
    words = memoryview(Bundle([packet(20, 1)]).pack()).cast("I")
    assert contents(Bundle.unpack(words)) == [packet(20, 1)]


def test_an_exchange_holds_256_packets_at_most() -> None:
    full = Bundle([packet(20)] * 256)
    record = full.pack()[:48]
    assert len(full.pack()) == 256 * 48
    with pytest.raises(ValueError, match="257 packets; an exchange holds at most 256: pack slices of the bundle"):
        Bundle([packet(20)] * 257).pack()
    bundle, used = Bundle.unpack_from(record * 300)
    assert len(bundle) == 256
    assert used == 256 * 48


def test_skipped_records_count_towards_the_256() -> None:
    no_packet = bytes(16)
    bundle, used = Bundle.unpack_from(no_packet * 256 + Bundle([packet(20)]).pack())
    assert not bundle
    assert used == 256 * 16


def test_a_packed_packet_has_at_most_61424_bytes() -> None:
    longest = Bundle([packet(61424, 1)]).pack()
    assert len(longest) == 0xF000
    assert contents(Bundle.unpack(longest)) == [packet(61424, 1)]
    with pytest.raises(InvalidPacket, match="at most 61424") as caught:
        Bundle([packet(20), packet(61425)]).pack()
    assert caught.value.index == 1
    too_long = (61425).to_bytes(4, sys.byteorder) + bytes(0x10000)
    assert Bundle.unpack_from(too_long)[1] == 0


def test_pack_of_an_invalid_packet_raises_with_its_index() -> None:
    with pytest.raises(InvalidPacket) as caught:
        Bundle([packet(20), packet(20), b"\x45" * 19]).pack()
    assert caught.value.index == 2


def test_an_exchange_has_at_most_15_728_640_bytes() -> None:
    largest = Bundle([packet(61424)] * 256).pack()
    assert len(largest) == 15_728_640
    bundle, used = Bundle.unpack_from(largest)
    assert (len(bundle), used) == (256, 15_728_640)
    with pytest.raises(ValueError, match="15728641 bytes"):
        Bundle.unpack(largest + b"\0")


def test_unpack_skips_records_without_a_valid_packet() -> None:
    def record(body: bytes) -> bytes:
        return len(body).to_bytes(4, sys.byteorder) + bytes(12) + body + bytes(-len(body) % 16)

    wrong = [b"", b"\x45" * 19, b"\x60" * 39, b"\x50" * 60]
    data = b"".join([record(body) for body in (wrong[0], packet(20), *wrong[1:], packet(21))])
    bundle, used = Bundle.unpack_from(data)
    assert [len(item) for item in bundle] == [20, 21]
    assert used == len(data)


def test_unpack_of_a_truncated_stream_returns_the_whole_records() -> None:
    packets = [packet(20, 1), packet(33, 2), packet(48, 3), packet(21, 4)]
    stream = Bundle(packets).pack()
    ends = [48, 112, 176, 224]
    assert len(stream) == ends[-1]
    for cut in range(len(stream) + 1):
        whole = sum([end <= cut for end in ends])
        bundle, used = Bundle.unpack_from(stream[:cut])
        assert contents(bundle) == packets[:whole]
        assert used == (ends[whole - 1] if whole else 0)
        assert contents(Bundle.unpack(stream[used:])) == packets[whole:]


@PROPERTY
@given(st.binary(max_size=300) | st.lists(RECORDS, max_size=6).map(b"".join))
def test_unpack_of_any_bytes_returns_what_the_driver_took(data: bytes) -> None:
    bundle, used = Bundle.unpack_from(data)
    assert (contents(bundle), used) == naive_unpack(data)


def test_an_arena_reuses_all_its_memory_when_nothing_is_held() -> None:
    arena = Arena(0x20000)
    memory = arena.free()
    buffer = memory.obj
    assert len(memory) == 0x20000
    held = memory[:100]
    del memory
    arena.take(100)
    assert len(arena.free()) == 0x20000 - 100
    held.release()
    again = arena.free()
    assert len(again) == 0x20000
    assert again.obj is buffer


def test_an_arena_takes_new_memory_when_the_old_is_full_and_held() -> None:
    arena = Arena(0x20000)
    memory = arena.free()
    buffer, size = memory.obj, len(memory) - MAX_WIDE_RECORD
    memory[-1] = 0xAA
    arena.take(size)
    last = arena.free()
    assert (len(last), last.obj) == (MAX_WIDE_RECORD, buffer)
    arena.take(1)
    fresh = arena.free()
    assert len(fresh) == 0x20000
    assert fresh.obj is not buffer
    assert memory[-1] == 0xAA


def test_an_arena_takes_no_memory_before_its_first_use() -> None:
    arena = Arena(1 << 60)
    with pytest.raises(MemoryError):
        arena.free()


def test_a_default_arena_has_room_for_256_packets_and_a_longest_record() -> None:
    assert len(Arena().free()) >= 256 * 1510 + MAX_WIDE_RECORD


@PROPERTY
@given(st.randoms(use_true_random=False))
def test_an_arena_never_overwrites_held_views(rng: random.Random) -> None:
    arena = Arena(0x30000)
    held: deque[tuple[memoryview, bytes]] = deque()
    for step in range(60):
        memory = arena.free()
        assert len(memory) >= MAX_PACKET
        size = rng.choice([0, 1, 1000, 20000, MAX_PACKET])
        memory[:size] = content = bytes([step]) * size
        arena.take(size)
        start = rng.randrange(size + 1)
        held.append((memory[start:size], content[start:]))
        del memory
        for _ in range(rng.choice([0, 0, 1, 2, len(held)])):
            held.rotate(rng.randrange(3))
            if held:
                held.pop()
        assert all(bytes(view) == kept for view, kept in held)  # Views are compared byte by byte, in a slow loop.


@pytest.mark.parametrize("view", [memoryview(bytes(40))[::2], memoryview(bytes(40)).cast("H")[::2]])
def test_a_view_that_is_not_contiguous_raises_type_error(view: memoryview) -> None:
    with pytest.raises(TypeError, match="contiguous"):
        Bundle([view])


def test_a_two_dimensional_view_is_flattened() -> None:
    (packet,) = Bundle([memoryview(bytes(range(40))).cast("B", (4, 10))])
    assert len(packet) == 40
