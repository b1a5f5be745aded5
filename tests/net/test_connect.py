"""Sockets for names with several addresses."""

import errno
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

import threepipe
from tests.support.endpoints import SECONDS, opened, packet
from threepipe.net.connect import HostPort, connect, open_towards

BROADCAST = "255.255.255.255"
"""An address that no socket may use without saying so, so that connecting to it fails on every machine."""

NAMES = {
    "both.test": ["::1", "127.0.0.1"],
    "four.test": ["127.0.0.1"],
    "second.test": [BROADCAST, "127.0.0.1"],
    "none.test": [BROADCAST, BROADCAST],
}


@pytest.fixture(autouse=True)
def names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Resolve the names of `NAMES` in place of the system."""
    resolve = socket.getaddrinfo

    def resolved(host: str, *arguments: Any, **settings: Any) -> list[Any]:
        return [entry for each in NAMES.get(host, [host]) for entry in resolve(each, *arguments, **settings)]

    monkeypatch.setattr(socket, "getaddrinfo", resolved)


@pytest.fixture
def peer() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as bound:
        bound.bind(("127.0.0.1", 0))
        bound.settimeout(SECONDS)
        yield bound


@pytest.mark.parametrize("address", ["udp:both.test:{},bind=127.0.0.1:0", "udp:second.test:{}"])
def test_a_caller_uses_the_address_that_it_can_reach(peer: socket.socket, address: str) -> None:
    with ExitStack() as stack:
        caller = opened(stack, address.format(peer.getsockname()[1]))
        assert caller.send([packet(1)]) == 1
        assert peer.recv(1000) == packet(1)


@pytest.mark.parametrize(("local", "remote"), [("127.0.0.1", "127.0.0.1"), ("::1", "::1"), ("both.test", "::1")])
def test_the_address_has_the_ip_version_of_the_local_one(local: str, remote: str) -> None:
    towards, address = open_towards(HostPort("both.test", 4242), HostPort(local, 0))
    with towards:
        assert address[:2] == (remote, 4242)
        assert towards.getsockname()[0] == remote


def test_a_local_address_of_the_other_ip_version_is_explained() -> None:
    with pytest.raises(threepipe.EndpointError, match="no address of the same IP version") as raised:
        open_towards(HostPort("four.test", 4242), HostPort("::1", 0))
    assert raised.value.errno == errno.EAFNOSUPPORT


def test_a_name_without_an_address_to_reach_raises_the_first_error() -> None:
    with pytest.raises(threepipe.EndpointError, match=r"sending to none\.test:4242: .*not a broadcast") as raised:
        open_towards(HostPort("none.test", 4242))
    assert raised.value.errno == errno.EACCES


@pytest.mark.skipif(sys.platform == "win32", reason="Wine, unlike Windows, binds to addresses of other machines")
def test_a_local_address_of_another_machine_is_explained() -> None:
    with pytest.raises(threepipe.EndpointError, match="choose an address of this machine") as raised:
        open_towards(HostPort("127.0.0.1", 4242), HostPort("192.0.2.1", 0))
    assert raised.value.errno == errno.EADDRNOTAVAIL


def test_a_taken_local_port_is_explained(peer: socket.socket) -> None:
    with pytest.raises(threepipe.EndpointError, match="another program uses it"):
        open_towards(HostPort("127.0.0.1", 4242), HostPort(*peer.getsockname()))


def test_a_stream_is_connected_to_the_address_that_answers() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listening,  # Not at ::1.
        connect(HostPort("both.test", listening.getsockname()[1])) as connected,
    ):
        assert connected.getpeername() == listening.getsockname()


def test_sockets_are_prepared_before_they_are_connected() -> None:
    unconnected: list[bool] = []

    def prepare(made: socket.socket) -> None:
        try:
            made.getpeername()
        except OSError:
            unconnected.append(True)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        host_port = HostPort(*listening.getsockname())
        connect(host_port, prepare).close()
        open_towards(host_port, None, prepare)[0].close()
    assert unconnected == [True] * 3
