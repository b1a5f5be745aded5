"""Which native core can be used, and which are refused."""

import sys
from pathlib import Path
from types import ModuleType

import pytest

from threepipe import __version__
from threepipe.core.installed import obstacle

NAME = "threepipe._native"


@pytest.fixture(autouse=True)
def wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THREEPIPE_PURE", "0")


def put(monkeypatch: pytest.MonkeyPatch, **contents: str) -> None:
    """Install a core with those names."""
    core = ModuleType(NAME)
    core.__dict__.update(contents, __file__="/somewhere/_native.abi3.so")
    monkeypatch.setitem(sys.modules, NAME, core)


def test_a_core_of_the_same_version_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    put(monkeypatch, VERSION=__version__)
    assert obstacle() == ""


@pytest.mark.parametrize("contents", [{"VERSION": "0.0.9"}, {}], ids=["older", "older than versions"])
def test_a_core_of_another_version_is_an_error_that_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, contents: dict[str, str]
) -> None:
    put(monkeypatch, **contents)
    found = contents.get("VERSION", "unknown")
    expected = (
        rf"the native core /somewhere/_native\.abi3\.so is of version {found}, and threepipe is .*; run: pip install"
    )
    with pytest.raises(ImportError, match=expected) as caught:
        obstacle()
    assert caught.value.name == NAME


def test_the_separate_package_of_an_older_core_is_an_error_that_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "threepipe_native.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ImportError, match="run: pip uninstall threepipe-native"):
        obstacle()


def test_an_installation_without_a_core_is_pure_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, NAME, None)
    assert obstacle() == "this installation has none"


@pytest.mark.parametrize("kind", [ImportError, SystemError])
def test_a_core_that_this_interpreter_cannot_load_is_told(
    monkeypatch: pytest.MonkeyPatch, kind: type[Exception]
) -> None:
    """As a subinterpreter cannot (ImportError), and a free-threaded Python (SystemError)."""

    class Finder:
        def find_spec(self, name: str, *_: object) -> None:
            if name == NAME:
                raise kind("no core for this Python")

    monkeypatch.delitem(sys.modules, NAME, raising=False)
    monkeypatch.setattr(sys, "meta_path", [Finder(), *sys.meta_path])
    assert obstacle() == "no core for this Python"


def test_a_disabled_core_is_not_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    put(monkeypatch, VERSION="0.0.9")
    monkeypatch.setenv("THREEPIPE_PURE", "1")
    assert obstacle() == "disabled by THREEPIPE_PURE"
