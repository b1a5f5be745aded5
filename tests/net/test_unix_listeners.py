"""Listening Unix sockets: competition for a path, and the end of its file."""

import errno
import os
import socket
import stat
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

if sys.platform == "win32":
    pytest.skip("Python has no Unix sockets on Windows", allow_module_level=True)

import fcntl

from threepipe.errors import EndpointError
from threepipe.net import connect
from threepipe.net.connect import listen_unix, reach_unix, turn_at

CALLERS = 8
SECONDS = 10.0


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


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a full queue refuses, as nothing that listens does")
def test_a_listener_whose_queue_is_full_is_not_waited_for(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connect, "_CONNECT_TIMEOUT", 0.0)  # For ever.
    with ExitStack() as stack:
        executor = stack.enter_context(ThreadPoolExecutor(1))
        busy = stack.enter_context(socket.socket(socket.AF_UNIX))
        busy.bind(str(path))
        busy.listen(0)
        with suppress(BlockingIOError):
            while True:
                client = stack.enter_context(socket.socket(socket.AF_UNIX))
                client.setblocking(False)
                client.connect(str(path))
        with pytest.raises(EndpointError, match="another program uses it"):
            executor.submit(listen_unix, str(path)).result(SECONDS)


def test_a_program_that_keeps_the_lock_keeps_out_a_listener_for_a_while(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connect, "_LOCK_TIMEOUT", 0.0)
    lock = os.open("socket.lock", os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(EndpointError, match=r"another program keeps socket\.lock locked"):
            listen_unix(str(path))
    finally:
        os.close(lock)
    listening, remove = listen_unix(str(path))  # A killed program leaves such a file.
    with listening:
        assert path.exists()
        remove()
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize("replaced", [False, True])
def test_a_lock_that_was_removed_meanwhile_is_not_taken(
    path: Path, monkeypatch: pytest.MonkeyPatch, replaced: bool
) -> None:
    take, lock = fcntl.flock, Path("socket.lock")

    def slow(descriptor: int, operation: int) -> None:
        take(descriptor, operation)
        monkeypatch.setattr(fcntl, "flock", take)
        lock.unlink()
        if replaced:
            lock.touch()

    monkeypatch.setattr(fcntl, "flock", slow)
    with turn_at(str(path)), open(lock, "rb") as held, pytest.raises(BlockingIOError):
        take(held.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert not lock.exists()


def test_an_error_while_locking_leaves_no_descriptor_open(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(descriptor: int, operation: int) -> None:
        opened.append(descriptor)
        raise OSError(errno.ENOLCK, "no locks available")

    opened: list[int] = []
    monkeypatch.setattr(fcntl, "flock", fail)
    with pytest.raises(EndpointError, match="no locks available"):
        listen_unix(str(path))
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(opened[0])


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda lock: lock.symlink_to("elsewhere"), "cannot be locked .* remove it"),
        (lambda lock: lock.mkdir(), "cannot be locked .* remove it"),
        (lambda lock: lock.write_text("1234"), "is not a lock of threepipe; move it"),
        (lambda lock: os.mkfifo(lock), "is not a lock of threepipe; move it"),
    ],
    ids=["link", "folder", "file", "fifo"],
)
def test_another_file_in_place_of_the_lock_raises_and_is_kept(
    path: Path, make: Callable[[Path], None], said: str
) -> None:
    lock = Path("socket.lock")
    make(lock)
    with pytest.raises(EndpointError, match=f"listening at socket: {lock} {said}"):
        listen_unix(str(path))
    assert list(Path().iterdir()) == [lock]


def test_the_lock_can_be_opened_by_its_owner_only(path: Path) -> None:
    before = os.umask(0)
    try:
        with turn_at(str(path)):
            assert stat.S_IMODE(os.stat("socket.lock").st_mode) == 0o600
    finally:
        os.umask(before)


def test_a_file_that_another_listener_has_replaced_is_not_removed(path: Path) -> None:
    first, remove_first = listen_unix(str(path))
    with first:
        path.unlink()
        second, remove_second = listen_unix(str(path))
        remove_first()
        with second, reach_unix(str(path)):
            remove_second()
    assert not path.exists()


def test_the_lock_is_held_while_a_file_is_removed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connect, "_LOCK_TIMEOUT", 0.0)
    listening, remove = listen_unix(str(path))
    with listening:
        with turn_at(str(path)):
            remove()
            assert path.exists()
        remove()
    assert not path.exists()
