"""The names of devices: those that wg-quick(8) takes, checked before anything is opened."""

import socket
from pathlib import Path

import pytest

from tests.support.commands import run
from threepipe.errors import InvalidSetting
from threepipe.wireguard.quick.commands import call
from threepipe.wireguard.quick.config import parse_config
from threepipe.wireguard.quick.daemon import serve
from threepipe.wireguard.settings import check_device_name
from threepipe.wireguard.uapi_socket import ask, listen, names, take_down

CONFIG = f"[Interface]\nPrivateKey = {'A' * 43}=\n"
REFUSED = [
    "",
    "a b",
    "x" * 16,
    "a/b",
    "..",
    ".",
    "a;b",
    "$(a)",
    "a%d",
    "a\nb",
    "a\n",
    "\u00e9",
    "a@b",
    "`a`",
    "a\0b",
    "\u0663",
]


@pytest.mark.parametrize("name", REFUSED)
def test_a_name_that_wg_quick_does_not_take_is_refused(name: str, tmp_path: Path) -> None:
    for use in (
        lambda: check_device_name(name),
        lambda: parse_config(CONFIG, name, "x.conf"),
        lambda: ask(name, "get=1\n\n", tmp_path),
        lambda: take_down(name, 1, tmp_path),
        lambda: listen(name, tmp_path),
        lambda: serve(name, lambda: None),
        lambda: call(["echo %i"], name),
    ):
        with pytest.raises(InvalidSetting, match=r"cannot be the name of a device: give 1 to 15 letters"):
            use()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["wg0", "x" * 15, "Az_=+.-09", "-", "..."])
def test_a_name_that_wg_quick_takes_is_accepted(name: str) -> None:
    assert check_device_name(name) == name
    assert parse_config(CONFIG, name, "x.conf").name == name


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="this system has no Unix sockets")
def test_other_sockets_are_not_listed(tmp_path: Path) -> None:
    with listen("wg0", tmp_path):
        (tmp_path / "wg0.sock").rename(tmp_path / "wg 0.sock")
        assert names(tmp_path) == []
        (tmp_path / "wg 0.sock").rename(tmp_path / "wg1.sock")
        assert names(tmp_path) == ["wg1"]


@pytest.mark.parametrize("arguments", [("up", "wg0;true"), ("down", "x/wg0;true.conf"), ("show", "wg0;true")])
def test_a_command_refuses_a_name_before_it_looks_for_the_device(arguments: tuple[str, ...]) -> None:
    done = run("wg", *arguments)
    assert done.status == 1
    assert done.complaint.startswith("threepipe: 'wg0;true' cannot be the name of a device")
