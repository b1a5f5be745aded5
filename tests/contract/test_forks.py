"""A forked child has closed copies of everything, and cannot disturb its parent."""

import gc
import os
import sys
import threading
from pathlib import Path

import pytest

import threepipe
from tests.support.forks import in_child
from threepipe.adapter import Adapter
from threepipe.errors import AdapterClosed, SessionClosed
from threepipe.net.connect import listen_unix
from threepipe.net.doorbell import Doorbell
from threepipe.net.forks import call_in_child
from threepipe.session import Session

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")

PACKET = b"\x45" + bytes(19)
SECONDS = 10


def refused(kind: type[Exception], *uses: object) -> str:
    """Call each of `uses`; say which of them did not raise `kind` with the reason."""
    wrong = []
    for use in uses:
        try:
            use()  # type: ignore[operator]
        except kind as error:
            if "belongs to the process that this one was forked from" not in str(error):
                wrong.append(str(error))
        else:
            wrong.append(f"{use} did not raise")
    return ", ".join(wrong)


def test_sessions_and_adapters_are_closed_in_a_child_and_go_on_in_the_parent() -> None:
    left, right = threepipe.MemoryAdapter.pair()
    with left, right, left.start_session() as near, right.start_session() as far:
        near.send([PACKET])

        def use_all() -> str:
            wrong = refused(
                SessionClosed,
                far.receive,
                far.receive_packet,
                far.fileno,
                lambda: far.receive(0),
                lambda: near.send([PACKET]),
                lambda: near.send_packet(PACKET),
            )
            wrong += refused(AdapterClosed, lambda: left.info, left.start_session, left.delete)
            assert near.closed
            assert list(far) == []
            assert near.statistics.sent_packets == 1
            with left, right, near, far:
                pass
            return wrong

        assert in_child(use_all) == ""
        for _ in range(3):
            assert len(far.receive(SECONDS)) == 1
            assert not far.receive(0.01)
            near.send([PACKET])
            assert in_child(lambda: threepipe.pipe(near, far)) == ""
        assert left.link_up


def test_a_child_forked_while_other_threads_use_a_session_does_not_hang() -> None:
    left, right = threepipe.MemoryAdapter.pair()
    with left, right, left.start_session() as near, right.start_session() as far:
        over = threading.Event()

        def send() -> None:
            while not over.is_set():
                near.send([PACKET] * 50)

        def receive() -> None:
            for bundle in far:
                bundle.release()

        threads = [threading.Thread(target=work) for work in (send, receive)]
        for thread in threads:
            thread.start()

        def use_all() -> str:
            wrong = refused(SessionClosed, lambda: near.send([PACKET]), lambda: far.receive(0))
            near.close()
            far.close()
            left.close()
            return wrong

        try:
            assert [in_child(use_all) for _ in range(40)] == [""] * 40
        finally:
            over.set()
            threads[0].join()
            far.close()
            threads[1].join()


def test_a_session_with_a_descriptor_is_collected_in_a_child_without_harm() -> None:
    left, right = threepipe.MemoryAdapter.pair()
    with right, right.start_session() as far:
        kept = [left.start_session()]
        kept[0].fileno()

        def collect() -> None:
            kept.clear()
            left._session = None
            gc.collect()

        assert in_child(collect) == ""
        assert kept[0].send([PACKET]) == 1
        assert len(far.receive(SECONDS)) == 1
        left.close()


def test_copies_that_were_told_of_a_fork_do_nothing() -> None:
    """The same without a fork, as far as that goes: coverage counts no lines that a child runs."""
    left, right = threepipe.MemoryAdapter.pair()
    with right, right.start_session() as far:
        near, bell = left.start_session(), Doorbell()
        Session._leave_behind(near)
        Adapter._leave_behind(left)
        Doorbell._leave_behind(bell)
        assert not refused(SessionClosed, lambda: near.send([PACKET]), near.receive)
        assert not refused(AdapterClosed, lambda: left.info)
        for close in (near.close, left.close, bell.ring, bell.clear, bell.close):
            close()
        assert far.send([PACKET]) == 1  # The other end has noticed nothing.
        left._left_behind = near._left_behind = near._closed = False
        near.close()
        left.close()


def test_objects_that_a_child_makes_work_there() -> None:
    def converse() -> str:
        left, right = threepipe.MemoryAdapter.pair()
        with left, right, left.start_session() as near, right.start_session() as far:
            near.send([PACKET])
            return str(len(far.receive(SECONDS)))

    assert in_child(converse) == "1"


def test_a_bell_in_a_child_does_not_ring_or_clear_that_of_the_parent() -> None:
    rung, silent = Doorbell(), Doorbell()
    rung.ring()

    def change() -> None:
        rung.clear()
        silent.ring(for_ever=True)
        silent.hold(True)
        rung.close()
        silent.close()

    assert in_child(change) == ""
    for bell in (rung, silent):
        bell.ring()
        bell.clear()
    assert [bell._reader.recv(1) for bell in (rung, silent) if bell._rung] == []
    with pytest.raises(BlockingIOError):
        silent._reader.recv(1)
    rung.close()
    silent.close()


def test_a_child_does_not_remove_the_file_of_a_socket(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    listening, remove = listen_unix(str(path))
    assert in_child(remove) == ""
    assert path.exists()
    remove()
    assert not path.exists()
    listening.close()


def test_all_calls_are_made_in_a_child_even_if_one_raises(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "unraisablehook", sys.__unraisablehook__)  # Not pytest's, which keeps it for later.

    class Owner:
        called = False

        def fail(self) -> None:
            self.called = True
            raise ValueError("it failed")

    owners = [Owner() for _ in range(3)]
    for owner in owners:
        call_in_child(owner, Owner.fail)
    assert in_child(lambda: str([owner.called for owner in owners])) == "[True, True, True]"
    assert not any(owner.called for owner in owners)
    assert "it failed" in capfd.readouterr().err
