"""Handlers of signals while a block runs."""

import signal
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from threepipe.net.signals import ENDINGS, defer_signals, exit_once, handle_signals

SIGNALS = [signal.SIGINT, *[getattr(signal, name) for name in ENDINGS if hasattr(signal, name)]]


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


@pytest.fixture
def restored() -> Iterator[None]:
    """Restore all handlers at the end."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGHUP")
@pytest.mark.usefixtures("restored")
def test_a_second_sighup_does_not_break_off_the_end_of_the_program() -> None:
    with pytest.raises(SystemExit), exit_once():
        signal.raise_signal(signal.SIGHUP)
    signal.raise_signal(signal.SIGHUP)
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


@pytest.mark.usefixtures("restored")
def test_only_the_first_request_to_end_exits_and_with_its_number() -> None:
    statuses = []
    with exit_once():
        for number in SIGNALS[1:] * 2:
            try:
                signal.raise_signal(number)
            except SystemExit as exiting:
                statuses.append(exiting.code)
    assert statuses == [128 + SIGNALS[1]]


@contextmanager
def ignored(number: signal.Signals) -> Iterator[None]:
    before = signal.signal(number, signal.SIG_IGN)
    try:
        yield
        assert signal.getsignal(number) == signal.SIG_IGN
    finally:
        signal.signal(number, before)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGHUP")
def test_an_ignored_sighup_stays_ignored() -> None:
    with ignored(signal.SIGHUP), exit_once():
        signal.raise_signal(signal.SIGHUP)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_deferred_signal_has_its_effect_after_the_block(number: signal.Signals) -> None:
    done: list[str] = []
    with handle_signals((number.name,), lambda _: done.append("signal")):
        with defer_signals():
            signal.raise_signal(number)
            done.append("block")
        assert done == ["block", "signal"]


def test_a_deferred_ctrl_c_raises_after_a_block_that_fails() -> None:
    done: list[str] = []

    def fail_after_a_signal() -> None:
        with defer_signals():
            signal.raise_signal(signal.SIGINT)
            done.append("block")
            raise OSError

    with pytest.raises(KeyboardInterrupt):
        fail_after_a_signal()
    assert done == ["block"]
    assert signal.getsignal(signal.SIGINT) == signal.default_int_handler


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGHUP")
def test_an_ignored_signal_stays_ignored_while_signals_are_deferred() -> None:
    with ignored(signal.SIGHUP), defer_signals():
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN


def test_another_thread_defers_nothing() -> None:
    def defer() -> object:
        with defer_signals():
            return signal.getsignal(signal.SIGINT)

    with ThreadPoolExecutor(1) as executor:
        assert executor.submit(defer).result() == signal.default_int_handler
