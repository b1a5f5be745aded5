"""The commands of the check lists for people with another system: each of them exists."""

import re
import shlex
import tomllib
from pathlib import Path

import pytest
from typer.core import TyperGroup

from threepipe.cli.commands import TABLE, Commands

ROOT = Path(__file__).parents[2]
PAGES = ["bsd.md", "macos.md", "windows.md"]
OF_THE_SYSTEM = {"ping", "ping6", "ifconfig", "kill", "netstat", "scutil", "cat", "."}
"""Commands that come with the systems."""


def commands(page: str) -> list[list[str]]:
    """Return the words of every command of the page's check list, without sudo."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8").partition("## The ten-minute check\n")[2]
    spans = re.findall(r"`([^`]+)`", " ".join(line for line in text.splitlines() if not line.startswith("    [")))
    words = [shlex.split(span) for span in spans]
    return [each[1:] if each[0] == "sudo" else each for each in words]


def check(words: list[str]) -> None:
    name, *rest = words
    if name == "threepipe":
        assert rest[0] in TABLE
        made = Commands({})[rest[0]]
        if isinstance(made, TyperGroup):
            assert rest[1] in made.commands
    elif name == "python3":
        assert rest[:2] == ["-m", "venv"]
    elif name == "python":
        assert (ROOT / rest[0]).is_file()
    elif name == "pytest":
        assert rest[0] == "-m" or (ROOT / rest[0]).is_file()
    elif name == "pip":
        project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
        extras = {found for word in rest for found in re.findall(r"\.\[(\w+)\]", word)}
        assert rest[0] == "install"
        assert extras <= project["project"]["optional-dependencies"].keys()
        tools = {re.split(r"[\[>=]", each)[0] for each in project["dependency-groups"]["dev"]}
        assert {word for word in rest[1:] if not word.startswith(".")} <= tools
    else:
        assert name in OF_THE_SYSTEM


@pytest.mark.parametrize("page", PAGES)
def test_every_command_of_a_check_list_exists(page: str) -> None:
    found = commands(page)
    assert len(found) >= 8
    for words in found:
        check(words)


@pytest.mark.parametrize("words", [["threepipe", "frob"], ["threepipe", "wg", "frob"], ["python", "frob.py"], ["frob"]])
def test_a_command_that_does_not_exist_is_found(words: list[str]) -> None:
    with pytest.raises(AssertionError):
        check(words)
