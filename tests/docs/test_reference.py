"""The reference of the site: every public name has an entry, and the page of commands is that of their help."""

import importlib
import re
import subprocess
import sys
from pathlib import Path
from types import FunctionType

import pytest

ROOT = Path(__file__).parents[2]
ENTRY = re.compile(r"^::: (\S+)$", re.MULTILINE)
ENTRIES = [
    entry
    for page in sorted((ROOT / "docs" / "reference").glob("*.md"))
    for entry in ENTRY.findall(page.read_text(encoding="utf-8"))
]

PUBLIC = (
    "threepipe",
    "threepipe.assembly",
    "threepipe.backend",
    "threepipe.capture.reader",
    "threepipe.capture.writer",
    "threepipe.claims",
    "threepipe.compat.pytun",
    "threepipe.compat.pytun_pmd3",
    "threepipe.echo",
    "threepipe.endpoint",
    "threepipe.endpoints",
    "threepipe.filters.clamp",
    "threepipe.filters.impair",
    "threepipe.filters.impairment",
    "threepipe.packet",
    "threepipe.ring",
    "threepipe.settings",
    "threepipe.testing",
    "threepipe.wireguard",
    "threepipe.wireguard.metrics",
)
"""The modules that programs may import; all others are the project's own."""


@pytest.mark.parametrize("module", PUBLIC)
def test_every_public_name_of_a_module_has_an_entry(module: str) -> None:
    names = importlib.import_module(module).__all__
    assert [name for name in names if f"{module}.{name}" not in ENTRIES] == []


def test_an_entry_is_there_once_and_of_a_public_name() -> None:
    assert len(ENTRIES) == len(set(ENTRIES))
    modules = {entry.rpartition(".")[0] for entry in ENTRIES}
    assert modules == set(PUBLIC)
    assert [entry for entry in ENTRIES if entry.rpartition(".")[2] not in dir(_module_of(entry))] == []


@pytest.mark.parametrize("entry", ENTRIES)
def test_a_class_or_function_of_the_reference_has_a_docstring(entry: str) -> None:
    found = getattr(_module_of(entry), entry.rpartition(".")[2])
    assert found.__doc__ or not isinstance(found, type | FunctionType)


def test_a_module_that_a_block_of_the_docs_imports_is_in_the_reference() -> None:
    pages = [path for path in (ROOT / "docs").rglob("*.md") if path.name != "architecture.md"]
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    imported = set(re.findall(r"^from (threepipe[\w.]*) import", text, re.MULTILINE))
    assert imported <= set(PUBLIC)


def test_the_page_of_commands_is_that_of_their_help() -> None:
    check = "import command_pages as made; assert made.page() == made.PAGE.read_text(encoding='utf-8')"
    done = subprocess.run([sys.executable, "-c", check], cwd=ROOT / "tools", capture_output=True, text=True, timeout=50)
    assert done.returncode == 0, f"run: python tools/command_pages.py\n{done.stderr}"


def _module_of(entry: str) -> object:
    return importlib.import_module(entry.rpartition(".")[0])
