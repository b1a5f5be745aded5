"""The folder of examples."""

from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "examples"
ECHOES = ("echo.py", "echo_asyncio.py")
