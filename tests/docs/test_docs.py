"""README and docs: every block of Python runs, and the commands they name exist."""

import re
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.support.kernel import Network
from tests.support.waiting import come_true

pytestmark = pytest.mark.kernel

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"

PROGRAMS = {"codespell", "coverage", "cyclonedx-bom", "import-linter", "mypy", "pygount", "ruff", "trio", "ziglang"}
"""Packages of developers that no test on Windows imports."""


def blocks(path: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", path.read_text(), re.DOTALL | re.MULTILINE)


def heading(block: str, path: Path) -> str:
    before = path.read_text().split(block)[0]
    return str(re.findall(r"^#+ (.*)$", before, re.MULTILINE)[-1])


BLOCKS = [
    pytest.param(block, id=f"{path.stem}: {heading(block, path)}")
    for path in sorted((ROOT / "docs").rglob("*.md"))
    for block in blocks(path)
]


@pytest.mark.parametrize("block", BLOCKS)
def test_a_python_block_of_the_docs_runs(block: str, network: Network) -> None:
    network.run(sys.executable, "-W", "error", "-c", block)


def test_the_quick_start_of_readme_answers_ping(network: Network) -> None:
    (block,) = blocks(README)
    assert len(block.splitlines()) <= 15
    with subprocess.Popen(network.command(sys.executable, "-c", block), stderr=subprocess.PIPE, text=True) as program:
        try:
            assert come_true(lambda: "LOWER_UP" in network.run("ip", "link", "show", "tp0", check=False), 30)
            answers = [network.run("ping", "-c", "1", "-w", "20", address) for address in ("10.6.7.9", "fd67::9")]
            program.send_signal(signal.SIGINT)
            assert program.stderr is not None
            assert "KeyboardInterrupt" in program.stderr.read()
        finally:
            program.kill()
    assert all(" 1 received" in answer for answer in answers)


def test_the_lines_of_the_home_page_answer_ping(network: Network) -> None:
    text = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```python title=[^\n]*\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    with subprocess.Popen(network.command(sys.executable, "-W", "error", "-c", block)) as program:
        try:
            assert come_true(lambda: "LOWER_UP" in network.run("ip", "link", "show", "tp0", check=False), 30)
            assert " 1 received" in network.run("ping", "-c", "1", "-w", "20", "10.6.7.254")
        finally:
            program.kill()


def test_commands_and_make_targets_in_readme_exist() -> None:
    text = README.read_text()
    for name in re.findall(r"^    threepipe ([a-z ]+?)(?: tp0.*| +#.*)?$", text, re.MULTILINE):
        command = [sys.executable, "-m", "threepipe", *name.split(), "--help"]
        assert subprocess.run(command, capture_output=True, timeout=50).returncode == 0, name
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"(?:^    |`)make (\w+)", text, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_the_install_command_for_windows_names_all_test_dependencies() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = re.findall(r"^[\w-]+", "\n".join(project["dependency-groups"]["dev"]), re.MULTILINE)
    (named,) = re.findall(r'`pip install "\.\[all\]" (.+)`', (ROOT / "docs" / "windows.md").read_text())
    assert set(named.split()) == set(wanted) - PROGRAMS
