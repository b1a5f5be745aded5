"""OpenBSD's superpackets: `tun_hdr` and records translated both ways, and the packets that arrive on either side."""

import errno
import struct
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

import threepipe
from tests.support.bsd.bench import Bench
from tests.support.bsd.openbsd import IPV4_CSUM, TCP_CSUM, TCP_MSS, UDP_CSUM, Marked, OpenBsdKernel
from threepipe.bundle import Bundle
from threepipe.core.coalesce import coalesce
from threepipe.core.packet import internet_checksum
from threepipe.core.superpacket import GSO_NONE, GSO_TYPE, GSO_UDP_L4, HEADER, split
from threepipe.platforms.bsd.openbsd import OpenBsdDriver
from threepipe.platforms.bsd.tun_hdr import PLAIN, TUN_HDR, tun_hdr, virtio_header


def transport(version: int, protocol: int, body: bytes, number: int = 0) -> bytes:
    """Return a packet with right checksums; `body` is that of TCP or UDP with its checksum 0."""
    addresses = bytes([10, 6, 7, 1, 10, 6, 7, 2]) if version == 4 else bytes([0xFD, *bytes(14), 1, 0xFD, *bytes(14), 2])
    offset = {6: 16, 17: 6}[protocol]
    checksum = internet_checksum(addresses + body, protocol + len(body)) or 0xFFFF
    body = body[:offset] + checksum.to_bytes(2, "big") + body[offset + 2 :]
    if version == 6:
        return struct.pack("!IHBB", 6 << 28, len(body), protocol, 64) + addresses + body
    header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), number, 0, 64, protocol, 0) + addresses
    return header[:10] + internet_checksum(header).to_bytes(2, "big") + header[12:] + body


def segments(version: int, count: int, size: int = 1000) -> list[bytes]:
    """Return consecutive packets of one TCP connection."""
    found = []
    for index in range(count):
        head = struct.pack("!HHIIBBHHH", 1000, 2000, 5000 + index * size, 7, 0x50, 0x10, 512, 0, 0)
        found.append(transport(version, 6, head + bytes([index]) * size, index))
    return found


def datagram(version: int, number: int = 0) -> bytes:
    return transport(version, 17, struct.pack("!HHHH", 1000, 2000, 18, 0) + b"0123456789", number)


def superpacket(version: int, count: int = 5) -> memoryview:
    (record,) = coalesce([memoryview(bytearray(each)) for each in segments(version, count)], False, False)
    return record


@pytest.fixture
def bench() -> Bench:
    return Bench(OpenBsdKernel(), OpenBsdDriver())


@pytest.fixture
def adapter(bench: Bench) -> Iterator[threepipe.Adapter]:
    with bench.create(addresses=["10.6.7.1/24", "fd00::1/64"]) as adapter:
        yield adapter


@pytest.mark.parametrize("version", [4, 6])
def test_a_superpacket_arrives_whole_and_splits_into_the_segments(
    bench: Bench, adapter: threepipe.Adapter, version: int
) -> None:
    whole = bytes(superpacket(version))[10:]
    with adapter.start_session() as session:
        bench.kernel.deliver(adapter.name, [Marked.make(whole, TCP_MSS | TCP_CSUM, 1000)])
        bundle = session.receive(timeout=10)
        assert bundle.records is not None
        assert len(bundle.records) == 1
        assert len(bundle) == 5
        assert [bytes(packet) for packet in bundle] == segments(version, 5)


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("flag", [TCP_CSUM, UDP_CSUM])
def test_a_packet_without_its_checksum_gets_it(
    bench: Bench, adapter: threepipe.Adapter, version: int, flag: int
) -> None:
    packet = segments(version, 1)[0] if flag == TCP_CSUM else datagram(version)
    place = (20 if version == 4 else 40) + (16 if flag == TCP_CSUM else 6)
    without = packet[:place] + b"\x12\x34" + packet[place + 2 :]
    with adapter.start_session() as session:
        bench.kernel.deliver(adapter.name, [Marked.make(without, flag)])
        assert [bytes(each) for each in session.receive(timeout=10)] == [packet]


@pytest.mark.parametrize("version", [4, 6])
def test_packets_of_a_connection_are_sent_as_one_superpacket(
    bench: Bench, adapter: threepipe.Adapter, version: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    tun = bench.kernel.interfaces[adapter.name].tun
    assert tun is not None
    sizes, write = [], tun.write

    def write_and_count(record: bytes) -> int:
        sizes.append(len(record))
        return write(record)

    monkeypatch.setattr(tun, "write", write_and_count)
    with adapter.start_session() as session:
        assert session.send(segments(version, 40)) == 40
        assert len(sizes) == 1
        assert bench.kernel.arrivals(adapter.name, 10) == segments(version, 40)


def test_a_superpacket_that_the_system_finds_too_long_is_sent_in_packets(
    bench: Bench, adapter: threepipe.Adapter
) -> None:
    assert isinstance(bench.kernel, OpenBsdKernel)
    bench.kernel.longest = 16384
    with adapter.start_session() as session:
        assert session.send([*segments(4, 40), datagram(4)]) == 41
        assert bench.kernel.arrivals(adapter.name, 10) == [*segments(4, 40), datagram(4)]


def test_a_superpacket_of_udp_is_sent_in_packets(bench: Bench, adapter: threepipe.Adapter) -> None:
    (record,) = coalesce([memoryview(bytearray(datagram(4, number))) for number in range(3)], False, True)
    assert record[GSO_TYPE] == GSO_UDP_L4
    expected = [bytes(each) for each in split([memoryview(bytearray(record))])]
    with adapter.start_session() as session:
        assert session.send(Bundle.of_records([record])) == 3
        assert bench.kernel.arrivals(adapter.name, 10) == expected


def test_what_has_no_room_of_a_split_superpacket_is_returned(bench: Bench, adapter: threepipe.Adapter) -> None:
    assert isinstance(bench.kernel, OpenBsdKernel)
    bench.kernel.longest = 16384
    tun = bench.kernel.interfaces[adapter.name].tun
    assert tun is not None
    write, room = tun.write, [True] * 8 + [False]  # The first is refused for its length.

    def write_while_there_is_room(record: bytes) -> int:
        if not room.pop(0):
            raise OSError(errno.ENOBUFS, "")
        return write(record)

    with pytest.MonkeyPatch.context() as patch, adapter.start_session() as session:
        patch.setattr(tun, "write", write_while_there_is_room)
        assert session.send([*segments(4, 40), datagram(4)]) == 7
        assert session.statistics.sent_dropped == 34
        assert bench.kernel.arrivals(adapter.name, 10) == segments(4, 7)


def test_without_offload_there_are_packets_alone(bench: Bench) -> None:
    with bench.create(addresses=["10.6.7.1/24"], offload=False) as adapter, adapter.start_session() as session:
        assert session.send(segments(4, 3)) == 3
        assert bench.kernel.arrivals(adapter.name, 10) == segments(4, 3)
        bench.kernel.deliver(adapter.name, segments(4, 3))
        assert session.receive(timeout=10).records is None


@pytest.mark.parametrize("version", [4, 6])
def test_a_record_and_its_header_translate_into_each_other(version: int) -> None:
    record = superpacket(version)
    header = tun_hdr(record)
    assert header is not None
    assert TUN_HDR.unpack(header) == (TCP_MSS | TCP_CSUM, 0, 0, 1000)
    assert virtio_header(header, record[10:]) == bytes(record[:10])
    assert tun_hdr(bytes(10) + datagram(version)) == PLAIN


def test_a_superpacket_of_one_segment_is_a_packet() -> None:
    packet = memoryview(bytearray(segments(4, 1)[0]))
    header = virtio_header(TUN_HDR.pack(TCP_MSS | TCP_CSUM, 0, 0, 1000), packet)
    assert header is not None
    assert header[GSO_TYPE] == GSO_NONE
    (complete,) = split([memoryview(bytearray(header + bytes(packet)))])
    assert bytes(complete) == segments(4, 1)[0]


def test_the_checksum_of_an_ipv4_header_is_completed() -> None:
    packet = segments(4, 1)[0]
    without = memoryview(bytearray(packet[:10] + b"\x12\x34" + packet[12:]))
    header = virtio_header(TUN_HDR.pack(IPV4_CSUM, 0, 0, 0), without)
    assert header == bytes(10)
    assert bytes(without) == packet


@pytest.mark.parametrize(
    ("flags", "packet"),
    [
        (TCP_CSUM, b"\x45" + bytes(10)),
        (TCP_CSUM, b"\x60" + bytes(30)),
        (TCP_CSUM, datagram(4)),
        (TCP_MSS, segments(4, 1)[0]),
        (TCP_CSUM | UDP_CSUM, segments(4, 1)[0]),
        (UDP_CSUM | TCP_MSS, datagram(4)),
    ],
)
def test_a_header_that_contradicts_its_packet_gives_no_record(flags: int, packet: bytes) -> None:
    assert virtio_header(TUN_HDR.pack(flags, 0, 0, 100), memoryview(bytearray(packet))) is None


def test_a_contradicting_packet_is_dropped_and_the_next_one_arrives(bench: Bench, adapter: threepipe.Adapter) -> None:
    with adapter.start_session() as session:
        bench.kernel.deliver(adapter.name, [Marked.make(datagram(4), TCP_CSUM), datagram(4)])
        assert [bytes(each) for each in session.receive(timeout=10)] == [datagram(4)]


def test_a_packet_that_is_too_long_alone_is_counted(bench: Bench, adapter: threepipe.Adapter) -> None:
    assert isinstance(bench.kernel, OpenBsdKernel)
    bench.kernel.longest = 500
    with adapter.start_session() as session:
        assert session.send([datagram(4), *segments(4, 1), datagram(4)]) == 3
        assert session.send(segments(4, 3)) == 3
        assert bench.kernel.arrivals(adapter.name, 10) == [datagram(4)] * 2
        assert adapter.statistics.sent_dropped == 4


def test_a_lost_interface_ends_a_session_with_superpackets(bench: Bench, adapter: threepipe.Adapter) -> None:
    with adapter.start_session() as session:
        bench.kernel.unmake(bench.kernel.interfaces[adapter.name])
        with pytest.raises(threepipe.AdapterGone):
            session.receive(timeout=10)
        with pytest.raises(threepipe.AdapterGone):
            session.send(segments(4, 3))


@given(flags=st.integers(0, 0xFFFF), mss=st.integers(0, 0xFFFF), packet=st.binary(min_size=1, max_size=120))
def test_any_header_and_packet_give_a_record_that_splits_or_none(flags: int, mss: int, packet: bytes) -> None:
    header = virtio_header(TUN_HDR.pack(flags, 0, 0, mss), memoryview(bytearray(packet)))
    if header is not None:
        split([memoryview(bytearray(header + packet))])


@given(
    header=st.builds(
        HEADER.pack,
        st.integers(0, 1),
        st.sampled_from([0, 1, 3, 4, 5]),
        st.integers(0, 80),
        st.integers(0, 1500),
        st.integers(0, 80),
        st.sampled_from([0, 2, 6, 16, 17]),
    ),
    packet=st.binary(max_size=120),
)
def test_any_record_has_a_tun_hdr_of_known_flags_or_is_to_be_split(header: bytes, packet: bytes) -> None:
    found = tun_hdr(header + packet)
    if found is not None:
        flags, _, _, mss = TUN_HDR.unpack(found)
        assert flags in (0, TCP_CSUM, UDP_CSUM, TCP_CSUM | TCP_MSS)
        assert bool(flags & TCP_MSS) or not mss
