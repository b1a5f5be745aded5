"""Installing the extcap program: the folder is the one that the Wireshark at hand names."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from threepipe import EndpointError, InvalidSetting
from threepipe.capture.install import install_extcap

if sys.platform == "win32":
    pytest.skip("these programs are shell scripts", allow_module_level=True)

OLD = "Personal configuration:\t{home}/config\nExtcap path:         \t/usr/lib/wireshark/extcap\n"
NEW = "Personal Extcap path:\t{home}/own/extcap\nGlobal Extcap path:\t/usr/lib/extcap\n" + OLD


@pytest.fixture
def wireshark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Make programs tshark, which prints some text, and threepipe-extcap, the only ones in the PATH."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "threepipe")])

    def make(told: str) -> None:
        for name, text in (
            ("tshark", f'while read line; do echo "$line"; done << END\n{told}END\n'),
            ("threepipe-extcap", ""),
        ):
            (tmp_path / name).write_text(f"#!/bin/sh\n{text}")
            (tmp_path / name).chmod(0o755)

    return make


@pytest.mark.parametrize(("told", "folder"), [(OLD, "config/extcap"), (NEW, "own/extcap")], ids=["4.0", "newer"])
def test_the_program_is_linked_into_the_folder_of_the_user(
    wireshark: Callable[[str], None], tmp_path: Path, told: str, folder: str
) -> None:
    wireshark(told.format(home=tmp_path))
    for _ in range(2):  # The link of before is replaced.
        link = install_extcap()
        assert link == tmp_path / folder / "threepipe-extcap"
        assert Path(os.readlink(link)) == tmp_path / "threepipe-extcap"


def test_another_file_of_that_name_is_kept(wireshark: Callable[[str], None], tmp_path: Path) -> None:
    wireshark(OLD.format(home=tmp_path))
    (tmp_path / "config" / "extcap").mkdir(parents=True)
    (tmp_path / "config" / "extcap" / "threepipe-extcap").write_text("mine")
    with pytest.raises(EndpointError, match=r"threepipe-extcap: File exists; remove it"):
        install_extcap()
    assert (tmp_path / "config" / "extcap" / "threepipe-extcap").read_text() == "mine"


def test_what_is_missing_is_named(
    wireshark: Callable[[str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InvalidSetting, match="neither tshark nor wireshark is in the PATH"):
        install_extcap()
    wireshark("nothing: known\n")
    with pytest.raises(InvalidSetting, match="names no folder for extcap"):
        install_extcap()
    wireshark(OLD.format(home=tmp_path))
    (tmp_path / "threepipe-extcap").unlink()
    monkeypatch.setattr("sysconfig.get_path", lambda _: str(tmp_path))
    with pytest.raises(InvalidSetting, match="threepipe-extcap is neither beside this program nor in the PATH"):
        install_extcap()
