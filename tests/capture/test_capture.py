"""Looking at a pipe's packets while it runs, from inside and from outside; and files as the ends of a pipe."""

import asyncio
import errno
import json
import os
import socket
import stat
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

import threepipe
from tests.capture.test_pcap import FRAMES, PACKETS, block, enhanced, interface, option, pcap, reader, section
from tests.conftest import come_true
from threepipe.backend import INBOUND, OUTBOUND, Seen
from threepipe.capture import announcing
from threepipe.capture.announcing import announce
from threepipe.capture.extcap import main as extcap
from threepipe.capture.file import CaptureFile
from threepipe.capture.live import open_source
from threepipe.capture.running import PipeSource, running
from threepipe.capture.tap import Tap, Taps
from threepipe.endpoints import open_endpoint
from threepipe.endpoints.recording import ReplayPort, open_pcap
from threepipe.endpoints.request import OpenRequest, RateLimitedLog, Side
from threepipe.platforms import runtime_folder

SECONDS = 10.0
SECOND = 1_000_000_000
ETHERNET, RAW = 1, 101

descriptors = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no descriptor for a set of others")
unix = pytest.mark.skipif(sys.platform == "win32", reason="Python on Windows has no Unix sockets, FIFOs and limits")


# Replay.


def timed(times: list[float]) -> bytes:
    """A capture with a packet at each of `times` (seconds), numbered by its last byte."""
    blocks = [enhanced("<", numbered(number), int(time * 1000)) for number, time in enumerate(times)]
    return section("<") + interface("<", RAW, option("<", 9, b"\x03")) + b"".join(blocks)


def numbered(number: int) -> bytes:
    return PACKETS[0][:-1] + bytes([number % 256])


class Replay:
    """A replay by a clock that only the test moves."""

    def __init__(self, stack: ExitStack, path: Path, data: bytes, *, speed: float = 1.0, loop: bool = False) -> None:
        path.write_bytes(data)
        self.now = 1000.0
        port = ReplayPort(
            path.open("rb"), str(path), RateLimitedLog("pcap"), speed=speed, loop=loop, clock=lambda: self.now
        )
        self.session = stack.enter_context(threepipe.Session(port))

    def at(self, seconds: float) -> list[int]:
        """The numbers of the packets that are there so long after the start."""
        self.now = 1000.0 + seconds
        with self.session.receive(0) as bundle:
            return [packet[-1] for packet in bundle]


@pytest.fixture
def replay(tmp_path: Path) -> Iterator[Callable[..., Replay]]:
    with ExitStack() as stack:
        yield lambda data, **options: Replay(stack, tmp_path / "a.pcap", data, **options)


def test_packets_come_when_their_time_has_come(replay: Callable[..., Replay]) -> None:
    played = replay(timed([50, 50, 50.5, 52]))
    assert played.at(0) == [0, 1]
    assert played.at(0.4) == []
    assert played.at(0.5) == [2]
    assert played.at(1.9) == []
    assert played.at(2.5) == [3]
    with pytest.raises(threepipe.EndpointEnded, match="was replayed to its end"):
        played.at(2.5)
    with pytest.raises(threepipe.EndpointEnded):
        played.at(99)


def test_what_is_late_comes_in_one_bundle(replay: Callable[..., Replay]) -> None:
    played = replay(timed([0, 1, 2, 3]))
    assert played.at(0) == [0]
    assert played.at(10) == [1, 2, 3]


def test_it_goes_as_many_times_as_fast_as_asked(replay: Callable[..., Replay]) -> None:
    played = replay(timed([7, 9, 11]), speed=4.0)
    assert played.at(0) == [0]
    assert played.at(0.5) == [1]
    assert played.at(0.9) == []
    assert played.at(1) == [2]


def test_in_a_loop_it_begins_again_at_the_time_of_the_last(replay: Callable[..., Replay]) -> None:
    played = replay(timed([5, 6]), loop=True)
    assert played.at(0) == [0]
    assert played.at(1) == [1, 0]
    assert played.at(2) == [1, 0]
    assert played.at(4) == [1, 0, 1, 0]


def test_a_loop_over_no_packets_ends(replay: Callable[..., Replay]) -> None:
    with pytest.raises(threepipe.EndpointEnded):
        replay(timed([]), loop=True).at(0)


def test_times_that_go_back_or_far_away_stop_nothing_before(replay: Callable[..., Replay]) -> None:
    played = replay(timed([9, 8, 9.5, 1e16]))
    assert played.at(0) == [0, 1]
    assert played.at(0.5) == [2]
    assert played.at(1e6) == []


def test_at_no_speed_to_speak_of_it_waits(replay: Callable[..., Replay]) -> None:
    played = replay(timed([0, 1]), speed=5e-324)
    assert played.at(0) == [0]
    assert played.at(1e9) == []
    assert not played.session.receive(0.001)


def test_no_more_come_at_once_than_a_session_asks_for(replay: Callable[..., Replay]) -> None:
    played = replay(timed([0] * 600))
    assert [len(played.at(0)) for _ in range(3)] == [256, 256, 88]


def test_its_packets_may_be_changed_as_other_received_ones(replay: Callable[..., Replay]) -> None:
    played = replay(timed([0]))
    with played.session.receive(0) as bundle:
        bundle[0][0] = 0x46


def test_what_is_sent_to_it_goes_nowhere(replay: Callable[..., Replay]) -> None:
    played = replay(timed([0, 1]))
    assert played.session.send(PACKETS) == len(PACKETS)
    assert played.at(0) == [0]


def test_a_file_that_breaks_off_is_told_after_what_is_whole(replay: Callable[..., Replay]) -> None:
    played = replay(timed([0, 1]) + block("<", 6, bytes(16)))
    assert played.at(0) == [0]
    assert played.at(5) == [1]
    with pytest.raises(threepipe.EndpointError, match="too short for its type"):
        played.at(5)


def test_what_is_left_out_is_logged(replay: Callable[..., Replay], caplog: pytest.LogCaptureFixture) -> None:
    data = pcap("<", [b"\x08\x06".rjust(14), FRAMES["ethernet"][1](PACKETS[0])], ETHERNET)
    data += struct.pack("<IIII", 0, 0, 14, 99) + bytes(14) + struct.pack("<IIII", 0, 0, 99, 99)
    played = replay(data)
    assert len(played.at(0)) == 1
    assert [record.getMessage() for record in caplog.records] == [
        "pcap: skipped 1 frames without an IP packet and 1 packets that were captured in part",
        "pcap: the file ends in the middle of a packet, which was skipped",
    ]


def replayed(path: Path) -> threepipe.Session:
    return open_pcap(OpenRequest(str(path), "left", RateLimitedLog("pcap")))


@pytest.fixture
def quick(tmp_path: Path) -> Iterator[threepipe.Session]:
    """A session with packets a moment apart, by the real clock."""
    path = tmp_path / "a.pcapng"
    path.write_bytes(timed([0, 0.03, 0.06]))
    with replayed(path) as session:
        yield session


def test_who_receives_waits_for_the_next_packet(quick: threepipe.Session) -> None:
    found = [packet[-1] for _ in range(3) for packet in quick.receive(SECONDS)]
    assert found == [0, 1, 2]
    with pytest.raises(threepipe.EndpointEnded):
        quick.receive(SECONDS)


@descriptors
def test_who_waits_by_the_descriptor_is_woken_too(quick: threepipe.Session) -> None:
    async def collect() -> list[int]:
        found = []
        try:
            async for bundle in quick:
                found += [packet[-1] for packet in bundle]
        except threepipe.EndpointEnded:
            pass
        return found

    assert asyncio.run(asyncio.wait_for(collect(), SECONDS)) == [0, 1, 2]


def test_closing_wakes_who_waits_for_a_packet_that_is_far_away(tmp_path: Path) -> None:
    path = tmp_path / "a.pcapng"
    path.write_bytes(timed([0, 9999]))
    with ThreadPoolExecutor(1) as executor, replayed(path) as session:
        assert len(session.receive(SECONDS)) == 1
        waiting = executor.submit(ends_by_closing, session)
        session.close()
        assert waiting.result(SECONDS)


def ends_by_closing(session: threepipe.Session) -> bool:
    try:
        session.receive()
    except threepipe.SessionClosed:
        return True
    return False


def test_what_cannot_be_replayed_is_refused(tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text("no capture")
    with pytest.raises(threepipe.EndpointError, match="neither pcap nor pcapng"):
        replayed(text)
    with pytest.raises(threepipe.EndpointError, match="no such file to replay") as refused:
        replayed(tmp_path / "none")
    assert refused.value.errno == errno.ENOENT
    with pytest.raises(threepipe.EndpointError, match="is not a plain file"):
        replayed(tmp_path)


# Recording.


def recorded(path: Path) -> list[tuple[bytes, int]]:
    return [(bytes(packet), direction) for _, packet, direction in reader(path.read_bytes())]


def test_what_is_sent_to_a_file_is_in_it_at_once(tmp_path: Path) -> None:
    path = tmp_path / "a.pcapng"
    with closing(open_endpoint(f"pcap:{path}", side="right")) as session:
        assert session.send(PACKETS) == len(PACKETS)
        assert recorded(path) == [(packet, OUTBOUND) for packet in PACKETS]
        assert not session.receive(0)
        session.send(PACKETS[:1])
    assert recorded(path) == [(packet, OUTBOUND) for packet in [*PACKETS, PACKETS[0]]]


def test_a_replay_at_the_right_is_refused(tmp_path: Path) -> None:
    for options in ("speed=2", "loop"):
        with pytest.raises(threepipe.InvalidSetting, match="is for the left end of a pipe only"):
            open_endpoint(f"pcap:{tmp_path / 'a'},{options}", side="right")
    assert not (tmp_path / "a").exists()


@unix
@pytest.mark.parametrize("side", ["left", "right"])
def test_no_program_is_waited_for(tmp_path: Path, side: Side) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with pytest.raises(threepipe.EndpointError, match="is not a plain file"):
        open_endpoint(f"pcap:{fifo}", side=side)


FULL_DISK = """
import resource, signal, sys
import threepipe
from threepipe.endpoints import open_endpoint
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
with open_endpoint("pcap:" + sys.argv[1], side="right") as session:
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
    try:
        while True:
            session.send([b"\\x45" * 700])
    except threepipe.EndpointError as error:
        print(error.strerror)
"""


@unix
def test_a_full_disk_ends_it_with_whole_blocks(tmp_path: Path) -> None:
    path = tmp_path / "a.pcapng"
    done = subprocess.run([sys.executable, "-c", FULL_DISK, path], capture_output=True, text=True, timeout=50)
    assert "File too large" in done.stdout, done.stderr
    found = reader(path.read_bytes())
    assert len(list(found)) == 2
    assert not found.cut_off


def test_a_pipe_from_file_to_file_copies_the_packets(tmp_path: Path) -> None:
    source, target = tmp_path / "a.pcap", tmp_path / "b.pcapng"
    source.write_bytes(pcap(">", [FRAMES["tagged"][1](packet) for packet in PACKETS], ETHERNET))
    threepipe.pipe(open_endpoint(f"pcap:{source}"), open_endpoint(f"pcap:{target}", side="right"))
    assert [packet for packet, _ in recorded(target)] == PACKETS


# Taps.


class Stage:
    """Two programs whose sessions are piped through taps."""

    def __init__(self, stack: ExitStack) -> None:
        self.taps = Taps()
        ends = [threepipe.MemoryAdapter.pair() for _ in "ab"]
        sessions = [stack.enter_context(adapter).start_session() for pair in ends for adapter in pair]
        self.left, left, right, self.right = sessions
        self.ends = self.taps.around(left, right)
        executor = stack.enter_context(ThreadPoolExecutor(1))
        stack.callback(left.close)
        self.ended = executor.submit(threepipe.pipe, *self.ends)

    def both_ways(self) -> None:
        """A packet to the right, and one back."""
        for source, target, packet in ((self.left, self.right, PACKETS[0]), (self.right, self.left, PACKETS[1])):
            source.send([packet])
            assert bytes(target.receive_packet(SECONDS)) == packet


@pytest.fixture
def stage() -> Iterator[Stage]:
    with ExitStack() as stack:
        yield Stage(stack)


class Notes:
    """A sink that writes down what it is shown."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, list[bytes]]] = []
        self.times: list[int] = []

    def __call__(self, seen: Seen) -> None:
        self.seen.append((seen.direction, list(map(bytes, seen.packets))))
        self.times.append(seen.time_ns)


def test_a_sink_sees_both_directions_as_an_adapter_at_the_left_does(stage: Stage) -> None:
    notes = Notes()
    stage.taps.add(notes)
    stage.both_ways()
    assert notes.seen == [(OUTBOUND, PACKETS[:1]), (INBOUND, PACKETS[1:2])]
    assert notes.times == sorted(notes.times)


def test_sinks_come_and_go_while_it_runs(stage: Stage) -> None:
    first, second = Notes(), Notes()
    stage.both_ways()
    stage.taps.add(first)
    stage.both_ways()
    stage.taps.add(second)
    stage.both_ways()
    stage.taps.remove(first)
    stage.taps.remove(first)
    stage.both_ways()
    assert (len(first.seen), len(second.seen)) == (4, 4)


def test_a_sink_that_fails_hurts_nobody(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    def fail(seen: Seen) -> None:
        raise OSError(errno.ENOSPC, "the disk is full")

    notes = Notes()
    stage.taps.add(fail)
    stage.taps.add(notes)
    stage.both_ways()
    assert len(notes.seen) == 2
    assert [record.getMessage() for record in caplog.records] == ["a capture ends early: [Errno 28] the disk is full"]


@pytest.fixture
def tapped() -> Iterator[tuple[Taps, list[Tap]]]:
    """Two sessions with taps around them that nobody pumps."""
    with ExitStack() as stack:
        taps = Taps()
        left, right = [stack.enter_context(end).start_session() for end in threepipe.MemoryAdapter.pair()]
        yield taps, list(taps.around(left, right))


@pytest.fixture
def interrupted(monkeypatch: pytest.MonkeyPatch) -> list[threepipe.Session]:
    """The sessions whose pump was interrupted."""
    sessions: list[threepipe.Session] = []
    monkeypatch.setattr("threepipe.capture.tap.interrupt", sessions.append)
    return sessions


def test_a_pump_that_goes_by_the_taps_is_interrupted_once_a_sink_is_added(
    tapped: tuple[Taps, list[Tap]], interrupted: list[threepipe.Session]
) -> None:
    (taps, ends), notes = tapped, Notes()
    sessions = [end.inner for end in ends]
    assert [end.direct for end in ends] == sessions
    taps.add(notes)
    assert len(interrupted) == 1
    assert [end.direct for end in ends] == [None, None]
    taps.add(print)
    taps.remove(print)
    taps.remove(notes)
    assert len(interrupted) == 1
    assert [end.direct for end in ends] == sessions


def test_a_pump_by_bundles_is_not_interrupted(
    tapped: tuple[Taps, list[Tap]], interrupted: list[threepipe.Session]
) -> None:
    taps, ends = tapped
    taps.add(print)
    taps.remove(print)
    assert ends[0].direct is not None  # Of one of them only.
    taps.add(print)
    taps.remove(print)
    assert None not in [end.direct for end in ends]
    ends[0].receive(0)  # After all it goes by bundles.
    taps.add(print)
    assert not interrupted


def test_a_file_is_a_sink(stage: Stage, tmp_path: Path) -> None:
    path = tmp_path / "a.pcapng"
    with CaptureFile(str(path), "tp0") as file:
        stage.taps.add(file.sink)
        stage.both_ways()
        stage.taps.remove(file.sink)
    assert recorded(path) == [(PACKETS[0], OUTBOUND), (PACKETS[1], INBOUND)]


# Running pipes.


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "threepipe"


@unix
def test_a_running_pipe_is_found_until_it_ends(folder: Path) -> None:
    assert running(folder) == []
    with announce(Taps(), "tun:tp0", "udp:[::1]:4242", folder):
        (pipe,) = running(folder)
        assert pipe[:3] == (os.getpid(), "tun:tp0", "udp:[::1]:4242")
        assert pipe.name == f"pipe:{os.getpid()}"
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert stat.S_IMODE(pipe.path.stat().st_mode) == 0o600
        with announce(Taps(), "a", "b", folder):
            assert [pipe.name for pipe in running(folder)] == [f"pipe:{os.getpid()}-2", f"pipe:{os.getpid()}"]
    assert running(folder) == []
    assert list(folder.iterdir()) == []


KILLED = """
import os, signal, sys
from pathlib import Path
from threepipe.capture.announcing import announce
from threepipe.capture.tap import Tap, Taps
with announce(Taps(), "a", "b", Path(sys.argv[1])):
    os.kill(os.getpid(), signal.SIGKILL)
"""


@unix
def test_what_a_killed_pipe_left_is_removed(folder: Path) -> None:
    subprocess.run([sys.executable, "-c", KILLED, folder], timeout=50, check=False)
    (left,) = folder.iterdir()
    assert stat.S_ISSOCK(left.stat().st_mode)
    with announce(Taps(), "a", "b", folder):
        assert [pipe.pid for pipe in running(folder)] == [os.getpid()]
        assert not left.exists()


@unix
def test_what_is_no_running_pipe_is_not_listed(folder: Path) -> None:
    folder.mkdir(mode=0o700)
    (folder / "1.sock").write_text("a file")
    answers = [b"", b"no json\n", b"{}\n", b"[]\n", b'{"pid": "x", "left": "", "right": ""}\n', b"x" * 70_000]
    with ExitStack() as stack:
        for number, answer in enumerate(answers):
            listening = stack.enter_context(socket.socket(socket.AF_UNIX))
            listening.bind(str(folder / f"{number + 10}.sock"))
            listening.listen()

            def reply(listening: socket.socket = listening, answer: bytes = answer) -> None:
                with listening.accept()[0] as accepted:
                    try:
                        accepted.sendall(answer)
                    except ConnectionError:
                        pass  # It has heard enough.

            thread = threading.Thread(target=reply)
            thread.start()
            stack.callback(thread.join)
        assert running(folder) == []
    assert len(list(folder.iterdir())) == 1 + len(answers) or running(folder) == []


@unix
def test_a_folder_that_others_may_open_is_not_used(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder.mkdir()
    folder.chmod(0o755)
    caplog.set_level("INFO")
    with announce(Taps(), "a", "b", folder):
        assert list(folder.iterdir()) == []
        assert running(folder) == []
    assert "cannot be captured from outside" in caplog.text


def test_without_a_place_for_it_a_pipe_runs_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    assert runtime_folder() is None
    with announce(Taps(), "a", "b"):
        assert running() == []
    with pytest.raises(threepipe.EndpointError, match="no place where running pipes"):
        PipeSource("pipe:1")


@unix
def test_ordinary_users_have_a_folder_of_their_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    with announce(Taps(), "a", "b"):
        assert (tmp_path / "threepipe" / f"{os.getpid()}.sock").is_socket()
        assert [pipe.left for pipe in running()] == ["a"]
        source = open_source(f"pipe:{os.getpid()}")
        assert source.name == "a b"
        source.close()


@pytest.mark.parametrize("name", ["pipe:", "pipe:x", "pipe:../../run/x", "pipe:1/2"])
def test_what_is_no_name_of_a_pipe_is_refused(name: str, folder: Path) -> None:
    with pytest.raises(threepipe.InvalidSetting, match="is no running pipe"):
        PipeSource(name, folder)


@unix
def test_a_pipe_that_does_not_run_is_told(folder: Path) -> None:
    with pytest.raises(threepipe.EndpointError, match="no pipe of this user runs in process 1"):
        PipeSource("pipe:1", folder)


class Watcher:
    """Captures a running pipe in a thread, from before a packet is sent."""

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
def test_a_running_pipe_is_captured_by_several(stage: Stage, folder: Path) -> None:
    with ExitStack() as stack, ExitStack() as announced:
        announced.enter_context(announce(stage.taps, "a", "b", folder))
        first = Watcher(stack, stage, folder)
        stage.both_ways()
        second = Watcher(stack, stage, folder)
        stage.both_ways()
        assert come_true(lambda: len(first.found) == 4 and len(second.found) == 2)
        first.source.stop()
        first.join()
        assert come_true(lambda: len(stage.taps.sinks) == 1)
        stage.both_ways()
        announced.close()  # The pipe ends, and with it the capture.
        second.join()
        assert first.found == EXPECTED * 2
        assert second.found == EXPECTED * 2
        assert stage.taps.sinks == ()


def asked(folder: Path) -> socket.socket:
    """A connection that was greeted and has asked for packets, of which it reads none."""
    connected = socket.socket(socket.AF_UNIX)
    connected.settimeout(SECONDS)
    connected.connect(str(folder / f"{os.getpid()}.sock"))
    assert json.loads(connected.recv(1000)) == {"pid": os.getpid(), "left": "a", "right": "b"}
    connected.sendall(b"capture\n")
    return connected


@unix
def test_a_reader_that_lags_does_not_hold_up_the_pipe(
    stage: Stage, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(announcing, "_MOST_QUEUED", 10_000)
    bundle = [b"\x45".ljust(1000, b".")] * 8
    total = 400 * len(bundle)  # Far more than a socket and the queue hold.
    with ThreadPoolExecutor(1) as executor, ExitStack() as announced:
        announced.enter_context(announce(stage.taps, "a", "b", folder))
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
    assert not found.cut_off


def understood(connected: socket.socket) -> bool:
    """Whether a capture begins; after the greeting, or an end."""
    try:
        while said := connected.recv(1000):
            if b"threepipe" in said:
                return True
    except ConnectionError:
        pass
    return False


@unix
def test_idle_and_rude_readers_make_way_for_honest_ones(stage: Stage, folder: Path) -> None:
    with ExitStack() as stack:
        stack.enter_context(announce(stage.taps, "a", "b", folder))
        path = str(folder / f"{os.getpid()}.sock")
        for _ in range(announcing._MOST_READERS * 3):
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
def test_there_are_not_more_captures_than_can_be_served(
    stage: Stage, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(announcing, "_MOST_READERS", 2)
    with ExitStack() as stack:
        stack.enter_context(announce(stage.taps, "a", "b", folder))
        for number in range(2):
            stack.enter_context(asked(folder))
            assert come_true(lambda number=number: len(stage.taps.sinks) == number + 1)  # type: ignore[misc]
        with socket.socket(socket.AF_UNIX) as another:
            another.settimeout(SECONDS)
            another.connect(str(folder / f"{os.getpid()}.sock"))
            assert another.recv(1000) == b""
        assert "a capture cannot begin: there are 2 already" in caplog.text


@unix
def test_stopping_before_anything_came_ends_it(stage: Stage, folder: Path) -> None:
    with announce(stage.taps, "a", "b", folder):
        source = PipeSource(f"pipe:{os.getpid()}", folder)
        source.stop()
        assert list(source) == []
        source.stop()
        source.close()
        assert source.dropped == 0


# Wireshark's questions; what it makes of the answers is in tests/linux/test_capture.py.


def answers(capfd: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    extcap(arguments)
    return capfd.readouterr().out.splitlines()


@unix
def test_running_pipes_are_interfaces(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    with announce(Taps(), "tun:tp0", "exec:{x}\n"):
        lines = answers(capfd, "--extcap-interfaces", "--extcap-version=4.0")
    name = f"threepipe-pipe:{os.getpid()}"
    assert lines[0] == f"extcap {{version={threepipe.__version__}}}{{display=threepipe}}"
    assert f"interface {{value={name}}}{{display=threepipe pipe tun:tp0 exec:(x) }}" in lines
    assert answers(capfd, "--extcap-interface", name, "--extcap-dlts") == ["dlt {number=101}{name=RAW}{display=Raw IP}"]
    assert answers(capfd, "--extcap-interface", name, "--extcap-config") == []
    assert answers(capfd, "--extcap-interface", name) == []


def test_there_is_no_capture_filter(capfd: pytest.CaptureFixture[str]) -> None:
    assert answers(capfd, "--extcap-interface", "threepipe-tp0", "--extcap-capture-filter=") == []
    (refusal,) = answers(capfd, "--extcap-interface", "threepipe-tp0", "--extcap-capture-filter=tcp")
    assert "use a display filter" in refusal


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--capture",), "--capture takes"),
        (("--capture", "--extcap-interface", "eth0", "--fifo", "x"), "--capture takes"),
        (("--capture", "--extcap-interface", "threepipe-pipe:1-0", "--fifo", "x"), "no pipe of this user"),
        (("--capture", "--extcap-interface", "threepipe-a", "--fifo", "x", "--extcap-capture-filter", "y"), "filter"),
    ],
)
@unix
def test_what_cannot_be_captured_is_told(
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    arguments: tuple[str, ...],
    complaint: str,
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    with pytest.raises(SystemExit) as ended:
        extcap(arguments)
    printed, complained = capfd.readouterr()
    assert ended.value.code == 1
    assert printed == ""
    assert complaint in complained
