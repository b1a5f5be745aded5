"""Settings of impairments as text."""

import math

import pytest

from threepipe import InvalidSetting
from threepipe.filters.impairment import SETTINGS, Impairment, parse_impairment
from threepipe.filters.scheduler import Scheduler


def test_a_text_with_every_setting_parses() -> None:
    text = (
        "delay=20ms,jitter=5ms,loss=1%,duplicate=0.1%,reorder=1%,corrupt=0.1%,"
        "rate=10mbit,burst=16k,limit=5000,seed=7,towards=left"
    )
    expected = Impairment(0.02, 0.005, 0.01, 0.001, 0.01, 0.001, 10e6, 16384, 5000, 7, "left")
    assert parse_impairment(text)[:7] == pytest.approx(expected[:7])
    assert parse_impairment(text)[7:] == expected[7:]
    assert set(SETTINGS) == set(Impairment._fields)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("delay=1.5s", 1.5),
        ("delay=250us", 0.00025),
        ("delay=.5MS", 0.0005),
        ("loss=0.25", 0.25),
        ("loss=100%", 1.0),
        ("loss=0", 0.0),
        ("rate=9600bit", 9600.0),
        ("rate=64kbit", 64e3),
        ("rate=1.5Gbit", 1.5e9),
        (" seed=3", 3),
        ("towards=right", "right"),
    ],
)
def test_a_value_with_a_unit_parses(text: str, value: object) -> None:
    name = text.strip().partition("=")[0]
    assert getattr(parse_impairment(text), name) == (pytest.approx(value) if isinstance(value, float) else value)


@pytest.mark.parametrize(
    ("text", "value"), [("1500", 1500), ("1500b", 1500), ("2k", 2048), ("2kb", 2048), ("1m", 1 << 20)]
)
def test_a_value_in_bytes_parses(text: str, value: int) -> None:
    assert parse_impairment(f"rate=1mbit,burst={text}").burst == value


def test_every_example_of_the_table_parses() -> None:
    for name, setting in SETTINGS.items():
        assert setting.help
        for value in setting.example.split("|"):
            companion = {"burst": "rate=1mbit,", "reorder": "delay=1ms,"}.get(name, "")
            assert getattr(parse_impairment(f"{companion}{name}={value}"), name)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "unknown impairment ''; expected one of delay, jitter, loss"),
        ("delay=1ms,,", "impairment ''"),
        ("dealy=20ms", r"unknown impairment 'dealy'; did you mean delay\?"),
        ("delay=1ms,delay=2ms", "delay is given twice"),
        ("delay", "write it like delay=20ms"),
        ("delay=20", "unknown unit; expected one of us, ms, s; write it like delay=20ms"),
        ("delay=-1ms", "not a number"),
        ("delay=nan", "not a number"),
        ("delay=\u0663ms", "not a number"),
        ("delay=1e3s", "not a number"),
        ("delay=1h", "unknown unit"),
        (f"delay={'9' * 400}s", "too large"),
        ("loss=5", "loss 5.0: give a probability, from 0 to 1"),
        ("loss=101%", "probability"),
        ("corrupt=1ms", "unknown unit; expected one of %; write it like corrupt=0.1%"),
        ("rate=10", "unknown unit; expected one of bit, kbit, mbit, gbit"),
        ("rate=10kbps", "unknown unit"),
        ("rate=0.5bit", "at least 1 bit"),
        ("burst=16k", "add rate="),
        ("reorder=1%", "add delay="),
        ("limit=0", "at least 1 packet"),
        ("limit=many", "write it like limit=5000"),
        (f"seed={'9' * 5000}", "write it like seed=7"),
        ("towards=up", "expected left or right"),
    ],
)
def test_an_invalid_text_raises_with_advice(text: str, complaint: str) -> None:
    with pytest.raises(InvalidSetting, match=complaint):
        parse_impairment(text)


@pytest.mark.parametrize(
    "impairment",
    [
        Impairment(delay=-1),
        Impairment(jitter=math.nan),
        Impairment(rate=math.inf),
        Impairment(burst=-1),
        Impairment(loss=2),
    ],
)
def test_an_invalid_impairment_raises_in_the_scheduler(impairment: Impairment) -> None:
    with pytest.raises(InvalidSetting):
        Scheduler(impairment, "left")
