"""The lines of `threepipe pipe --stats`: rates and totals that people can read, in 78 columns."""

import pytest

from threepipe.capture.status import PipeStatus, Traffic
from threepipe.cli.pipe_report import TextReport

SMALL = Traffic()


def printed(capfd: pytest.CaptureFixture[str], *reports: tuple[Traffic, float], ends: tuple[str, str]) -> list[str]:
    report = TextReport(*ends, statistics=True)
    for traffic, seconds in reports:
        report.show(PipeStatus(seconds, traffic, SMALL))
    return capfd.readouterr().err.splitlines()


def test_rates_are_those_since_the_last_report_and_totals_those_of_all(capfd: pytest.CaptureFixture[str]) -> None:
    first = Traffic(sent_packets=83_100, sent_bytes=124_700_000, dropped=5)
    second = Traffic(sent_packets=84_100, sent_bytes=124_700_125, dropped=1_250_000)
    lines = printed(capfd, (first, 1.0), (second, 3.0), ends=("tun:tp0", "discard"))
    assert lines[1] == "    1 s tun:tp0 > discard           83.1 k    998 M   83.1 k    125 M        5"
    assert lines[3] == "    3 s tun:tp0 > discard              500      500   84.1 k    125 M   1.25 M"
    assert lines[4].split()[-5:] == ["0"] * 5


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0"),
        (7, "7"),
        (999, "999"),
        (1000, "1 k"),
        (999_499, "999 k"),
        (999_500, "1 M"),
        (12_345_678_901, "12.3 G"),
        (2**64, "18.4 E"),
    ],
)
def test_a_number_has_three_digits_and_a_prefix(capfd: pytest.CaptureFixture[str], value: int, shown: str) -> None:
    line = printed(capfd, (Traffic(dropped=value), 1.0), ends=("a", "b"))[1]
    assert line.endswith(f"  {shown}")
    assert len(line) == 78


@pytest.mark.parametrize(
    ("left", "right", "shown"),
    [
        ("tun:tp0,address=10.6.7.1/24", "udp:vpn.example.org:4242", "tun:tp0 > udp:vpn.examp…"),
        ("exec:ssh root@example.org threepipe pipe tun:t -", "discard", "exec:ssh root… > discard"),
        ("udp:one.example.org:1", "udp:two.example.org:1", "udp:one.e… > udp:two.e…"),
        ("tun:\x1b[2J", "-", "tun:\\x1b[2J > -"),
    ],
)
def test_long_addresses_are_shortened_to_their_column(
    capfd: pytest.CaptureFixture[str], left: str, right: str, shown: str
) -> None:
    line = printed(capfd, (SMALL, 1.0), ends=(left, right))[1]
    assert line[8:32].rstrip() == shown
    assert len(line) == 78


def test_headings_are_repeated(capfd: pytest.CaptureFixture[str]) -> None:
    lines = printed(capfd, *[(SMALL, float(second)) for second in range(1, 22)], ends=("a", "b"))
    assert [number for number, line in enumerate(lines) if "packets/s" in line] == [0, 21, 42]
