"""The short way of Linux' port for single packets, and who splits superpackets in pure Python.

A pair of sockets stands for the TUN device.
"""

import errno
import io
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import pytest

if sys.platform != "linux":
    pytest.skip("the port is Linux'", allow_module_level=True)

from tests.support.frames import TCP4, UDP4, frame, ip, naive_split, opened, record, superpacket, tcp
from tests.support.sessions import in_thread, readable
from threepipe import AdapterGone, LinkDown, Session, SessionClosed
from threepipe.bundle import Bundle
from threepipe.core import descriptor, fast
from threepipe.core.sender import PacketSender
from threepipe.core.superpacket import PLAIN_HEADER
from threepipe.platforms.linux import splitting
from threepipe.platforms.linux.port import LinuxPort, Records
from threepipe.platforms.linux.splitting import Splitting
from threepipe.platforms.linux.tun import Offload
from threepipe.session import SessionStatistics

SECONDS = 10.0
PACKET, LONG_PACKET = frame(UDP4, b"payload"), frame(UDP4, bytes(3000))


class Device:
    """A session, and the network behind it."""

    def __init__(self, file: io.FileIO, network: socket.socket, offload: Offload, records: Records) -> None:
        self.file, self.network = file, network
        self.switched: list[bool] = []
        self.port = LinuxPort([file], file, "tp0", offload, lambda: None, records, switch=self.switched.append)
        self.session = Session(self.port)


@contextmanager
def device(offload: Offload = Offload.TCP_AND_UDP, records: Records = fast) -> Iterator[Device]:
    near, network = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    near.setblocking(False)
    network.settimeout(SECONDS)
    with io.FileIO(near.detach(), "r+") as file, network:
        made = Device(file, network, offload, records)
        with made.session:
            yield made


class Failing:
    """Records of descriptors whose writes end with an error."""

    def __init__(self, error: int = 0) -> None:
        self.error = error

    def receive(self, file: io.FileIO, memory: memoryview, limit: int) -> list[memoryview]:
        return descriptor.receive(file, memory, limit)

    def send(self, file: io.FileIO, records: Sequence[memoryview]) -> tuple[int, int]:
        return (0, self.error) if self.error else descriptor.send(file, records)


@pytest.fixture(params=["native", "python"])
def core(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a test with the native core's sender, if there is one, and with Python's."""
    if request.param == "python":
        monkeypatch.setattr(fast, "PacketSender", PacketSender)
    elif not fast.NATIVE:
        pytest.skip("there is no native core")


@pytest.fixture
def python(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the port work as without a native core."""
    monkeypatch.setattr(fast, "NATIVE", False)
    monkeypatch.setattr(fast, "PacketSender", PacketSender)


@pytest.mark.usefixtures("core")
@pytest.mark.parametrize(
    ("offload", "before"), [(Offload.TUNNELS, bytes(24)), (Offload.TCP, PLAIN_HEADER), (Offload.NONE, b"")]
)
def test_send_packet_writes_one_record(offload: Offload, before: bytes) -> None:
    with device(offload) as made:
        for kind in (bytes, bytearray, memoryview):
            for packet in (PACKET, LONG_PACKET):
                assert made.session.send_packet(kind(packet))
                assert made.network.recv(70_000) == before + packet
        size = len(PACKET) + len(LONG_PACKET)
        assert made.session.statistics == SessionStatistics(0, 0, 0, 6, 3 * size, 6)


@pytest.mark.usefixtures("core")
def test_send_packet_without_room_returns_false() -> None:
    with device() as made:
        while made.session.send_packet(PACKET):
            pass
        counts = made.session.statistics
        assert counts.sent_packets > 0
        assert counts.sent_dropped == 1
        for _ in range(counts.sent_packets):
            assert made.network.recv(70_000) == PLAIN_HEADER + PACKET


@pytest.mark.usefixtures("core")
def test_send_packet_raises_the_error_of_the_system() -> None:
    with device() as made:
        made.network.close()
        with pytest.raises(OSError, match="Broken pipe"):
            made.session.send_packet(PACKET)
        assert made.session.statistics == SessionStatistics(sent_dropped=1)


@pytest.mark.usefixtures("core")
def test_nothing_is_sent_after_the_end_of_the_session() -> None:
    with device() as made:
        made.session.close()
        assert made.port.sender is not None
        assert not made.port.sender.send(PACKET)
        assert made.port.sender.sent == (0, 0)
        with pytest.raises(SessionClosed):
            made.session.send_packet(PACKET)
        made.network.setblocking(False)
        with pytest.raises(BlockingIOError):
            made.network.recv(70_000)


@pytest.mark.usefixtures("core")
def test_a_sender_refuses_what_it_cannot_send() -> None:
    with device() as made:
        sender = made.port.sender
        assert sender is not None
        for wrong in (b"", b"\x45", b"\0" * 60, memoryview(PACKET + b"\0" * (-len(PACKET) % 4)).cast("I")):
            assert not sender.send(wrong)
        assert not sender.send("text")  # type: ignore[arg-type]
        assert sender.sent == (0, 0)


@pytest.mark.usefixtures("core")
def test_a_sender_counts_the_packets_of_several_threads() -> None:
    def send() -> None:
        for _ in range(each):
            assert made.session.send_packet(PACKET, SECONDS)

    each = 500
    with device() as made:
        threads = [in_thread(send) for _ in range(4)]
        for _ in range(4 * each):
            assert made.network.recv(70_000) == PLAIN_HEADER + PACKET
        for thread in threads:
            thread.result(SECONDS)
        assert made.session.statistics.sent_packets == 4 * each
        assert made.session.statistics.sent_bytes == 4 * each * len(PACKET)


@pytest.mark.parametrize(
    ("error", "raised"), [(errno.EIO, LinkDown), (errno.EBADFD, AdapterGone), (errno.ENOBUFS, None), (0, None)]
)
def test_send_packet_to_other_kinds_of_records(error: int, raised: type[Exception] | None) -> None:
    with device(Offload.TCP, Failing(error)) as made:
        if raised is None:
            assert made.session.send_packet(PACKET) is (error == 0)
        else:
            with pytest.raises(raised):
                made.session.send_packet(PACKET)


def test_receive_packet_from_other_kinds_of_records() -> None:
    with device(Offload.TCP, Failing()) as made:
        made.network.send(record(PACKET))
        made.network.send(record(PACKET))
        assert [made.session.receive_packet(SECONDS) for _ in range(2)] == [PACKET, PACKET]


def test_a_session_in_which_packets_wait_is_readable_and_no_more_writable() -> None:
    with device(Offload.NONE) as made:
        while made.file.write(PACKET):
            pass
        for _ in range(3):
            made.network.send(PACKET)
        for waiting in (2, 1, 0):
            assert made.session.receive_packet(SECONDS)
            assert readable(made.session) is (waiting > 0)
            assert not readable(made.port.writable)
        made.network.send(PACKET)
        assert readable(made.session)


def test_the_port_uses_a_sender_until_the_session_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    class Sender:
        def __init__(self, file: io.FileIO, vnet_header: bool, wide: bool) -> None:
            self.stopped = False
            self.sent = 0, 0

        def send(self, packet: bytes) -> bool:
            self.sent = 1, len(packet)
            return packet == PACKET

        def stop(self) -> None:
            self.stopped = True

    monkeypatch.setattr(fast, "PacketSender", Sender)
    with device() as made:
        sender = made.port.sender
        assert isinstance(sender, Sender)
        assert made.session.send_packet(PACKET)
        assert made.session.statistics == SessionStatistics(0, 0, 0, 1, len(PACKET), 1)
        assert not sender.stopped
    assert sender.stopped


LOOKS: dict[str, Callable[[Device], object]] = {
    "iterate": lambda made: list(made.session.receive(SECONDS)),
    "index": lambda made: made.session.receive(SECONDS)[0],
    "one at a time": lambda made: [made.session.receive_packet(SECONDS) for _ in range(3)],
}


@pytest.mark.parametrize("look", LOOKS)
def test_the_kernel_splits_for_a_program_that_looks_at_packets(python: None, look: str) -> None:
    with device() as made:
        for number in range(splitting._ENOUGH):
            assert made.switched == []
            made.network.send(superpacket(TCP4, ip(TCP4, tcp(b"abcdef")), 2))
            LOOKS[look](made)
            assert len(made.switched) == (number == splitting._ENOUGH - 1)
        assert made.switched == [False]
    assert made.switched == [False, True], "the next session begins with superpackets"


@pytest.mark.parametrize("use", ["pass on", "lend"])
def test_superpackets_come_again_when_packets_are_only_passed_on(python: None, use: str) -> None:
    with device() as made:
        for _ in range(splitting._ENOUGH):
            made.network.send(record(PACKET))
            list(made.session.receive(SECONDS))
        assert made.switched == [False]
        if use == "lend":
            made.port.lend()
        for _ in range(splitting._ENOUGH + 1 if use == "pass on" else 0):
            made.network.send(record(PACKET))
            made.session.send(made.session.receive(SECONDS))
            assert made.network.recv(70_000) == PLAIN_HEADER + PACKET
        assert made.switched == [False, True]


def test_a_program_that_looks_now_and_then_keeps_superpackets(python: None) -> None:
    with device() as made:
        for number in range(20 * splitting._ENOUGH):
            made.network.send(record(PACKET))
            bundle = made.session.receive(SECONDS)
            if number % (splitting._ENOUGH + 2) == 0:
                list(bundle)
        assert made.switched == []


def test_packets_looked_at_are_sent_as_they_are(python: None) -> None:
    whole = superpacket(TCP4, ip(TCP4, tcp(b"abcdef")), 2)
    segments = naive_split(bytes(whole))
    with device() as made:
        made.network.send(whole)
        bundle = made.session.receive(SECONDS)
        assert list(bundle) == segments
        assert made.session.send(bundle) == len(segments)
        assert [made.network.recv(70_000) for _ in segments] == [PLAIN_HEADER + segment for segment in segments]


@pytest.mark.parametrize("second", ["plain", "open checksum"])
def test_packets_looked_at_are_sent_as_the_program_changed_them(python: None, second: str) -> None:
    other = {"plain": record(PACKET), "open checksum": record(opened(PACKET, 20, UDP4), flags=1, start=20, field=6)}
    with device() as made:
        made.network.send(record(PACKET))
        made.network.send(other[second])
        bundle = made.session.receive(SECONDS)
        for packet in bundle:
            packet[-1] = 0xFF
        assert made.session.send(bundle) == 2
        assert [made.network.recv(70_000) for _ in range(2)] == [PLAIN_HEADER + PACKET[:-1] + b"\xff"] * 2


def test_without_superpackets_there_is_nothing_to_switch(python: None) -> None:
    with device(Offload.NONE) as made:
        for _ in range(2 * splitting._ENOUGH):
            made.network.send(PACKET)
            list(made.session.receive(SECONDS))
    assert made.switched == []


def test_an_adapter_that_is_gone_is_left_to_the_next_call() -> None:
    tried: list[bool] = []

    def gone(on: bool) -> None:
        tried.append(on)
        raise AdapterGone(errno.EBADFD, "gone")

    follower = Splitting(gone)
    for _ in range(2 * splitting._ENOUGH):
        follower.looked()
    follower.begin()
    assert tried == [False, True]


def test_copies_of_a_bundle_of_records_leave_it_whole() -> None:
    whole = superpacket(TCP4, ip(TCP4, tcp(b"abcdef")), 2)
    bundle = Bundle.of_records([whole, memoryview(bytearray(record(PACKET)))])
    assert bundle.copies() == [*naive_split(bytes(whole)), PACKET]
    assert bundle.records is not None
    assert Bundle([PACKET]).copies() == [PACKET]
