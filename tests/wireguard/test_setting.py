"""`threepipe wg set`, `setconf`, `syncconf`, `showconf` and `show NAME FIELD`, beside wg(8)."""

import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.commands import Done, run
from tests.support.wireguard_pair import new_key
from threepipe.errors import EndpointError, InvalidSetting
from threepipe.wireguard import (
    Change,
    Device,
    PeerChange,
    PeerStatus,
    Status,
    generate_key,
    key_to_text,
    link_local,
    parse_networks,
    public_key,
)
from threepipe.wireguard.quick.config import parse_config
from threepipe.wireguard.quick.setting import parse_arguments, to_replace, to_synchronize
from threepipe.wireguard.quick.showing import FIELDS, rows
from threepipe.wireguard.uapi import emit_change, parse_change

KEY, SECRET = generate_key(), bytes(range(100, 132))  # The latter always the same, as names of tests have it.
ONE, TWO, THREE = (public_key(generate_key()) for _ in range(3))
NETWORKS = parse_networks(["10.0.0.0/8", "fd00::/64"])
PLACE = ("192.0.2.1", 9)
EVERYTHING = PeerStatus(ONE, SECRET, PLACE, NETWORKS, 25, 1234.5, 10, 20)
STATUS = Status(KEY, public_key(KEY), 777, 0x123, (EVERYTHING, PeerStatus(TWO)))
MANAGED_HERE = 'mount -t tmpfs none /run; mkdir /run/wireguard; mount --bind "$0" /run/wireguard; exec "$@"'
with_wg = [
    pytest.mark.kernel,
    pytest.mark.skipif(shutil.which("wg") is None, reason="wg is not there; install wireguard-tools"),
]


def known(endpoint: tuple[str, int]) -> tuple[str, int]:
    """Look up the names of these tests."""
    return {"one.example.org": "192.0.2.1"}.get(endpoint[0], endpoint[0]), endpoint[1]


def parsed(*words: str) -> Change:
    return parse_arguments(words, known)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "key").write_text(f"{key_to_text(KEY)}\n")
    (tmp_path / "secret").write_text(key_to_text(SECRET))
    (tmp_path / "empty").touch()
    return tmp_path


def test_arguments_become_the_settings_of_the_device_and_of_each_peer(files: Path) -> None:
    peer = ["peer", key_to_text(ONE), "preshared-key", str(files / "secret"), "endpoint", "one.example.org:9"]
    change = parsed(
        *("listen-port", "51820", "fwmark", "0xca6c", "private-key", str(files / "key"), *peer),
        *("persistent-keepalive", "25", "allowed-ips", "10.1.2.3/8, fd00::/64", "peer", key_to_text(TWO), "remove"),
    )
    first = PeerChange(ONE, False, False, SECRET, PLACE, 25, True, NETWORKS)
    assert change == Change(KEY, 51820, 0xCA6C, peers=(first, PeerChange(TWO, remove=True)))


def test_off_zero_and_empty_files_turn_settings_off(files: Path) -> None:
    peer = ["peer", key_to_text(ONE), "preshared-key", str(files / "empty"), "persistent-keepalive", "off"]
    change = parsed("fwmark", "off", "private-key", str(files / "empty"), *peer, "allowed-ips", "")
    assert change == Change(
        bytes(32),
        fwmark=0,
        peers=(PeerChange(ONE, preshared_key=bytes(32), persistent_keepalive=0, replace_allowed_ips=True),),
    )


def test_networks_with_signs_are_added_and_removed_and_the_last_sign_counts() -> None:
    (peer,) = parsed("peer", key_to_text(ONE), "allowed-ips", "+10.0.0.0/8,-fd00::/64,-10.1.0.0/16,+10.1.0.0/16").peers
    assert peer.allowed_ips == parse_networks(["10.0.0.0/8", "10.1.0.0/16"])
    assert peer.removed_ips == parse_networks(["fd00::/64"])
    assert not peer.replace_allowed_ips


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "nothing to set; write .*listen-port PORT"),
        (["listen-port"], "listen-port has no value; write "),
        (["listen-port", "99999"], "listen-port: '99999' is not a number from 0 to 65535"),
        (
            ["persistent-keepalive", "3"],
            "unknown argument 'persistent-keepalive' of wg set; expected one of listen-port",
        ),
        (["peer"], "peer has no value"),
        (["peer", "short"], "peer: invalid WireGuard key"),
        (["peer", key_to_text(ONE), "listen-port", "1"], "unknown argument 'listen-port' of a peer; expected one of"),
        (["peer", key_to_text(ONE), "endpoints", "1"], r"'endpoints' of a peer; did you mean endpoint\?"),
        (["peer", key_to_text(ONE), "endpoint", "nowhere"], r"endpoint: write it as NAME:PORT"),
        (["peer", key_to_text(ONE), "allowed-ips", "10.0.0"], "allowed IP '10.0.0'"),
    ],
)
def test_a_wrong_argument_is_named_with_what_to_write(words: list[str], told: str) -> None:
    with pytest.raises(InvalidSetting, match=told):
        parsed(*words)


@pytest.mark.parametrize("text", [key_to_text(SECRET)[:-2], f"{key_to_text(SECRET)}x", "root:x:0:0", "é"])
def test_an_invalid_key_in_a_file_is_not_shown(tmp_path: Path, text: str) -> None:
    path = tmp_path / "wrong"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InvalidSetting, match=r"private-key: invalid WireGuard key") as caught:
        parsed("private-key", str(path))
    assert text not in str(caught.value)


def test_a_key_in_place_of_its_file_is_not_shown() -> None:
    misspelled = key_to_text(SECRET)[:-2]
    with pytest.raises(EndpointError, match="give the path of a file") as caught:
        parsed("private-key", misspelled)
    assert misspelled not in str(caught.value)


@pytest.mark.parametrize("peer", [
    PeerChange(ONE),
    PeerChange(ONE, update_only=True, preshared_key=SECRET, endpoint=("fe80::1%1", 9), persistent_keepalive=0),
    PeerChange(ONE, replace_allowed_ips=True, allowed_ips=NETWORKS),
    PeerChange(ONE, removed_ips=NETWORKS),
    PeerChange(ONE, remove=True),
])  # fmt: skip
def test_a_request_says_what_the_change_does(peer: PeerChange) -> None:
    change = Change(KEY, 9, 7, True, (peer, PeerChange(TWO)))
    assert parse_change(emit_change(change).splitlines()) == change
    assert parse_change(emit_change(Change(peers=(peer,))).splitlines()) == Change(peers=(peer,))


FILE = f"[Interface]\nAddress = 10.0.0.1/24\n[Peer]\nPublicKey = {key_to_text(ONE)}\nAllowedIPs = 10.0.0.0/8\n"


def test_setconf_resets_what_the_file_leaves_out() -> None:
    change = to_replace(parse_config(FILE, "wg0", ""), known)
    assert (change.private_key, change.listen_port, change.fwmark, change.replace_peers) == (bytes(32), 0, 0, True)


def test_syncconf_keeps_sessions_endpoints_and_the_port_and_nothing_else() -> None:
    file = f"{FILE}[Peer]\nPublicKey = {key_to_text(THREE)}\nPresharedKey = {key_to_text(SECRET)}\n"
    with Device(private_key=KEY, fwmark=0) as device:
        device.configure(
            Change(peers=(PeerChange(ONE, False, False, SECRET, PLACE, 25, True, NETWORKS), PeerChange(TWO)))
        )
        before = device.status()
        change = to_synchronize(parse_config(file, "wg0", ""), before, known)
        assert not change.replace_peers
        device.configure(change)
        after = device.status()
    assert after.listen_port == before.listen_port
    assert not any(after.private_key)
    kept = PeerStatus(ONE, endpoint=PLACE, allowed_ips=parse_networks(["10.0.0.0/8"]), tx_bytes=after.peers[0].tx_bytes)
    assert after.peers == (kept, PeerStatus(THREE, SECRET))


def test_syncconf_asks_nothing_of_the_device_that_it_has_already() -> None:
    file = f"[Interface]\nPrivateKey = {key_to_text(KEY)}\nListenPort = 777\nFwMark = 0x123\n"
    change = to_synchronize(parse_config(file, "wg0", ""), STATUS, known)
    assert (change.private_key, change.listen_port, change.fwmark) == (None, None, None)
    assert {peer.public_key for peer in change.peers if peer.remove} == {ONE, TWO}


def test_the_fields_of_a_device_without_settings_are_none_or_off() -> None:
    assert rows(Status(), "dump") == [("(none)", "(none)", "0", "off")]


def test_the_link_locals_are_made_of_the_keys_of_the_peers() -> None:
    expected = [(key_to_text(key), str(link_local(key))) for key in (ONE, TWO)]
    assert rows(STATUS, "link-locals") == expected


if hasattr(socket, "AF_UNIX"):
    from threepipe.wireguard.uapi_server import UapiServer
    from threepipe.wireguard.uapi_socket import listen


class Still:
    """A device with `STATUS`, at which nothing changes."""

    def configure(self, change: Change) -> None: ...

    def status(self) -> Status:
        return STATUS


class Managed:
    """Commands that manage the device `fake`, whose socket is in a folder of the test."""

    def __init__(self, folder: Path) -> None:
        self.inside = ("unshare", "--mount", "sh", "-ec", MANAGED_HERE, str(folder))

    def ours(self, *words: str) -> Done:
        return run("wg", *words, prefix=self.inside)

    def wg(self, *words: str) -> str:
        done = subprocess.run([*self.inside, "wg", *words], capture_output=True, text=True, timeout=50)
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture
def managed(tmp_path: Path) -> Iterator[Managed]:
    with UapiServer(listen("fake", tmp_path), Still(), lambda: None):
        yield Managed(tmp_path)


@pytest.fixture
def device(tmp_path: Path) -> Iterator[tuple[Device, Managed]]:
    peer = PeerChange(ONE, False, False, SECRET, PLACE, 25, True, NETWORKS)
    with Device(private_key=KEY, peers=[peer]) as device, UapiServer(listen("fake", tmp_path), device, device.close):
        yield device, Managed(tmp_path)


class TestBesideWg:
    """The same words to wg(8) and to this program, with the same result."""

    pytestmark = with_wg

    def test_show_prints_every_field_as_wg_does(self, managed: Managed) -> None:
        for field in FIELDS.keys() - {"link-locals"}:  # That is ours.
            lines = ["\t".join(row) for row in rows(STATUS, field)]
            assert managed.wg("show", "fake", field).splitlines() == lines, field
        for words in (["fake", "endpoints"], ["all", "dump"], ["all", "transfer"], ["interfaces"]):
            done = managed.ours("show", *words)
            assert (done.status, done.complaint) == (0, ""), done.complaint
            assert done.printed == managed.wg("show", *words), words

    def test_show_prints_the_names_of_several_devices_on_one_line(self, managed: Managed, tmp_path: Path) -> None:
        with UapiServer(listen("other", tmp_path), Still(), lambda: None):
            printed, theirs = managed.ours("show", "interfaces").printed, managed.wg("show", "interfaces")
        assert printed.splitlines() == ["fake other"]
        assert (sorted(theirs.split()), theirs.count("\n")) == (["fake", "other"], 1)

    def test_showconf_prints_what_wg_does(self, managed: Managed) -> None:
        assert managed.ours("showconf", "fake").printed == managed.wg("showconf", "fake")

    def test_set_does_what_wg_does(self, device: tuple[Device, Managed], tmp_path: Path) -> None:
        made, managed = device
        (tmp_path / "key").write_text(key_to_text(new_key()))
        (tmp_path / "empty").touch()
        one, two = key_to_text(ONE), key_to_text(TWO)
        for words in (
            ["private-key", str(tmp_path / "key"), "fwmark", "0"],
            ["peer", one, "endpoint", "[2001:db8::1]:5", "persistent-keepalive", "0", "peer", two],
            ["peer", two, "preshared-key", str(tmp_path / "key"), "allowed-ips", "10.0.0.0/8"],
            ["peer", one, "preshared-key", str(tmp_path / "empty"), "allowed-ips", ""],
            ["peer", two, "remove", "endpoint", "192.0.2.7:1"],
        ):
            before = made.status()
            restored = Change(
                before.private_key,
                fwmark=before.fwmark,
                replace_peers=True,
                peers=tuple(
                    PeerChange(
                        peer.public_key,
                        preshared_key=peer.preshared_key,
                        endpoint=peer.endpoint,
                        persistent_keepalive=peer.persistent_keepalive,
                        allowed_ips=peer.allowed_ips,
                    )
                    for peer in before.peers
                ),
            )
            managed.wg("set", "fake", *words)
            theirs = settings(made)
            made.configure(restored)
            done = managed.ours("set", "fake", *words)
            assert (done.status, done.printed, done.complaint) == (0, "", ""), done.complaint
            assert settings(made) == theirs, words

    def test_setconf_does_what_wg_does(self, device: tuple[Device, Managed], tmp_path: Path) -> None:
        made, managed = device
        file = tmp_path / "a file"
        file.write_text(
            f"[Interface]\nPrivateKey = {key_to_text(KEY)}\nListenPort = {made.status().listen_port}\n"
            f"[Peer]\nPublicKey = {key_to_text(TWO)}\nAllowedIPs = 10.0.0.0/8\n"
        )
        file.chmod(0o600)
        done = managed.ours("setconf", "fake", str(file))
        assert (done.status, done.printed, done.complaint) == (0, "", ""), done.complaint
        ours = settings(made)
        managed.wg("setconf", "fake", str(file))
        assert settings(made) == ours


def settings(device: Device) -> Status:
    """Return the status without counts."""
    status = device.status()
    return replace(status, peers=tuple(replace(peer, tx_bytes=0) for peer in status.peers))


@pytest.mark.kernel
def test_networks_are_removed_with_a_minus_and_files_synchronized(
    device: tuple[Device, Managed], tmp_path: Path
) -> None:
    made, managed = device
    done = managed.ours("set", "fake", "peer", key_to_text(ONE), "allowed-ips", "-10.0.0.0/8")
    assert done.status == 0, done.complaint
    assert made.status().peers[0].allowed_ips == parse_networks(["fd00::/64"])
    file = tmp_path / "sync.conf"
    file.write_text(f"[Interface]\nAddress = 10.0.0.1/24\n[Peer]\nPublicKey = {key_to_text(TWO)}\n")
    file.chmod(0o600)
    assert managed.ours("syncconf", "fake", str(file)).status == 0
    assert [peer.public_key for peer in made.status().peers] == [TWO]


@pytest.mark.kernel
def test_a_refused_change_and_a_missing_device_say_why(managed: Managed) -> None:
    done = managed.ours("set", "nosuch", "fwmark", "1")
    assert done.status == 1
    assert "threepipe wg show lists the devices" in done.complaint
    done = managed.ours("show", "fake", "nosuch")
    assert done.status == 2
    assert "latest-handshakes" in done.plain


@pytest.mark.kernel
@pytest.mark.parametrize("words", [["showconf", "fake"], ["show", "fake", "dump"], ["show", "all", "preshared-keys"]])
def test_keys_written_to_a_file_for_all_get_a_warning(managed: Managed, tmp_path: Path, words: list[str]) -> None:
    path = tmp_path / "shown"
    path.touch()
    path.chmod(0o644)
    program = [*managed.inside, sys.executable, "-m", "threepipe", "wg", *words]
    with path.open("wb") as file:
        done = subprocess.run(program, stdout=file, stderr=subprocess.PIPE, text=True, timeout=50)
    assert done.returncode == 0
    assert "other users can open" in done.stderr


@pytest.mark.parametrize("words", [["private-key"], ["peer", key_to_text(ONE), "preshared-key"]])
def test_a_key_as_argument_is_refused_without_showing_it(words: list[str]) -> None:
    done = run("wg", "set", "wg0", *words, key_to_text(SECRET))
    assert done.status == 1
    assert "keys are never arguments" in done.plain
    assert key_to_text(SECRET) not in done.plain
