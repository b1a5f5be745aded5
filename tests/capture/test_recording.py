"""Recording to capture files."""

import os
import stat
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

import threepipe
from tests.support.captures import ETHERNET, FRAMES, PACKETS, pcap, reader
from tests.support.commands import run
from tests.support.taps import recorded, unix
from threepipe.backend import OUTBOUND
from threepipe.capture.writer import CaptureWriter
from threepipe.endpoints import open_endpoint
from threepipe.endpoints.request import Side


def test_sent_packets_are_in_the_file_at_once(tmp_path: Path) -> None:
    path = tmp_path / "a.pcapng"
    with closing(open_endpoint(f"pcap:{path}", side="right")) as session:
        assert session.send(PACKETS) == len(PACKETS)
        assert recorded(path) == [(packet, OUTBOUND) for packet in PACKETS]
        assert not session.receive(0)
        session.send(PACKETS[:1])
    assert recorded(path) == [(packet, OUTBOUND) for packet in [*PACKETS, PACKETS[0]]]


@unix
@pytest.mark.parametrize(
    "write",
    [
        lambda path: open_endpoint(f"pcap:{path}", side="right").close(),
        lambda path: CaptureWriter(path, "tp0").close(),
        lambda path: run("pipe", "memory:a", "pcap:/dev/null", "--capture", path, "--run", "true"),
    ],
    ids=["endpoint", "writer", "pipe"],
)
def test_a_new_file_is_private_and_an_old_one_keeps_its_mode(tmp_path: Path, write: Callable[[str], object]) -> None:
    new, old = tmp_path / "new", tmp_path / "old"
    old.touch()
    old.chmod(0o644)
    before = os.umask(0)
    try:
        write(str(new))
        write(str(old))
    finally:
        os.umask(before)
    assert [stat.S_IMODE(path.stat().st_mode) for path in (new, old)] == [0o600, 0o644]
    assert old.stat().st_size == new.stat().st_size > 0


def test_replay_options_at_the_right_end_raise(tmp_path: Path) -> None:
    for options in ("speed=2", "loop", "repair=off"):
        with pytest.raises(threepipe.InvalidSetting, match="is for the left end of a pipe only"):
            open_endpoint(f"pcap:{tmp_path / 'a'},{options}", side="right")
    assert not (tmp_path / "a").exists()


@unix
@pytest.mark.parametrize("side", ["left", "right"])
def test_a_fifo_raises_without_waiting_for_its_other_end(tmp_path: Path, side: Side) -> None:
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
def test_a_full_disk_ends_the_recording_with_whole_blocks(tmp_path: Path) -> None:
    path = tmp_path / "a.pcapng"
    done = subprocess.run([sys.executable, "-c", FULL_DISK, path], capture_output=True, text=True, timeout=50)
    assert "File too large" in done.stdout, done.stderr
    found = reader(path.read_bytes())
    assert len(list(found)) == 2
    assert not found.cut_short


def test_a_pipe_from_file_to_file_copies_the_packets(tmp_path: Path) -> None:
    source, target = tmp_path / "a.pcap", tmp_path / "b.pcapng"
    source.write_bytes(pcap(">", [FRAMES["tagged"][1](packet) for packet in PACKETS], ETHERNET))
    threepipe.pipe(open_endpoint(f"pcap:{source}"), open_endpoint(f"pcap:{target}", side="right"))
    assert [packet for packet, _ in recorded(target)] == PACKETS
