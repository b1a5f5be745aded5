"""Places of listeners on this machine, endpoints opened there, and numbered packets."""

import os
import random
import socket
import ssl
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path

import pytest
import trustme

import threepipe
from threepipe.echo import echo_reply, echo_request

SECONDS = 10.0
HAS_UNIX = hasattr(socket, "AF_UNIX")
KINDS = ["tcp", "unix", "tls"] if HAS_UNIX else ["tcp", "tls"]
unix = pytest.mark.skipif(not HAS_UNIX, reason="Python has no Unix sockets here")
posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such descriptors and files")

HTTP = b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n"

_ports = count(20_000)


def here() -> str:
    """Return a free HOST:PORT: on Linux, at a loopback address that only this process uses."""
    if sys.platform == "linux":
        number = os.getpid()
        return f"127.{number >> 16 & 0x7F}.{number >> 8 & 0xFF}.{number & 0xFF}:{next(_ports)}"
    with socket.create_server(("127.0.0.1", 0)) as free:
        return f"127.0.0.1:{free.getsockname()[1]}"


def packet(number: int, size: int = 100) -> bytes:
    return (b"\x45" + bytes(15) + number.to_bytes(4, "big")).ljust(size, b".")


def record(packet: bytes) -> bytes:
    return len(packet).to_bytes(2, "big") + packet


def junk(size: int) -> bytes:
    """Return bytes that begin with a record that is not an IP packet."""
    return record(b"\0" * 30) + random.Random(size).randbytes(size)


def gone(program: socket.socket) -> bool:
    """Return True if the listener closes this connection in time."""
    try:
        while program.recv(1 << 16):
            pass
    except ConnectionError:
        pass
    return True


class Place:
    """The place of a listener of one kind: its addresses for endpoints, and connections of a plain program."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind = kind
        self.folder = folder
        self.authority: trustme.CA | None = None
        place = str(folder / "socket") if kind == "unix" else here()
        self.calling, self.listening = f"{kind}:{place}", f"{kind}-listen:{place}"
        if kind == "tls":
            self.authority = authority = trustme.CA()
            authority.cert_pem.write_to_path(str(folder / "ca.pem"))
            host = place.partition(":")[0]
            for side in ("server", "client"):
                issue(authority, folder, side, host)
            self.listening += self.files("server")
            self.calling += self.files("client")
        self.host = place.partition(":")[0]
        self._address: str | tuple[str, int] = place
        if kind != "unix":
            host, _, port = place.partition(":")
            self._address = (host, int(port))

    def files(self, side: str, ca: str = "ca") -> str:
        folder = self.folder
        return f",cert={folder / side}.pem,key={folder / side}.key,ca={folder / ca}.pem"

    def connect_bare(self) -> socket.socket:
        """Connect without TLS."""
        connected = socket.socket(socket.AF_UNIX if self.kind == "unix" else socket.AF_INET)
        try:
            if self.kind != "unix":  # With a timeout, a Unix socket would fail at once while others wait for accept.
                connected.settimeout(SECONDS)
            connected.connect(self._address)
            connected.settimeout(SECONDS)
        except BaseException:
            connected.close()
            raise
        return connected

    def connect(self, side: str = "client") -> socket.socket:
        """Connect as a program that sends records itself."""
        connected = self.connect_bare()
        return self.secure(connected, side) if self.kind == "tls" else connected

    def secure(self, connected: socket.socket, side: str) -> ssl.SSLSocket:
        """Start TLS with the certificate of `side`, or with none if that is empty."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(self.folder / "ca.pem")
        if side:
            context.load_cert_chain(self.folder / f"{side}.pem", self.folder / f"{side}.key")
        try:
            return context.wrap_socket(connected, server_hostname=self._address[0])
        except BaseException:
            connected.close()
            raise


def issue(authority: trustme.CA, folder: Path, side: str, *names: str, common_name: str | None = None) -> None:
    """Write a certificate with these names and its key to files named for `side`."""
    issued = authority.issue_cert(*names, common_name=common_name)
    issued.private_key_pem.write_to_path(str(folder / f"{side}.key"))
    issued.cert_chain_pems[0].write_to_path(str(folder / f"{side}.pem"))


def opened(stack: ExitStack, address: str, *, once: bool = False) -> threepipe.Session:
    endpoint = threepipe.open_endpoint(address, once=once)
    stack.callback(endpoint.close)
    assert isinstance(endpoint, threepipe.Session)
    return endpoint


@contextmanager
def at_work(endpoint: threepipe.Endpoint) -> Iterator[None]:
    """Pipe `endpoint` to one that answers pings, in a thread that must end without error."""
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
    """Return a listener and its caller, after a packet each way."""
    listener = opened(stack, place.listening)
    with ThreadPoolExecutor(1) as executor:  # A TLS handshake needs both sides at once.
        calling = executor.submit(opened, stack, place.calling)
        while not calling.done():
            listener.receive(0.01)
        caller = calling.result()
    assert caller.send([packet(0)]) == 1
    assert received(listener, 1) == [packet(0)]
    assert listener.send([packet(1)]) == 1
    assert received(caller, 1) == [packet(1)]
    return listener, caller


def served(place: Place, number: int = 1) -> None:
    """Connect as an honest program, ask, get the answer and disconnect."""
    request = echo_request("10.1.1.1", "10.1.1.2", 1, number)
    with place.connect() as program, program.makefile("rb") as replies:
        program.sendall(record(request))
        assert replies.read(2 + len(request)) == record(echo_reply(request) or b"")
