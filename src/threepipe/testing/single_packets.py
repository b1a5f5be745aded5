"""The checks of single packets, one a call."""

import asyncio
import threading

from threepipe.adapter import Adapter
from threepipe.core.packet import Packet
from threepipe.errors import InvalidPacket, SessionClosed
from threepipe.testing import probes
from threepipe.testing.wire import Wire

__all__ = ["check_one_packet_asyncio", "check_one_packet_calls", "check_one_packet_threads"]


def check_one_packet_calls(adapter: Adapter, wire: Wire) -> None:
    """Check that `send_packet` and `receive_packet` move one packet and lose none behind it, and mix with bundles."""
    packets = probes.packets(9)
    with adapter.start_session() as session:

        def receive_one(left: float) -> list[bytes]:
            packet = session.receive_packet(left)
            return [packet] if packet else []

        wire.send(packets[:6])
        assert probes.collect(receive_one, 3) == packets[:3]
        assert probes.collect(session.receive, 3) == packets[3:6], "a bundle does not begin where single packets ended"
        wire.send(packets[6:])
        assert probes.collect(receive_one, 3) == packets[6:]
        counts = session.statistics
        assert 9 <= counts.received_packets <= 9 + probes.NOISE
        assert counts.received_bytes >= 900
        kinds: list[Packet] = [packets[0], bytearray(packets[1]), memoryview(packets[2])]
        for packet in kinds:
            assert session.send_packet(packet)
        assert probes.collect(wire.receive, 3) == packets[:3]
        counts = session.statistics
        assert (counts.sent_packets, counts.sent_bytes, counts.sent_bundles) == (3, 300, 3)
        probes.raises(InvalidPacket, "send_packet refuses an invalid packet", session.send_packet, b"\x45")
    probes.raises(SessionClosed, "a closed session does nothing", session.send_packet, packets[0])


def check_one_packet_threads(adapter: Adapter, wire: Wire) -> None:
    """Check that each packet goes to one of several threads that wait for one, and that closing wakes the others."""
    packets = probes.packets(60)
    session = adapter.start_session()
    found: list[bytes] = []
    complete = threading.Event()

    def receive() -> None:
        try:
            while True:
                found.extend(probes.ours([session.receive_packet()]))
                if len(found) == len(packets):
                    complete.set()
        except SessionClosed:
            return

    threads = [threading.Thread(target=receive, daemon=True) for _ in range(3)]
    for thread in threads:
        thread.start()
    wire.send(packets)
    complete.wait(probes.SECONDS)
    session.close()
    for thread in threads:
        thread.join(probes.SECONDS)
        assert not thread.is_alive(), "close did not wake a thread that waited for a packet"
    assert sorted(found) == packets, "packets were lost, or went to several threads"


async def _use_packets(adapter: Adapter, wire: Wire) -> None:
    packets = probes.packets(20)
    with adapter.start_session() as session:
        waiting = asyncio.create_task(session.receive_packet_async())
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        wire.send(packets)
        received: list[bytes] = []
        while len(received) < len(packets):
            received += probes.ours([await session.receive_packet_async()])
        assert received == packets, "packets were lost or reordered by a cancelled receive"
        for packet in packets:
            await session.send_packet_async(packet)
        assert probes.collect(wire.receive, len(packets)) == packets
        waiting = asyncio.create_task(session.receive_packet_async())
        await asyncio.sleep(0)
        await asyncio.to_thread(session.close)
        while not isinstance((await asyncio.gather(waiting, return_exceptions=True))[0], SessionClosed):
            waiting = asyncio.create_task(session.receive_packet_async())


def check_one_packet_asyncio(adapter: Adapter, wire: Wire) -> None:
    """Check that single packets work in an event loop: waiting, sending, cancelling, closing."""
    asyncio.run(asyncio.wait_for(_use_packets(adapter, wire), probes.SECONDS))
