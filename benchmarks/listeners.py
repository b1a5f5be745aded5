"""Many peers of one WireGuard device, who have shaken hands with it and listen; and who sends to all of them in turn.

A program: reads a line with the device's public key, its port, the peers' private keys and their addresses in the
tunnel, prints `met` when each has shown that it has its keys, and reads how many seconds to send. Prints how long it
took. Nobody reads what arrives: each socket has a filter that lets nothing pass, which the kernel counts as errors.
"""

import ctypes
import itertools
import json
import resource
import socket
import struct
import sys
import time
from base64 import b64decode
from contextlib import ExitStack

from benchmarks.initiators import Initiator
from benchmarks.traffic import DATAGRAM

_DISCARD = 9
_SPARE = 100
"""Descriptors for all but the peers' sockets."""
_AT_ONCE = 100
_SO_ATTACH_FILTER = 26  # <asm-generic/socket.h>
_NOTHING = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))
"""A filter of one instruction, BPF_RET, of no bytes (<linux/filter.h>)."""


def main() -> None:
    given = json.loads(sys.stdin.readline())
    device, keys = b64decode(given["device"]), given["peers"]
    most = len(keys) + _SPARE
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with ExitStack() as stack:
        for number, key in enumerate(keys, 1):
            peer = Initiator(number, b64decode(key), device, given["port"])
            stack.enter_context(peer.socket)
            if not peer.shake_hands():
                raise SystemExit("a handshake was not answered")
            peer.confirm()
            _let_nothing_pass(peer.socket)
        _say("met")
        seconds = float(sys.stdin.readline())
        sender = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        data, targets = bytes(DATAGRAM), itertools.cycle([(address, _DISCARD) for address in given["addresses"]])
        start = time.perf_counter()
        while time.perf_counter() - start < seconds:
            for target in itertools.islice(targets, _AT_ONCE):
                sender.sendto(data, target)
        _say(f"[{time.perf_counter() - start}]")


def _let_nothing_pass(sock: socket.socket) -> None:
    # What waits in a socket to be read is not counted before it is.
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HP", 1, ctypes.addressof(_NOTHING)))


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
