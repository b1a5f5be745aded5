"""The folder of examples, and what ping says of them."""

import re
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "examples"
ECHOES = ("echo.py", "echo_asyncio.py")


def answered(output: str) -> tuple[int, int]:
    """How many packets ping says it transmitted and received."""
    match = re.search(r"(\d+) packets transmitted, (\d+) received", output)
    assert match, output
    return int(match[1]), int(match[2])
