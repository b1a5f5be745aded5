"""Callers of stream endpoints: those served, those turned away, and how each side learns of the end."""

import logging
import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

import threepipe
from tests.support.endpoints import SECONDS, Place, at_work, joined, opened, packet, received, record, served, unix
from threepipe.echo import echo_reply, echo_request


def test_send_without_a_client_raises_link_down(stack: ExitStack, place: Place) -> None:
    listener = opened(stack, place.listening)
    with pytest.raises(threepipe.LinkDown, match="nothing is connected"):
        listener.send([packet(0)])
    assert listener.statistics.sent_dropped == 1
    assert not listener.receive(0)


def test_the_next_caller_is_served_after_one_has_left(stack: ExitStack, place: Place) -> None:
    with at_work(opened(stack, place.listening)):
        for number in range(5):
            served(place, number)


@pytest.mark.parametrize("how", ["reuse=off", "once"])
def test_a_listener_for_one_caller_ends_with_it(stack: ExitStack, place: Place, how: str) -> None:
    once = how == "once"
    listener = opened(stack, place.listening + ("" if once else f",{how}"), once=once)
    with ThreadPoolExecutor(1) as executor:
        ended = executor.submit(threepipe.pipe, listener, opened(stack, "echo"))
        served(place)
        assert ended.result(SECONDS) is None
    assert listener.closed
    with pytest.raises(OSError):  # noqa: PT011
        place.connect_bare().close()


def test_a_connection_without_data_does_not_count_as_the_one_caller(stack: ExitStack, tmp_path: Path) -> None:
    place = Place("tcp", tmp_path)
    listener = opened(stack, place.listening, once=True)
    with ThreadPoolExecutor(1) as executor:
        ended = executor.submit(threepipe.pipe, listener, opened(stack, "echo"))
        place.connect().close()
        served(place)
        ended.result(SECONDS)


def test_a_caller_raises_endpoint_ended_with_the_name_of_its_peer(stack: ExitStack, place: Place) -> None:
    listener, caller = joined(stack, place)
    caller_name = place.calling.partition(":")[2].partition(",")[0]
    listener.close()
    with pytest.raises(threepipe.EndpointEnded, match=f"{caller_name} disconnected"):
        caller.receive(SECONDS)
    with pytest.raises(threepipe.EndpointEnded):  # Each further call raises it again.
        caller.receive(SECONDS)


@unix
def test_a_half_closed_caller_can_still_be_answered(stack: ExitStack, tmp_path: Path) -> None:
    path = tmp_path / "half"
    listener = stack.enter_context(threepipe.open_endpoint(f"unix-listen:{path}", once=True))
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as program:
        program.connect(str(path))
        program.sendall(record(packet(0)))
        program.shutdown(socket.SHUT_WR)
        assert received(listener, 1) == [packet(0)]
        with pytest.raises(threepipe.EndpointEnded):
            listener.receive(SECONDS)
        assert listener.send([packet(1)]) == 1
        assert program.recv(1000) == record(packet(1))


def test_packets_sent_before_the_end_are_received_before_it(stack: ExitStack, place: Place) -> None:
    listener, caller = joined(stack, place)
    packets = [packet(number) for number in range(10)]
    assert listener.send(packets) == 10
    listener.close()
    assert received(caller, 10) == packets
    with pytest.raises(threepipe.EndpointEnded):
        caller.receive(SECONDS)


def test_a_second_caller_is_turned_away_while_the_first_is_served(
    stack: ExitStack, place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    with at_work(opened(stack, place.listening)):
        with place.connect() as first, first.makefile("rb") as replies:
            for number in range(2):
                request = echo_request("10.1.1.1", "10.1.1.2", 1, number)
                first.sendall(record(request))
                assert replies.read(2 + len(request)) == record(echo_reply(request) or b"")
                if not number:
                    with place.connect_bare() as second:
                        assert second.recv(1) == b""
        served(place)
    assert "was refused: another client is connected" in caplog.text


def test_a_receive_that_waits_for_a_caller_gets_its_first_packets(stack: ExitStack, place: Place) -> None:
    listener = opened(stack, place.listening)
    with ThreadPoolExecutor(1) as executor:
        calling = executor.submit(opened, stack, place.calling)
        while True:
            listener.receive(0.01)
            try:
                assert listener.send([packet(7)]) == 1
                break
            except threepipe.LinkDown:
                pass
        assert received(calling.result(), 1) == [packet(7)]


def test_connections_and_disconnections_are_logged(
    stack: ExitStack, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = Place("tcp", tmp_path)
    with caplog.at_level(logging.INFO, "threepipe.endpoints"):
        listener, caller = joined(stack, place)
        caller.close()
        assert not listener.receive(0.5)
    lines = [line.getMessage() for line in caplog.records if line.getMessage().startswith(place.listening)]
    assert [line.split()[-1] for line in lines] == ["connected", "disconnected"]
    assert "127." in lines[0]
