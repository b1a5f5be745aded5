"""The checks of packets in bundles: their content, order, validation and memory."""

from threepipe.adapter import Adapter
from threepipe.bundle import Bundle
from threepipe.core.packet import Packet
from threepipe.errors import InvalidPacket
from threepipe.ring import MIN_CAPACITY
from threepipe.testing import probes
from threepipe.testing.wire import Wire

__all__ = ["check_both_directions", "check_kinds_of_packets", "check_memory", "check_overflow", "check_validation"]


def check_both_directions(adapter: Adapter, wire: Wire) -> None:
    """Check that packets of both IP versions and all sizes arrive intact and in order, both ways."""
    sizes = [(20, 4), (40, 6), (21, 4), (41, 6), *((100 + 200 * step, 4 + 2 * (step % 2)) for step in range(8))]
    packets = [probes.packet(number, size, version) for number, (size, version) in enumerate(sizes)]
    with adapter.start_session() as session:
        assert wire.send(packets) == len(packets)
        assert probes.collect(session.receive, len(packets)) == packets, "received packets differ from those sent"
        assert session.send(packets) == len(packets)
        assert probes.collect(wire.receive, len(packets)) == packets, "sent packets arrived changed, or not at all"


def check_kinds_of_packets(adapter: Adapter, wire: Wire) -> None:
    """Check that `send` accepts a bundle, any iterable and any bytes-like packet, and refuses a single packet."""
    a, b, c = probes.packets(3)
    with adapter.start_session() as session:
        kinds: list[Packet] = [a, bytearray(b), memoryview(c)]
        assert session.send(iter(kinds)) == 3
        assert session.send(Bundle([a, b])) == 2
        assert session.send([]) == 0
        assert probes.collect(wire.receive, 5) == [a, b, c, a, b]
        probes.raises(TypeError, "send refuses a single packet", session.send, a)


def check_validation(adapter: Adapter, wire: Wire) -> None:
    """Check that `send` refuses a bundle with an invalid packet by its index, and that `drop_invalid` drops it."""
    good = probes.packet(1)
    bad = [
        b"",
        b"\x45",
        probes.packet(2)[:19],
        probes.packet(3, 60, 6)[:39],
        b"\x00" * 60,
        b"\x50" * 60,
        b"\x45" * 65536,
    ]
    with adapter.start_session() as session:
        for packet in bad:
            error = probes.raises(InvalidPacket, "send refuses an invalid packet", session.send, [good, packet, good])
            assert error.index == 1, "the index is not that of the invalid packet"
        assert session.statistics.sent_packets == 0
        assert session.send(Bundle([good, *bad, good]), None, drop_invalid=True) == 2
        assert session.statistics.sent_dropped == len(bad)
        assert probes.collect(wire.receive, 2) == [good, good]


def check_overflow(adapter: Adapter, wire: Wire) -> None:
    """Check that a full ring keeps the first packets in order, and that every dropped packet is counted."""
    packets = probes.packets(3000, 1000)
    with adapter.start_session(MIN_CAPACITY) as session:
        taken = wire.send(packets)
        received: list[bytes] = []
        while bundle := session.receive(timeout=0.3):
            received += probes.ours(bundle)
        assert len(received) < len(packets), "more packets were kept than fit the capacity"
        assert received == packets[: len(received)], "packets other than the newest were dropped"
        counted = len(received) + adapter.statistics.received_dropped
        assert taken <= counted, "a packet was lost and not counted"
        assert counted <= len(packets) + probes.NOISE, "more packets were counted as dropped than were"
        sent = session.send(packets)
        assert sent + session.statistics.sent_dropped == len(packets)


def check_memory(adapter: Adapter, wire: Wire) -> None:
    """Check that held packets stay unchanged while others arrive, and that released ones are unusable."""
    held: list[tuple[bytes, memoryview]] = []
    with adapter.start_session() as session:
        for number in range(400):
            wire.send([probes.packet(number, 1400)])
            bundle = session.receive(timeout=probes.SECONDS)
            if number % 3:
                held += [(bytes(packet), packet) for packet in bundle]
            else:
                first = bundle[0]
                bundle.release()
                probes.raises(ValueError, "a released packet cannot be read", bytes, first)
        assert all(copy == packet for copy, packet in held), "a held packet was overwritten"
