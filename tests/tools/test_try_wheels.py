"""tools/try_wheels.py: what it says of wheels that cannot be used on this machine."""

import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="releases are built on Linux")

TOOLS = Path(__file__).parents[2] / "tools"
WHEEL = "threepipe-0.1.0-cp311-abi3-{}.whl"


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """Return the tool as root would run it on an x86_64 without Pythons, with some wheels."""
    monkeypatch.syspath_prepend(str(TOOLS))
    module = importlib.import_module("try_wheels")
    monkeypatch.setattr(module, "DIST", tmp_path)
    monkeypatch.setattr(module, "FOLDERS", [])
    monkeypatch.setattr(module.os, "geteuid", lambda: 0)
    monkeypatch.setattr(module.os, "uname", lambda: type("", (), {"machine": "x86_64"}))
    for tag in ("manylinux_2_17_aarch64.manylinux2014_aarch64", "musllinux_1_2_x86_64", "macosx_11_0_arm64"):
        (tmp_path / WHEEL.format(tag)).touch()
    return module


def test_a_wheel_that_cannot_be_used_here_is_named_with_the_reason(
    tool: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing(_: Path) -> str:
        raise tool.NotAvailable("tools are missing; run: apt-get install qemu-user")

    monkeypatch.setattr(tool, "emulated_python", missing)
    assert tool.main([]) == tool.NOT_AVAILABLE
    told = capsys.readouterr().out
    assert "manylinux2014_aarch64.whl: tools are missing; run: apt-get install qemu-user" in told
    assert "musllinux_1_2_x86_64.whl: it needs a system with musl, such as Alpine" in told
    assert "macosx_11_0_arm64.whl: it needs a Mac" in told


def test_a_wheel_that_fails_under_emulation_is_a_failure(
    tool: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tool, "emulated_python", lambda _: "python")
    monkeypatch.setattr(tool, "tried", lambda _python, wheel, core: f"{wheel.name}: no {core} core")
    assert tool.main(["aarch64"]) == tool.FAILED
    told = capsys.readouterr().out
    assert "FAILED: threepipe-0.1.0-cp311-abi3-manylinux_2_17_aarch64.manylinux2014_aarch64.whl: no native core" in told
    assert "musllinux" not in told


def test_names_that_no_wheel_has_are_an_error(tool: ModuleType) -> None:
    with pytest.raises(SystemExit, match="no such wheels; run: make wheels"):
        tool.main(["riscv64"])


def test_a_program_that_cannot_be_installed_is_named_with_its_package(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.syspath_prepend(str(TOOLS))
    debian = importlib.import_module("debian")
    (tmp_path / "here").write_text("#!/bin/sh\n", encoding="utf-8")
    (tmp_path / "here").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))  # There is no apt-get.
    assert debian.obstacle({"here": "one"}) == ""
    assert debian.obstacle({"here": "one", "gone": "two"}) == "tools are missing; run: apt-get install two"
