"""The workflows of .github, as far as a text can be checked; `make workflows` runs actionlint."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
TEXTS = {file.name: file.read_text(encoding="utf-8") for file in FILES}
WHEELS = TEXTS["wheels.yml"]

RUNS = {
    "manylinux_2_17_x86_64.manylinux2014_x86_64": "{runner: ubuntu-latest, machine: x86_64}",
    "manylinux_2_17_aarch64.manylinux2014_aarch64": "{runner: ubuntu-24.04-arm, machine: aarch64}",
    "musllinux_1_2_x86_64": "python:3.13-alpine",
    "musllinux_1_2_aarch64": "python:3.13-alpine",
    "win_amd64": "windows-latest",
    "macosx_10_12_x86_64": "macos-15-intel",
    "macosx_11_0_arm64": "macos-latest",
}
"""Tag of a wheel -> the system in wheels.yml that uses it."""


def jobs(text: str) -> dict[str, str]:
    """Return the text of each job of a workflow."""
    parts = re.split(r"^  ([a-z]+):\n", text.partition("\njobs:\n")[2], flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_each_wheel_is_used_on_its_own_system_before_it_is_published(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    from wheels import PLATFORMS

    found = jobs(WHEELS)
    assert [platform.tag for platform in PLATFORMS] == list(RUNS)
    assert [tag for tag, system in RUNS.items() if system not in found["linux"] + found["others"]] == []
    assert "needs: [linux, others]" in found["publish"]
    assert all("needs: build" in found[name] for name in ("linux", "others"))


def test_the_wheels_are_used_on_each_python_of_the_classifiers() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = re.findall(
        r"^Programming Language :: Python :: (3\.\d+)$", "\n".join(project["classifiers"]), re.MULTILINE
    )
    assert re.findall(r"^ {12}(3\.\d+)$", jobs(WHEELS)["linux"], re.MULTILINE) == wanted


@pytest.mark.parametrize("name", TEXTS)
def test_a_workflow_may_read_and_only_a_job_that_publishes_may_do_more(name: str) -> None:
    head = TEXTS[name].partition("\njobs:\n")[0]
    assert "\npermissions:\n  contents: read\n" in head
    with_more = {job for job, text in jobs(TEXTS[name]).items() if "permissions:" in text}
    assert with_more <= {"publish"}
    assert all("if: github.ref_type == 'tag'" in jobs(TEXTS[name])[job] for job in with_more)


@pytest.mark.parametrize("name", TEXTS)
def test_the_files_that_a_workflow_uses_exist(name: str) -> None:
    used = re.findall(r"\b((?:docs|locks|src|tests|tools)/[\w/.-]*\w)", TEXTS[name])
    assert [path for path in used if not (ROOT / path).exists()] == []


def test_an_action_has_one_version_in_all_workflows() -> None:
    used = set(re.findall(r"uses: (\S+)@(\S+)", "\n".join(TEXTS.values())))
    assert len({action for action, _ in used}) == len(used)
    assert {version for _, version in used if not re.fullmatch(r"(release/)?v\d+|[0-9a-f]{40}", version)} == set()
