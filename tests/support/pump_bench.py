"""Benches for the forwarding loop: sockets in place of the kernel, and a thread that runs the loop."""

import io
import os
import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack

import pytest

from threepipe.core import fast
from threepipe.core.ends import TunEnd
from threepipe.core.superpacket import split
from threepipe.errors import ThreepipeError
from threepipe.net.doorbell import Doorbell
from threepipe.platforms.linux.port import LinuxPort, Records
from threepipe.platforms.linux.tun import Offload
from threepipe.pump import interrupt, pump
from threepipe.session import Session

__all__ = ["SECONDS", "Bench", "NativeBench", "Refusing", "fill", "native"]

SECONDS = 10.0

native = pytest.mark.skipif(fast.pump is None, reason="there is no native loop")


class Bench:
    """Two sessions; behind each the test holds a datagram socket, as the kernel is behind a TUN device."""

    def __init__(self, stack: ExitStack, vnet_header: bool = True, superpackets: bool = True) -> None:
        self.vnet_header = vnet_header
        self.sockets: list[socket.socket] = []
        self.files: list[io.FileIO] = []
        for _ in range(2):
            near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            near.settimeout(SECONDS)
            file = stack.enter_context(io.FileIO(far.detach(), "r+"))
            os.set_blocking(file.fileno(), False)
            self.sockets.append(stack.enter_context(near))
            self.files.append(file)
        self.sources = [[self.files[0]], [self.files[1]]]
        self.records: Records = fast
        self.superpackets = superpackets
        self.sessions: list[Session] = []
        self.failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run)
        stack.callback(self.stop)

    def start(self) -> None:
        self.start_sessions()
        self.start_loop()

    def start_sessions(self) -> None:
        offload = Offload.TCP_AND_UDP if self.vnet_header else Offload.NONE
        for file, sources in zip(self.files, self.sources, strict=True):
            port = LinuxPort(sources, file, "tp0", offload, lambda: None, self.records)
            if (end := port.lend()) is not None:
                assert isinstance(end, TunEnd)
                end.coalescing = self.superpackets and self.vnet_header
            self.sessions.append(Session(port))

    def start_loop(self) -> None:
        self._thread.start()

    def _run(self) -> None:
        try:
            pump(self.sessions[0], self.sessions[1])
        except (ThreepipeError, OSError) as error:
            self.failure = error

    def stop(self) -> None:
        for session in self.sessions:
            interrupt(session)
        self.join()
        for session in self.sessions:
            session.close()

    def join(self) -> BaseException | None:
        if self._thread.ident is not None:
            self._thread.join(SECONDS)
        assert not self._thread.is_alive()
        return self.failure

    @property
    def received(self) -> int:
        return self.sessions[0].statistics.received_packets

    @property
    def sent(self) -> int:
        return self.sessions[1].statistics.sent_packets

    @property
    def dropped(self) -> int:
        return self.sessions[1].statistics.sent_dropped

    def put(self, *records: bytes | memoryview) -> None:
        for data in records:
            self.sockets[0].send(data)

    def take(self) -> bytes:
        return self.sockets[1].recv(70_000)

    def take_packets(self, count: int) -> list[bytes]:
        """Take records that stand for `count` packets."""
        packets: list[bytes] = []
        while len(packets) < count:
            packets += map(bytes, split([memoryview(bytearray(self.take()))]))
        return packets


def fill(file: io.FileIO) -> None:
    """Write to a file until it has no room."""
    while file.write(bytes(20)) is not None:
        pass


class Refusing:
    """Records of descriptors whose writes fail as the test says."""

    def __init__(self, send: Callable[[io.FileIO, Sequence[memoryview]], tuple[int, int]]) -> None:
        self.receive = fast.receive
        self.send = send


class NativeBench:
    """The native loop on two ends; the right one sends to a file that refuses every write."""

    def __init__(
        self, stack: ExitStack, path: str, sources: Sequence[io.FileIO] | None = None, ready: Sequence[bytes] = ()
    ) -> None:
        """The records in `ready` are there before the loop starts, so that it receives them in one bundle."""
        self.socket, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        stack.enter_context(self.socket)
        file = stack.enter_context(io.FileIO(far.detach(), "r+"))
        os.set_blocking(file.fileno(), False)
        self.bell = Doorbell()
        stack.callback(self.bell.close)
        target = stack.enter_context(io.FileIO(path, "r+"))
        self.left = TunEnd([file] if sources is None else sources, file, ValueError, vnet_header=True, udp=True)
        self.right = TunEnd([], target, ValueError, vnet_header=True, udp=True)
        self.result: object = None
        for data in ready:
            self.socket.send(data)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        stack.callback(self.stop)

    def _run(self) -> None:
        assert fast.pump is not None
        self.result = fast.pump(self.left, self.right, [self.bell])

    def stop(self) -> object:
        self.bell.ring()
        return self.join()

    def join(self) -> object:
        self._thread.join(SECONDS)
        assert not self._thread.is_alive()
        return self.result
