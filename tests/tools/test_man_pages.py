"""The manual pages: as the program's help says, without faults, and readable."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="releases are built on Linux")

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "man").glob("man*/*"))


def needs(program: str) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not there; install it")


def test_the_pages_are_those_of_the_program(tmp_path: Path) -> None:
    """If this fails, run: python tools/man_pages.py."""
    subprocess.run([sys.executable, ROOT / "tools" / "man_pages.py", tmp_path], check=True, timeout=50)
    made = {str(path.relative_to(tmp_path)): path.read_text(encoding="utf-8") for path in tmp_path.glob("man*/*")}
    assert made == {str(path.relative_to(ROOT / "man")): path.read_text(encoding="utf-8") for path in PAGES}


def test_mandoc_finds_no_fault() -> None:
    needs("mandoc")
    done = subprocess.run(["mandoc", "-T", "lint", "-W", "warning", *PAGES], capture_output=True, text=True, timeout=50)
    assert (done.stdout, done.returncode) == ("", 0)


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("man1/threepipe.1", ["threepipe-pipe(1)", "threepipe-wg(8)", "--version"]),
        ("man1/threepipe-pipe.1", ["threepipe pipe [OPTIONS] LEFT RIGHT", ",netns=NAMESPACE", "delay=20ms", "\\\n"]),
        ("man8/threepipe-wg.8", ["--daemon", "threepipe wg set", "THE PROGRAM threepipe-wg"]),
    ],
)
def test_man_shows_a_page(name: str, wanted: list[str]) -> None:
    needs("man")
    command = ["man", "--warnings", "-l", str(ROOT / "man" / name)]
    environment = {"PATH": "/usr/bin:/bin", "MANWIDTH": "80", "LC_ALL": "C.UTF-8"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=50)
    assert (done.returncode, done.stderr) == (0, "")
    assert [text for text in wanted if text not in done.stdout] == []
