"""Listening Unix sockets: who gets a path, and what becomes of its file."""

import errno
import os
import socket
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

if sys.platform == "win32":
    pytest.skip("Python has no Unix sockets on Windows", allow_module_level=True)

import fcntl

from threepipe.errors import EndpointError
from threepipe.net import connect
from threepipe.net.connect import listen_unix

CALLERS = 8


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    """Return a short path, as those of Unix sockets have 107 bytes at most."""
    before = Path.cwd()
    os.chdir(tmp_path)
    yield Path("socket")
    os.chdir(before)


def leave_stale(path: Path) -> None:
    """Leave the file of a socket at which nothing listens."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))


def test_one_of_several_callers_at_once_gets_the_path_of_a_stale_socket(path: Path) -> None:
    start = threading.Barrier(CALLERS)

    def listen() -> socket.socket | int | None:
        start.wait()
        try:
            return listen_unix(str(path))[0]
        except EndpointError as error:
            return error.errno

    with ThreadPoolExecutor(CALLERS) as executor:
        for _ in range(50):
            leave_stale(path)
            found = [future.result() for future in [executor.submit(listen) for _ in range(CALLERS)]]
            listening = [each for each in found if isinstance(each, socket.socket)]
            for each in listening:
                each.close()
            path.unlink()
            assert len(listening) == 1
            assert found.count(errno.EADDRINUSE) == CALLERS - 1


def test_a_program_that_keeps_the_lock_of_the_folder_keeps_out_a_listener_for_a_while(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connect, "_LOCK_TIMEOUT", 0.0)
    folder = os.open(".", os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        with pytest.raises(EndpointError, match="another program holds the lock of"):
            listen_unix(str(path))
    finally:
        os.close(folder)
    listening, remove = listen_unix(str(path))
    with listening:
        remove()
    assert not path.exists()
