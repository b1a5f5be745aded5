"""The service under many requests, callers and kills: nothing is left, and its memory does not grow."""

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.kernel import Network, links, needs_root
from tests.support.service import answer_to, close_all, hurl, serving
from tests.support.waiting import come_true

pytestmark = [pytest.mark.soak, pytest.mark.kernel, needs_root]

REQUESTS = 10_000
ROUNDS = 20
KIB = 4096

CALLER = """
import os, socket, sys, time
caller = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
caller.connect(sys.argv[1])
caller.send(b'{"op": "create", "name": "tp%d", "addresses": ["10.6.7.1/32"]}')
caller.recvmsg(65536, 1000)
caller.send(b'{"op": "info"}')
caller.recv(65536)
"""


@pytest.mark.timeout(1200)
def test_ten_thousand_random_requests_leave_nothing(network: Network, tmp_path: Path) -> None:
    with serving(network, tmp_path) as service:
        hurl(service, 500, random.Random(1))
        descriptors, memory = service.descriptors(), service.memory()
        hurl(service, REQUESTS, random.Random(2))
        assert come_true(lambda: service.descriptors() == descriptors)
        assert service.memory() - memory < KIB
    assert links(network) == set()


@pytest.mark.timeout(1200)
def test_a_hundred_callers_at_once_again_and_again_leave_nothing(network: Network, tmp_path: Path) -> None:
    with serving(network, tmp_path) as service:
        descriptors, memory = service.descriptors(), 0
        for turn in range(ROUNDS):
            callers = [service.connect() for _ in range(100)]
            for caller in callers:
                caller.send(json.dumps({"op": "create", "name": "tp%d"}).encode())
            for caller in callers:
                close_all(answer_to(caller)[1])
                caller.close()
            assert come_true(lambda: links(network) == set() and service.descriptors() == descriptors, 60)
            memory = memory or (service.memory() if turn == 2 else 0)
        assert service.memory() - memory < KIB


@pytest.mark.timeout(1200)
def test_callers_killed_at_any_moment_leave_nothing(network: Network, tmp_path: Path) -> None:
    chance = random.Random(3)
    with serving(network, tmp_path) as service:
        descriptors = service.descriptors()
        for _ in range(200):
            command = network.command(sys.executable, "-c", CALLER, str(service.path))
            with subprocess.Popen(command) as process:
                try:
                    process.wait(chance.uniform(0.02, 0.12))
                except subprocess.TimeoutExpired:
                    os.kill(process.pid, signal.SIGKILL)
        assert come_true(lambda: links(network) == set() and service.descriptors() == descriptors, 30)
