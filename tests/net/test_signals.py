"""Handlers of signals while a block runs."""

import signal
import sys

import pytest

from threepipe.net.signals import handle_signals, interrupt_once

SIGNALS = [signal.SIGINT, signal.SIGTERM]


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_in_the_block_calls_the_handler(number: signal.Signals) -> None:
    received: list[int] = []
    with handle_signals((number.name, "SIGNONE"), received.append):
        signal.raise_signal(number)
    assert received == [number]


@pytest.mark.parametrize("number", SIGNALS)
def test_the_handler_before_the_block_is_back_after_it(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with handle_signals((number.name,), print):
        assert signal.getsignal(number) != before
    assert signal.getsignal(number) == before


def test_only_the_first_signal_interrupts() -> None:
    with interrupt_once():
        for number in SIGNALS:
            try:
                signal.raise_signal(number)
            except KeyboardInterrupt:
                assert number == SIGNALS[0]
            else:
                assert number != SIGNALS[0]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGHUP")
def test_an_ignored_signal_interrupts_as_well() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interrupt_once(), pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
