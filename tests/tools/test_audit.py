"""tools/audit.py: its output and status, by the answers of the programs that it calls.

Those are small scripts of these tests; nothing is fetched.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the programs are shell scripts")

TOOL = Path(__file__).parents[2] / "tools" / "audit.py"
CLEAN, FOUND, NOT_CHECKED = 0, 1, 77

SOUND = {"name": "sound", "version": "1", "vulns": []}
BAD = {"name": "bad", "version": "2", "vulns": [{"id": "PYSEC-1"}]}
SKIPPED = {"name": "skipped", "skip_reason": "not found on PyPI"}


def packages(*found: object) -> str:
    """Return a script that answers as pip-audit, whose status is 1 only if there are vulnerabilities."""
    return f"echo '{json.dumps({'dependencies': found})}'; exit {int(BAD in found)}"


NO_VULNERABILITY = packages(SOUND)
ALL_OK = "echo 'bans ok'"
NO_DATABASE = "echo '[ERROR] failed to fetch advisory database' >&2; exit 1"


def audit(tmp_path: Path, **programs: str) -> tuple[int, str]:
    """Run the tool with those programs alone in PATH; return its status and its text."""
    for name, script in programs.items():
        program = tmp_path / name.replace("_", "-")
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
    done = subprocess.run([sys.executable, TOOL], env={"PATH": str(tmp_path)}, stdout=subprocess.PIPE, text=True)
    return done.returncode, done.stdout


@pytest.mark.parametrize(
    ("pip_audit", "cargo_deny", "status", "told"),
    [
        pytest.param(NO_VULNERABILITY, ALL_OK, CLEAN, "nothing found: 1 packages", id="nothing found"),
        pytest.param(packages(SOUND, BAD), ALL_OK, FOUND, "FOUND: bad 2: PYSEC-1", id="a vulnerability"),
        pytest.param(
            packages(SOUND, SKIPPED), ALL_OK, NOT_CHECKED, "NOT CHECKED: 1 of 2 packages: not found on PyPI", id="skip"
        ),
        pytest.param(packages(SKIPPED, BAD), ALL_OK, FOUND, "1 packages were not checked", id="found, and skipped"),
        pytest.param(packages(), ALL_OK, NOT_CHECKED, "none listed", id="no packages"),
        pytest.param("echo no route >&2; exit 1", ALL_OK, NOT_CHECKED, "NOT CHECKED: no route", id="no network"),
        pytest.param(NO_VULNERABILITY, NO_DATABASE, NOT_CHECKED, "failed to fetch", id="no database"),
        pytest.param(NO_VULNERABILITY, "echo 'error[yanked]' >&2; exit 1", FOUND, "error[yanked]", id="a bad crate"),
        pytest.param(packages(BAD), NO_DATABASE, FOUND, "NOT CHECKED", id="found, and no database"),
    ],
)
def test_the_status_and_the_text_say_what_was_found_and_what_was_not_checked(
    tmp_path: Path, pip_audit: str, cargo_deny: str, status: int, told: str
) -> None:
    found, said = audit(tmp_path, pip_audit=pip_audit, cargo_deny=cargo_deny)
    assert found == status
    assert told in said


def test_a_missing_program_is_named_and_is_not_a_clean_result(tmp_path: Path) -> None:
    status, said = audit(tmp_path, pip_audit=NO_VULNERABILITY)
    assert status == NOT_CHECKED
    assert "cargo-deny is not installed; run: cargo install" in said


def test_every_lock_file_is_given_to_pip_audit(tmp_path: Path) -> None:
    answer = json.dumps({"dependencies": [SOUND]})
    script = f"for word; do echo \"$word\" >&3; done 3>{tmp_path}/given; echo '{answer}'"
    audit(tmp_path, pip_audit=script, cargo_deny=ALL_OK)
    given = (tmp_path / "given").read_text()
    assert [path for path in (TOOL.parents[1] / "locks").glob("*.txt") if f"--requirement={path}" not in given] == []
