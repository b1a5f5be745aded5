"""The rule that only threepipe/platforms knows a system, with its exceptions."""

import re
from collections import Counter
from pathlib import Path

SOURCES = Path(__file__).parents[2] / "src" / "threepipe"
PLATFORMS = SOURCES / "platforms"
QUESTION = re.compile(r"\bsys\.platform\b|\bos\.name\b|\bplatform\.system\b")

EXCEPTIONS = {
    "core/fast.py": "mypy has to see that the native core has functions for descriptors only where there are any",
    "net/connect.py": "mypy has to see that fcntl is used only where it exists",
    "net/doorbell.py": "Python on Windows handles Ctrl-C only between waits of the main thread",
    "wireguard/quick/daemon.py": "mypy has to see that os.fork is called only where it exists",
}
"""Each file that asks for the system once, and why no platform can answer for it."""


def test_only_platforms_and_the_exceptions_ask_for_the_system() -> None:
    asking = Counter(
        str(path.relative_to(SOURCES).as_posix())
        for path in SOURCES.rglob("*.py")
        if not path.is_relative_to(PLATFORMS)
        for _ in QUESTION.finditer(path.read_text(encoding="utf-8"))
    )
    assert asking == dict.fromkeys(EXCEPTIONS, 1)
