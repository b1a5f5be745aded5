"""The forwarder on threepipe: its pump, a program that reads every packet, and the creation of an adapter."""

import asyncio
from collections.abc import Callable
from threading import Thread

from benchmarks.forwarders.common import LEFT, RIGHT, Flows, answer, count_flow, main, time_creation, wait_until_placed
from threepipe import Adapter, Bundle, Session
from threepipe.piping import pipe


def joined(pump: Callable[[Session, Session], None], left: str, right: str) -> None:
    with (
        Adapter.create(LEFT, netns=int(left)) as near,
        Adapter.create(RIGHT, netns=int(right)) as far,
        near.start_session() as a,
        far.start_session() as b,
    ):
        wait_until_placed()
        pump(a, b)


def look_both_ways(a: Session, b: Session) -> None:
    Thread(target=look, args=(b, a), daemon=True).start()
    look(a, b)


def look(source: Session, target: Session) -> None:
    flows: Flows = {}
    for bundle in source:
        with bundle:
            for packet in bundle:
                count_flow(packet, flows)
            target.send(bundle, None, drop_invalid=True)


def alone(program: Callable[[Session], object], left: str) -> None:
    with Adapter.create(LEFT, netns=int(left)) as adapter, adapter.start_session() as session:
        wait_until_placed()
        program(session)


def answer_packets(session: Session) -> None:
    while True:
        packet = session.receive_packet()
        if packet[0] >> 4 == 4:
            session.send_packet(answer(packet))


def answer_bundles(session: Session) -> None:
    for bundle in session:
        with bundle:
            swap_addresses(bundle)
            session.send(bundle, drop_invalid=True)


async def answer_with_asyncio(session: Session) -> None:
    async for bundle in session:
        with bundle:
            swap_addresses(bundle)
            await session.send_async(bundle, drop_invalid=True)


def swap_addresses(bundle: Bundle) -> None:
    for packet in bundle:
        if packet[0] >> 4 == 4:
            packet[12:20] = packet[16:20].tobytes() + packet[12:16].tobytes()


def create() -> None:
    with Adapter.create(LEFT, addresses=["10.98.0.1/24"]) as adapter, adapter.start_session():
        pass


if __name__ == "__main__":
    main(
        {
            "forward": lambda left, right: joined(pipe, left, right),
            "look": lambda left, right: joined(look_both_ways, left, right),
            "answer": lambda left, _: alone(answer_packets, left),
            "answer-bundles": lambda left, _: alone(answer_bundles, left),
            "answer-asyncio": lambda left, _: alone(lambda session: asyncio.run(answer_with_asyncio(session)), left),
            "create": lambda *_: time_creation(create),
        }
    )
