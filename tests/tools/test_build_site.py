"""tools/build_site.py: what it makes of links between files of the repository, and the faults that it finds."""

import importlib.util
import shutil
from pathlib import Path
from types import ModuleType

import pytest

TOOL = Path(__file__).parents[2] / "tools" / "build_site.py"


@pytest.fixture
def tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Return the tool in a repository of its own, which has a page, SECURITY.md and CHANGELOG.md."""
    for folder in ("tools", "docs/howto", "benchmarks", "build/site/sub"):
        (tmp_path / folder).mkdir(parents=True)
    shutil.copyfile(TOOL, tmp_path / "tools" / "build_site.py")
    monkeypatch.syspath_prepend(str(TOOL.parent))  # For the parts of the live page, which are left out.
    for name in ("SECURITY.md", "CHANGELOG.md", "docs/pipe.md", "docs/howto/page.md", "benchmarks/README.md"):
        (tmp_path / name).write_text("# Page\n", encoding="utf-8")
    spec = importlib.util.spec_from_file_location("build_site", tmp_path / "tools" / "build_site.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "add_parts", lambda _folder, _fetch: set())
    return module


@pytest.mark.parametrize(
    ("page", "text", "shown"),
    [
        ("docs/howto/page.md", "[a](../pipe.md#page)", "[a](../pipe.md#page)"),
        ("docs/howto/page.md", "[a](../../SECURITY.md#x)", "[a](../security-policy.md#x)"),
        ("docs/pipe.md", "[how](../benchmarks/README.md)", "how (`benchmarks/README.md`)"),
        ("docs/pipe.md", "[README.md](../benchmarks/README.md)", "`benchmarks/README.md`"),
        ("docs/pipe.md", "[a](https://www.wintun.net/) [b](#page)", "[a](https://www.wintun.net/) [b](#page)"),
        ("SECURITY.md", "[a](docs/pipe.md) [b](CHANGELOG.md)", "[a](pipe.md) [b](changelog.md)"),
    ],
)
def test_a_link_leads_to_a_page_of_the_site_or_becomes_a_name(
    tool: ModuleType, page: str, text: str, shown: str
) -> None:
    (tool.ROOT / page).write_text(text, encoding="utf-8")
    tool.prepare()
    name = tool.FROM_ROOT.get(page, page.removeprefix("docs/"))
    assert (tool.PAGES / name).read_text(encoding="utf-8") == shown


def test_a_program_of_the_examples_stands_where_the_page_names_it(tool: ModuleType) -> None:
    (tool.ROOT / "examples").mkdir()
    (tool.ROOT / "examples" / "vpn.py").write_text("print(1)\n", encoding="utf-8")
    (tool.ROOT / "docs" / "pipe.md").write_text("```python\n# examples/vpn.py\n```\n", encoding="utf-8", newline="\n")
    tool.prepare()
    assert (tool.PAGES / "pipe.md").read_text(encoding="utf-8") == "```python\nprint(1)\n```\n"


def test_a_link_to_a_missing_file_of_the_repository_ends_the_build(tool: ModuleType) -> None:
    (tool.ROOT / "docs" / "pipe.md").write_text("[a](../gone.md)", encoding="utf-8")
    with pytest.raises(SystemExit, match=r"gone\.md does not exist; correct the link"):
        tool.prepare()


def test_preparing_again_writes_changes_alone_and_removes_pages_that_are_gone(tool: ModuleType) -> None:
    tool.prepare()
    before = (tool.PAGES / "pipe.md").stat().st_mtime_ns
    (tool.ROOT / "docs" / "howto" / "page.md").unlink()
    tool.prepare()
    assert (tool.PAGES / "pipe.md").stat().st_mtime_ns == before
    assert not (tool.PAGES / "howto" / "page.md").exists()


@pytest.mark.parametrize(
    "dead", ['<a href="gone/">', '<a href="#gone">', '<a href="sub/#gone">', '<img src="gone.svg">', '<a href="../x">']
)
def test_a_reference_that_leads_nowhere_is_a_fault(tool: ModuleType, dead: str) -> None:
    write(tool, "index.html", dead)
    write(tool, "sub/index.html", '<h1 id="there">')
    assert [fault.endswith("leads nowhere") for fault in tool.faults()] == [True]


def test_references_to_pages_anchors_and_other_hosts_are_no_faults(tool: ModuleType) -> None:
    write(tool, "index.html", '<a href="sub/#there"><a href="sub/"><a href="https://example.org/"><a href="#">')
    write(tool, "sub/index.html", '<h1 id="there"><a href="..">')
    assert list(tool.faults()) == []


def write(tool: ModuleType, name: str, text: str) -> None:
    (tool.SITE / name).write_text(text, encoding="utf-8")
