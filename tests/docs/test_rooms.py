"""The layout of the tests: helpers are in tests/support, and no file grows too long."""

import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
MAX_LINES = 600
FROM_A_TEST = re.compile(r"^\s*(?:from|import) tests\.(?!support\b)\S+", re.MULTILINE)


def test_no_test_imports_from_a_test_or_a_conftest() -> None:
    found = {
        str(path.relative_to(TESTS)): imports
        for path in TESTS.rglob("*.py")
        if (imports := FROM_A_TEST.findall(path.read_text(encoding="utf-8")))
    }
    assert found == {}


def test_no_file_has_more_than_600_lines() -> None:
    lines = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in TESTS.rglob("*.py")}
    assert {str(path.relative_to(TESTS)) for path, count in lines.items() if count > MAX_LINES} == set()
