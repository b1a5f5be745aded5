"""The programs of the live page, in this Python; `make test-docs` runs them in a browser."""

import ast
import asyncio
import re
from inspect import isawaitable
from pathlib import Path
from types import FunctionType

import pytest

ROOT = Path(__file__).parents[2]
PROGRAMS = sorted((ROOT / "docs" / "assets" / "live").glob("[0-9]*.py"))


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.stem)
def test_a_program_of_the_live_page_runs_and_prints(program: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = program.read_text(encoding="utf-8")
    code = compile(text, program.name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)

    async def run() -> None:
        if isawaitable(running := FunctionType(code, {"__name__": "__main__"})()):
            await running

    asyncio.run(run())
    assert len(capsys.readouterr().out.splitlines()) > 2


def test_the_live_page_offers_each_program() -> None:
    page = (ROOT / "docs" / "live.md").read_text(encoding="utf-8")
    assert re.findall(r'<option value="(.*?)">', page) == [program.name for program in PROGRAMS]
