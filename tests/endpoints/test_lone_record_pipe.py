"""Records that come alone pass a pipe as those of bursts do, and with the same counts and ends."""

import socket
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.endpoints import SECONDS, packet, record
from tests.support.stream_pipes import Piped, answered, take
from tests.support.waiting import come_true
from threepipe.errors import EndpointError

if sys.platform == "win32":
    pytest.skip("Windows has no such descriptors", allow_module_level=True)

pytestmark = pytest.mark.usefixtures("loop")


def test_packets_that_come_alone_pass_and_are_counted(piped: Piped) -> None:
    answered(piped)
    for end in (piped.left, piped.right):
        assert come_true(lambda end=end: end.statistics == (11, 1100, 11, 11, 1100, 11, 0))  # type: ignore[misc]


def test_records_cut_anywhere_or_joined_pass_after_packets_that_came_alone(piped: Piped) -> None:
    source, target = piped.programs
    data = record(packet(1, 20)) + b"\0\0" + record(packet(2, 33))
    for cut in range(1, len(data)):
        answered(piped)
        source.sendall(data[:cut])
        source.sendall(data[cut:])
        assert take(target, len(data) - 2) == record(packet(1, 20)) + record(packet(2, 33))


def test_a_long_record_after_packets_that_came_alone_passes(piped: Piped) -> None:
    for source, target in (piped.programs, piped.programs[::-1]):
        answered(piped)
        data = record(packet(9, 65535))
        with ThreadPoolExecutor(1) as executor:
            executor.submit(source.sendall, data)
            assert take(target, len(data)) == data


@pytest.mark.parametrize("data", [record(b"\0" * 30), b"\x40\x00\x10", b"Password: "])
def test_a_record_that_is_not_a_packet_ends_the_pipe_after_packets_that_came_alone(piped: Piped, data: bytes) -> None:
    answered(piped)
    piped.programs[0].sendall(data)
    assert piped.thread is not None
    with pytest.raises(EndpointError, match="not an IP packet"):
        piped.thread.result(SECONDS)


def test_the_end_of_a_stream_ends_the_pipe_after_packets_that_came_alone(piped: Piped) -> None:
    answered(piped)
    piped.programs[1].shutdown(socket.SHUT_WR)
    assert piped.thread is not None
    assert piped.thread.result(SECONDS) is None
