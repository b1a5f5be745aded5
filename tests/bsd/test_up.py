"""`threepipe wg up` and threepipe-wg on the models of macOS' and the BSDs' kernels: names, default routes and DNS."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.kernel import Network
from tests.support.wireguard_pair import new_key
from threepipe.platforms.bsd.here import dns_tools
from threepipe.wireguard import key_to_text

pytestmark = pytest.mark.kernel

PROGRAM = Path(__file__).parents[1] / "support" / "programs" / "bsd_device.py"
SET_APART = 'mount -t tmpfs none /run && exec "$@"'
"""Shell commands that give a process a folder of its own for control sockets."""
NAMES = {"darwin": "utun0", "freebsd": "office", "netbsd": "tun0", "openbsd": "tun0"}
"""The interface of a device named office."""
DNS = {
    "darwin": [
        "scutil",
        "d.init",
        "d.add ServerAddresses * 10.5.0.53",
        'd.add SupplementalMatchDomains * "" example.org',
        "d.add SearchDomains * example.org",
        "set State:/Network/Service/threepipe-utun0/DNS",
        "scutil",
        "remove State:/Network/Service/threepipe-utun0/DNS",
    ],
    "freebsd": [
        "resolvconf -a office -m 0 -x",
        "nameserver 10.5.0.53",
        "search example.org",
        "resolvconf -d office -f",
    ],
    "netbsd": ["resolvconf -a tun0 -m 0 -x", "nameserver 10.5.0.53", "search example.org", "resolvconf -d tun0 -f"],
    "openbsd": ["route nameserver tun0 10.5.0.53"],  # It has forgotten them with the interface.
}


def run(folder: Path, *arguments: str, **environment: str) -> tuple[list[dict[str, Any]], str]:
    """Run the program in a network of its own; return the lines that it printed, and its complaints."""
    network = Network()
    try:
        done = subprocess.run(
            [*network.command("unshare", "--mount", "sh", "-c", SET_APART, "sh"), sys.executable, PROGRAM, *arguments],
            capture_output=True,
            text=True,
            timeout=50,
            cwd=folder,
            env=os.environ
            | {"PYTHONPATH": f"{PROGRAM.parents[3]}:{PROGRAM.parents[3] / 'src'}", "LOG_LEVEL": "error"}
            | environment,
        )
    finally:
        network.namespace.close()
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()], done.stderr


@pytest.mark.parametrize("system", NAMES)
def test_a_default_route_and_dns_last_as_long_as_the_device(system: str, tmp_path: Path) -> None:
    path, told = tmp_path / "office.conf", tmp_path / "told"
    path.write_text(
        f"[Interface]\nPrivateKey = {key_to_text(new_key())}\nAddress = 10.5.0.1/24, fd05::1/64\n"
        f"DNS = 10.5.0.53, example.org\nPreUp = echo pre %i >> {told}\nPostDown = echo post %i >> {told}\n"
        f"[Peer]\nPublicKey = {key_to_text(new_key())}\nEndpoint = 192.0.2.9:51820\n"
        "AllowedIPs = 0.0.0.0/0, ::/0, 10.77.0.0/16\n"
    )
    path.chmod(0o600)
    (tool,) = dns_tools(f"{system}9")
    program = tmp_path / tool
    program.write_text(f'#!/bin/sh\necho {tool} "$@" >> {told}\ncat >> {told}\n')
    program.chmod(0o755)
    (up, moved, ended), _ = run(tmp_path, system, "up", str(path), PATH=f"{tmp_path}:{os.environ['PATH']}")
    own = NAMES[system]
    assert up["routes"][own].keys() == {
        "0.0.0.0/1", "128.0.0.0/1", "::/1", "8000::/1", "10.77.0.0/16", "10.5.0.0/24"
    }  # fmt: skip
    assert up["routes"]["em0"] == {"0.0.0.0/0": False, "192.0.2.9/32": True}
    assert up["mtu"][own] == 1492 - 80
    assert up["sockets"] == ["office"]
    assert up["files"] == ({} if own == "office" else {"office.name": f"{own}\n"})
    assert moved["routes"]["em1"] == {"0.0.0.0/0": False, "192.0.2.9/32": True}
    assert ended["routes"] == {"em1": {"0.0.0.0/0": False}}
    assert (ended["sockets"], ended["files"]) == ([], {})
    lines = told.read_text().splitlines()
    assert lines == [f"pre {own}", *DNS[system], f"post {own}"]


@pytest.mark.parametrize(("system", "name"), [("darwin", "utun"), ("netbsd", "tun"), ("openbsd", "tun")])
def test_threepipe_wg_writes_the_name_that_the_system_has_chosen(system: str, name: str, tmp_path: Path) -> None:
    file = tmp_path / "name"
    (up, ended), _ = run(tmp_path, system, "serve", name, WG_TUN_NAME_FILE=str(file))
    assert file.read_text() == f"{name}0\n"
    assert file.stat().st_mode & 0o777 == 0o400
    assert up["sockets"] == [f"{name}0"]
    assert up["mtu"][f"{name}0"] == 1420
    assert ended["sockets"] == []
    assert ended["routes"].keys() == {"em0"}
