"""Files of wg-quick: reading, writing, and errors with their line."""

import errno
import ipaddress
import os
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from threepipe.errors import EndpointError, InvalidSetting
from threepipe.settings import parse_addresses
from threepipe.wireguard import PeerStatus, Status, key_to_text, parse_networks, read_config
from threepipe.wireguard.quick.config import config_path, parse_config, warn_if_exposed, with_status, write_config
from threepipe.wireguard.quick.sections import Config, PeerConfig

KEY, OTHER = key_to_text(bytes(range(32))), key_to_text(bytes(range(1, 33)))
modes = pytest.mark.skipif(not hasattr(os, "geteuid"), reason="the modes of files show no access rights here")
WHOLE = f"""
# A comment.
[Interface]
Address = 10.0.0.1/24, fd00::1/64
address = 10.0.1.1/24  # Once more.
PRIVATEKEY = {KEY}
ListenPort = 51820
FwMark = 0xca6c
DNS = 10.0.0.53, example.org
MTU = 1400
Table = 1234
PreUp = echo one; echo two
PostUp = iptables -A FORWARD -i %i -j ACCEPT
PostUp = true
PreDown = true
PostDown = false
SaveConfig = true
Routing = fd12:3456:789a::/48, 10.42.0.0/16

[peer]
PublicKey = {OTHER}
PresharedKey = {KEY}
AllowedIPs = 10.0.0.2/32, fd00::/64
AllowedIPs = 10.9.9.9/16
Endpoint = [2001:db8::1]:51820
PersistentKeepalive = 25

[Peer]
PublicKey = {KEY}
Endpoint = vpn.example.org:1
PersistentKeepalive = off
"""


ADDRESSES = ["10.0.0.1/24", "10.0.1.1/24", "fd00::1/64"]


def test_a_file_with_every_key_parses() -> None:
    config = parse_config(WHOLE, "wg0", "wg0.conf")
    assert config == Config(
        "wg0",
        bytes(range(32)),
        51820,
        0xCA6C,
        parse_addresses(["10.0.0.1/24", "fd00::1/64", "10.0.1.1/24"]),
        ("10.0.0.53", "example.org"),
        1400,
        "1234",
        ("echo one; echo two",),
        ("iptables -A FORWARD -i %i -j ACCEPT", "true"),
        ("true",),
        ("false",),
        True,
        (
            PeerConfig(
                bytes(range(1, 33)),
                bytes(range(32)),
                parse_networks(["10.0.0.2/32", "fd00::/64", "10.9.0.0/16"]),
                ("2001:db8::1", 51820),
                25,
            ),
            PeerConfig(bytes(range(32)), endpoint=("vpn.example.org", 1)),
        ),
        ["fd12:3456:789a::/48", "10.42.0.0/16"],
    )
    assert parse_config(write_config(config), "wg0", "again") == config
    assert str(config).find(KEY) < 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("PrivateKey = x", "line 1: expected KEY = VALUE below"),
        ("[Interface]\nPrivateKey", "line 2: expected KEY = VALUE"),
        ("[Interface]\nPrivateKey = x", "line 2: invalid WireGuard key: expected 44 base64 characters"),
        ("[Interface]\n[Device]", r"line 2: unknown section '\[Device\]'"),
        ("[Interface]\nPublicKey = x", "line 2: PublicKey is a key of \\[Peer\\]; move it there"),
        ("[Interface]\nListenPort = 65536", "line 2: ListenPort = 65536: '65536' is not a number from 0 to 65535"),
        ("[Peer]\nEndpoint = 192.0.2.1:518200", "line 2: Endpoint = .*: '518200' is not a number from 0 to 65535"),
        ("[Interface]\nMTU = 10", "line 2: MTU 10: give"),
        ("[Interface]\nMTU = many", "line 2: MTU = many: 'many' is not a number from 0 to 65535"),
        ("[Interface]\nMTU = 1_400", "line 2: MTU = 1_400: '1_400' is not a number from 0 to 65535"),
        ("[Interface]\nTable = 08", "line 2: Table = 08: '08' is not a number from 0 to 4294967295"),
        ("[Interface]\nTable = a b", "line 2: Table = a b: give one table, by its number or name, auto or off"),
        ("[Interface]\nFwMark = 0X1", "line 2: FwMark = 0X1: '0X1' is not a number"),
        ("[Interface]\nListenPort = nowhere", "line 2: ListenPort = nowhere: 'nowhere' is not a number"),
        ("[Peer]\nAllowedIPs = 10.0.0.0/8 10.1.0.0/16", "line 2: allowed IP '10.0.0.0/810.1.0.0/16'"),
        ("[Peer]\nPersistentKeepalive = 0x19", "line 2: PersistentKeepalive = 0x19: '0x19' is not a number"),
        (
            "[Peer]\nAllowedIPs = fe80::%eth0/64",
            "line 2: allowed IP 'fe80::%eth0/64': an allowed IP has no zone; write",
        ),
        ("[Interface]\nAddresss = 10.0.0.1/24", r"line 2: unknown key 'Addresss'; did you mean Address\?"),
        ("[Peer]\nDNS = 10.0.0.53", r"line 2: DNS is a key of \[Interface\]; move it there"),
        ("[Peers]", r"line 1: unknown section '\[Peers\]'; did you mean \[Peer\]\?"),
        (
            "[Interface]\nRouting = on",
            "line 2: Routing = on: give the networks of the mesh, such as fd12:3456:789a::/48",
        ),
        ("[Interface]\nRouting =", "line 2: Routing = : give the networks of the mesh"),
        ("[Peer]\nRouting = ::/0", r"line 2: Routing is a key of \[Interface\]; move it there"),
        ("[Interface]\nSaveConfig = 1", "line 2: SaveConfig = 1: give true or false"),
        ("[Interface]\nDNS = a;b", "neither an address nor a domain"),
        ("[Interface]\nAddress = 10.0.0.0/33", "line 2: address '10.0.0.0/33'"),
        (f"[Peer]\nPublicKey = {KEY}\nEndpoint = fd00::1", "line 3: Endpoint = fd00::1: write it as NAME:PORT"),
        (f"[Peer]\nPublicKey = {KEY}\nEndpoint = there", "line 3: Endpoint = there: write it as NAME:PORT"),
        (f"[Peer]\nPublicKey = {KEY}\nEndpoint = there:", "line 3: Endpoint = there:: '' is not a number"),
        (f"[Peer]\nPublicKey = {KEY}\nAllowedIPs = 10.0.0.0/33", "line 3: allowed IP '10.0.0.0/33'"),
        (f"[Interface]\nPrivateKey = {KEY}\n[Peer]\n", r"wg0.conf: a \[Peer\] has no PublicKey"),
    ],
)
def test_a_mistake_raises_with_its_line(text: str, said: str) -> None:
    with pytest.raises(InvalidSetting, match=said):
        parse_config(text, "wg0", "wg0.conf")


@pytest.mark.parametrize(
    ("line", "values"),
    [
        ("ListenPort = 051820", {"listen_port": 51820}),
        ("ListenPort = domain", {"listen_port": 53}),
        ("Listen Port = 5 1 8 2 0", {"listen_port": 51820}),
        ("FwMark = 010", {"fwmark": 10}),
        ("FwMark = 0xCA6C", {"fwmark": 51820}),
        ("FwMark = OFF", {"fwmark": 0}),
        ("MTU = 01000", {"mtu": 512}),
        ("MTU = 0x578", {"mtu": 1400}),
        ("MTU =", {"mtu": None}),
        ("Address = 10.0.0.1/24 10.0.1.1/24,,fd00::1/64\t,", {"addresses": parse_addresses(ADDRESSES)}),
        ("DNS = 10.0.0.53 example.org", {"dns": ("10.0.0.53", "example.org")}),
        ("Table =", {"table": "auto"}),
        ("Table = 010", {"table": "8"}),
        ("Table = 0x20", {"table": "32"}),
        ("Table = vpn", {"table": "vpn"}),
        ("PostUp = echo  two", {"post_up": ("echo  two",)}),
        ("[Peer]\nPersistentKeepalive = 025", {"persistent_keepalive": 25}),
        ("[ PEER ]\nPersistent Keepalive = 2\t5", {"persistent_keepalive": 25}),
        ("[Peer]\nEndpoint = there : 051820", {"endpoint": ("there", 51820)}),
        ("[Peer]\nEndpoint = [fd00::1] : domain", {"endpoint": ("fd00::1", 53)}),
        ("[Peer]\nEndpoint = fd00::1:51820", {"endpoint": ("fd00::1", 51820)}),
        ("[Peer]\nEndpoint = fe80::1%eth0:51820", {"endpoint": ("fe80::1%eth0", 51820)}),
        ("[Peer]\nAllowedIPs = 10.0.0.0 / 08, fd00::1", {"allowed_ips": parse_networks(["10.0.0.0/8", "fd00::1"])}),
    ],
)
def test_a_value_is_read_as_by_wg_and_wg_quick(line: str, values: dict[str, object]) -> None:
    public = f"PublicKey = {OTHER}" if line.startswith("[") else ""
    config = parse_config(f"[Interface]\n{line}\n{public}", "wg0", "wg0.conf")
    section = config.peers[0] if config.peers else config
    assert {name: getattr(section, name) for name in values} == values


@given(st.one_of(st.text(), st.lists(st.sampled_from(WHOLE.splitlines())).map("\n".join)))
def test_any_text_parses_or_raises_invalid_setting(text: str) -> None:
    try:
        parse_config(text, "wg0", "wg0.conf")
    except InvalidSetting:
        pass
    with pytest.raises(InvalidSetting, match="name"):
        parse_config(text, "a name that is too long", "wg0.conf")


def test_a_file_without_a_private_key_parses_and_is_written_without_one() -> None:
    config = parse_config("[Interface]\nListenPort = 5\nPostUp = wg set %i private-key /etc/key", "wg0", "wg0.conf")
    assert config.private_key is None
    assert config.change().private_key is None
    assert "PrivateKey" not in write_config(config)
    assert with_status(config, Status()).private_key is None
    assert with_status(config, Status(bytes(range(32)))).private_key == bytes(range(32))


def test_a_file_gives_a_change_and_a_status_gives_a_file(tmp_path: Path) -> None:
    path = tmp_path / "wg7.conf"
    path.write_text(WHOLE.replace("vpn.example.org", "127.0.0.1"))
    config = read_config(path)
    assert config.name == "wg7"
    change = config.change()
    assert [peer.endpoint for peer in change.peers] == [("2001:db8::1", 51820), ("127.0.0.1", 1)]
    assert change.replace_peers
    peer = PeerStatus(bytes(range(32)), endpoint=("192.0.2.1", 5), allowed_ips=(ipaddress.ip_network("10.0.0.0/8"),))
    saved = with_status(config, Status(bytes(range(2, 34)), listen_port=9, peers=(peer,)))
    assert (saved.private_key, saved.listen_port, saved.fwmark) == (bytes(range(2, 34)), 9, None)
    assert saved.peers == (PeerConfig(peer.public_key, None, peer.allowed_ips, ("192.0.2.1", 5)),)
    assert parse_config(write_config(saved), "wg7", "again") == saved


def test_a_file_in_utf_8_with_or_without_a_mark_is_read(tmp_path: Path) -> None:
    path = tmp_path / "wg7.conf"
    path.write_bytes(b"\xef\xbb\xbf" + WHOLE.replace("\n", "\r\n").encode())
    assert read_config(path) == parse_config(WHOLE, "wg7", "")
    path.write_bytes(b"[Interface]\n# caf\xe9\n")
    with pytest.raises(InvalidSetting, match=r"wg7\.conf, line 2: not UTF-8 text"):
        read_config(path)


# The ends of lines that str.splitlines() or open() know, and wg(8) does not.
@pytest.mark.parametrize("end", ["\r", "\v", "\f", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029"])
def test_a_comment_ends_with_a_line_feed_only(tmp_path: Path, end: str) -> None:
    path = tmp_path / "wg7.conf"
    text = f"[Interface]\r\nPrivateKey = {KEY} # one{end}PostUp = true\nMTU = 1400\n# two{end}[Peer]{end}\n"
    path.write_bytes(text.encode())
    assert read_config(path) == Config("wg7", bytes(range(32)), mtu=1400)
    command = f"echo one{end}PostUp = echo two"
    assert parse_config(f"[Interface]\nPrivateKey = {KEY}\nPostUp = {command}", "wg7", "").post_up == (command,)


@modes
@pytest.mark.parametrize(
    ("mode", "folder", "warned"),
    [(0o600, 0o755, False), (0o640, 0o755, False), (0o644, 0o755, True), (0o602, 0o701, True), (0o644, 0o750, False)],
)
def test_a_file_that_every_user_can_open_is_warned_about(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, mode: int, folder: int, warned: bool
) -> None:
    path, link = tmp_path / "etc" / "wg7.conf", tmp_path / "wg7.conf"
    path.parent.mkdir()
    path.write_text(WHOLE)
    link.symlink_to(path)
    path.chmod(mode)
    path.parent.chmod(folder)
    for each in (path, link):
        caplog.clear()
        warn_if_exposed(each)
        said = [f"{each} has keys, and other users can open it; run: chmod 600 {each}"]
        assert caplog.messages == said * warned


def test_a_nul_raises_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(InvalidSetting, match=r"line 2: there is a NUL"):
        parse_config("[Interface]\nPostUp = a\0b", "wg7", "wg7.conf")


@given(st.binary())
def test_any_bytes_are_read_or_raise_invalid_setting(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "wg7.conf")
        path.write_bytes(data)
        with suppress(InvalidSetting):
            assert read_config(path).peers == ()


def test_a_file_that_cannot_be_read_is_named_with_advice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "wg7.conf"
    with pytest.raises(EndpointError, match=r"wg7\.conf: No such file or directory; check the path") as raised:
        read_config(path)
    assert raised.value.errno == errno.ENOENT
    monkeypatch.setattr("threepipe.wireguard.quick.config.FOLDERS", (tmp_path,))
    with pytest.raises(EndpointError, match=r"wg7\.conf: .*; a name alone is looked for in .* so write \./wg7\.conf"):
        read_config(path)
    path.mkdir()
    with pytest.raises(EndpointError, match=r"wg7\.conf: .*; "):
        read_config(path)


def test_a_name_stands_for_the_first_folder_that_has_its_file(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    second.mkdir()
    assert config_path("wg7", first, second) == first / "wg7.conf"
    (second / "wg7.conf").touch()
    assert config_path("wg7", first, second) == second / "wg7.conf"
    first.mkdir()
    (first / "wg7.conf").touch()
    assert config_path("wg7", first, second) == first / "wg7.conf"
