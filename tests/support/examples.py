"""The folder of examples, and the counts in ping's output."""

import re
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "examples"
ECHOES = ("echo.py", "echo_asyncio.py")


def answered(output: str) -> tuple[int, int]:
    """Return how many packets ping transmitted and received, by its output."""
    match = re.search(r"(\d+) packets transmitted, (\d+) received", output)
    assert match, output
    return int(match[1]), int(match[2])
