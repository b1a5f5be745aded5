"""A stand-in for a device at the far end of pymobiledevice3's tunnel: PATH MTU MIB.

It listens at a Unix socket, answers the handshake, and carries packets between the stream and an adapter. With MIB it
sends that much of packets that mean nothing once it has read a line, and ends.
"""

import json
import socket
import struct
import sys
import threading

import threepipe

HOST, DEVICE = "fd70::1", "fd70::2"
NO_NEXT_HEADER = 59
IPV6_HEADER = struct.Struct("!IHBB16s16s")
BUFFER = 1 << 18


def shake_hands(stream: socket.socket, mtu: int) -> None:
    size = int.from_bytes(stream.recv(10, socket.MSG_WAITALL)[8:], "big")
    stream.recv(size, socket.MSG_WAITALL)
    body = json.dumps({"clientParameters": {"address": HOST, "mtu": mtu}, "serverAddress": DEVICE}).encode()
    stream.sendall(b"CDTunnel" + len(body).to_bytes(2, "big") + body)


def flood(stream: socket.socket, mtu: int, size: int) -> None:
    ends = (socket.inet_pton(socket.AF_INET6, each) for each in (DEVICE, HOST))
    packet = IPV6_HEADER.pack(6 << 28, mtu - IPV6_HEADER.size, NO_NEXT_HEADER, 64, *ends)
    block = packet.ljust(mtu, b"\0") * (BUFFER // mtu)
    for _ in range(size // len(block)):
        stream.sendall(block)
    stream.shutdown(socket.SHUT_WR)
    stream.recv(1)


def send(session: threepipe.Session, stream: socket.socket) -> None:
    for bundle in session:
        with bundle:
            data = b"".join(bundle)
        stream.sendall(data)


def receive(stream: socket.socket, session: threepipe.Session) -> None:
    memory = bytearray(BUFFER)
    view, used = memoryview(memory), 0
    while received := stream.recv_into(view[used:]):
        used += received
        start, packets = 0, []
        while used - start >= IPV6_HEADER.size:
            end = start + IPV6_HEADER.size + int.from_bytes(view[start + 4 : start + 6], "big")
            if end > used:
                break
            packets.append(view[start:end])
            start = end
        session.send(packets, timeout=5)
        view[: used - start] = bytes(view[start:used])
        used -= start


path, mtu, mib = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
with socket.socket(socket.AF_UNIX) as listening:
    listening.bind(path)
    listening.listen()
    print("ready", flush=True)  # noqa: T201
    stream, _ = listening.accept()
shake_hands(stream, mtu)
if mib:
    sys.stdin.readline()  # Until the other end has read the answer.
    flood(stream, mtu, mib << 20)
else:
    with threepipe.Adapter.create("device", addresses=[f"{DEVICE}/64"], mtu=mtu) as adapter:
        session = adapter.start_session()
        threading.Thread(target=send, args=(session, stream), daemon=True).start()
        receive(stream, session)
