"""The steps of a takeover at the new process, with a stand-in for the running one."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

if sys.platform != "linux":
    pytest.skip(f"{sys.platform} has no takeover", allow_module_level=True)

from threepipe import platforms
from threepipe.errors import EndpointError
from threepipe.platforms.linux.handover import Link
from threepipe.takeover import Taking

SECONDS = 20


@pytest.fixture
def ends(tmp_path: Path) -> Iterator[tuple[Taking, Link]]:
    """Return the new process, and the connection of the running one."""
    path = tmp_path / "thing.takeover"
    listening, remove = platforms.listen_handover(path)
    with listening, Taking("thing", path) as taking:
        old = platforms.accept_handover(listening)
        assert isinstance(old, Link)
        yield taking, old
        old.close()
    remove()


def test_the_new_process_says_each_step_and_how_long_packets_waited(
    ends: tuple[Taking, Link], caplog: pytest.LogCaptureFixture
) -> None:
    taking, old = ends
    old.send({"takeover": "offer", "settings": 5})
    old.send({"takeover": "state"})
    with caplog.at_level("INFO", "threepipe"):
        assert taking.greet("a test", 3, clock=7) == ({"takeover": "offer", "settings": 5}, [])
        assert taking.stop() == ({"takeover": "state"}, [])
        taking.claim()
        taking.finish()
    hello = {"takeover": "hello", "version": 3, "kind": "a test", "scope": platforms.network_scope(), "clock": 7}
    said = [old.receive(SECONDS)[0] for _ in range(4)]
    assert said == [hello, {"takeover": "prepared"}, {"takeover": "mine"}, {"takeover": "running"}]
    assert "thing was taken over; packets waited for " in caplog.text


def test_a_refusal_of_the_old_process_is_raised(ends: tuple[Taking, Link]) -> None:
    taking, old = ends
    old.send_error(EndpointError(None, "thing has another version"))
    with pytest.raises(EndpointError, match="thing has another version"):
        taking.greet("a test", 3)


def test_an_old_process_that_has_ended_is_an_error_before_the_end_alone(ends: tuple[Taking, Link]) -> None:
    taking, old = ends
    old.close()
    with pytest.raises(EndpointError):
        taking.claim()
    taking.finish()
