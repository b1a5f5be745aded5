"""The conformance checks on a Windows adapter, also under AddressSanitizer."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.contract_dll.build import build, sanitizer
from tests.support.windows_adapters import LOOPS, Check, Made
from threepipe.testing import CHECKS

pytestmark = pytest.mark.windows


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("check", CHECKS)
def test_an_adapter_passes_every_check_of_the_contract(
    check: Check, loop: str, made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asyncio.events, "new_event_loop", getattr(asyncio, loop))  # asyncio.run calls this.
    check(*made)


@pytest.mark.skipif(not sanitizer(), reason="there is no gcc with AddressSanitizer")
@pytest.mark.timeout(300)
def test_the_adapter_tests_pass_under_address_sanitizer(request: pytest.FixtureRequest) -> None:
    environment = os.environ | {
        "THREEPIPE_CONTRACT": str(build("linux-asan", request.config.cache.mkdir("contract"))),
        "LD_PRELOAD": str(sanitizer()),
        "ASAN_OPTIONS": "detect_leaks=0",  # Python leaks much on purpose.
    }
    folder = str(Path(__file__).parent)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "not sanitizer", folder]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout
