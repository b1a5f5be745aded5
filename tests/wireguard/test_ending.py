"""Signals that end a device: they interrupt where it waits, and are seen everywhere else."""

import signal
import sys

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


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGHUP")
def test_an_ignored_signal_interrupts_as_well() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Ending() as ending, pytest.raises(Ended), ending.interrupting():
            signal.raise_signal(signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
