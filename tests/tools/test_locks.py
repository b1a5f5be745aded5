"""The files in locks/: they pin every package that make installs, with hashes, and fit pyproject.toml."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
GROUPS: dict[str, list[str]] = PROJECT["dependency-groups"]
EXTRAS: dict[str, list[str]] = PROJECT["project"]["optional-dependencies"]
OTHERS = [wanted for group in EXTRAS.values() for wanted in group if not wanted.startswith("threepipe[")]
WANTED = {"run": [*PROJECT["project"]["dependencies"], *OTHERS], **GROUPS}
PINNED = re.compile(r"(?P<name>[a-z0-9-]+)==(?P<version>\S+)(?: ; (?P<marker>.*?))?(?: --hash=sha256:[0-9a-f]{64})+")


def read_lock(group: str) -> list[str]:
    """Return the requirements of a lock file, one a string."""
    text = (ROOT / "locks" / f"{group}.txt").read_text()
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return re.sub(r" \\\n +", " ", "\n".join(lines)).splitlines()


def pins(group: str) -> dict[str, str]:
    """Return the version of each package in a lock file."""
    found = [PINNED.fullmatch(line) for line in read_lock(group)]
    return {match["name"]: match["version"] for match in found if match}


def test_each_dependency_group_has_a_lock_file_and_there_are_no_others() -> None:
    assert {path.stem for path in (ROOT / "locks").glob("*")} == set(WANTED)


@pytest.mark.parametrize("group", WANTED)
def test_each_line_of_a_lock_pins_a_version_with_hashes(group: str) -> None:
    assert [line for line in read_lock(group) if not PINNED.fullmatch(line)] == []


@pytest.mark.parametrize("group", WANTED)
def test_what_pyproject_asks_for_is_pinned_in_the_lock_to_a_version_that_fits(group: str) -> None:
    """It fails after a change of pyproject.toml until `make lock` has run."""
    found = pins(group)
    wanted = [Requirement(text) for text in WANTED[group]]
    misfits = [str(want) for want in wanted if found.get(canonicalize_name(want.name), "0") not in want.specifier]
    assert misfits == []


def test_a_package_has_the_same_version_in_every_lock() -> None:
    """They are installed into one environment."""
    versions: dict[str, set[str]] = {}
    for group in WANTED:
        for name, version in pins(group).items():
            versions.setdefault(name, set()).add(version)
    assert {name: found for name, found in versions.items() if len(found) > 1} == {}


def test_the_extra_all_has_every_other_and_the_core_library_needs_nothing_but_pyroute2() -> None:
    assert EXTRAS["all"] == [f"threepipe[{','.join(sorted(EXTRAS.keys() - {'all'}))}]"]
    assert [Requirement(text).name for text in PROJECT["project"]["dependencies"]] == ["pyroute2"]
    assert "pydantic" not in pins("run")


def test_windows_python_gets_the_dependencies_of_the_project_too() -> None:
    assert {"cryptography", "rich", "typer", "colorama"} <= pins("windows").keys()


def test_the_build_system_is_in_the_lock_of_the_build() -> None:
    found = pins("build")
    wanted = [Requirement(text) for text in PROJECT["build-system"]["requires"]]
    assert [str(want) for want in wanted if found.get(want.name, "0") not in want.specifier] == []
