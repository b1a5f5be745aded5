"""Commands of `threepipe wg` without a device: the keys that they make, and the device or the file that is missing."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.commands import run
from threepipe.wireguard import key_from_text, key_to_text
from threepipe.wireguard.noise import Identity


@pytest.mark.parametrize(("mode", "warned"), [(0o644, True), (0o640, False), (0o600, False)])
@pytest.mark.parametrize("command", ["genkey", "genpsk"])
@pytest.mark.skipif(sys.platform == "win32", reason="modes of files say nothing about access on Windows")
def test_a_key_written_to_a_file_for_all_gets_a_warning(tmp_path: Path, command: str, mode: int, warned: bool) -> None:
    path = tmp_path / "key"
    path.touch()
    path.chmod(mode)
    with path.open("wb") as file:
        program = [sys.executable, "-m", "threepipe", "wg", command]
        done = subprocess.run(program, stdout=file, stderr=subprocess.PIPE, text=True, timeout=50)
    assert done.returncode == 0
    assert ("other users can open" in done.stderr) == warned
    assert len(path.read_text()) == 45


def test_up_with_a_name_says_where_its_file_is_looked_for() -> None:
    done = run("wg", "up", "nosuch")
    assert done.status == 1
    assert done.complaint.startswith("threepipe: ")
    assert "nosuch.conf: No such file or directory; a name alone is looked for in" in done.complaint


def test_genkey_genpsk_and_pubkey_print_valid_keys() -> None:
    key = run("wg", "genkey").printed.strip()
    assert len(key) == len(run("wg", "genpsk").printed.strip()) == 44
    assert _public(f"{key}\n").stdout.strip() == key_to_text(Identity(key_from_text(key)).public)
    refused = _public("no key")
    assert refused.returncode == 1
    assert refused.stderr.startswith("threepipe: invalid private key")


def test_down_and_show_of_a_missing_device_fail() -> None:
    done = run("wg", "down", "wg-none")
    assert done.status == 1
    assert "no device is named wg-none" in done.complaint
    done = run("wg", "show", "wg-none")
    assert done.status == 1
    assert done.complaint.startswith("threepipe: ")
    assert ("is wg-none running?" if hasattr(socket, "AF_UNIX") else "by Unix sockets") in done.complaint


def _public(private: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "threepipe", "wg", "pubkey"]
    return subprocess.run(command, input=private, text=True, capture_output=True, timeout=50)
