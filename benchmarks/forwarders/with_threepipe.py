"""The forwarder on threepipe: its pump, a program that reads every packet, and the creation of an adapter."""

from collections.abc import Callable
from threading import Thread

from benchmarks.forwarders.common import LEFT, RIGHT, Flows, count_flow, main, time_creation, wait_until_placed
from threepipe import Adapter, Session
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


def create() -> None:
    with Adapter.create(LEFT, addresses=["10.98.0.1/24"]) as adapter, adapter.start_session():
        pass


if __name__ == "__main__":
    main(
        {
            "forward": lambda left, right: joined(pipe, left, right),
            "look": lambda left, right: joined(look_both_ways, left, right),
            "create": lambda *_: time_creation(create),
        }
    )
