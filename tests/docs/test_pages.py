"""The pages of the site and of the root: their links lead somewhere, and the site's navigation has each page."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [*sorted(DOCS.rglob("*.md")), *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md"))]
LINK = re.compile(r"\]\((?!\w+:)([^)#\s]*)#?([^)\s]*)\)")
FROM_ROOT = {"security-policy.md", "changelog.md"}  # As in tools/build_site.py.


def anchors(text: str) -> set[str]:
    """Return the anchors of the headings, as the site and the hosts of repositories make them."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_to_pages_and_headings_that_exist(page: Path) -> None:
    for target, anchor in LINK.findall(page.read_text(encoding="utf-8")):
        goal = (page.parent / target) if target else page
        assert goal.exists(), target
        assert not anchor or goal.suffix != ".md" or anchor in anchors(goal.read_text(encoding="utf-8")), (
            f"{target}#{anchor}"
        )


def test_the_navigation_names_each_page_once() -> None:
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    named = re.findall(r"^ +- .*: (\S+\.md)$", text, re.MULTILINE)
    assert sorted(named) == sorted({path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")} | FROM_ROOT)


@pytest.mark.parametrize("page", sorted((DOCS / "tutorial").glob("*.md")), ids=lambda page: page.stem)
def test_a_page_of_the_tutorial_names_its_program(page: Path) -> None:
    (name,) = re.findall(r"^```python title=.*\n# (examples/\w+\.py)\n```$", page.read_text(encoding="utf-8"), re.M)
    assert (ROOT / name).is_file()


def test_the_pictures_are_those_that_the_tool_draws() -> None:
    check = "import picture as p; [p.FOLDER.joinpath(n).read_text() == t or exit(n) for n, t in p.pictures().items()]"
    done = subprocess.run([sys.executable, "-c", check], cwd=ROOT / "tools", capture_output=True, text=True, timeout=50)
    assert (done.returncode, done.stderr) == (0, "")
