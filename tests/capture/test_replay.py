"""Replaying capture files, with a clock that the tests set."""

import asyncio
import errno
import gzip
import logging
import struct
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

import threepipe
from tests.support.captures import ETHERNET, FRAMES, PACKETS, RAW, block, enhanced, interface, option, pcap, section
from tests.support.frames import TCP4, frame, opened, with_field
from tests.support.taps import SECONDS, descriptors
from threepipe.endpoints.recording import ReplayPort, open_pcap
from threepipe.endpoints.request import OpenRequest, RateLimitedLog

SECOND = 1_000_000_000


def timed(times: list[float]) -> bytes:
    """Return a capture with a packet at each of `times` (seconds), numbered by its last byte."""
    blocks = [enhanced("<", numbered(number), int(time * 1000)) for number, time in enumerate(times)]
    return section("<") + interface("<", RAW, option("<", 9, b"\x03")) + b"".join(blocks)


def numbered(number: int) -> bytes:
    return PACKETS[0][:-1] + bytes([number % 256])


class Replay:
    """A replay with a clock that only the test moves."""

    def __init__(self, stack: ExitStack, path: Path, data: bytes, **options: Any) -> None:
        path.write_bytes(data)
        self.now = 1000.0
        port = ReplayPort(path.open("rb"), str(path), RateLimitedLog("pcap"), clock=lambda: self.now, **options)
        self.session = stack.enter_context(threepipe.Session(port))

    def at(self, seconds: float) -> list[int]:
        """Return the numbers of the packets due `seconds` after the start."""
        self.now = 1000.0 + seconds
        with self.session.receive(0) as bundle:
            return [packet[-1] for packet in bundle]


@pytest.fixture
def replay(tmp_path: Path) -> Iterator[Callable[..., Replay]]:
    with ExitStack() as stack:
        yield lambda data, **options: Replay(stack, tmp_path / "a.pcap", data, **options)


def test_packets_are_received_when_their_time_has_come(replay: Callable[..., Replay]) -> None:
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


def test_overdue_packets_are_received_in_one_bundle(replay: Callable[..., Replay]) -> None:
    played = replay(timed([0, 1, 2, 3]))
    assert played.at(0) == [0]
    assert played.at(10) == [1, 2, 3]


def test_a_replay_with_a_speed_is_that_many_times_faster(replay: Callable[..., Replay]) -> None:
    played = replay(timed([7, 9, 11]), speed=4.0)
    assert played.at(0) == [0]
    assert played.at(0.5) == [1]
    assert played.at(0.9) == []
    assert played.at(1) == [2]


def test_a_loop_starts_again_at_the_time_of_the_last_packet(replay: Callable[..., Replay]) -> None:
    played = replay(timed([5, 6]), loop=True)
    assert played.at(0) == [0]
    assert played.at(1) == [1, 0]
    assert played.at(2) == [1, 0]
    assert played.at(4) == [1, 0, 1, 0]


def test_a_loop_over_no_packets_ends(replay: Callable[..., Replay]) -> None:
    with pytest.raises(threepipe.EndpointEnded):
        replay(timed([]), loop=True).at(0)


def test_times_that_decrease_or_are_far_away_do_not_delay_earlier_packets(replay: Callable[..., Replay]) -> None:
    played = replay(timed([9, 8, 9.5, 1e16]))
    assert played.at(0) == [0, 1]
    assert played.at(0.5) == [2]
    assert played.at(1e6) == []


def test_a_replay_at_almost_no_speed_waits(replay: Callable[..., Replay]) -> None:
    played = replay(timed([0, 1]), speed=5e-324)
    assert played.at(0) == [0]
    assert played.at(1e9) == []
    assert not played.session.receive(0.001)


def test_a_replay_returns_256_packets_at_most_per_bundle(replay: Callable[..., Replay]) -> None:
    played = replay(timed([0] * 600))
    assert [len(played.at(0)) for _ in range(3)] == [256, 256, 88]


def test_replayed_packets_are_writable(replay: Callable[..., Replay]) -> None:
    played = replay(timed([0]))
    with played.session.receive(0) as bundle:
        bundle[0][0] = 0x46
        assert bundle[0][0] == 0x46


def test_packets_sent_to_a_replay_are_discarded(replay: Callable[..., Replay]) -> None:
    played = replay(timed([0, 1]))
    assert played.session.send(PACKETS) == len(PACKETS)
    assert played.at(0) == [0]


def test_a_broken_block_raises_after_the_packets_before_it(replay: Callable[..., Replay]) -> None:
    played = replay(timed([0, 1]) + block("<", 6, bytes(16)))
    assert played.at(0) == [0]
    assert played.at(5) == [1]
    with pytest.raises(threepipe.EndpointError, match="too short for its type"):
        played.at(5)


def test_skipped_frames_are_logged(replay: Callable[..., Replay], caplog: pytest.LogCaptureFixture) -> None:
    data = pcap("<", [b"\x08\x06".rjust(14), FRAMES["ethernet"][1](PACKETS[0])], ETHERNET)
    data += struct.pack("<IIII", 0, 0, 14, 99) + bytes(14) + struct.pack("<IIII", 0, 0, 99, 99)
    played = replay(data)
    assert len(played.at(0)) == 1
    assert [record.getMessage() for record in caplog.records] == [
        "pcap: skipped 1 frames without an IP packet and 1 packets that were captured in part",
        "pcap: the file ends in the middle of a packet, which was skipped",
    ]


UNFINISHED = [
    opened(PACKETS[0], 20, TCP4),
    with_field(opened(PACKETS[2], 20, TCP4), 2, 0),
    frame(TCP4, bytes(4000)),
    with_field(PACKETS[0], 36, 0x1234),
]


def test_repairs_are_logged_at_the_end(replay: Callable[..., Replay], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    played = replay(pcap("<", UNFINISHED))
    assert len(played.at(0)) == 6
    assert [record.getMessage() for record in caplog.records] == [
        "pcap: completed 2 checksums, 1 lengths and 1 superpackets (now 3 packets) that the sender had left to its"
        " network card; repair=off replays packets as recorded",
        "pcap: 1 packets have a wrong checksum, and were replayed with it",
    ]
    played.session.close()
    assert len(caplog.records) == 2


def test_a_replay_without_repair_is_as_recorded(replay: Callable[..., Replay]) -> None:
    played = replay(pcap("<", UNFINISHED), repair=False)
    with played.session.receive(0) as bundle:
        assert [bytes(packet) for packet in bundle] == UNFINISHED


def test_a_replay_that_is_closed_early_logs_what_it_has_skipped(
    replay: Callable[..., Replay], caplog: pytest.LogCaptureFixture
) -> None:
    data = section("<") + interface("<") + enhanced("<", b"\0" * 40, 0) + enhanced("<", PACKETS[0], 0)
    played = replay(data + enhanced("<", PACKETS[0], 9_000_000))
    assert len(played.at(0)) == 1
    played.session.close()
    assert [record.getMessage() for record in caplog.records] == ["pcap: skipped 1 frames without an IP packet"]


def test_a_compressed_file_is_replayed_in_a_loop(replay: Callable[..., Replay]) -> None:
    played = replay(gzip.compress(timed([5, 6])), loop=True)
    assert played.at(0) == [0]
    assert played.at(1) == [1, 0]
    assert played.at(2) == [1, 0]


def replayed(path: Path) -> threepipe.Session:
    return open_pcap(OpenRequest(str(path), "left", RateLimitedLog("pcap")))


@pytest.fixture
def quick(tmp_path: Path) -> Iterator[threepipe.Session]:
    """Return a session with packets a moment apart, with the real clock."""
    path = tmp_path / "a.pcapng"
    path.write_bytes(timed([0, 0.03, 0.06]))
    with replayed(path) as session:
        yield session


def test_receive_waits_for_the_next_packet(quick: threepipe.Session) -> None:
    found = [packet[-1] for _ in range(3) for packet in quick.receive(SECONDS)]
    assert found == [0, 1, 2]
    with pytest.raises(threepipe.EndpointEnded):
        quick.receive(SECONDS)


@descriptors
def test_the_descriptor_wakes_an_event_loop_for_each_packet(quick: threepipe.Session) -> None:
    async def collect() -> list[int]:
        found = []
        try:
            async for bundle in quick:
                found += [packet[-1] for packet in bundle]
        except threepipe.EndpointEnded:
            pass
        return found

    assert asyncio.run(asyncio.wait_for(collect(), SECONDS)) == [0, 1, 2]


def test_close_wakes_a_receive_that_waits_for_a_distant_packet(tmp_path: Path) -> None:
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


def test_a_file_that_cannot_be_replayed_raises(tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text("no capture")
    with pytest.raises(threepipe.EndpointError, match="neither pcap nor pcapng"):
        replayed(text)
    with pytest.raises(threepipe.EndpointError, match="no such file to replay") as refused:
        replayed(tmp_path / "none")
    assert refused.value.errno == errno.ENOENT
    with pytest.raises(threepipe.EndpointError, match="is not a plain file"):
        replayed(tmp_path)
