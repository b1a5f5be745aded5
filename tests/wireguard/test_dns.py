"""Calls of resolvconf and resolvectl, recorded by fake programs of these names."""

import shutil
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.waiting import come_true
from threepipe import platforms
from threepipe.errors import InvalidSetting
from threepipe.wireguard.quick.commands import call, call_all, hold_nothing
from threepipe.wireguard.quick.dns import (
    remove_key,
    remove_proposal,
    remove_record,
    resolvconf_record,
    revert,
    set_dns,
)

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
    monkeypatch.setattr(platforms, "DNS_TOOLS", ("resolvconf", "resolvectl"))
    return tmp_path / "told"


def add_program(told: Path, name: str, status: int = 0, words: str = "") -> None:
    program = told.with_name(name)
    program.write_text(f'#!/bin/sh\necho {name} "$@" >> {told}\ncat >> {told}\nprintf "{words}" >&2\nexit {status}\n')
    program.chmod(0o755)


class Before:
    """Records the lines for a journal, and that no program was called before them."""

    def __init__(self, told: Path) -> None:
        self._told = told
        self.steps: list[tuple[str, dict[str, object]]] = []

    def __call__(self, kind: str, **arguments: object) -> None:
        assert not self._told.exists()
        self.steps.append((kind, arguments))


def test_dns_calls_resolvconf_after_telling_how_to_undo_it(told: Path) -> None:
    add_program(told, "resolvconf")
    add_program(told, "resolvectl")  # It is not called if both exist.
    before = Before(told)
    set_dns("wg0", 7, ENTRIES, before)
    assert told.read_text() == (
        "resolvconf -a wg0 -m 0 -x\nnameserver 10.0.0.53\nnameserver fd00::53\nsearch example.org lab\n"
    )
    assert before.steps == [("dns", {"record": "wg0"})]
    told.unlink()
    remove_record(hold_nothing, "wg0")
    assert told.read_text() == "resolvconf -d wg0 -f\n"


def test_dns_without_resolvconf_calls_resolvectl(told: Path) -> None:
    add_program(told, "resolvectl")
    before = Before(told)
    set_dns("wg0", 7, ENTRIES, before)
    assert told.read_text() == "resolvectl dns wg0 10.0.0.53 fd00::53\nresolvectl domain wg0 example.org lab ~.\n"
    assert before.steps == [("resolved", {"name": "wg0", "index": 7})]


def test_dns_on_a_mac_is_a_key_of_its_state(told: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platforms, "DNS_TOOLS", ("scutil",))
    add_program(told, "scutil")
    before = Before(told)
    key = "State:/Network/Service/threepipe-utun3/DNS"
    set_dns("utun3", 7, ENTRIES, before)
    assert told.read_text() == (
        "scutil\nd.init\nd.add ServerAddresses * 10.0.0.53 fd00::53\n"
        'd.add SupplementalMatchDomains * "" example.org lab\n'
        f"d.add SearchDomains * example.org lab\nset {key}\n"
    )
    assert before.steps == [("scutil", {"key": key})]
    told.unlink()
    set_dns("utun3", 7, ["lab"], lambda kind, **arguments: None)
    assert told.read_text() == f"scutil\nd.init\nd.add SearchDomains * lab\nset {key}\n"
    told.unlink()
    remove_key(hold_nothing, key)
    assert told.read_text() == f"scutil\nremove {key}\n"


def test_dns_on_openbsd_is_a_proposal_without_search_domains(
    told: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(platforms, "DNS_TOOLS", ("route",))
    add_program(told, "route")
    before = Before(told)
    index, name = socket.if_nameindex()[0]
    set_dns(name, index, ENTRIES, before)
    assert told.read_text() == f"route nameserver {name} 10.0.0.53 fd00::53\n"
    assert before.steps == [("nameserver", {"name": name, "index": index})]
    assert "does without example.org, lab" in caplog.text
    told.unlink()
    set_dns(name, index, ["lab"], before)
    remove_proposal(hold_nothing, name, index + 1000)
    assert not told.exists()
    remove_proposal(hold_nothing, name, index)
    assert told.read_text() == f"route nameserver {name}\n"


def test_resolvectl_reverts_an_interface_only_while_it_exists(told: Path) -> None:
    add_program(told, "resolvectl")
    index, name = socket.if_nameindex()[0]
    revert(hold_nothing, name, index + 1000)  # Another one has the name now.
    assert not told.exists()
    revert(hold_nothing, name, index)
    assert told.read_text() == f"resolvectl revert {name}\n"


def test_dns_without_either_program_raises(told: Path) -> None:
    set_dns("wg0", 7, (), Before(told))
    with pytest.raises(InvalidSetting, match="DNS needs resolvconf or resolvectl"):
        set_dns("wg0", 7, ENTRIES, Before(told))
    assert not told.exists()


def test_a_failed_resolvconf_raises_with_its_status_and_words(told: Path) -> None:
    add_program(told, "resolvconf", 3, "no room")
    with pytest.raises(InvalidSetting, match="resolvconf -a wg0 -m 0 -x: ended with status 3: no room"):
        set_dns("wg0", 7, ENTRIES, Before(told))


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


def test_commands_run_in_sh_without_bash_and_all_run_at_the_end(told: Path) -> None:
    commands = [f"echo 1 >> {told}", "exit 3", f"echo 2 >> {told}", "exit 4"]
    with pytest.raises(InvalidSetting, match="exit 3: ended with status 3"):
        call(commands, "wg0")
    assert told.read_text() == "1\n"
    with pytest.raises(InvalidSetting, match=r"exit 3: ended with status 3; .*exit 4: ended with status 4"):
        call_all(commands, "wg0")
    assert told.read_text() == "1\n1\n2\n"


@pytest.mark.parametrize("name", ["a;b", "$(b)", "a b", "`b`", "a'", "", "a" * 16, "wg0\n", "../wg0"])
def test_commands_get_no_name_that_means_something_to_a_shell(told: Path, name: str) -> None:
    with pytest.raises(InvalidSetting, match="cannot be the name of a device"):
        call([f"echo %i > {told}"], name)
    assert not told.exists()


def test_an_interrupted_command_is_ended(tmp_path: Path) -> None:
    @contextmanager
    def interrupted() -> Iterator[None]:
        assert come_true((tmp_path / "begun").exists)
        raise KeyboardInterrupt
        yield

    trap = f"trap 'touch {tmp_path}/ended; exit' TERM; touch {tmp_path}/begun; while :; do sleep 0.05; done"
    with pytest.raises(KeyboardInterrupt):
        call([trap, f"touch {tmp_path}/second"], "wg0", waiting=interrupted)
    assert (tmp_path / "ended").exists()
    assert not (tmp_path / "second").exists()
