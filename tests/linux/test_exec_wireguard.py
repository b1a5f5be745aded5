"""Other programs' WireGuard devices on adapters that `threepipe exec` hands them, as an ordinary user."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.kernel import needs_root
from tests.support.wireguard_peers import OUTSIDE, PROGRAMS, Program, sites

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(120), needs_root]

FORMS = [
    ("wireguard-go", "packet-information"),
    pytest.param("wireguard-go-newest", "none", marks=pytest.mark.soak),
    pytest.param("wireguard-go-newest", "vnet", marks=pytest.mark.soak),
    pytest.param("boringtun", "none", marks=pytest.mark.soak),
]
"""Programs, and the form of packets that they take."""


def handed(name: str, header: str) -> Program:
    """Return that program on an adapter of `exec`; its interface's name is the last argument."""
    # boringtun names its control socket by the number of the descriptor.
    link = "ln -s 3.sock /run/wireguard/tunnelled.sock &&" if name == "boringtun" else ""
    start = f'install -d -o nobody /run/wireguard && {link} exec "$@"'
    words = ["exec", "--tun", "tunnelled", "--header", header, "--user", "nobody", "--keep-net-admin", "--"]
    command = ("sh", "-c", start, "sh", sys.executable, "-m", "threepipe", *words, *PROGRAMS[name].command)
    return replace(PROGRAMS[name], command=command)


@pytest.mark.parametrize(("name", "header"), FORMS)
def test_two_devices_of_an_ordinary_user_reach_each_other(name: str, header: str) -> None:
    if reason := PROGRAMS[name].missing():
        pytest.skip(reason)
    with sites(handed(name, header), handed(name, header)) as site:
        first, second = site.ends
        for end in site.ends:
            end.start()
            users = [
                line.split()[1] for line in Path(f"/proc/{end.pid}/status").read_text().split("\n") if "Uid" in line
            ]
            assert users == ["65534"]
        second.set_peer(first)
        first.set_peer(second, "endpoint", OUTSIDE[4].endpoint(2))
        for version in (4, 6):
            first.ping(version, second)
            second.ping(version, first)
