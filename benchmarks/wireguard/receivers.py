"""Many peers of one WireGuard device that have keys and receive, and a sender that sends to all of them in turn.

A program. It reads a line with the device's public key, its port, the peers' private keys and their addresses in the
tunnel, prints `met` when each peer has confirmed its keys, reads how many seconds to send, and prints how long it
sent. It reads no datagram that arrives: a filter of each socket rejects all, and the kernel counts them as errors.
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

from benchmarks.traffic import PAYLOAD
from benchmarks.wireguard.initiators import Initiator

_DISCARD_PORT = 9
_OTHER_DESCRIPTORS = 100
_PACKETS_PER_LOOK_AT_CLOCK = 100
_SO_ATTACH_FILTER = 26  # <asm-generic/socket.h>
_REJECT_ALL = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))
"""A filter of one instruction: BPF_RET of no bytes (<linux/filter.h>)."""


def main() -> None:
    task = json.loads(sys.stdin.readline())
    device, keys = b64decode(task["device"]), task["peers"]
    descriptors = len(keys) + _OTHER_DESCRIPTORS
    resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors))
    with ExitStack() as stack:
        for number, key in enumerate(keys, 1):
            peer = Initiator(number, b64decode(key), device, task["port"])
            stack.enter_context(peer.socket)
            if not peer.shake_hands():
                raise SystemExit("a handshake was not answered")
            peer.confirm()
            _reject_all(peer.socket)
        _print("met")
        seconds = float(sys.stdin.readline())
        sender = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        data, targets = bytes(PAYLOAD), itertools.cycle([(address, _DISCARD_PORT) for address in task["addresses"]])
        start = time.perf_counter()
        while time.perf_counter() - start < seconds:
            for target in itertools.islice(targets, _PACKETS_PER_LOOK_AT_CLOCK):
                sender.sendto(data, target)
        _print(f"[{time.perf_counter() - start}]")


def _reject_all(sock: socket.socket) -> None:
    # The kernel counts a datagram that waits in a socket only when it is read.
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HP", 1, ctypes.addressof(_REJECT_ALL)))


def _print(line: str) -> None:
    print(line, flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
