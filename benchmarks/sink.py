"""The receiver of `traffic.burst`: a socket with room for every datagram.

A program. It prints `bound`, and reads from a line how many datagrams were sent. Once these have arrived, or none has
for a second, it prints how many did.
"""

import socket
import sys

_PORT = 9  # That of flood.py.
_SO_RCVBUFFORCE = 33  # <asm-generic/socket.h>
_ROOM = 1 << 28  # Bytes.
_SILENCE_SECONDS = 1.0


def main() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _ROOM)
        sock.bind(("", _PORT))
        sock.settimeout(_SILENCE_SECONDS)
        _print("bound")
        sent, arrived = int(sys.stdin.readline()), 0
        try:
            while arrived < sent:
                sock.recv(1)
                arrived += 1
        except TimeoutError:
            pass
        _print(f"[{arrived}]")


def _print(line: str) -> None:
    print(line, flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
