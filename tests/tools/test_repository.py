"""The files by which editors, pre-commit and the site of the repository know this project."""

import configparser
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
HOOKS = (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
PAGES = [*sorted((ROOT / ".github").rglob("*.*")), ROOT / "CODE_OF_CONDUCT.md"]


def test_pre_commit_runs_the_programs_of_make_lint_and_no_others() -> None:
    (recipe,) = re.findall(r"^lint: .*\n((?:\t.*\n)+)", MAKEFILE, re.MULTILINE)
    of_make = re.findall(r"\$\(BIN\)/([a-z-]+)(?: (check|format))?", recipe)
    of_hooks = re.findall(r"^ +entry: \.venv/bin/([a-z-]+)(?: (check|format))?", HOOKS, re.MULTILINE)
    assert of_hooks == of_make
    assert len(of_hooks) == HOOKS.count("- id: ")


def test_the_editor_s_width_is_that_of_ruff() -> None:
    parser = configparser.ConfigParser()
    parser.read_string("[root]\n" + (ROOT / ".editorconfig").read_text(encoding="utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert int(parser["*"]["max_line_length"]) == project["tool"]["ruff"]["line-length"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_commands_and_pages_that_a_template_names_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\bmake ([a-z-]+)", text):
        assert re.search(rf"^{target}:", MAKEFILE, re.MULTILINE), target
    for name in re.findall(r"\b[A-Z_]+\.md\b", text):
        assert (ROOT / name).is_file(), name
    for anchor in re.findall(r"\(SECURITY\.md#([a-z-]+)\)", text):
        assert f"## {anchor.capitalize()}\n" in (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    assert len(max(text.splitlines(), key=len)) <= 120


@pytest.mark.parametrize(
    "form", sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml")), ids=lambda form: form.name
)
def test_each_question_of_a_form_has_an_id_of_its_own_and_a_label(form: Path) -> None:
    text = form.read_text(encoding="utf-8")
    questions = re.findall(r"- type: (textarea|input|dropdown)\n    id: (\w+)\n    attributes:\n      label: \S", text)
    assert len(questions) == len(re.findall(r"- type: (?!markdown)", text)) == len({name for _, name in questions})
