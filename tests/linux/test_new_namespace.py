"""`netns=new`: a pipe of an ordinary user with its adapter in a namespace of its own."""

import re
import signal
import subprocess
import sys

import pytest

from tests.support.kernel import STRANGER, Network, links, needs_root
from tests.support.ordinary import processes, running, threepipe_as_user
from tests.support.waiting import come_true

if sys.platform != "linux":
    pytest.skip(f"{sys.platform} has no namespaces", allow_module_level=True)

pytestmark = [pytest.mark.kernel, needs_root]

ENCLOSED = "tun:tp0,netns=new,address=10.6.7.1/24"


def test_the_command_of_a_pipe_runs_in_the_namespace_of_its_adapter(network: Network) -> None:
    script = "sh -c 'ping -c 1 -W 20 10.6.7.9 >/dev/null && ip -br link | cut -d\" \" -f1 && id -u; exit 5'"
    words = threepipe_as_user(network, "pipe", ENCLOSED, "echo:", "--run", script)
    done = subprocess.run(words, capture_output=True, text=True, timeout=50)
    assert (done.returncode, done.stdout.split()[:3]) == (5, ["lo", "tp0", str(STRANGER)]), done.stderr
    assert links(network) == set()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_nothing_is_left_of_a_pipe_with_a_namespace_and_a_command(network: Network, number: signal.Signals) -> None:
    script = "sh -c 'echo here; sleep 1000'"
    with running(threepipe_as_user(network, "pipe", ENCLOSED, "echo:", "--run", script)) as process:
        process.send_signal(number)
        process.wait(20)
        assert come_true(lambda: processes() == [])


def test_the_namespace_of_a_pipe_can_be_entered_by_its_user(network: Network) -> None:
    words = threepipe_as_user(network, "pipe", ENCLOSED, "echo:")
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        enter = re.search(r"to enter it: (.*)", process.stderr.readline())
        assert enter
        ids = ["setpriv", f"--reuid={STRANGER}", f"--regid={STRANGER}", "--clear-groups"]
        done = subprocess.run([*ids, *enter[1].split(), "ping", "-c", "1", "-W", "20", "10.6.7.3"], timeout=50)
        process.terminate()
        assert done.returncode == 0


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ("persistent", "has one queue and ends with the pipe; drop persistent"),
        ("queues=2", "drop queues"),
        ("default-route=5", "default-route is for the namespace of this process"),
    ],
)
def test_options_that_a_new_namespace_cannot_have_are_refused(network: Network, options: str, text: str) -> None:
    words = threepipe_as_user(network, "pipe", f"{ENCLOSED},{options}", "echo:")
    done = subprocess.run(words, capture_output=True, text=True, timeout=50)
    assert done.returncode == 1
    assert text in done.stderr
