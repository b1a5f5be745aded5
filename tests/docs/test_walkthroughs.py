"""The tutorial and the how-tos: their command lines work as they are written, on machines that are namespaces."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.console import BLOCK, environment, machines, shown, steps
from tests.support.kernel import needs_root

pytestmark = [pytest.mark.kernel, needs_root]

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [path for path in sorted(DOCS.rglob("*.md")) if BLOCK.search(path.read_text(encoding="utf-8"))]
SHELL = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
UNIT = re.compile(r"^```ini\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SIZE = re.compile(r"\d+ bytes")  # A ping may come before the other end is there.
SCRIPTS = [path for path in sorted(DOCS.rglob("*.md")) if SHELL.search(path.read_text(encoding="utf-8"))]


def name(page: Path) -> str:
    return page.relative_to(DOCS).as_posix()


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_the_commands_of_a_page_work_and_print_what_it_shows(page: Path, tmp_path: Path) -> None:
    with machines(tmp_path) as console:
        if page.stem == "troubleshooting":  # It looks at a pipe that is there.
            console.run("host1", "threepipe pipe tun:tp0,address=10.6.7.1/24 echo")
            console.run("host1", "ping -c 1 10.6.7.2")
        printed = [console.run(machine, command) for machine, command in steps(page)] + console.interrupt()
    lines = {SIZE.sub("N bytes", line) for text in printed for line in text.splitlines()}
    assert {SIZE.sub("N bytes", line) for line in shown(page)} <= lines


def test_the_vpn_of_the_tutorial_has_60_lines_at_most() -> None:
    assert len((ROOT / "examples" / "vpn.py").read_text(encoding="utf-8").splitlines()) <= 60


@pytest.mark.parametrize("page", SCRIPTS, ids=name)
def test_the_shell_blocks_of_a_page_run_in_order(page: Path, tmp_path: Path) -> None:
    """In a network and a /run of their own. Commands that look for an adapter are repeated until it is there."""
    lines = "".join(SHELL.findall(page.read_text(encoding="utf-8")))
    script = re.sub(r"^(ip netns exec|nsenter) (.*)$", r"again \1 \2", lines, flags=re.MULTILINE)
    start = """
        mount -t tmpfs none /run
        again() { for turn in $(seq 300); do "$@" >/dev/null 2>&1 && return; sleep 0.1; done; "$@"; }
        trap 'kill $(jobs -p)' EXIT
    """
    done = subprocess.run(
        ["unshare", "--net", "--mount", "--pid", "--fork", "--mount-proc", "bash", "-eu", "-c", start + script],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=55,
        env=environment(tmp_path),
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not there; install systemd")
def test_the_units_of_the_how_to_are_valid(tmp_path: Path) -> None:
    units = UNIT.findall((DOCS / "howto" / "systemd.md").read_text(encoding="utf-8"))
    assert units
    for number, text in enumerate(units):
        unit = tmp_path / f"unit{number}.service"
        unit.write_text(re.sub(r"(?<==)/opt/vpn/bin/\w+", "/bin/true", text), encoding="utf-8")
        done = subprocess.run(
            ["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True, timeout=50
        )
        assert (done.returncode, done.stdout + done.stderr) == (0, "")
