"""Accepting connections with and without free descriptors."""

import errno
import socket
import sys
from collections.abc import Iterator

import pytest

if sys.platform == "win32":
    pytest.skip("a process has no limit of descriptors on Windows", allow_module_level=True)

from tests.support.descriptors import no_free_descriptor
from threepipe.net.accept import Acceptor

SECONDS = 10.0


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as made:
        made.setblocking(False)
        yield made


@pytest.fixture
def client() -> Iterator[socket.socket]:
    with socket.socket() as made:
        made.settimeout(SECONDS)
        yield made


def test_a_connection_is_accepted(listening: socket.socket, client: socket.socket) -> None:
    acceptor = Acceptor(listening)
    with pytest.raises(BlockingIOError):
        acceptor.accept()
    client.connect(listening.getsockname())
    accepted, address = acceptor.accept()
    accepted.close()
    assert address == client.getsockname()
    acceptor.close()
    acceptor.close()


def test_a_connection_is_refused_without_a_free_descriptor(listening: socket.socket, client: socket.socket) -> None:
    acceptor = Acceptor(listening)
    client.connect(listening.getsockname())
    with no_free_descriptor():
        with pytest.raises(OSError) as refused:  # noqa: PT011
            acceptor.accept()
        assert refused.value.errno == errno.EMFILE
        assert client.recv(1) == b""
        with pytest.raises(BlockingIOError):  # None is pending, so a loop does not spin.
            acceptor.accept()
    with socket.socket() as another:
        another.connect(listening.getsockname())
        acceptor.accept()[0].close()
    acceptor.close()


def test_a_missing_spare_descriptor_is_made_up_for_later(listening: socket.socket, client: socket.socket) -> None:
    pauses: list[float] = []
    with no_free_descriptor():
        acceptor = Acceptor(listening, pauses.append)
        with pytest.raises(OSError):  # noqa: PT011
            acceptor.accept()
    assert [pause > 0 for pause in pauses] == [True]  # So a loop does not spin.
    with pytest.raises(BlockingIOError):
        acceptor.accept()
    client.connect(listening.getsockname())
    with no_free_descriptor():
        with pytest.raises(OSError) as refused:  # noqa: PT011
            acceptor.accept()
        assert refused.value.errno == errno.EMFILE
        assert client.recv(1) == b""
    assert len(pauses) == 1
    acceptor.close()
