"""Running pipes: announced, found and captured from outside."""

import itertools
import json
import os
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

import threepipe
from tests.support.captures import PACKETS, reader
from tests.support.descriptors import no_free_descriptor
from tests.support.taps import SECONDS, Stage, unix
from tests.support.waiting import come_true
from threepipe.backend import INBOUND, OUTBOUND
from threepipe.capture import client, server
from threepipe.capture.client import PipeSource, running_pipes
from threepipe.capture.live import open_source
from threepipe.capture.server import serve_captures
from threepipe.capture.tap import Taps
from threepipe.platforms import runtime_folder


@unix
def test_a_running_pipe_is_listed_until_it_ends(folder: Path) -> None:
    assert running_pipes(folder) == []
    with serve_captures(Taps(), "tun:tp0", "udp:[::1]:4242", folder):
        (pipe,) = running_pipes(folder)
        assert pipe[:3] == (os.getpid(), "tun:tp0", "udp:[::1]:4242")
        assert pipe.name == f"pipe:{os.getpid()}"
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert stat.S_IMODE(pipe.path.stat().st_mode) == 0o600
        with serve_captures(Taps(), "a", "b", folder):
            assert [pipe.name for pipe in running_pipes(folder)] == [f"pipe:{os.getpid()}-2", f"pipe:{os.getpid()}"]
    assert running_pipes(folder) == []
    assert list(folder.iterdir()) == []


KILLED = """
import os, signal, sys
from pathlib import Path
from threepipe.capture.server import serve_captures
from threepipe.capture.tap import Tap, Taps
with serve_captures(Taps(), "a", "b", Path(sys.argv[1])):
    os.kill(os.getpid(), signal.SIGKILL)
"""


@unix
def test_the_socket_of_a_killed_pipe_is_removed(folder: Path) -> None:
    subprocess.run([sys.executable, "-c", KILLED, folder], timeout=50, check=False)
    (left,) = folder.iterdir()
    assert stat.S_ISSOCK(left.stat().st_mode)
    with serve_captures(Taps(), "a", "b", folder):
        assert [pipe.pid for pipe in running_pipes(folder)] == [os.getpid()]
        assert not left.exists()


@contextmanager
def answering(folder: Path, name: str, answer: bytes) -> Iterator[None]:
    """Listen in the folder of running pipes and give the first client this answer."""
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(folder / name))
    listening.listen()

    def reply() -> None:
        with listening.accept()[0] as accepted:
            try:
                accepted.sendall(answer)
            except ConnectionError:
                pass  # The reader has closed the connection.

    thread = threading.Thread(target=reply)
    thread.start()
    with listening:
        yield
        thread.join()


def greeting(**changes: object) -> bytes:
    return json.dumps({"pid": 1, "left": "a", "right": "b"} | changes).encode() + b"\n"


ANSWERS = [
    b"",
    b"no json\n",
    b"\xff\n",
    b"{}\n",
    b"[]\n",
    b"7\n",
    b"x" * 70_000,
    b"[" * 60_000 + b"\n",
    b'{"pid": 1e999, "left": "", "right": ""}\n',
    b'{"pid": NaN, "left": "", "right": ""}\n',
    greeting(pid="x"),
    greeting(pid=None),
    greeting(pid=1.5),
    greeting(pid=True),
    greeting(left=["a"]),
    greeting(right={}),
]


@unix
@pytest.mark.parametrize("answer", ANSWERS, ids=lambda answer: str(answer[:40]))
def test_an_answer_that_is_not_a_greeting_hides_no_running_pipe(folder: Path, answer: bytes) -> None:
    with serve_captures(Taps(), "a", "b", folder), answering(folder, "0.sock", answer):
        assert [pipe.pid for pipe in running_pipes(folder)] == [os.getpid()]


@unix
@pytest.mark.parametrize("name", ["1.sock", f"{'9' * 40}.sock", "-.sock", "x.sock"])
def test_a_file_that_is_not_the_socket_of_a_pipe_hides_no_running_pipe(folder: Path, name: str) -> None:
    with serve_captures(Taps(), "a", "b", folder):
        (folder / name).write_text("a file")
        with socket.socket(socket.AF_UNIX) as silent:
            silent.bind(str(folder / f"9{name}"))  # Nobody listens there.
        assert [pipe.pid for pipe in running_pipes(folder)] == [os.getpid()]
        assert (folder / name).exists()
        for left in (name, f"9{name}"):
            (folder / left).unlink(missing_ok=True)


@unix
def test_a_greeting_that_comes_too_slowly_hides_no_running_pipe(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that sends a byte at a time would hold up the list for hours if each byte had the time of all."""
    times = itertools.count(0.0, client._GREETING_TIMEOUT / 3)
    monkeypatch.setattr(client, "time", SimpleNamespace(monotonic=lambda: next(times)))
    folder.mkdir(mode=0o700)
    with answering(folder, "1.sock", greeting()):
        assert running_pipes(folder) == []


@unix
def test_addresses_of_a_running_pipe_are_shown_on_one_line_of_text(folder: Path) -> None:
    folder.mkdir(mode=0o700)
    with answering(folder, "1.sock", greeting(left="a\n\x1b[31m", right="caf\udce9 \u2028")):
        assert [pipe[1:3] for pipe in running_pipes(folder)] == [(r"a\n\x1b[31m", r"caf\udce9 \u2028")]


@unix
def test_a_folder_that_others_can_open_is_not_used(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder.mkdir()
    folder.chmod(0o755)
    caplog.set_level("INFO")
    with serve_captures(Taps(), "a", "b", folder):
        assert list(folder.iterdir()) == []
        assert running_pipes(folder) == []
    assert "cannot be captured from outside" in caplog.text


def test_a_pipe_without_a_runtime_folder_runs_unannounced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    assert runtime_folder() is None
    with serve_captures(Taps(), "a", "b"):
        assert running_pipes() == []
    with pytest.raises(threepipe.EndpointError, match="no folder for running pipes"):
        PipeSource("pipe:1")


@unix
def test_a_pipe_without_a_thread_for_captures_runs_unannounced(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    caplog.set_level("INFO")
    monkeypatch.setattr(threading.Thread, "start", refuse)
    with serve_captures(Taps(), "a", "b", folder):
        assert list(folder.iterdir()) == []
    assert "this pipe cannot be captured from outside: can't start new thread" in caplog.text


@unix
def test_a_user_without_root_has_a_private_runtime_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    with serve_captures(Taps(), "a", "b"):
        assert (tmp_path / "threepipe" / f"{os.getpid()}.sock").is_socket()
        assert [pipe.left for pipe in running_pipes()] == ["a"]
        source = open_source(f"pipe:{os.getpid()}")
        assert source.name == "a b"
        source.close()


@pytest.mark.parametrize("name", ["pipe:", "pipe:x", "pipe:../../run/x", "pipe:1/2"])
def test_an_invalid_name_of_a_pipe_raises(name: str, folder: Path) -> None:
    with pytest.raises(threepipe.InvalidSetting, match="does not name a running pipe"):
        PipeSource(name, folder)


@unix
def test_a_pipe_that_does_not_run_raises(folder: Path) -> None:
    with pytest.raises(threepipe.EndpointError, match="process 1 runs no pipe of this user"):
        PipeSource("pipe:1", folder)


class Watcher:
    """A capture of a running pipe in a thread, started before a packet is sent."""

    def __init__(self, stack: ExitStack, stage: Stage, folder: Path) -> None:
        self.source = PipeSource(f"pipe:{os.getpid()}", folder)
        stack.callback(self.source.close)
        self.found: list[tuple[bytes, int]] = []
        before = len(stage.taps.sinks)
        self._thread = threading.Thread(target=self._collect)
        self._thread.start()
        stack.callback(self._thread.join)
        stack.callback(self.source.stop)
        assert come_true(lambda: len(stage.taps.sinks) > before)

    def _collect(self) -> None:
        for several in self.source:
            self.found += [(bytes(packet), seen.direction) for seen in several for packet in seen.packets]

    def join(self) -> None:
        self._thread.join(SECONDS)
        assert not self._thread.is_alive()


EXPECTED = [(PACKETS[0], OUTBOUND), (PACKETS[1], INBOUND)]


@unix
def test_several_readers_capture_a_running_pipe(stage: Stage, folder: Path) -> None:
    with ExitStack() as stack, ExitStack() as announced:
        announced.enter_context(serve_captures(stage.taps, "a", "b", folder))
        first = Watcher(stack, stage, folder)
        stage.both_ways()
        second = Watcher(stack, stage, folder)
        stage.both_ways()
        assert come_true(lambda: len(first.found) == 4 and len(second.found) == 2)
        first.source.stop()
        first.join()
        assert come_true(lambda: len(stage.taps.sinks) == 1)
        stage.both_ways()
        announced.close()  # The pipe ends, and the capture with it.
        second.join()
        assert first.found == EXPECTED * 2
        assert second.found == EXPECTED * 2
        assert stage.taps.sinks == ()


def asked(folder: Path) -> socket.socket:
    """Return a connection that got its greeting and has asked for packets, and reads none."""
    connected = socket.socket(socket.AF_UNIX)
    connected.settimeout(SECONDS)
    connected.connect(str(folder / f"{os.getpid()}.sock"))
    assert json.loads(connected.recv(1000)) == {"pid": os.getpid(), "left": "a", "right": "b"}
    connected.sendall(b"capture\n")
    return connected


@unix
def test_a_slow_reader_does_not_delay_the_pipe(stage: Stage, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_MAX_QUEUED", 10_000)
    bundle = [b"\x45".ljust(1000, b".")] * 8
    total = 400 * len(bundle)  # This is far more than a socket and the queue hold.
    with ThreadPoolExecutor(1) as executor, ExitStack() as announced:
        announced.enter_context(serve_captures(stage.taps, "a", "b", folder))
        with asked(folder) as connected, connected.makefile("rb") as stream:
            assert come_true(lambda: bool(stage.taps.sinks))
            for _ in range(400):
                assert stage.left.send(bundle) == len(bundle)
                count = 0
                while count < len(bundle):
                    count += len(stage.right.receive(SECONDS))
            reading = executor.submit(stream.read)
            announced.close()
            found = reader(reading.result(SECONDS))
    seen = len(list(found))
    assert 0 < seen < total
    assert found.dropped == total - seen
    assert not found.cut_short


def understood(connected: socket.socket) -> bool:
    """Return True if a capture begins after the greeting, False if the connection ends."""
    try:
        while said := connected.recv(1000):
            if b"threepipe" in said:
                return True
    except ConnectionError:
        pass
    return False


@unix
def test_idle_and_malformed_readers_make_room_for_honest_ones(stage: Stage, folder: Path) -> None:
    with ExitStack() as stack:
        stack.enter_context(serve_captures(stage.taps, "a", "b", folder))
        path = str(folder / f"{os.getpid()}.sock")
        for _ in range(server._MAX_CLIENTS * 3):
            idle = stack.enter_context(socket.socket(socket.AF_UNIX))
            idle.connect(path)
        for said in (b"x", b"capture it all", b""):
            with socket.socket(socket.AF_UNIX) as rude:
                rude.settimeout(SECONDS)
                rude.connect(path)
                rude.sendall(said)
                rude.shutdown(socket.SHUT_WR)
                assert not understood(rude)
        watcher = Watcher(stack, stage, folder)
        stage.both_ways()
        assert come_true(lambda: watcher.found == EXPECTED)


@unix
def test_a_capture_beyond_the_limit_is_rejected_and_logged(
    stage: Stage, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(server, "_MAX_CLIENTS", 2)
    with ExitStack() as stack:
        stack.enter_context(serve_captures(stage.taps, "a", "b", folder))
        for number in range(2):
            stack.enter_context(asked(folder))
            assert come_true(lambda number=number: len(stage.taps.sinks) == number + 1)  # type: ignore[misc]
        with socket.socket(socket.AF_UNIX) as another:
            another.settimeout(SECONDS)
            another.connect(str(folder / f"{os.getpid()}.sock"))
            assert another.recv(1000) == b""
        assert "a capture was refused: 2 are running already" in caplog.text


@unix
def test_a_capture_is_refused_without_a_free_descriptor_and_possible_later(
    stage: Stage, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    scarce = threading.Event()

    class LateThread(threading.Thread):
        def run(self) -> None:
            assert scarce.wait(SECONDS)
            super().run()

    monkeypatch.setattr(threading, "Thread", LateThread)
    with serve_captures(stage.taps, "a", "b", folder):
        with socket.socket(socket.AF_UNIX) as first, socket.socket(socket.AF_UNIX) as second, no_free_descriptor():
            scarce.set()
            for client in (first, second):
                client.settimeout(SECONDS)
                client.connect(str(folder / f"{os.getpid()}.sock"))
                assert client.recv(1) == b""
        assert [pipe.name for pipe in running_pipes(folder)] == [f"pipe:{os.getpid()}"]
    assert caplog.text.count("a capture was refused") == 1


@unix
def test_stop_before_the_first_packet_ends_the_capture(stage: Stage, folder: Path) -> None:
    with serve_captures(stage.taps, "a", "b", folder):
        source = PipeSource(f"pipe:{os.getpid()}", folder)
        source.stop()
        assert list(source) == []
        source.stop()
        source.close()
        assert source.dropped == 0
