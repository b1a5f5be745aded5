"""Programs on Windows' Python end with the test that started them, even if that is killed."""

import os
import select
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.windows_python import windows_command

pytestmark = [pytest.mark.wine, pytest.mark.timeout(180)]

SECONDS = 60.0
STARTER = """
import sys
sys.path.insert(0, sys.argv[1])
from tests.support.windows_python import on_windows
with on_windows("-c", "import time; print('up', flush=True); time.sleep(300)") as program:
    print(program.pid, program.stdout.readline(), flush=True)
    input()
"""


def test_a_program_ends_when_its_starter_is_killed() -> None:
    windows_command()
    command = [sys.executable, "-c", STARTER, str(Path(__file__).parents[2])]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as starter:
        assert starter.stdout is not None
        pid, said = starter.stdout.readline().split()
        assert said == "up"
        program = os.pidfd_open(int(pid))
        try:
            starter.kill()
            assert select.select([program], [], [], SECONDS)[0]
        finally:
            os.close(program)
