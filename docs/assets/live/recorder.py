"""A recorder of the packets that the live page's program writes to its rings and reads from them."""

import json
from itertools import islice

from threepipe import packet
from threepipe.ring import HEAD, TAIL, RingReader, RingWriter

MOST = 400  # Packets and steps that are shown.
steps: list[dict[str, object]] = []
rings: list[object] = []
waiting: dict[int, list[str]] = {}


def note(end: RingReader | RingWriter, kind: str, packets: list[str]) -> None:
    """Add a step, with head and tail as they are now."""
    buffer = end._bytes.obj
    number = next((number for number, known in enumerate(rings) if known is buffer), len(rings))
    if number == len(rings):
        rings.append(buffer)
    head, tail = end._words[HEAD], end._words[TAIL]
    queue = waiting.setdefault(number, [])
    if kind == "write":
        queue.extend(packets)
    else:
        packets = queue[: len(packets)]
        del queue[: len(packets)]
    if packets and len(steps) < MOST:
        steps.append(
            {"ring": number, "kind": kind, "packets": packets, "head": head, "tail": tail, "capacity": end.capacity}
        )


def described(data: bytes | memoryview) -> str:
    """Return a line about a packet."""
    return f"{packet.flow(data) or 'not an IP packet'}, {len(data)} bytes"


def write(self, packets, original=RingWriter.write):
    packets = list(packets)
    accepted = original(self, packets)
    note(self, "write", [described(each) for each in islice(packets, accepted)])
    return accepted


def read(self, target, limit, original=RingReader.read):
    sizes = original(self, target, limit)
    note(self, "read", [""] * len(sizes))
    return sizes


def take() -> str:
    """Return the steps as JSON, and forget them."""
    text = json.dumps(steps)
    steps.clear()
    rings.clear()
    waiting.clear()
    return text


RingWriter.write, RingReader.read = write, read
