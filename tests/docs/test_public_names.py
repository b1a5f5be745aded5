"""The names that threepipe exports, against the pages that explain them."""

import re
from pathlib import Path

import pytest

import threepipe

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.fixture(scope="module")
def words() -> set[str]:
    """Every word of every page."""
    return set(re.findall(r"\w+", "\n".join(page.read_text(encoding="utf-8") for page in PAGES)))


@pytest.mark.parametrize("name", threepipe.__all__)
def test_every_public_name_is_used_in_the_docs(name: str, words: set[str]) -> None:
    assert name in words, f"no page mentions threepipe.{name}"
