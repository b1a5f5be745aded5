"""Probes: a datagram every millisecond, and the longest gap between those that arrive.

`receive ADDRESS PORT` prints a line once it listens. At the end of its input it waits for the last datagrams, and
prints a JSON object: how many came, the lowest and the highest number, and the milliseconds of the longest gap since
each line of its input. `send ADDRESS PORT` sends until the end of its input, and prints how many it sent.
"""

import json
import select
import socket
import struct
import sys
import time

INTERVAL = 0.001
PATIENCE = 1.0  # Seconds without a datagram after which none is on its way any more.
SO_RCVBUFFORCE = 33
NUMBER = struct.Struct("!Q")


def receive(address: tuple[str, int]) -> None:
    receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    receiver.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 1 << 24)
    receiver.bind(address)
    print("ready", flush=True)  # noqa: T201
    numbers: set[int] = set()
    gaps: list[float] = []
    last, ended = None, False
    while True:
        ready, _, _ = select.select([receiver] if ended else [receiver, sys.stdin], [], [], PATIENCE)
        now = time.monotonic()
        if sys.stdin in ready and not ended:
            ended = not sys.stdin.readline()
            gaps.append(0.0)
            last = None
        if receiver in ready:
            numbers.add(NUMBER.unpack(receiver.recv(64)[: NUMBER.size])[0])
            if last is not None and gaps and not ended:
                gaps[-1] = max(gaps[-1], now - last)
            last = now
        elif ended and not ready:
            break
    longest = [round(gap * 1000, 1) for gap in gaps[:-1]]
    print(json.dumps({"received": len(numbers), "numbers": [min(numbers), max(numbers)], "gaps": longest}))  # noqa: T201


def send(address: tuple[str, int]) -> None:
    sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sender.connect(address)
    number, at = 0, time.monotonic()
    while not select.select([sys.stdin], [], [], 0)[0]:
        sender.send(NUMBER.pack(number).ljust(64, b"\0"))
        number, at = number + 1, at + INTERVAL
        time.sleep(max(0.0, at - time.monotonic()))
    print(number)  # noqa: T201


{"receive": receive, "send": send}[sys.argv[1]]((sys.argv[2], int(sys.argv[3])))
