"""Bundles of records: counting, checking, editing and releasing."""

import pickle
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.frames import (
    NEEDS_CSUM,
    TCP4,
    TCP6,
    UDP4,
    UDP6,
    ip,
    naive_split,
    opened,
    record,
    superpacket,
    tcp,
    udp,
)
from tests.support.superpackets import BASE, HOSTILE, assert_right, changed, contents, property_of, superpackets
from threepipe import Bundle, InvalidPacket


def mixed() -> list[memoryview]:
    """Return records of a plain packet, three TCP segments, a packet with an open checksum, and two datagrams."""
    return [
        record(ip(UDP4, udp(b"plain"))),
        superpacket(TCP4, ip(TCP4, tcp(b"abcdef")), 2),
        record(opened(ip(UDP6, udp(b"open")), 40, UDP6), flags=NEEDS_CSUM, start=40, field=6),
        superpacket(UDP6, ip(UDP6, udp(b"abc")), 2),
    ]


SIZES = [33, 42, 42, 42, 52, 50, 49]


@pytest.mark.parametrize(
    ("look", "seen"),
    [
        (len, 7),
        (bool, True),
        (lambda bundle: bundle.nbytes, sum(SIZES)),
        (Bundle.check, None),
        (repr, f"<Bundle of 7 packets, {sum(SIZES)} bytes>"),
    ],
    ids=["len", "bool", "nbytes", "check", "repr"],
)
def test_counting_and_checking_leave_records_whole(look: Callable[[Bundle], object], seen: object) -> None:
    bundle = Bundle.of_records(records := mixed())
    before = contents(records)
    assert look(bundle) == seen
    assert bundle.records is records
    assert contents(records) == before
    list(bundle)
    assert look(bundle) == seen


@pytest.mark.parametrize(
    ("look", "seen"),
    [
        (lambda bundle: [len(packet) for packet in bundle], SIZES),
        (lambda bundle: [len(packet) for packet in reversed(bundle)], SIZES[::-1]),
        (lambda bundle: len(bundle[4]), 52),
        (lambda bundle: len(bundle[-1]), 49),
        (lambda bundle: [len(packet) for packet in bundle[1:6:2]], SIZES[1:6:2]),
        (lambda bundle: len(bundle[:0]), 0),
        (lambda bundle: [len(packet) for packet in Bundle.unpack(bundle.pack())], SIZES),
        (lambda bundle: ip(UDP4, b"") in bundle, False),
    ],
    ids=["iterate", "reverse", "index", "index from the end", "slice", "empty slice", "pack", "in"],
)
def test_access_to_single_packets_splits_records(look: Callable[[Bundle], object], seen: object) -> None:
    bundle = Bundle.of_records(mixed())
    assert look(bundle) == seen
    assert bundle.records is None
    assert look(bundle) == seen
    assert [len(packet) for packet in bundle] == SIZES


def test_split_records_give_complete_packets() -> None:
    expected = [packet for view in mixed() for packet in naive_split(bytes(view))]
    assert contents(Bundle.of_records(mixed())) == expected
    assert_right(expected[4], 40, 17)


def test_edits_in_place_are_kept_by_the_bundle() -> None:
    bundle = Bundle.of_records(mixed())
    for index, packet in enumerate(bundle):
        packet[-1] = 0xA0 + index
    edited = list(range(0xA0, 0xA7))
    assert [packet[-1] for packet in bundle] == edited
    assert [packet[-1] for packet in bundle[2:5]] == edited[2:5]
    assert bundle[6][-1] == edited[6]
    bundle[6][-1] = 0
    assert [packet[-1] for packet in Bundle.unpack(bundle.pack())] == [*edited[:6], 0]


def test_release_of_whole_records_frees_their_memory() -> None:
    memory = bytearray(superpacket(TCP4, BASE[TCP4], 2))
    bundle = Bundle.of_records([memoryview(memory)])
    assert len(bundle) == 3
    with pytest.raises(BufferError):
        memory.append(0)
    bundle.release()
    memory.append(0)
    for use in (len, list, Bundle.check, lambda released: released.nbytes):
        with pytest.raises(ValueError, match="released"):
            use(bundle)
    assert bundle.records is None
    assert repr(bundle) == "<Bundle released>"
    bundle.release()


def test_release_of_split_records_frees_their_memory() -> None:
    memory = bytearray(record(BASE[UDP4]))
    with Bundle.of_records([memoryview(memory), superpacket(TCP4, BASE[TCP4], 2)]) as bundle:
        plain, segment = bundle[0], bundle[1]
        with pytest.raises(BufferError):
            memory.append(0)
    memory.append(0)
    for view in (plain, segment):
        with pytest.raises(ValueError, match="released"):
            bytes(view)


def test_split_superpackets_outlive_their_record() -> None:
    memory = bytearray(superpacket(TCP4, BASE[TCP4], 2))
    bundle = Bundle.of_records([memoryview(memory)])
    packets = contents(bundle)
    memory.clear()
    assert contents(bundle) == packets


def test_release_skips_records_that_others_export() -> None:
    exported, free = bytearray(record(BASE[UDP4])), bytearray(record(BASE[UDP4]))
    views = [memoryview(exported), memoryview(free)]
    bundle = Bundle.of_records(views)
    holder = pickle.PickleBuffer(views[0])
    bundle.release()
    free.append(0)
    with pytest.raises(BufferError):
        exported.append(0)
    holder.release()


WRONG = pytest.mark.parametrize(
    "wrong", [b"", b"\x45" + bytes(18), b"\x60" + bytes(38), b"\x50" + bytes(60)], ids=["empty", "4", "6", "5"]
)


@WRONG
@pytest.mark.parametrize("place", [0, 1, 2])
def test_check_names_the_record_that_is_not_a_packet(wrong: bytes, place: int) -> None:
    right = [record(BASE[TCP6]), record(BASE[UDP4])]
    bundle = Bundle.of_records([*right[:place], record(wrong), *right[place:]])
    for _ in range(2):
        with pytest.raises(InvalidPacket) as caught:
            bundle.check()
        assert caught.value.index == place
    assert bytes(bundle[place]) == wrong


@WRONG
def test_check_counts_packets_and_not_records(wrong: bytes) -> None:
    bundle = Bundle.of_records([*mixed(), changed(TCP6, size=0), record(wrong)])
    with pytest.raises(InvalidPacket) as caught:
        bundle.check()
    assert caught.value.index == len(SIZES)
    assert bytes(bundle[len(SIZES)]) == wrong


@pytest.mark.parametrize(
    "contradiction",
    [changed(TCP4, size=0), changed(UDP6, flags=0), record(BASE[TCP4], flags=NEEDS_CSUM, start=20, field=1000)],
    ids=["no size", "no checksum", "checksum beyond the end"],
)
def test_check_drops_records_without_packets(contradiction: memoryview) -> None:
    bundle = Bundle.of_records([*mixed(), contradiction])
    assert len(bundle) == len(SIZES)
    bundle.check()
    assert bundle.records is None
    assert [len(packet) for packet in bundle] == SIZES


def test_a_bundle_of_contradictory_records_is_empty() -> None:
    bundle = Bundle.of_records([changed(TCP4, size=0), changed(UDP6, flags=0)])
    assert not bundle
    assert bundle.nbytes == 0
    assert bundle.records
    bundle.check()
    assert list(bundle) == []
    bundle.release()


@property_of(100)
@given(st.lists(superpackets() | HOSTILE, max_size=4))
def test_a_bundle_reports_the_same_sizes_before_and_after_splitting(records: list[memoryview]) -> None:
    bundle = Bundle.of_records(records)
    told = len(bundle), bundle.nbytes, repr(bundle)
    packets = list(bundle)
    assert told[:2] == (len(packets), sum([len(packet) for packet in packets]))
    assert told == (len(bundle), bundle.nbytes, repr(bundle))


@property_of(100)
@given(st.lists(superpackets() | HOSTILE, max_size=4))
def test_a_port_that_follows_looks_changes_no_packet(records: list[memoryview]) -> None:
    looks: list[None] = []
    copies = [memoryview(bytearray(each)) for each in records]
    bundle, other = Bundle.of_records(copies, lambda: looks.append(None)), Bundle.of_records(records)
    assert bundle.sizes() == other.sizes()
    assert not looks
    assert list(bundle) == list(other)
    assert bundle.sizes() == other.sizes()
    assert list(bundle) == list(bundle)
    assert len(looks) == bool(records)


@pytest.mark.parametrize("wrapped", [record, lambda packet: record(packet, flags=NEEDS_CSUM, start=20, field=6)])
def test_a_released_bundle_that_was_looked_at_holds_no_memory(wrapped: Callable[[bytes], memoryview]) -> None:
    memory = bytearray(wrapped(opened(ip(UDP4, udp(b"data")), 20, UDP4)))
    bundle = Bundle.of_records([memoryview(memory)], lambda: None)
    list(bundle)
    bundle.release()
    memory.append(0)  # Raises BufferError while a view is held.
    assert bundle.plain is None
