"""Bundles on the model of macOS: recvmsg_x and sendmsg_x where they answer, else one call a packet."""

import errno
import os

import pytest

import threepipe
from tests.support.bsd.bench import Bench
from tests.support.bsd.darwin import DarwinKernel
from threepipe.platforms.bsd.darwin import DarwinDriver

IPV4 = [bytes([0x45, 0, 0, 28, *bytes(5), 253, *bytes(10)]).ljust(28 + number, b"~") for number in range(100)]
IPV6 = [bytes([0x60, *bytes(39)]) + bytes([number]) * number for number in range(100)]
PACKETS = [packet for pair in zip(IPV4, IPV6, strict=True) for packet in pair]


def bench(**settings: bool) -> tuple[Bench, DarwinKernel]:
    kernel = DarwinKernel(**settings)
    return Bench(kernel, DarwinDriver()), kernel


def received(session: threepipe.Session) -> list[bytes]:
    """Return copies of all packets that wait."""
    found: list[bytes] = []
    while bundle := session.receive(timeout=0):
        found += bundle.copies()
    return found


def test_a_bundle_passes_in_few_calls_and_in_order() -> None:
    mac, kernel = bench()
    with mac.create() as adapter, adapter.start_session() as session:
        assert session.send(PACKETS) == 200
        assert kernel.arrivals(adapter.name, 0) == PACKETS
        assert kernel.calls == [("send", 64), ("send", 64), ("send", 64)], "the others are few"
        kernel.calls.clear()
        assert kernel.deliver(adapter.name, PACKETS) == 200
        assert received(session) == PACKETS
        assert kernel.calls == [("receive", 64), ("receive", 64), ("receive", 64), ("receive", 8)]


def test_packets_are_not_overwritten_while_they_are_held() -> None:
    mac, kernel = bench()
    with mac.create() as adapter, adapter.start_session() as session:
        held = []
        for _ in range(20):
            kernel.deliver(adapter.name, PACKETS)
            while bundle := session.receive(timeout=0):
                held.append(bundle)
        assert [bytes(packet) for bundle in held for packet in bundle] == PACKETS * 20


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOMEM])
def test_a_system_that_refuses_the_calls_has_single_packets_from_then_on(code: int) -> None:
    mac, kernel = bench()
    kernel.refusal = code
    with mac.create() as adapter:
        with adapter.start_session() as session:
            for _ in range(2):
                assert session.send(PACKETS) == 200
                assert kernel.arrivals(adapter.name, 0) == PACKETS
                assert kernel.deliver(adapter.name, PACKETS) == 200
                assert received(session) == PACKETS
                kernel.refusal = 0
            assert kernel.calls == []
            assert session.statistics.sent_dropped == 0
        with adapter.start_session() as session:
            assert session.send(PACKETS[:20]) == 20
            assert kernel.calls == [("send", 20)], "the next session tries again"


def test_a_system_that_takes_fewer_packets_a_call_is_no_error() -> None:
    mac, kernel = bench()
    kernel.max_datagrams = 10
    with mac.create() as adapter, adapter.start_session() as session:
        assert session.send(PACKETS) == 10
        assert kernel.arrivals(adapter.name, 0) == PACKETS[:10]
        kernel.deliver(adapter.name, PACKETS)
        assert received(session) == PACKETS


def test_a_packet_that_is_refused_for_its_length_is_counted_and_others_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    mac, kernel = bench()
    with mac.create() as adapter, adapter.start_session() as session:
        tun = kernel.interfaces[adapter.name].tun
        assert tun is not None
        write, bad = tun.write, PACKETS[70]

        def refuse(record: bytes) -> int:
            if record[4:] == bad:
                raise OSError(errno.EMSGSIZE, os.strerror(errno.EMSGSIZE))
            return write(record)

        monkeypatch.setattr(tun, "write", refuse)
        done = session.send(PACKETS)
        assert done + session.send(PACKETS[done:]) == 200
        assert kernel.arrivals(adapter.name, 0) == [packet for packet in PACKETS if packet is not bad]
        assert adapter.statistics.sent_dropped == 1


def test_a_packet_longer_than_the_mtu_that_another_program_set_is_counted_and_the_next_arrives() -> None:
    mac, kernel = bench()
    long = IPV4[0].ljust(9000, b"~")
    with mac.create(mtu=1400) as adapter:
        with adapter.start_session() as session:
            kernel.interfaces[adapter.name].mtu = 9000
            assert kernel.deliver(adapter.name, [IPV4[0], long, IPV6[0]]) == 3
            assert received(session) == [IPV4[0], IPV6[0]]
            assert kernel.deliver(adapter.name, [long, IPV6[0]]) == 2
            assert received(session) == [long, IPV6[0]]
        assert adapter.statistics.received_dropped == 1


@pytest.mark.parametrize("mtu", [9000, 65535])
def test_packets_as_long_as_a_new_mtu_arrive_whole(mtu: int) -> None:
    mac, kernel = bench()
    packets = [IPV4[0].ljust(size, b"~") for size in (1400, mtu - 1, mtu, 28)] * 20
    with mac.create(mtu=1400) as adapter, adapter.start_session() as session:
        adapter.mtu = mtu
        assert kernel.deliver(adapter.name, packets) == 80
        assert received(session) == packets
        assert adapter.statistics.received_dropped == 0
        assert session.send(packets) == 80
        assert kernel.arrivals(adapter.name, 0) == packets


def test_a_socket_that_has_ended_is_a_lost_adapter(monkeypatch: pytest.MonkeyPatch) -> None:
    mac, kernel = bench()
    with mac.create() as adapter, adapter.start_session() as session:
        tun = kernel.interfaces[adapter.name].tun
        assert tun is not None
        monkeypatch.setattr(tun, "read", lambda: b"")
        kernel.deliver(adapter.name, PACKETS[:1])
        with pytest.raises(threepipe.AdapterGone):
            session.receive(timeout=10)
