"""The examples, run as a reader would, against ping of iputils."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.support.examples import ECHOES, EXAMPLES
from tests.support.kernel import Network
from tests.support.pinging import answered

pytestmark = pytest.mark.kernel


@contextmanager
def running(network: Network, example: str) -> Iterator[subprocess.Popen[str]]:
    """Run the example until after its first line of output, and end it as Ctrl-C does, with status 0."""
    command = network.command(sys.executable, "-W", "error", str(EXAMPLES / example), "echo0")
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert "10.33.3.0/24" in process.stdout.readline(), process.stderr.read()
        try:
            yield process
        finally:
            process.send_signal(signal.SIGINT)
            try:
                assert process.wait(20) == 0, process.stderr.read()
            finally:
                process.kill()
            assert process.stderr.read() == ""


def test_the_echo_example_is_under_50_lines() -> None:
    assert len((EXAMPLES / "echo.py").read_text().splitlines()) < 50


@pytest.mark.parametrize("example", ECHOES)
@pytest.mark.parametrize("address", ["10.33.3.77", "fd33::77"])
def test_a_thousand_pings_are_answered(network: Network, example: str, address: str) -> None:
    with running(network, example):
        # With adaptive intervals, ping sends the next request when it has the answer.
        output = network.run("ping", "-A", "-q", "-c", "1000", address)
    assert answered(output) == (1000, 1000)


@pytest.mark.parametrize("example", ECHOES)
def test_a_flood_of_ten_thousand_pings_is_answered(network: Network, example: str) -> None:
    with running(network, example):
        output = network.run("ping", "-f", "-q", "-c", "10000", "10.33.3.200")
    assert answered(output) == (10000, 10000)


def test_a_ping_outside_the_subnet_gets_no_answer(network: Network) -> None:
    with running(network, "echo.py"):
        network.run("ip", "route", "add", "10.44.4.0/24", "dev", "echo0")
        output = network.run("ping", "-c", "3", "-i", "0.01", "-W", "0.2", "10.44.4.4", check=False)
    assert answered(output) == (3, 0)


def test_the_adapter_is_gone_after_the_example_ends(network: Network) -> None:
    with running(network, "echo.py"):
        assert "echo0" in network.run("ip", "link")
    assert "echo0" not in network.run("ip", "link")
