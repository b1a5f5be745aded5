"""Calls of resolvconf and resolvectl, recorded by fake programs of these names."""

import logging
import shutil
import sys
from pathlib import Path

import pytest

from threepipe.errors import InvalidSetting
from threepipe.wireguard.quick.commands import call, call_all
from threepipe.wireguard.quick.dns import dns, resolvconf_record

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such programs")

ENTRIES = ("10.0.0.53", "fd00::53", "example.org", "lab")


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the file where fake programs record their calls; PATH has only programs that the test adds."""
    for tool in ("sh", "cat"):
        found = shutil.which(tool)
        assert found is not None
        (tmp_path / tool).symlink_to(found)
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path / "told"


def add_program(told: Path, name: str, status: int = 0) -> None:
    program = told.with_name(name)
    program.write_text(f'#!/bin/sh\necho {name} "$@" >> {told}\ncat >> {told}\nexit {status}\n')
    program.chmod(0o755)


def test_dns_calls_resolvconf_and_reverts(told: Path) -> None:
    add_program(told, "resolvconf")
    add_program(told, "resolvectl")  # It is not called if both exist.
    with dns("wg0", ENTRIES):
        assert told.read_text() == (
            "resolvconf -a wg0 -m 0 -x\nnameserver 10.0.0.53\nnameserver fd00::53\nsearch example.org lab\n"
        )
        told.unlink()
    assert told.read_text() == "resolvconf -d wg0 -f\n"


def test_dns_without_resolvconf_calls_resolvectl_and_reverts(told: Path) -> None:
    add_program(told, "resolvectl")
    with dns("wg0", ENTRIES):
        assert told.read_text() == "resolvectl dns wg0 10.0.0.53 fd00::53\nresolvectl domain wg0 example.org lab ~.\n"
        told.unlink()
    assert told.read_text() == "resolvectl revert wg0\n"


def test_dns_without_either_program_raises(told: Path) -> None:
    with dns("wg0", ()):
        pass
    with pytest.raises(InvalidSetting, match="DNS needs resolvconf or resolvectl"), dns("wg0", ENTRIES):
        pass
    assert not told.exists()


def test_a_failed_resolvconf_raises_with_its_status(told: Path) -> None:
    add_program(told, "resolvconf", 3)
    with pytest.raises(InvalidSetting, match="resolvconf -a wg0 -m 0 -x: ended with status 3"), dns("wg0", ENTRIES):
        pass


@pytest.mark.parametrize(
    ("order", "record"),
    [
        ("# The order.\nlo.inet6\nlo.@(dhclient)\nlo\ntun*\n@(tun|tap)*\nhso*\n", "tun.wg0"),
        ("lo\nlo.*\n@(tun)*\n", "wg0"),
        ("", "wg0"),
        (None, "wg0"),
    ],
)
def test_the_record_name_has_a_prefix_of_interface_order(tmp_path: Path, order: str | None, record: str) -> None:
    path = tmp_path / "interface-order"
    if order is not None:
        path.write_text(order)
    assert resolvconf_record("wg0", path) == record


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not there")
def test_commands_run_in_bash_with_the_interface_name(tmp_path: Path) -> None:
    told = tmp_path / "told"
    call([f'[[ "%i" == wg* ]] && echo %i %i > {told}'], "wg0")
    assert told.read_text() == "wg0 wg0\n"


def test_commands_run_in_sh_without_bash_and_all_run_at_the_end(told: Path, caplog: pytest.LogCaptureFixture) -> None:
    commands = [f"echo 1 >> {told}", "exit 3", f"echo 2 >> {told}"]
    with pytest.raises(InvalidSetting, match="exit 3: ended with status 3"):
        call(commands, "wg0")
    assert told.read_text() == "1\n"
    with caplog.at_level(logging.WARNING, "threepipe"):
        call_all(commands, "wg0")
    assert told.read_text() == "1\n1\n2\n"
    assert "exit 3: ended with status 3" in caplog.text
