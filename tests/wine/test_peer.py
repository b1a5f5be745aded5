"""Two faults of pytun-pmd3's code for Windows, on the contract library, which threepipe does not have.

The programs are those of `python -m benchmarks.windows`, which measures both, too. The release is the one that
tools/windows pins.
"""

import json
import subprocess
from pathlib import Path

import pytest

from tests.support.windows_python import windows_command, windows_environment

pytestmark = [pytest.mark.wine, pytest.mark.timeout(180)]

ROOT = Path(__file__).parents[2]


def outcome(tmp_path: Path, contender: str, fault: str) -> dict[str, float]:
    done = subprocess.run(
        windows_command("-m", "benchmarks.windows.worker", contender, fault, "0.5", "100"),
        env=windows_environment(THREEPIPE_PEER_FOLDER=f"Z:{tmp_path}"),
        cwd=ROOT,
        input="",
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    said: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return said


@pytest.mark.parametrize(("contender", "woken"), [("bundles", 1), ("singles", 1), ("pytun-pmd3", 0)])
def test_close_wakes_a_receiver_except_in_pytun_pmd3(tmp_path: Path, contender: str, woken: float) -> None:
    assert outcome(tmp_path, contender, "close") == {"woken": woken}


@pytest.mark.parametrize(("contender", "survived"), [("bundles", 1), ("singles", 1), ("pytun-pmd3", 0)])
def test_a_full_ring_is_not_written_to_except_by_pytun_pmd3(tmp_path: Path, contender: str, survived: float) -> None:
    """Without room the library returns no memory, and a write to it goes to address 0."""
    assert outcome(tmp_path, contender, "full") == {"survived": survived}
