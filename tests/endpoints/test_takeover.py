"""Takeover of a pipe in one process: its ends, filters and errors. tests/linux has processes and adapters."""

import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.support.assemblies import plan
from tests.support.endpoints import SECONDS, Place, here, packet, record
from tests.support.pipe_takeovers import NAME, go_on, run
from tests.support.waiting import come_true

if sys.platform != "linux":
    pytest.skip(f"{sys.platform} has no takeover", allow_module_level=True)

from threepipe import EndpointError, InvalidSetting, pump
from threepipe.assembly import Assembly, Plan
from threepipe.endpoints import takeover
from threepipe.endpoints.address import parse_address
from threepipe.endpoints.takeover import Taking, check_can_be_taken
from threepipe.filters.impairment import parse_impairment
from threepipe.takeover import giving

pytestmark = pytest.mark.usefixtures("loop")


class Peer:
    """A program with a UDP socket at one end of a pipe."""

    def __init__(self) -> None:
        self.place = here()
        host, _, port = self.place.partition(":")
        self.address = host, int(port)
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.settimeout(SECONDS)

    def bind(self) -> "Peer":
        self.socket.bind(self.address)
        return self

    def receive(self, count: int) -> list[bytes]:
        return [self.socket.recv(2000) for _ in range(count)]

    def is_silent(self) -> bool:
        self.socket.setblocking(False)
        try:
            self.socket.recv(2000)
        except BlockingIOError:
            return True
        return False


@pytest.fixture
def near() -> Iterator[Peer]:
    """Return a program that sends to the pipe's listening end."""
    peer = Peer()
    with peer.socket:
        yield peer


@pytest.fixture
def far() -> Iterator[Peer]:
    """Return a program that the pipe sends to."""
    peer = Peer().bind()
    with peer.socket:
        yield peer


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    return [tmp_path / f"run{number}" for number in range(3)]


def stream(place: Place, far: Peer, **settings: object) -> Plan:
    return plan(place.listening, f"udp:{far.place}", **settings)


@pytest.fixture(params=["tcp", "unix"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    return Place(request.param, tmp_path)


def read(client: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size and (more := client.recv(size - len(data))):
        data += more
    return data


def send_until_full(far: Peer, source: Any, pipe: Assembly) -> bytes:
    """Send packets to the pipe until it has no room for more at its left end. Return their records."""
    records, sent = b"", -1

    def moves() -> bool:
        return pipe.left.statistics.sent_packets > sent

    while come_true(moves, 0.5):
        sent = pipe.left.statistics.sent_packets
        for number in range(50):
            far.socket.sendto(packet(number, 1400), source)
            records += record(packet(number, 1400))
    return records


FILTERS: list[dict[str, object]] = [
    {},
    {"mtu_clamp": 1400},
    {"impairments": [parse_impairment("delay=1ms")]},
]


@pytest.mark.parametrize("filters", FILTERS, ids=["direct", "clamp", "impairment"])
def test_datagrams_pass_both_ways_after_each_takeover(
    near: Peer, far: Peer, folders: list[Path], stack: ExitStack, filters: dict[str, object]
) -> None:
    pipe = plan(f"udp-listen:{near.place}", f"udp:{far.place}", **filters)
    first, second, third = folders
    pipes = [run(pipe, first), go_on(pipe, first, second), go_on(pipe, second, third)]
    sources: list[Any] = []
    for number, started in enumerate(pipes):
        stack.enter_context(started)
        if number:
            far.socket.sendto(packet(100 + number), sources[0])  # The pipe knows the sender from before.
            assert near.receive(1) == [packet(100 + number)]
        near.socket.sendto(packet(number), near.address)
        data, source = far.socket.recvfrom(2000)
        assert data == packet(number)
        sources.append(source)
    assert len(set(sources)) == 1


def test_an_impairment_has_sent_what_it_delays_before_the_takeover(near: Peer, far: Peer, folders: list[Path]) -> None:
    pipe = plan(f"udp-listen:{near.place}", f"udp:{far.place}", impairments=[parse_impairment("delay=200ms")])
    with run(pipe, folders[0]) as old:
        near.socket.sendto(packet(1), near.address)
        assert come_true(lambda: old.delayed() == 1)
        with go_on(pipe, folders[0]) as new:
            assert far.receive(1) == [packet(1)]
            assert (old.delayed(), new.delayed()) == (0, 0)
            near.socket.sendto(packet(2), near.address)
            assert far.receive(1) == [packet(2)]


def test_the_parts_of_a_record_before_and_after_a_takeover_are_one_packet(
    place: Place, far: Peer, folders: list[Path]
) -> None:
    pipe = stream(place, far)
    with run(pipe, folders[0]), place.connect() as client:
        data = record(packet(1)) + record(packet(2))
        client.sendall(data[:150])  # The first packet, and a half of the second.
        assert far.receive(1) == [packet(1)]
        with go_on(pipe, folders[0]):
            client.sendall(data[150:])
            data, source = far.socket.recvfrom(2000)
            assert data == packet(2)
            far.socket.sendto(packet(3), source)
            assert read(client, 102) == record(packet(3))


def test_records_that_wait_for_room_are_written_by_the_new_process_in_order(
    place: Place, far: Peer, folders: list[Path]
) -> None:
    pipe = stream(place, far)
    with run(pipe, folders[0]) as old, place.connect() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 18)
        client.sendall(record(packet(0)))
        _, source = far.socket.recvfrom(2000)
        expected = send_until_full(far, source, old)
        with go_on(pipe, folders[0]):
            assert read(client, len(expected)) == expected


def test_a_client_that_waits_for_its_turn_gets_it_after_the_takeover(
    place: Place, far: Peer, folders: list[Path]
) -> None:
    pipe = stream(place, far)
    with run(pipe, folders[0]), place.connect(), place.connect() as second:
        second.sendall(b"\0")  # A half of a length: it has to stay pending.
        with go_on(pipe, folders[0]):
            second.sendall(record(packet(7))[1:])
            assert far.receive(1) == [packet(7)]


@pytest.mark.parametrize("options", ["", ",forever,interval=0.1"])
def test_a_connection_that_the_pipe_made_goes_on(place: Place, far: Peer, folders: list[Path], options: str) -> None:
    with listening(place) as listener, ExitStack() as stack:
        pipe = plan(place.calling + options, f"udp:{far.place}")
        stack.enter_context(run(pipe, folders[0]))
        server = stack.enter_context(listener.accept()[0])
        server.sendall(record(packet(1)))
        assert far.receive(1) == [packet(1)]
        stack.enter_context(go_on(pipe, folders[0]))
        server.sendall(record(packet(2)))
        assert far.receive(1) == [packet(2)]


def test_a_connection_that_could_not_be_made_is_made_by_the_new_process(
    place: Place, far: Peer, folders: list[Path]
) -> None:
    pipe = plan(f"{place.calling},forever,interval=0.1", f"udp:{far.place}")
    with run(pipe, folders[0]), go_on(pipe, folders[0]), listening(place) as listener, listener.accept()[0] as server:
        server.sendall(record(packet(2)))
        assert far.receive(1) == [packet(2)]


def listening(place: Place) -> socket.socket:
    _, _, address = place.calling.partition(":")
    if place.kind == "unix":
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(address)
        listener.listen()
    else:
        host, _, port = address.partition(":")
        listener = socket.create_server((host, int(port)))
    listener.settimeout(SECONDS)
    return listener


def test_the_file_of_a_listener_is_removed_by_the_process_that_has_it_last(
    far: Peer, folders: list[Path], tmp_path: Path
) -> None:
    place = Place("unix", tmp_path)
    file, pipe = tmp_path / "socket", stream(place, far)
    with run(pipe, folders[0]) as old:
        with Taking(NAME, folders[0]) as taking:
            taking.ask(pipe.left, pipe.right)
            taken = taking.take()
            assert taken["left"].state["connected"] is False
        assert file.exists()
        with go_on(pipe, folders[0]):
            assert come_true(lambda: old.left.statistics is not None)
            assert file.exists()
        assert not file.exists()


@pytest.mark.parametrize("end", ["leaves", "hangs", "fails"])
def test_the_old_process_goes_on_without_a_loss_if_the_new_one_does_not_finish(
    place: Place, far: Peer, folders: list[Path], monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    pipe = stream(place, far)
    with run(pipe, folders[0]), place.connect() as client:
        data = record(packet(1)) + record(packet(2)) + record(packet(3))
        client.sendall(data[:150])
        assert far.receive(1) == [packet(1)]
        if end == "fails":
            monkeypatch.setattr(takeover, "wait_until_idle", fails_at_new())
            with pytest.raises(EndpointError, match="no packets pass here"), go_on(pipe, folders[0]):
                pass
        else:
            monkeypatch.setattr(giving, "SECONDS_TO_BEGIN", 0.1)
            with Taking(NAME, folders[0]) as taking:
                taking.ask(pipe.left, pipe.right)
                taking.take()
                client.sendall(data[150:204])
                if end == "hangs":
                    assert far.receive(1) == [packet(2)]
        client.sendall(data[204:] if end != "fails" else data[150:])
        assert far.receive(1 if end == "hangs" else 2)[-1] == packet(3)


def fails_at_new() -> Callable[..., bool]:
    """Return a `wait_until_idle` that fails in the new process, which calls it after the old one has done so twice."""
    wait, calls = pump.wait_until_idle, []

    def replacement(*arguments: Any) -> bool:
        calls.append(arguments)
        return len(calls) <= 2 and wait(*arguments)

    return replacement


def test_the_old_process_goes_on_with_new_connections_if_the_new_one_ends_later(
    place: Place, far: Peer, folders: list[Path], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise EndpointError(None, "it ends here")

    pipe = stream(place, far)
    with run(pipe, folders[0]):
        with place.connect() as client:
            client.sendall(record(packet(1)) + record(packet(2))[:-1])
            assert far.receive(1) == [packet(1)]
            monkeypatch.setattr(Taking, "confirm", fail)
            with pytest.raises(EndpointError, match="it ends here"), go_on(pipe, folders[0]):
                pass
            client.settimeout(SECONDS)
            assert client.recv(1) == b""
        with place.connect() as client:
            client.sendall(record(packet(2)))
            assert far.receive(1) == [packet(2)]
    assert "the new process has ended, so this one goes on" in caplog.text


def test_a_takeover_is_refused_while_a_program_does_not_read(
    place: Place, far: Peer, folders: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(takeover, "SECONDS_TO_BEGIN", 0.1)
    pipe = stream(place, far, mtu_clamp=1400)
    with run(pipe, folders[0]) as old, place.connect() as client:
        client.sendall(record(packet(0)))
        _, source = far.socket.recvfrom(2000)
        expected = send_until_full(far, source, old)
        with pytest.raises(EndpointError, match="packets are still delayed, or wait for room"), go_on(pipe, folders[0]):
            pass
        assert read(client, len(expected)) == expected


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("tls:a:1,cert=c,key=k,ca=a", "the keys of its connection stay in its process"),
        ("exec:cat", "its program is a child of its process"),
        ("stdio", "its standard input and output belong to its process"),
        ("fd:3", "its descriptor is from the program that started it"),
        ("pcap:file", "its place in the file stays in its process"),
        ("wg:wg0", "its keys stay in its process; use threepipe wg up"),
        ("tun:t,netns=new", "its new namespace ends with its process"),
        ("tun:t,default-route=1", "the routing rules of default-route are its process's to remove"),
    ],
)
def test_an_end_that_stays_in_its_process_is_refused_by_name(address: str, reason: str) -> None:
    with pytest.raises(InvalidSetting, match=f"{address.split(',')[0]}.* cannot be taken over: {reason}"):
        check_can_be_taken(parse_address(address))


def test_only_the_pipe_with_the_same_addresses_is_taken_over(
    near: Peer, far: Peer, folders: list[Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    left, right = f"udp-listen:{near.place}", f"udp:{far.place}"
    file = str(tmp_path / "pipe.pcapng")
    with run(plan(left, right, capture=file), folders[0]):
        with pytest.raises(InvalidSetting, match=f"has other addresses; give it the same: '{left}' '{right}'"):
            go_on(plan(left, left), folders[0]).__enter__()
        with pytest.raises(InvalidSetting, match=f"still writes to {file}; capture to another file"):
            go_on(plan(left, right, capture=file), folders[0]).__enter__()
        monkeypatch.setattr(takeover, "VERSION", 2)
        with pytest.raises(EndpointError, match="has version 1 of the takeover, and the new process 2; end it, and"):
            go_on(plan(left, right), folders[0]).__enter__()
        near.socket.sendto(packet(1), near.address)
        assert far.receive(1) == [packet(1)]


def test_a_pipe_that_is_not_there_or_not_handed_over_is_told_apart(folders: list[Path], far: Peer) -> None:
    with pytest.raises(EndpointError, match="this user runs no pipe pipe:1; threepipe ps lists them"):
        Taking("pipe:1", folders[0])
    with run(plan("echo", f"udp:{far.place}"), folders[0]):
        (folders[0] / f"{NAME.removeprefix('pipe:')}.takeover").unlink()
        with pytest.raises(EndpointError, match="has an end or a command that only its process can have"):
            Taking(NAME.removeprefix("pipe:"), folders[0])
