"""Endpoints that are streams of records: tcp, unix and tls with honest peers."""

import asyncio
import select
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

import threepipe
from tests.support.endpoints import SECONDS, Place, at_work, joined, opened, packet, posix, received, record, unix
from threepipe.core.packet import MAX_PACKET
from threepipe.echo import echo_reply, echo_request


def test_packets_of_all_sizes_arrive_in_order_both_ways(stack: ExitStack, place: Place) -> None:
    ends = joined(stack, place)
    sizes = [20, 21, 1500, MAX_PACKET, 40, MAX_PACKET - 1, 9000] * 30
    packets = [packet(number, size) for number, size in enumerate(sizes)]
    for source, target in (ends, ends[::-1]):
        with ThreadPoolExecutor(1) as executor:
            sending = executor.submit(source.send, packets, None)
            assert received(target, len(packets)) == packets
            assert sending.result() == len(packets)


def test_a_record_is_a_16_bit_length_and_the_packet(stack: ExitStack, place: Place) -> None:
    with at_work(opened(stack, place.listening)), place.connect() as program, program.makefile("rb") as replies:
        request = echo_request("fd00::1", "fd00::2", 1, 2, b"x" * 500)
        program.sendall(b"\0\0" + record(request) + b"\0\0\0\0")
        assert replies.read(2 + len(request)) == record(echo_reply(request) or b"")


def test_statistics_count_packets_and_their_bytes_alone(stack: ExitStack, place: Place) -> None:
    listener, caller = joined(stack, place)
    assert caller.send([packet(2, 50), packet(3, 70)]) == 2
    received(listener, 2)
    assert caller.statistics[3:5] == (3, 220)
    assert listener.statistics[:2] == (3, 220)
    assert (listener.statistics.sent_packets, listener.statistics.sent_dropped) == (1, 0)


def test_receive_packet_keeps_the_other_packets(stack: ExitStack, place: Place) -> None:
    listener, caller = joined(stack, place)
    packets = [packet(number) for number in range(40)]
    assert caller.send(packets) == len(packets)
    assert [listener.receive_packet(SECONDS) for _ in packets] == packets
    assert listener.receive_packet(0) == b""


@posix
def test_the_descriptor_stays_readable_while_packets_are_left(stack: ExitStack, place: Place) -> None:
    listener, caller = joined(stack, place)
    packets = [packet(number) for number in range(5)]
    assert caller.send(packets) == len(packets)
    for expected in packets:
        assert select.select([listener], [], [], SECONDS)[0]
        assert listener.receive_packet(0) == expected
    assert not select.select([listener], [], [], 0)[0]


def test_large_packets_arrive_while_earlier_bundles_are_held(stack: ExitStack, place: Place) -> None:
    listener, caller = joined(stack, place)
    held = []
    for number in range(60):
        packets = [packet(number, 50_000 + 977 * (number % 16)), packet(number, 60)]
        with ThreadPoolExecutor(1) as executor:
            sending = executor.submit(caller.send, packets, None)
            count = 0
            while count < 2 and (bundle := listener.receive(SECONDS)):
                held.append(bundle)
                count += len(bundle)
            assert count == 2
            assert sending.result() == 2
    assert [len(each) for bundle in held for each in bundle][1::2] == [60] * 60


def test_asyncio_sends_and_receives_all_packets(stack: ExitStack, place: Place) -> None:
    listener, caller = joined(stack, place)
    packets = [packet(number, 1400) for number in range(3000)]

    async def receive() -> list[bytes]:
        found: list[bytes] = []
        while len(found) < len(packets):
            found += map(bytes, await listener.receive_async())
        return found

    async def both() -> tuple[int, list[bytes]]:
        return await asyncio.wait_for(asyncio.gather(caller.send_async(packets), receive()), SECONDS)

    assert tuple(asyncio.run(both())) == (len(packets), packets)


def test_close_wakes_a_waiting_task(stack: ExitStack, place: Place) -> None:
    listener, _ = joined(stack, place)

    async def run() -> None:
        waiting = asyncio.create_task(listener.receive_async())
        await asyncio.sleep(0)
        await asyncio.to_thread(listener.close)
        with pytest.raises(threepipe.SessionClosed):
            await asyncio.wait_for(waiting, SECONDS)

    asyncio.run(run())


@pytest.mark.parametrize("ask", [lambda session: session.receive(), lambda session: endless(session)])
def test_close_wakes_a_waiting_receive_or_send(
    stack: ExitStack, place: Place, ask: Callable[[threepipe.Session], None]
) -> None:
    listener, _ = joined(stack, place)
    with ThreadPoolExecutor(1) as executor:
        waiting = executor.submit(ask, listener)
        while not waiting.running():
            pass
        listener.close()
        with pytest.raises(threepipe.SessionClosed):
            waiting.result(SECONDS)


def endless(session: threepipe.Session) -> None:
    """Send without end, more than there is room for."""
    while True:
        session.send([packet(0, 1400)] * 100, None)


@unix
def test_pipe_joins_two_streams(stack: ExitStack, tmp_path: Path) -> None:
    places = [Place("unix", tmp_path), Place("tcp", tmp_path)]
    ends = [opened(stack, place.listening) for place in places]
    thread = threading.Thread(target=threepipe.pipe, args=ends)
    thread.start()
    stack.callback(thread.join)
    stack.callback(ends[0].close)
    programs = [opened(stack, place.calling) for place in places]
    packets: Sequence[bytes] = [packet(number, 1400) for number in range(2000)]
    for program in programs:
        program.send(
            [packet(0)]
        )  # A caller counts once it has sent a packet; the first packet may arrive before the other caller counts.
    for program in programs:
        program.receive(0.2)
    for source, target in (programs, programs[::-1]):
        with ThreadPoolExecutor(1) as executor:
            sending = executor.submit(source.send, packets, None)
            found = received(target, len(packets))
            assert [each for each in found if each != packet(0)][: len(packets)] == packets
            assert sending.result() == len(packets)
