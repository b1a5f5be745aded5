"""Endpoints that are streams of records: tcp, unix, tls, exec and stdio, honest ends only."""

import asyncio
import logging
import os
import re
import select
import socket
import ssl
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from typing import cast

import pytest
import trustme
from cryptography.hazmat.primitives import serialization

import threepipe
from tests.support.commands import CAT, python
from threepipe.core.packet import MAX_PACKET
from threepipe.echo import echo_reply, echo_request

SECONDS = 10.0
HAS_UNIX = hasattr(socket, "AF_UNIX")
KINDS = ["tcp", "unix", "tls"] if HAS_UNIX else ["tcp", "tls"]
unix = pytest.mark.skipif(not HAS_UNIX, reason="Python has no Unix sockets here")
posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such descriptors and files")

_ports = count(20_000)


def here() -> str:
    """A HOST:PORT that nobody else listens at: on Linux, at an address of this process alone."""
    if sys.platform == "linux":
        number = os.getpid()
        return f"127.{number >> 16 & 0x7F}.{number >> 8 & 0xFF}.{number & 0xFF}:{next(_ports)}"
    with socket.create_server(("127.0.0.1", 0)) as free:
        return f"127.0.0.1:{free.getsockname()[1]}"


def packet(number: int, size: int = 100) -> bytes:
    return (b"\x45" + bytes(15) + number.to_bytes(4, "big")).ljust(size, b".")


def record(packet: bytes) -> bytes:
    return len(packet).to_bytes(2, "big") + packet


class Place:
    """Where a listener of one kind is, how endpoints say so, and how a plain program gets there."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind = kind
        self._folder = folder
        place = str(folder / "socket") if kind == "unix" else here()
        self.calling, self.listening = f"{kind}:{place}", f"{kind}-listen:{place}"
        if kind == "tls":
            authority = trustme.CA()
            authority.cert_pem.write_to_path(str(folder / "ca.pem"))
            host = place.partition(":")[0]
            for side in ("server", "client"):
                issue(authority, folder, side, host)
            self.listening += self.files("server")
            self.calling += self.files("client")
        self._address: str | tuple[str, int] = place
        if kind != "unix":
            host, _, port = place.partition(":")
            self._address = (host, int(port))

    def files(self, side: str, ca: str = "ca") -> str:
        folder = self._folder
        return f",cert={folder / side}.pem,key={folder / side}.key,ca={folder / ca}.pem"

    def connect_bare(self) -> socket.socket:
        """A connection without TLS."""
        connected = socket.socket(socket.AF_UNIX if self.kind == "unix" else socket.AF_INET)
        try:
            if self.kind != "unix":  # Which else does not wait while there are others to be accepted.
                connected.settimeout(SECONDS)
            connected.connect(self._address)
            connected.settimeout(SECONDS)
        except BaseException:
            connected.close()
            raise
        return connected

    def connect(self, side: str = "client") -> socket.socket:
        """A connection of a program that speaks records itself."""
        connected = self.connect_bare()
        return self.secure(connected, side) if self.kind == "tls" else connected

    def secure(self, connected: socket.socket, side: str) -> ssl.SSLSocket:
        """TLS with the certificate of `side`; with none where that is empty."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(self._folder / "ca.pem")
        if side:
            context.load_cert_chain(self._folder / f"{side}.pem", self._folder / f"{side}.key")
        try:
            return context.wrap_socket(connected, server_hostname=self._address[0])
        except BaseException:
            connected.close()
            raise


def issue(authority: trustme.CA, folder: Path, side: str, host: str) -> None:
    """A certificate for `host`, and its key, in files named for `side`."""
    issued = authority.issue_cert(host)
    issued.private_key_pem.write_to_path(str(folder / f"{side}.key"))
    issued.cert_chain_pems[0].write_to_path(str(folder / f"{side}.pem"))


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    return Place(request.param, tmp_path)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


def opened(stack: ExitStack, address: str, *, once: bool = False) -> threepipe.Session:
    endpoint = threepipe.open_endpoint(address, once=once)
    stack.callback(endpoint.close)
    assert isinstance(endpoint, threepipe.Session)
    return endpoint


@contextmanager
def at_work(endpoint: threepipe.Endpoint) -> Iterator[None]:
    """Pipe `endpoint` to one that answers pings, in a thread; it has to end without complaint."""
    with ThreadPoolExecutor(1) as executor:
        ended = executor.submit(threepipe.pipe, endpoint, threepipe.open_endpoint("echo"))
        try:
            yield
        finally:
            endpoint.close()
            ended.result(SECONDS)


def received(session: threepipe.Session, many: int) -> list[bytes]:
    found: list[bytes] = []
    while len(found) < many and (bundle := session.receive(SECONDS)):
        found += map(bytes, bundle)
    return found


def joined(stack: ExitStack, place: Place) -> tuple[threepipe.Session, threepipe.Session]:
    """A listener and its caller, each of which has had a packet of the other."""
    listener = opened(stack, place.listening)
    with ThreadPoolExecutor(1) as executor:  # TLS takes two to be joined.
        calling = executor.submit(opened, stack, place.calling)
        while not calling.done():
            listener.receive(0.01)
        caller = calling.result()
    assert caller.send([packet(0)]) == 1
    assert received(listener, 1) == [packet(0)]
    assert listener.send([packet(1)]) == 1
    assert received(caller, 1) == [packet(1)]
    return listener, caller


def test_packets_of_every_size_go_both_ways_in_order(stack: ExitStack, place: Place) -> None:
    ends = joined(stack, place)
    sizes = [20, 21, 1500, MAX_PACKET, 40, MAX_PACKET - 1, 9000] * 30
    packets = [packet(number, size) for number, size in enumerate(sizes)]
    for source, target in (ends, ends[::-1]):
        with ThreadPoolExecutor(1) as executor:
            sending = executor.submit(source.send, packets, None)
            assert received(target, len(packets)) == packets
            assert sending.result() == len(packets)


def test_the_record_is_a_length_of_16_bits_and_the_packet(stack: ExitStack, place: Place) -> None:
    with at_work(opened(stack, place.listening)), place.connect() as program, program.makefile("rb") as replies:
        request = echo_request("fd00::1", "fd00::2", 1, 2, b"x" * 500)
        program.sendall(b"\0\0" + record(request) + b"\0\0\0\0")
        assert replies.read(2 + len(request)) == record(echo_reply(request) or b"")


def test_statistics_count_packets_and_their_bytes_without_the_lengths(stack: ExitStack, place: Place) -> None:
    listener, caller = joined(stack, place)
    assert caller.send([packet(2, 50), packet(3, 70)]) == 2
    received(listener, 2)
    assert caller.statistics[3:5] == (3, 220)
    assert listener.statistics[:2] == (3, 220)
    assert (listener.statistics.sent_packets, listener.statistics.sent_dropped) == (1, 0)


def test_one_packet_may_be_asked_for_while_more_are_there(stack: ExitStack, place: Place) -> None:
    listener, caller = joined(stack, place)
    packets = [packet(number) for number in range(40)]
    assert caller.send(packets) == len(packets)
    assert [listener.receive_packet(SECONDS) for _ in packets] == packets
    assert listener.receive_packet(0) == b""


@posix
def test_the_descriptor_stays_readable_while_packets_are_left(stack: ExitStack, place: Place) -> None:
    listener, caller = joined(stack, place)
    packets = [packet(number) for number in range(5)]
    assert caller.send(packets) == len(packets)
    for expected in packets:
        assert select.select([listener], [], [], SECONDS)[0]
        assert listener.receive_packet(0) == expected
    assert not select.select([listener], [], [], 0)[0]


def test_large_packets_are_given_out_as_they_come_while_earlier_ones_are_held(stack: ExitStack, place: Place) -> None:
    listener, caller = joined(stack, place)
    held = []
    for number in range(60):
        packets = [packet(number, 50_000 + 977 * (number % 16)), packet(number, 60)]
        with ThreadPoolExecutor(1) as executor:
            sending = executor.submit(caller.send, packets, None)
            count = 0
            while count < 2 and (bundle := listener.receive(SECONDS)):
                held.append(bundle)
                count += len(bundle)
            assert count == 2
            assert sending.result() == 2
    assert [len(each) for bundle in held for each in bundle][1::2] == [60] * 60


def test_asyncio_receives_and_sends(stack: ExitStack, place: Place) -> None:
    listener, caller = joined(stack, place)
    packets = [packet(number, 1400) for number in range(3000)]

    async def receive() -> list[bytes]:
        found: list[bytes] = []
        while len(found) < len(packets):
            found += map(bytes, await listener.receive_async())
        return found

    async def both() -> tuple[int, list[bytes]]:
        return await asyncio.wait_for(asyncio.gather(caller.send_async(packets), receive()), SECONDS)

    assert tuple(asyncio.run(both())) == (len(packets), packets)


def test_an_asyncio_waiter_is_woken_by_closing(stack: ExitStack, place: Place) -> None:
    listener, _ = joined(stack, place)

    async def run() -> None:
        waiting = asyncio.create_task(listener.receive_async())
        await asyncio.sleep(0)
        await asyncio.to_thread(listener.close)
        with pytest.raises(threepipe.SessionClosed):
            await asyncio.wait_for(waiting, SECONDS)

    asyncio.run(run())


@pytest.mark.parametrize("ask", [lambda session: session.receive(), lambda session: endless(session)])
def test_closing_wakes_who_waits(stack: ExitStack, place: Place, ask: Callable[[threepipe.Session], None]) -> None:
    listener, _ = joined(stack, place)
    with ThreadPoolExecutor(1) as executor:
        waiting = executor.submit(ask, listener)
        while not waiting.running():
            pass
        listener.close()
        with pytest.raises(threepipe.SessionClosed):
            waiting.result(SECONDS)


def endless(session: threepipe.Session) -> None:
    """Send more than there is room for."""
    while True:
        session.send([packet(0, 1400)] * 100, None)


def test_nobody_at_the_other_end_is_a_link_that_is_down(stack: ExitStack, place: Place) -> None:
    listener = opened(stack, place.listening)
    with pytest.raises(threepipe.LinkDown, match="no client is connected"):
        listener.send([packet(0)])
    assert listener.statistics.sent_dropped == 1
    assert not listener.receive(0)


def test_the_next_caller_is_taken_when_one_has_left(stack: ExitStack, place: Place) -> None:
    with at_work(opened(stack, place.listening)):
        for number in range(5):
            served(place, number)


def served(place: Place, number: int = 1) -> None:
    """An honest program connects, asks, is answered and leaves."""
    request = echo_request("10.1.1.1", "10.1.1.2", 1, number)
    with place.connect() as program, program.makefile("rb") as replies:
        program.sendall(record(request))
        assert replies.read(2 + len(request)) == record(echo_reply(request) or b"")


@pytest.mark.parametrize("how", ["reuse=off", "once"])
def test_it_may_end_with_its_first_caller(stack: ExitStack, place: Place, how: str) -> None:
    once = how == "once"
    listener = opened(stack, place.listening + ("" if once else f",{how}"), once=once)
    with ThreadPoolExecutor(1) as executor:
        ended = executor.submit(threepipe.pipe, listener, opened(stack, "echo"))
        served(place)
        assert ended.result(SECONDS) is None
    assert listener.closed
    with pytest.raises(OSError):  # noqa: PT011
        place.connect_bare().close()


def test_who_only_knocked_is_not_the_one_caller(stack: ExitStack, tmp_path: Path) -> None:
    place = Place("tcp", tmp_path)
    listener = opened(stack, place.listening, once=True)
    with ThreadPoolExecutor(1) as executor:
        ended = executor.submit(threepipe.pipe, listener, opened(stack, "echo"))
        place.connect().close()
        served(place)
        ended.result(SECONDS)


def test_a_caller_is_told_the_end_by_its_name(stack: ExitStack, place: Place) -> None:
    listener, caller = joined(stack, place)
    caller_name = place.calling.partition(":")[2].partition(",")[0]
    listener.close()
    with pytest.raises(threepipe.EndpointEnded, match=f"{caller_name} disconnected"):
        caller.receive(SECONDS)
    with pytest.raises(threepipe.EndpointEnded):  # And again, for whoever asks.
        caller.receive(SECONDS)


@unix
def test_who_has_said_all_can_still_be_answered(stack: ExitStack, tmp_path: Path) -> None:
    path = tmp_path / "half"
    listener = stack.enter_context(threepipe.open_endpoint(f"unix-listen:{path}", once=True))
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as program:
        program.connect(str(path))
        program.sendall(record(packet(0)))
        program.shutdown(socket.SHUT_WR)
        assert received(listener, 1) == [packet(0)]
        with pytest.raises(threepipe.EndpointEnded):
            listener.receive(SECONDS)
        assert listener.send([packet(1)]) == 1
        assert program.recv(1000) == record(packet(1))


def test_what_was_sent_before_the_end_is_received_before_it(stack: ExitStack, place: Place) -> None:
    listener, caller = joined(stack, place)
    packets = [packet(number) for number in range(10)]
    assert listener.send(packets) == 10
    listener.close()
    assert received(caller, 10) == packets
    with pytest.raises(threepipe.EndpointEnded):
        caller.receive(SECONDS)


def test_a_second_caller_is_turned_away_while_the_first_is_served(
    stack: ExitStack, place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    with at_work(opened(stack, place.listening)):
        with place.connect() as first, first.makefile("rb") as replies:
            for number in range(2):
                request = echo_request("10.1.1.1", "10.1.1.2", 1, number)
                first.sendall(record(request))
                assert replies.read(2 + len(request)) == record(echo_reply(request) or b"")
                if not number:
                    with place.connect_bare() as second:
                        assert second.recv(1) == b""
        served(place)
    assert "was refused: another client is connected" in caplog.text


def test_who_waits_for_packets_gets_the_first_ones(stack: ExitStack, place: Place) -> None:
    listener = opened(stack, place.listening)
    with ThreadPoolExecutor(1) as executor:
        calling = executor.submit(opened, stack, place.calling)
        while True:
            listener.receive(0.01)
            try:
                assert listener.send([packet(7)]) == 1
                break
            except threepipe.LinkDown:
                pass
        assert received(calling.result(), 1) == [packet(7)]


def test_comings_and_goings_are_told(stack: ExitStack, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    place = Place("tcp", tmp_path)
    with caplog.at_level(logging.INFO, "threepipe.endpoints"):
        listener, caller = joined(stack, place)
        caller.close()
        assert not listener.receive(0.5)
    lines = [line.getMessage() for line in caplog.records if line.getMessage().startswith(place.listening)]
    assert [line.split()[-1] for line in lines] == ["connected", "disconnected"]
    assert "127." in lines[0]


# Where they are.


def test_nobody_listens() -> None:
    with pytest.raises(threepipe.EndpointError, match="start the listener there first") as refused:
        threepipe.open_endpoint(f"tcp:{here()}")
    assert isinstance(refused.value, OSError)
    if HAS_UNIX:
        with pytest.raises(threepipe.EndpointError, match="start the listener there first"):
            threepipe.open_endpoint("unix:/nonexistent/socket")


def test_a_place_that_is_taken_is_said(stack: ExitStack, place: Place) -> None:
    opened(stack, place.listening)
    with pytest.raises(threepipe.EndpointError, match="another program uses it"):
        threepipe.open_endpoint(place.listening)


def test_an_address_of_another_machine_cannot_be_listened_at() -> None:
    with pytest.raises(threepipe.EndpointError, match="choose an address of this machine"):
        threepipe.open_endpoint("tcp-listen:192.0.2.1:4242")


def test_a_name_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(threepipe.EndpointError, match="check the spelling of the host name"):
        threepipe.open_endpoint("tcp:no-such-host.invalid:4242")


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "localhost"])
def test_plaintext_on_this_machine_is_no_matter(host: str, stack: ExitStack, caplog: pytest.LogCaptureFixture) -> None:
    opened(stack, f"tcp-listen:{host}:0")
    assert not caplog.records


@pytest.mark.parametrize(
    "address", ["tcp-listen:0.0.0.0:0", "tcp-listen:[::]:0", "udp-listen:0.0.0.0:0", "udp:192.0.2.1:9"]
)
def test_plaintext_beyond_this_machine_is_warned_of_once(
    address: str, stack: ExitStack, caplog: pytest.LogCaptureFixture
) -> None:
    try:
        opened(stack, address)
    except threepipe.EndpointError:
        pass  # A machine without a network; the warning comes first.
    (line,) = caplog.records
    assert line.getMessage().startswith(address)
    assert "use tls and tls-listen, or exec with ssh" in line.getMessage()


def test_a_listener_without_a_host_is_at_the_loopback_address(stack: ExitStack) -> None:
    port = 0
    while not port:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
    listener = opened(stack, f"tcp-listen:{port}")
    with socket.create_connection(("127.0.0.1", port), SECONDS) as program:
        program.sendall(record(packet(1)))
        assert received(listener, 1) == [packet(1)]
        assert program.getpeername()[0] == "127.0.0.1"


# Unix sockets.


@unix
def test_a_unix_socket_is_for_its_user_alone_and_goes_with_the_listener(stack: ExitStack, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    before = os.umask(0)
    try:
        listener = opened(stack, f"unix-listen:{path}")
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    listener.close()
    assert not path.exists()


@unix
def test_a_unix_socket_that_was_left_behind_is_replaced(stack: ExitStack, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as gone:
        gone.bind(str(path))
        gone.listen()
    opened(stack, f"unix-listen:{path}")
    opened(stack, f"unix:{path}")


@unix
@pytest.mark.parametrize("make", [lambda path: path.write_text("mine"), lambda path: path.mkdir()])
def test_what_else_is_at_the_path_is_left_alone(tmp_path: Path, make: Callable[[Path], None]) -> None:
    path = tmp_path / "socket"
    make(path)
    with pytest.raises(threepipe.EndpointError, match="another program uses it; choose another port or path"):
        threepipe.open_endpoint(f"unix-listen:{path}")
    assert path.exists()


@unix
def test_a_socket_that_took_its_place_is_not_removed(stack: ExitStack, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    listener = opened(stack, f"unix-listen:{path}")
    path.unlink()
    opened(stack, f"unix-listen:{path}")
    listener.close()
    assert path.exists()


@unix
def test_a_path_that_cannot_be(tmp_path: Path) -> None:
    for path in (tmp_path / "no" / "folder", tmp_path / ("x" * 200)):
        with pytest.raises(threepipe.EndpointError, match=str(path)):
            threepipe.open_endpoint(f"unix-listen:{path}")


# TLS.


@pytest.fixture
def secure(tmp_path: Path) -> Place:
    return Place("tls", tmp_path)


def test_only_tls_1_3_is_spoken(stack: ExitStack, secure: Place) -> None:
    with at_work(opened(stack, secure.listening)), secure.connect() as program:
        assert cast(ssl.SSLSocket, program).version() == "TLSv1.3"


def test_a_caller_looks_at_the_name_in_the_certificate(stack: ExitStack, secure: Place) -> None:
    with at_work(opened(stack, secure.listening)):
        with pytest.raises(threepipe.EndpointError, match=r"certificate is not valid for 'vpn\.example\.org'"):
            threepipe.open_endpoint(secure.calling + ",name=vpn.example.org")
        served(secure)


def test_a_caller_does_not_trust_another_authority(stack: ExitStack, secure: Place, tmp_path: Path) -> None:
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "other.pem"))
    calling = secure.calling.partition(",")[0] + secure.files("client", "other")
    with at_work(opened(stack, secure.listening)):
        with pytest.raises(threepipe.EndpointError, match="CERTIFICATE_VERIFY_FAILED"):
            threepipe.open_endpoint(calling)
        served(secure)


@pytest.mark.parametrize("left_out", ["cert", "key", "ca"])
def test_tls_wants_all_its_files(secure: Place, left_out: str) -> None:
    for address in (secure.listening, secure.calling):
        parts = [part for part in address.split(",") if not part.startswith(f"{left_out}=")]
        with pytest.raises(threepipe.InvalidSetting, match=r"tls.* needs cert=FILE, key=FILE, ca=FILE"):
            threepipe.open_endpoint(",".join(parts))


def test_files_that_are_no_pair_or_missing_are_named(secure: Place, tmp_path: Path) -> None:
    key = tmp_path / "server.key"
    key.write_text((tmp_path / "client.key").read_text())
    with pytest.raises(
        threepipe.EndpointError, match=f"{re.escape(str(key))}.*KEY_VALUES_MISMATCH.*PEM files of a matching pair"
    ):
        threepipe.open_endpoint(secure.listening)
    key.write_text("nonsense")
    with pytest.raises(threepipe.EndpointError, match="PEM files of a matching pair"):
        threepipe.open_endpoint(secure.listening)
    key.unlink()
    with pytest.raises(threepipe.EndpointError, match="cannot be read: No such file"):
        threepipe.open_endpoint(secure.listening)


def test_an_encrypted_key_is_refused_without_asking(secure: Place, tmp_path: Path) -> None:
    key = tmp_path / "server.key"
    secret = serialization.BestAvailableEncryption(b"secret")
    form = serialization.PrivateFormat.TraditionalOpenSSL
    plain = serialization.load_pem_private_key(key.read_bytes(), None)
    key.write_bytes(plain.private_bytes(serialization.Encoding.PEM, form, secret))
    with pytest.raises(threepipe.InvalidSetting, match="the key is encrypted"):
        threepipe.open_endpoint(secure.listening)


# Programs.


def test_a_program_gets_and_gives_records(stack: ExitStack) -> None:
    session = opened(stack, f"exec:{CAT}")
    packets = [packet(number, size) for number, size in enumerate([20, 1500, MAX_PACKET] * 50)]
    with ThreadPoolExecutor(1) as executor:
        sending = executor.submit(session.send, packets, None)
        assert received(session, len(packets)) == packets
        assert sending.result() == len(packets)


def test_a_program_that_ends_is_the_end(stack: ExitStack) -> None:
    session = opened(stack, f"exec:{python('')}")
    with pytest.raises(threepipe.EndpointEnded, match="the command disconnected"):
        session.receive(SECONDS)


def test_a_program_that_ends_in_a_record_is_a_fault(stack: ExitStack) -> None:
    session = opened(stack, f"exec:{python('print(1, end=str())')}")
    with pytest.raises(threepipe.EndpointError, match="the command ended in the middle of a record"):
        session.receive(SECONDS)


def test_the_status_of_a_program_is_told(stack: ExitStack) -> None:
    session = opened(stack, f"exec:{python('exit(7)')}")
    with pytest.raises(threepipe.EndpointError, match="the command ended with status 7"):
        session.receive(SECONDS)


def test_no_shell_reads_the_command(stack: ExitStack, tmp_path: Path) -> None:
    session = opened(stack, f"exec:{python('print(1, end=str())')}; touch {tmp_path}/made")
    with pytest.raises(threepipe.EndpointError, match="ended in the middle of a record"):
        session.receive(SECONDS)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("command", "error", "text"),
    [
        (
            "/nonexistent/program",
            threepipe.EndpointError,
            "starting /nonexistent/program: .*check that it is",
        ),
        pytest.param("/etc/passwd", threepipe.EndpointError, "make it executable", marks=posix),
        ('"unclosed', threepipe.InvalidSetting, "No closing quotation"),
        (" ", threepipe.InvalidSetting, "exec needs a command"),
    ],
)
def test_a_program_that_cannot_be_started(command: str, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        threepipe.open_endpoint(f"exec:{command}")


STDIO = """
import threepipe
threepipe.pipe(threepipe.open_endpoint("-"), threepipe.open_endpoint("echo"))
"""


def test_standard_input_and_output_carry_records() -> None:
    requests = [echo_request("10.1.1.1", "10.1.1.2", 1, number) for number in range(100)]
    command = [sys.executable, "-W", "error", "-c", STDIO]
    sent = b"".join(map(record, requests))
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdin.write(sent)
        process.stdin.flush()
        assert process.stdout.read(len(sent)) == b"".join(record(echo_reply(request) or b"") for request in requests)
        process.stdin.close()
        assert process.stderr.read() == b""
        assert process.stdout.read() == b""
    assert process.returncode == 0


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such terminals")
def test_a_terminal_is_refused() -> None:
    controller, terminal = os.openpty()
    try:
        done = subprocess.run([sys.executable, "-c", STDIO], stdin=terminal, capture_output=True, text=True)
    finally:
        os.close(controller)
        os.close(terminal)
    assert "standard input is a terminal, which cannot show packets" in done.stderr


@posix
def test_standard_descriptors_that_are_one_block_again_at_the_end() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(SECONDS)
        with subprocess.Popen([sys.executable, "-c", STDIO], stdin=theirs.fileno(), stdout=theirs.fileno()) as process:
            request = echo_request("10.1.1.1", "10.1.1.2", 1, 1)
            ours.sendall(record(request))
            assert ours.recv(1 << 16) == record(echo_reply(request) or b"")
            assert not os.get_blocking(theirs.fileno())
            ours.shutdown(socket.SHUT_WR)
            assert process.wait(SECONDS) == 0
        assert os.get_blocking(theirs.fileno())


@unix
def test_the_pump_joins_two_streams(stack: ExitStack, tmp_path: Path) -> None:
    places = [Place("unix", tmp_path), Place("tcp", tmp_path)]
    ends = [opened(stack, place.listening) for place in places]
    thread = threading.Thread(target=threepipe.pipe, args=ends)
    thread.start()
    stack.callback(thread.join)
    stack.callback(ends[0].close)
    programs = [opened(stack, place.calling) for place in places]
    packets: Sequence[bytes] = [packet(number, 1400) for number in range(2000)]
    for program in programs:
        program.send([packet(0)])  # Each is known once it has sent a packet; the first may come before the other is.
    for program in programs:
        program.receive(0.2)
    for source, target in (programs, programs[::-1]):
        with ThreadPoolExecutor(1) as executor:
            sending = executor.submit(source.send, packets, None)
            found = received(target, len(packets))
            assert [each for each in found if each != packet(0)][: len(packets)] == packets
            assert sending.result() == len(packets)
