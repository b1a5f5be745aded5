"""Unix sockets of endpoints: their files and permissions."""

import os
import socket
import stat
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

import threepipe
from tests.support.endpoints import SECONDS, opened, packet, unix
from threepipe.endpoints.listener import Listener
from threepipe.endpoints.request import RateLimitedLog
from threepipe.endpoints.stream import SocketStream
from threepipe.net.connect import listen_unix


@unix
def test_a_unix_socket_is_private_and_removed_with_its_listener(stack: ExitStack, tmp_path: Path) -> None:
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
def test_a_stale_unix_socket_is_replaced(stack: ExitStack, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as gone:
        gone.bind(str(path))
        gone.listen()
    listener, caller = opened(stack, f"unix-listen:{path}"), opened(stack, f"unix:{path}")
    assert caller.send([packet(1)]) == 1
    assert listener.receive_packet(SECONDS) == packet(1)


@unix
@pytest.mark.parametrize("make", [lambda path: path.write_text("mine"), lambda path: path.mkdir()])
def test_another_file_at_the_path_raises_and_is_kept(tmp_path: Path, make: Callable[[Path], None]) -> None:
    path = tmp_path / "socket"
    make(path)
    with pytest.raises(threepipe.EndpointError, match="another program uses it; choose another port or path"):
        threepipe.open_endpoint(f"unix-listen:{path}")
    assert path.exists()


@unix
def test_a_socket_that_replaced_ours_is_not_removed(stack: ExitStack, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    listener = opened(stack, f"unix-listen:{path}")
    path.unlink()
    opened(stack, f"unix-listen:{path}")
    listener.close()
    assert path.exists()


@unix
def test_the_file_is_removed_while_the_socket_is_open_so_that_it_is_not_another_ones(tmp_path: Path) -> None:
    listening, remove = listen_unix(str(tmp_path / "socket"))
    open_then: list[bool] = []

    def note() -> None:
        open_then.append(listening.fileno() >= 0)
        remove()

    Listener(listening, SocketStream, RateLimitedLog("here"), note).close()
    assert open_then == [True]
    assert list(tmp_path.iterdir()) == []


@unix
def test_an_impossible_path_raises_with_its_name(tmp_path: Path) -> None:
    for path in (tmp_path / "no" / "folder", tmp_path / ("x" * 200)):
        with pytest.raises(threepipe.EndpointError, match=str(path)):
            threepipe.open_endpoint(f"unix-listen:{path}")
