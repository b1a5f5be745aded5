"""Allowed IPs with signs in files: networks to add (+) and to remove (-), as by wg(8) of 2026."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from threepipe.errors import InvalidSetting
from threepipe.wireguard import Tunnel, key_to_text, parse_networks
from threepipe.wireguard.quick.config import parse_config, write_config

PEERS = [bytes([number]) * 32 for number in (1, 2)]
NETWORKS = ("10.0.0.0/8", "10.1.0.0/16", "fd00::/8")
SECTION = st.tuples(
    st.sampled_from(PEERS),
    st.lists(
        st.lists(st.builds("{}{}".format, st.sampled_from(["", "+", "-"]), st.sampled_from(NETWORKS)), min_size=1)
    ),
)
"""The public key of a section, and its lines of allowed IPs."""


def file_of(sections: list[tuple[bytes, list[list[str]]]]) -> str:
    """Return the text of a file with these sections."""
    lines = ["[Interface]"]
    for public_key, allowed in sections:
        lines += ["[Peer]", f"PublicKey = {key_to_text(public_key)}"]
        lines += [f"AllowedIPs = {', '.join(items)}" for items in allowed]
    return "\n".join(lines)


def owners_by_wg(sections: list[tuple[bytes, list[list[str]]]]) -> dict[str, bytes]:
    """Return the owner of each network, by carrying out one item after another, as config.c and the devices do."""
    owners: dict[str, bytes] = {}
    for public_key, allowed in sections:
        if not allowed or all(item[0] not in "+-" for item in allowed[-1]):
            owners = {network: owner for network, owner in owners.items() if owner != public_key}
        for item in (item for items in allowed for item in items):
            network = item.lstrip("+-")
            if not item.startswith("-"):
                owners[network] = public_key
            elif owners.get(network) == public_key:
                del owners[network]
    return owners


@given(st.lists(SECTION, max_size=4))
def test_signs_add_and_remove_in_the_order_of_the_file(sections: list[tuple[bytes, list[list[str]]]]) -> None:
    config = parse_config(file_of(sections), "wg0", "wg0.conf")
    tunnel = Tunnel()
    tunnel.configure(config.change(), 0.0)
    owners = {str(network): peer.public_key for peer in tunnel.status(0.0).peers for network in peer.allowed_ips}
    assert owners == owners_by_wg(sections)
    again = parse_config(write_config(config), "wg0", "again")
    assert again == config


@pytest.mark.parametrize(
    ("line", "added", "removed"),
    [
        ("+10.1.2.3/8", ["10.0.0.0/8"], []),
        ("- 10.0.0.0/8", [], ["10.0.0.0/8"]),
        ("+fd00::1, 10.0.0.0/8, -10.1.0.0/16", ["fd00::1", "10.0.0.0/8"], ["10.1.0.0/16"]),
        ("-10.0.0.0/8, +10.0.0.0/8", ["10.0.0.0/8"], []),
    ],
)
def test_a_sign_says_what_becomes_of_a_network(line: str, added: list[str], removed: list[str]) -> None:
    (peer,) = parse_config(f"{file_of([(PEERS[0], [])])}\nAllowedIPs = {line}", "wg0", "wg0.conf").peers
    assert (peer.allowed_ips, peer.removed_ips) == (parse_networks(added), parse_networks(removed))


@pytest.mark.parametrize("item", ["+", "-", "+-10.0.0.0/8", "--10.0.0.0/8", "10.0.0.0/+8", "*10.0.0.0/8"])
def test_a_sign_elsewhere_is_refused(item: str) -> None:
    with pytest.raises(InvalidSetting, match=r"line 4: allowed IP '.*; write it like 10\.0\.0\.0/8"):
        parse_config(file_of([(PEERS[0], [[item]])]), "wg0", "wg0.conf")


def test_a_file_keeps_its_networks_without_signs() -> None:
    config = parse_config(file_of([(PEERS[0], [["10.0.0.0/8", "fd00::/8"]])]), "wg0", "wg0.conf")
    assert "AllowedIPs = 10.0.0.0/8, fd00::/8\n" in write_config(config)
    assert config.peers[0].allowed_ips == (ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("fd00::/8"))
