"""Signals that end a device: they interrupt where it waits, and are seen everywhere else."""

import signal
from collections.abc import Iterator

import pytest

from threepipe.wireguard.quick.ending import Ended, Ending

NUMBERS = [signal.SIGINT, signal.SIGTERM]


@pytest.mark.parametrize("number", NUMBERS)
def test_a_signal_interrupts_a_wait_and_names_its_status(number: signal.Signals) -> None:
    with Ending() as ending, pytest.raises(Ended) as raised, ending.interrupting():
        signal.raise_signal(number)
    assert raised.value.status == 128 + number


def test_a_signal_outside_a_wait_is_raised_by_the_next_check_or_wait() -> None:
    with Ending() as ending:
        ending.check()
        signal.raise_signal(signal.SIGTERM)
        assert ending.number == signal.SIGTERM
        with pytest.raises(Ended):
            ending.check()
        with pytest.raises(Ended), ending.interrupting():
            pytest.fail("the wait began")


def test_a_second_signal_interrupts_nothing() -> None:
    with Ending() as ending:
        with pytest.raises(Ended), ending.interrupting():
            signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
        assert ending.number == signal.SIGTERM


@pytest.fixture(params=["SIGINT", "SIGHUP"])
def ignored(request: pytest.FixtureRequest) -> Iterator[signal.Signals]:
    """Return a signal that is ignored."""
    number: signal.Signals | None = getattr(signal, request.param, None)
    if number is None:
        pytest.skip(f"this system has no {request.param}")
    before = signal.signal(number, signal.SIG_IGN)
    try:
        yield number
        assert signal.getsignal(number) == signal.SIG_IGN
    finally:
        signal.signal(number, before)


def test_a_device_outlives_its_terminal_but_not_an_ignored_ctrl_c(ignored: signal.Signals) -> None:
    with Ending() as ending:
        try:
            with ending.interrupting():
                signal.raise_signal(ignored)
        except Ended:
            pass
        assert ending.number == (signal.SIGINT if ignored == signal.SIGINT else None)
