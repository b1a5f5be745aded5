"""Sessions of a pipe that are paused: nothing is received until they are resumed."""

import threading

import pytest

from tests.support.sessions import Sessions, in_thread, packet, until_waiting
from threepipe import SessionClosed
from threepipe.endpoint import Filter
from threepipe.memory import MemoryAdapter
from threepipe.piping import pipe
from threepipe.pump import pause, resume, wait_until_idle

SECONDS = 10


def test_a_thread_that_waits_for_packets_gets_them_once_the_session_is_resumed(sessions: Sessions) -> None:
    left, right = sessions
    received = in_thread(left.receive)
    until_waiting(left, 1)
    pause(left)
    assert wait_until_idle(left, SECONDS)
    assert right.send([packet(1)]) == 1
    assert list(left.receive(0.01)) == []
    resume(left)
    assert list(map(bytes, received.result(SECONDS))) == [packet(1)]


def test_close_wakes_a_thread_of_a_paused_session(sessions: Sessions) -> None:
    left, _ = sessions
    pause(left)
    received = in_thread(left.receive)
    assert wait_until_idle(left, SECONDS)
    left.close()
    assert isinstance(received.exception(SECONDS), SessionClosed)


def test_a_paused_session_is_not_idle_without_a_thread_nor_once_it_is_closed(sessions: Sessions) -> None:
    left, _ = sessions
    pause(left)
    assert not wait_until_idle(left, 0.01)
    left.close()
    assert not wait_until_idle(left, SECONDS)
    resume(left)


@pytest.mark.parametrize("filtered", [False, True])
def test_a_pipe_is_idle_at_both_paused_sessions_and_loses_nothing(filtered: bool) -> None:
    (near, left), (right, far) = MemoryAdapter.pair(), MemoryAdapter.pair()
    with near, left, right, far:
        program, a, b, other = (adapter.start_session() for adapter in (near, left, right, far))
        ends = (Filter(a), Filter(b)) if filtered else (a, b)
        thread = threading.Thread(target=pipe, args=ends)
        thread.start()
        for number in range(3):
            for session in (a, b):
                pause(session)
            assert all(wait_until_idle(session, SECONDS) for session in (a, b))
            assert program.send([packet(number)]) == other.send([packet(number)]) == 1
            assert list(other.receive(0)) == []
            for session in (a, b):
                resume(session)
            for end in (program, other):
                assert list(map(bytes, end.receive(SECONDS))) == [packet(number)]
        a.close()
        thread.join(SECONDS)
        assert not thread.is_alive()
