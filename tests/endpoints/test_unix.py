"""Unix sockets of endpoints: their files and who may use them."""

import os
import socket
import stat
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

import threepipe
from tests.support.endpoints import opened, unix


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
