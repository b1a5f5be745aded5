"""Clamping the MSS of TCP: vectors, the slow checksum, and malformed options."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.frames import (
    ACK,
    EACH_KIND,
    EACH_TCP,
    FIN,
    MORE_FRAGMENTS,
    SYN,
    TCP4,
    TCP6,
    Kind,
    frame,
    ip,
    mss,
    network_size,
    partial,
    pseudo_header,
    record,
    superpacket,
    syn,
    tcp,
    with_field,
)
from tests.support.rfc1071 import naive_checksum
from threepipe import Bundle, InvalidSetting, MemoryAdapter
from threepipe.core.superpacket import HEADER_SIZE
from threepipe.filters.clamp import Clamp, clamp_mss

MTU = 1300
MOST = {4: 1260, 6: 1240}
HOP_BY_HOP, ROUTING, FRAGMENT, AUTHENTICATION, DESTINATION, NOTHING = 0, 43, 44, 51, 60, 59


def clamped(packet: bytes) -> bytes:
    """Return the clamped packet, after a check that it is the same writable, read-only and as a record."""
    (written,) = clamp_mss(Bundle([bytearray(packet)]), MTU)
    (copied,) = clamp_mss(Bundle([packet]), MTU)
    clamped_records = clamp_mss(Bundle.of_records([record(packet)]), MTU).records
    assert clamped_records is not None
    assert bytes(clamped_records[0][:HEADER_SIZE]) == bytes(HEADER_SIZE)
    assert bytes(written) == bytes(copied) == bytes(clamped_records[0][HEADER_SIZE:])
    return bytes(written)


def residue(packet: bytes, start: int) -> int:
    """Return by how much the checksum of TCP is wrong: 0 if it is right."""
    return naive_checksum(pseudo_header(packet, start, 6) + packet[start:]) % 0xFFFF


@EACH_TCP
@pytest.mark.parametrize("flags", [SYN, SYN | ACK], ids=["syn", "syn-ack"])
def test_a_higher_mss_is_lowered_and_the_checksum_updated(kind: Kind, flags: int) -> None:
    options = b"\4\2\x08\x0a" + bytes(8) + b"\1\3\3\7"
    most = MOST[kind.version]
    for value in (most + 1, 1460, 8960, 0xFFFF):
        assert clamped(syn(kind, mss(value) + options, flags)) == syn(kind, mss(most) + options, flags)


@pytest.mark.parametrize("odd", [False, True])
def test_every_checksum_is_updated_by_the_difference(odd: bool) -> None:
    packet = bytearray(syn(TCP4, b"\1" * odd + mss(1460)))
    bundle, place = Bundle([packet]), 42 + odd
    difference = 0x05B4 - 0x04EC if not odd else 0xB405 - 0xEC04  # At an odd offset the bytes count in reverse order.
    for checksum in range(0x10000):
        packet[36:38], packet[place : place + 2] = checksum.to_bytes(2, "big"), (1460).to_bytes(2, "big")
        clamp_mss(bundle, MTU)
        assert packet[place : place + 2] == (1260).to_bytes(2, "big")
        assert (int.from_bytes(packet[36:38], "big") - checksum - difference) % 0xFFFF == 0


@EACH_TCP
def test_an_mss_below_the_limit_is_not_raised(kind: Kind) -> None:
    for value in (0, 1, 536, MOST[kind.version] - 1, MOST[kind.version]):
        packet = syn(kind, mss(value))
        assert clamped(packet) == packet


@EACH_TCP
@pytest.mark.parametrize("before", [b"\1", b"\1\1", b"\1\1\1", b"\xfe\3x", b"\5\x0a" + bytes(8)], ids=bytes.hex)
def test_an_mss_after_other_options_and_at_odd_offsets_is_lowered(kind: Kind, before: bytes) -> None:
    assert clamped(syn(kind, before + mss(1460))) == syn(kind, before + mss(MOST[kind.version]))


@EACH_TCP
def test_each_of_several_mss_options_is_lowered(kind: Kind) -> None:
    packet = syn(kind, mss(9000) + mss(100) + b"\1" + mss(1460))
    most = mss(MOST[kind.version])
    assert clamped(packet) == syn(kind, most + mss(100) + b"\1" + most)


@EACH_TCP
@pytest.mark.parametrize(
    "options",
    [
        b"",
        b"\4\2\1\3\3\7",
        b"\0" + mss(1460),  # After the end of the options.
        b"\2\2" + mss(1460)[2:],  # A wrong length, without room for a value.
        b"\2\6\x05\xb4\x05\xb4",
        b"\2\3\x05",
        b"\5\0" + mss(1460),  # A length of 0.
        b"\5\1" + mss(1460),
        b"\5\xff" + mss(1460),  # Longer than the header.
        b"\2",  # Nothing after the kind.
        b"\2\4",  # No value.
        mss(1460)[:3],  # Half a value.
    ],
    ids=bytes.hex,
)
def test_other_and_malformed_options_are_unchanged(kind: Kind, options: bytes) -> None:
    # The padding to whole words comes first, so that some options are the last bytes of the header.
    packet = syn(kind, options.rjust(-len(options) % 4 + len(options), b"\1"))
    assert clamped(packet) == packet


@EACH_TCP
def test_options_in_the_payload_or_truncated_are_unchanged(kind: Kind) -> None:
    data = frame(kind, mss(1460), flags=SYN)
    assert clamped(data) == data
    whole = syn(kind, mss(1460))
    for size in range(len(whole)):
        assert clamp_mss(Bundle([whole[:size]]), MTU)[0] == whole[:size]


@EACH_KIND
def test_a_packet_without_syn_is_unchanged(kind: Kind) -> None:
    for flags in (0, ACK, ACK | FIN):
        packet = frame(kind, b"data", flags=flags, options=mss(1460))
        assert clamped(packet) == packet


def test_a_syn_with_data_is_clamped() -> None:
    assert clamped(syn(TCP4, mss(1460), payload=b"early")) == syn(TCP4, mss(1260), payload=b"early")


def test_a_syn_after_ip_options_is_clamped() -> None:
    for size in (4, 40):
        middle = bytes([1] * size)
        assert clamped(syn(TCP4, mss(1460), middle=middle)) == syn(TCP4, mss(1260), middle=middle)


def chain(*kinds: int) -> bytes:
    """Return extension headers of `kinds`: the first of 8 bytes, the next of 16, and so on."""
    headers = b""
    for index, following in enumerate([*kinds[1:], 6]):
        more = 0 if kinds[index] == FRAGMENT else index
        headers += bytes([following, more]) + bytes(6 + 8 * more)
    return headers


def behind(kinds: tuple[int, ...], value: int) -> bytes:
    packet = ip(TCP6, tcp(b"", flags=SYN, options=mss(value)), middle=chain(*kinds), protocol=kinds[0])
    start = len(packet) - 24
    return with_field(packet, start + 16, naive_checksum(pseudo_header(packet, start, 6) + packet[start:]))


@pytest.mark.parametrize(
    "kinds",
    [(HOP_BY_HOP,), (ROUTING,), (DESTINATION,), (FRAGMENT,), (HOP_BY_HOP, DESTINATION, ROUTING, FRAGMENT)],
    ids=str,
)
def test_a_syn_after_extension_headers_is_clamped(kinds: tuple[int, ...]) -> None:
    assert clamped(behind(kinds, 1440)) == behind(kinds, 1240)


@pytest.mark.parametrize(
    "kinds",
    [
        (AUTHENTICATION,),  # A change would invalidate it.
        (NOTHING,),
        (HOP_BY_HOP, AUTHENTICATION),
        (DESTINATION,) * 9,  # More headers than a sensible packet has.
    ],
    ids=str,
)
def test_a_syn_after_other_or_too_many_headers_is_unchanged(kinds: tuple[int, ...]) -> None:
    assert clamped(behind(kinds, 1440)) == behind(kinds, 1440)


def test_extension_headers_that_exceed_the_packet_are_unchanged() -> None:
    packet = behind((HOP_BY_HOP, DESTINATION), 1440)
    for place in (41, 49):
        beyond = packet[:place] + b"\xff" + packet[place + 1 :]
        assert clamped(beyond) == beyond
    last = packet[:48]
    assert clamp_mss(Bundle([last + bytes(24)]), MTU)[0] == last + bytes(24)


def test_only_the_first_fragment_is_clamped() -> None:
    transport = tcp(b"", flags=SYN, options=mss(1460))
    for fragment, changes in ((MORE_FRAGMENTS, True), (1, False), (0x100, False), (0x1F00, False)):
        packet = ip(TCP4, transport, fragment=fragment)
        assert (clamped(packet) != packet) is changes
    for offset, changes in ((0, True), (1, True), (8, False), (0x100, False), (0xFFF8, False)):
        middle = bytes([6, 0]) + offset.to_bytes(2, "big") + bytes(4)
        packet = ip(TCP6, transport, middle=middle, protocol=FRAGMENT)
        assert (clamped(packet) != packet) is changes


def test_an_ipv4_header_that_is_too_short_is_unchanged() -> None:
    packet = syn(TCP4, mss(1460))
    for size in range(5):
        short = bytes([0x40 + size]) + packet[1:]
        assert clamped(short) == short


@EACH_TCP
def test_an_open_checksum_is_not_updated(kind: Kind) -> None:
    """An open checksum holds the sum of the pseudo-header, which does not cover the MSS."""
    given = partial(kind, syn(kind, mss(1460)))
    bundle = clamp_mss(Bundle.of_records([given]), MTU)
    assert bundle.records == [partial(kind, syn(kind, mss(MOST[kind.version])))]
    assert list(map(bytes, bundle)) == [syn(kind, mss(MOST[kind.version]))]


@EACH_TCP
def test_an_open_checksum_at_another_place_leaves_the_one_of_tcp_updated(kind: Kind) -> None:
    start = network_size(kind)
    for place, field in ((start + 4, 16), (start, 6)):
        given = record(syn(kind, mss(1460)), flags=1, start=place, field=field)
        bundle = clamp_mss(Bundle.of_records([given]), MTU)
        assert bundle.records is not None
        assert bytes(bundle.records[0][HEADER_SIZE:]) == syn(kind, mss(MOST[kind.version]))


@EACH_TCP
def test_superpackets_stay_whole(kind: Kind) -> None:
    big = superpacket(kind, frame(kind, bytes(9000), flags=ACK), 1000)
    before = bytes(big)
    bundle = clamp_mss(Bundle.of_records([big, record(syn(kind, mss(1460)))]), MTU)
    assert bundle.records is not None
    assert bytes(bundle.records[0]) == before
    assert bytes(bundle.records[1][HEADER_SIZE:]) == syn(kind, mss(MOST[kind.version]))
    assert len(bundle) == 10


def test_a_writable_packet_is_changed_in_place() -> None:
    memory = bytearray(syn(TCP4, mss(1460)))
    bundle = Bundle([memory])
    assert clamp_mss(bundle, MTU) is bundle
    assert memory == syn(TCP4, mss(1260))


def test_a_read_only_packet_is_copied_and_the_others_are_not() -> None:
    given, other = syn(TCP4, mss(1460)), frame(TCP4)
    bundle = clamp_mss(Bundle([other, given]), MTU)
    assert [bytes(packet) for packet in bundle] == [other, syn(TCP4, mss(1260))]
    assert bundle[0].obj is other
    assert given == syn(TCP4, mss(1460))
    clamped_records = clamp_mss(Bundle.of_records([memoryview(bytes(record(given)))]), MTU)
    assert [bytes(packet) for packet in clamped_records] == [syn(TCP4, mss(1260))]


def test_the_filter_clamps_received_packets_only() -> None:
    left, right = MemoryAdapter.pair()
    with left, right, Clamp(left.start_session(), MTU) as clamp, right.start_session() as program:
        program.send([syn(TCP4, mss(1460)), frame(TCP4)])
        assert [bytes(packet) for packet in clamp.receive(10)] == [syn(TCP4, mss(1260)), frame(TCP4)]
        clamp.send([syn(TCP4, mss(1460))])
        assert program.receive_packet(10) == syn(TCP4, mss(1460))
        assert clamp.direct is None
        assert clamp.statistics.received_packets == 2
        for mtu in (67, 65536):
            with pytest.raises(InvalidSetting, match="MTU"):
                Clamp(clamp, mtu)


def a_property(examples: int = 500) -> settings:
    return settings(derandomize=True, deadline=None, max_examples=examples)


OPTIONS = st.lists(
    st.one_of(
        st.builds(mss, st.integers(0, 0xFFFF)),
        st.sampled_from([b"\0", b"\1", b"\4\2", b"\3\3\7", b"\x08\x0a" + bytes(8)]),
        st.binary(max_size=6),
    ),
    max_size=8,
).map(lambda parts: b"".join(parts)[:40].ljust(-(-min(len(b"".join(parts)), 40) // 4) * 4, b"\1"))


@a_property()
@given(
    kind=st.sampled_from([TCP4, TCP6]),
    options=OPTIONS,
    flags=st.sampled_from([SYN, SYN | ACK, ACK]),
    payload=st.binary(max_size=5),
    wrong=st.integers(0, 0xFFFF),
    mtu=st.integers(68, 3000),
)
def test_only_the_mss_and_the_checksum_change(
    kind: Kind, options: bytes, flags: int, payload: bytes, wrong: int, mtu: int
) -> None:
    packet = frame(kind, payload, flags=flags, options=options)
    start = network_size(kind)
    field = start + 16
    packet = with_field(packet, field, int.from_bytes(packet[field : field + 2], "big") ^ wrong)
    (view,) = clamp_mss(Bundle([packet]), mtu)
    after = bytes(view)
    assert residue(after, start) == residue(packet, start)
    places = {place for place in range(len(packet)) if packet[place] != after[place]}
    if flags == ACK:
        assert not places
    most = mtu - (40 if kind.version == 4 else 60)
    for place in places - {field, field + 1}:
        first = place if packet[place - 2 : place] == b"\2\4" else place - 1
        assert start + 20 < first < start + 20 + len(options) - 1
        assert packet[first - 2 : first] == b"\2\4"
        assert int.from_bytes(packet[first : first + 2], "big") > most
        assert int.from_bytes(after[first : first + 2], "big") == most


@a_property()
@given(st.lists(st.binary(max_size=120), max_size=4), st.booleans())
def test_random_bytes_do_not_raise_or_change_size(packets: list[bytes], as_records: bool) -> None:
    views = [record(packet) if as_records else memoryview(bytearray(packet)) for packet in packets]
    sizes = [len(view) for view in views]
    clamp_mss(Bundle.of_records(views) if as_records else Bundle(views), MTU)
    assert [len(view) for view in views] == sizes


@a_property()
@given(
    st.sampled_from([syn(TCP4, mss(1460)), behind((HOP_BY_HOP, FRAGMENT), 1440), bytes(partial(TCP6, syn(TCP6, b"")))]),
    st.lists(st.tuples(st.integers(0, 100), st.integers(0, 255)), max_size=6),
    st.booleans(),
)
def test_mutated_packets_do_not_raise_or_change_size(
    packet: bytes, changes: list[tuple[int, int]], as_records: bool
) -> None:
    memory = bytearray(packet)
    for place, value in changes:
        memory[place % len(memory)] = value
    view = memoryview(memory)
    clamp_mss(Bundle.of_records([view]) if as_records else Bundle([view]), MTU)
    assert len(memory) == len(packet)
