"""Packets of adapters on the models: those that are refused, those that wait, and their counts."""

import errno
import os

import pytest

import threepipe
from tests.support.bsd.bench import Bench
from tests.support.bsd.benches import BENCHES, PACKET, Make, every
from tests.support.bsd.darwin import DarwinKernel
from tests.support.bsd.netbsd import NetBsdKernel
from tests.support.bsd.openbsd import OpenBsdKernel
from threepipe.platforms.bsd.darwin import DarwinDriver
from threepipe.platforms.bsd.netbsd import NetBsdDriver
from threepipe.platforms.bsd.openbsd import OpenBsdDriver


@pytest.mark.parametrize("make", [each for each in BENCHES if each.id in ("freebsd", "old_freebsd")])
def test_sending_while_an_administrator_has_set_the_link_down_raises(make: Make) -> None:
    bench = make()
    with bench.create(addresses=["10.1.2.3/24"]) as adapter, adapter.start_session() as session:
        interface = bench.kernel.interfaces[adapter.name]
        interface.flags &= ~1
        with pytest.raises(threepipe.LinkDown, match=f"ifconfig {adapter.name} up"):
            session.send([PACKET])
        assert session.statistics.sent_packets == 0
        interface.flags |= 1
        assert session.send([PACKET]) == 1


@pytest.mark.parametrize("make", [each for each in BENCHES if each.id in ("netbsd", "old_netbsd", "old_openbsd")])
def test_packets_longer_than_the_interface_takes_are_counted_and_others_pass(make: Make) -> None:
    bench = make()
    long = PACKET.ljust(1501, b"~")
    with bench.create(addresses=["10.1.2.3/24"]) as adapter, adapter.start_session() as session:
        assert session.send([PACKET, long, PACKET, long]) == 4
        assert bench.kernel.arrivals(adapter.name, 0) == [PACKET, PACKET]
        assert adapter.statistics.sent_dropped == 2
    with bench.create(addresses=["10.1.2.3/24"]) as adapter:
        with adapter.start_session() as session:
            session.send([long])
        assert adapter.statistics.sent_dropped == 1, "the count went with the session"


def test_netbsd_takes_packets_longer_than_the_mtu_up_to_its_own_limit() -> None:
    bench = Bench(NetBsdKernel(), NetBsdDriver())
    with bench.create(addresses=["10.1.2.3/24"]) as adapter, adapter.start_session() as session:
        adapter.mtu = 576
        packets = [PACKET, PACKET.ljust(1500, b"~"), PACKET.ljust(1501, b"~"), PACKET]
        assert session.send(packets) == 4
        assert bench.kernel.arrivals(adapter.name, 0) == [packets[0], packets[1], packets[3]]
        assert adapter.statistics.sent_dropped == 1


def test_a_packet_longer_than_a_changed_mtu_does_not_pass_for_a_lost_interface() -> None:
    bench = Bench(OpenBsdKernel(has_header=False), OpenBsdDriver())
    with bench.create(addresses=["10.1.2.3/24"]) as adapter, adapter.start_session() as session:
        bench.kernel.interfaces[adapter.name].mtu = 576  # By an administrator.
        assert session.send([PACKET, PACKET.ljust(1000, b"~"), PACKET]) == 3
        assert bench.kernel.arrivals(adapter.name, 0) == [PACKET, PACKET]
        adapter.mtu = 1400
        assert session.send([PACKET.ljust(1400, b"~"), PACKET.ljust(1401, b"~")]) == 2
        assert adapter.statistics.sent_dropped == 2


def test_packets_that_a_packet_filter_of_the_system_blocks_are_counted_and_others_pass() -> None:
    bench = Bench(NetBsdKernel(), NetBsdDriver())
    bench.kernel.blocked = b"blocked"  # type: ignore[attr-defined]
    with bench.create(addresses=["10.1.2.3/24"]) as adapter, adapter.start_session() as session:
        assert session.send([PACKET, PACKET + b"blocked", PACKET]) == 3
        assert bench.kernel.arrivals(adapter.name, 0) == [PACKET, PACKET]
        assert adapter.statistics.sent_dropped == 1


@pytest.mark.parametrize("make", [each for each in BENCHES if "bsd" in str(each.id) and "open" not in str(each.id)])
def test_packets_of_a_family_that_the_kernel_lacks_are_counted_and_others_pass(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = make()
    with bench.create(addresses=["10.1.2.3/24"]) as adapter, adapter.start_session() as session:
        tun = bench.kernel.interfaces[adapter.name].tun
        assert tun is not None
        write = tun.write

        def write_ipv4(record: bytes) -> int:
            if record[3] != 2:
                raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))
            return write(record)

        monkeypatch.setattr(tun, "write", write_ipv4)
        assert session.send([PACKET, bytes([0x60, *bytes(39)]), PACKET]) == 3
        assert bench.kernel.arrivals(adapter.name, 0) == [PACKET, PACKET]
        assert adapter.statistics.sent_dropped == 1


@every
def test_a_full_buffer_of_the_system_is_no_room_and_no_error(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = make()
    with bench.create(addresses=["10.1.2.3/24"]) as adapter, adapter.start_session() as session:
        tun = bench.kernel.interfaces[adapter.name].tun
        assert tun is not None
        room = [True, True, False]
        write = tun.write

        def write_while_there_is_room(record: bytes) -> int:
            if not room.pop(0):
                raise OSError(errno.ENOBUFS, "")
            return write(record)

        monkeypatch.setattr(tun, "write", write_while_there_is_room)
        assert session.send([PACKET] * 4) == 2
        assert session.statistics.sent_dropped == 2


@every
def test_packets_of_the_program_without_room_are_no_dropped_ones_of_the_system(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = make()
    with bench.create(addresses=["10.1.2.3/24"]) as adapter:
        with adapter.start_session() as session:
            interface = bench.kernel.interfaces[adapter.name]
            assert interface.tun is not None

            def write_nothing(record: bytes) -> int:
                interface.counts["dropped"] += bench.place.driver.kind.counters.dropped_has_refused
                raise OSError(errno.ENOBUFS, "")

            monkeypatch.setattr(interface.tun, "write", write_nothing)
            assert session.send([PACKET] * 3) == 0
            interface.limit = 2
            assert bench.kernel.deliver(adapter.name, [PACKET] * 5) == 5
            assert adapter.statistics.received_dropped == 3
        assert adapter.statistics.received_dropped == 3, "the count went with the session"


@pytest.mark.parametrize("largest", [8 << 20, 512 << 10])
@pytest.mark.parametrize("mtu", [1500, 9000])
def test_utun_drops_no_packet_uncounted_however_large_the_capacity(largest: int, mtu: int) -> None:
    bench = Bench(DarwinKernel(), DarwinDriver())
    bench.kernel.max_buffer = largest  # type: ignore[attr-defined]
    packets = [PACKET.ljust(mtu, b"~")] * 4000
    with bench.create(addresses=["10.1.2.3/24"], mtu=mtu) as adapter, adapter.start_session(4 << 20) as session:
        taken = bench.kernel.deliver(adapter.name, packets)
        received = 0
        while bundle := session.receive(timeout=0):
            received += len(bundle)
        assert received + adapter.statistics.received_dropped == taken == len(packets)
        assert received >= min(largest, 4 << 20) // (mtu + 4) - 1


@every
def test_bytes_are_those_of_packets_without_the_systems_headers(make: Make) -> None:
    bench = make()
    with bench.create(addresses=["10.1.2.3/24"]) as adapter:
        for number in (1, 2):
            with adapter.start_session() as session:
                assert bench.kernel.deliver(adapter.name, [PACKET] * 3) == 3
                assert len(session.receive(timeout=10)) == 3
                session.send([PACKET] * 2)
                session.send_packet(PACKET)
                assert bench.kernel.arrivals(adapter.name, 10)
            counts = adapter.statistics
            assert (counts.received_packets, counts.received_bytes) == (3 * number, 3 * number * len(PACKET))
            assert (counts.sent_packets, counts.sent_bytes) == (3 * number, 3 * number * len(PACKET))


@every
def test_packets_that_waited_for_an_earlier_session_are_discarded(make: Make) -> None:
    bench = make()
    with bench.create(addresses=["10.1.2.3/24"]) as adapter:
        with adapter.start_session():
            assert bench.kernel.deliver(adapter.name, [PACKET] * 3) == 3
        with adapter.start_session() as session:
            assert not session.receive(timeout=0)
