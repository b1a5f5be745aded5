"""`threepipe wg invite`: the files of both ends fit, are for their owner alone, and never replace others."""

import ipaddress
import os
import socket
import stat
import sys
from pathlib import Path

import pytest

from tests.support.commands import run, run_here
from threepipe.echo import echo_reply, echo_request
from threepipe.errors import EndpointError, InvalidSetting
from threepipe.wireguard import Change, Device, generate_key, key_to_text, parse_networks, public_key, read_config
from threepipe.wireguard.quick.config import config_path
from threepipe.wireguard.quick.invite import Invitation, invite

KEY = generate_key()
SERVER = f"[Interface]\nPrivateKey = {key_to_text(KEY)}\nAddress = 10.6.7.1/24, fd67::1/64\nListenPort = 443\n"
MANAGED_HERE = 'mount -t tmpfs none /run; mkdir /run/wireguard; mount --bind "$0" /run/wireguard; exec "$@"'


@pytest.fixture
def server(tmp_path: Path) -> Path:
    path = tmp_path / "wg0.conf"
    path.write_text(SERVER)
    path.chmod(0o600)
    return path


def made(server: Path, name: str = "phone", endpoint: str = "vpn.example.org") -> Invitation:
    return invite(server, server.with_name(f"{name}.conf"), endpoint)


def test_both_files_name_each_other(server: Path) -> None:
    made(server)
    ours, theirs = read_config(server), read_config(server.with_name("phone.conf"))
    (peer,), (back,) = ours.peers, theirs.peers
    assert theirs.private_key is not None
    assert peer.public_key == public_key(theirs.private_key)
    assert back.public_key == public_key(KEY)
    assert peer.preshared_key is not None
    assert peer.preshared_key == back.preshared_key
    assert peer.allowed_ips == parse_networks(["10.6.7.2", "fd67::2"])
    assert [str(address) for address in theirs.addresses] == ["10.6.7.2/24", "fd67::2/64"]
    assert back.allowed_ips == parse_networks(["10.6.7.0/24", "fd67::/64"])
    assert back.endpoint == ("vpn.example.org", 443)


def test_the_server_s_text_stays_and_the_peer_has_its_name_there(server: Path) -> None:
    server.write_text(f"{SERVER}# the end, without a line feed")
    made(server)
    made(server, "laptop")
    text = server.read_text()
    assert text.startswith(f"{SERVER}# the end, without a line feed\n\n# phone\n[Peer]\n")
    assert "\n\n# laptop\n[Peer]\n" in text
    assert len(read_config(server).peers) == 2


def test_packets_pass_between_the_two_ends(tmp_path: Path) -> None:
    with Device() as free:
        port = free.status().listen_port
    result = invite(tmp_path / "wg0.conf", tmp_path / "phone.conf", f"127.0.0.1:{port}")
    ours, theirs = read_config(tmp_path / "wg0.conf"), read_config(tmp_path / "phone.conf")
    assert result.new_server
    with Device() as near, Device() as far:
        near.configure(Change(ours.private_key, port, peers=ours.change().peers))
        far.configure(theirs.change())
        source, target = (str(config.addresses[0].ip) for config in (theirs, ours))
        far.session.send([echo_request(source, target, 1, 1)])
        answers: list[bytes] = []
        while not answers:
            with near.session.receive(0.05) as bundle:
                near.session.send([reply for packet in bundle if (reply := echo_reply(packet))])
            with far.session.receive(0.05) as bundle:
                answers += map(bytes, bundle)
    assert len(answers) == 1


def test_a_new_server_has_private_networks_and_a_port(tmp_path: Path) -> None:
    first, second = (invite(tmp_path / f"wg{n}.conf", tmp_path / f"p{n}.conf", "host").server for n in (1, 2))
    assert first.listen_port == 51820
    assert all(address.network.is_private for address in first.addresses)
    assert first.addresses[1] != second.addresses[1]
    assert read_config(tmp_path / "p1.conf").peers[0].endpoint == ("host", 51820)


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="the modes of files show no access rights here")
def test_new_files_are_for_their_owner_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        made(tmp_path / "wg0.conf")
    finally:
        os.umask(before)
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o600}


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="the modes of files show no access rights here")
def test_a_server_s_file_that_other_users_can_open_gets_a_warning(
    server: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server.parent.chmod(0o755)
    server.chmod(0o644)
    made(server)
    assert "wg0.conf has keys, and other users can open it" in caplog.text


@pytest.mark.parametrize(
    ("allowed", "expected"),
    [
        (["10.6.7.2/32"], "10.6.7.3"),
        (["10.6.7.2/31", "10.6.7.5/32"], "10.6.7.4"),
        (["10.6.7.3/32", "10.6.7.200/32"], "10.6.7.2"),
        (["0.0.0.0/0", "10.6.7.0/24", "10.0.0.0/8"], "10.6.7.2"),
    ],
)
def test_the_next_peer_gets_the_first_free_address(server: Path, allowed: list[str], expected: str) -> None:
    peers = [f"[Peer]\nPublicKey = {key_to_text(generate_key())}\nAllowedIPs = {each}\n" for each in allowed]
    server.write_text(SERVER + "".join(peers))
    assert made(server).client.addresses[0].ip == ipaddress.ip_address(expected)


@pytest.mark.parametrize(
    ("text", "endpoint", "told"),
    [
        (SERVER.replace("PrivateKey", "#"), "host", "no PrivateKey"),
        (SERVER.replace("ListenPort", "#"), "host", "no ListenPort; add one"),
        (SERVER.replace("Address", "#"), "host", "no Address of wg0 has room"),
        (SERVER.replace("/24", "/32").replace("/64", "/128"), "host", "no Address of wg0 has room"),
        (SERVER, "host:1x", "endpoint 'host:1x': write it as"),
        (SERVER, "a host", "endpoint 'a host:443': write it as"),
        (SERVER, "host#1", "endpoint 'host#1:443': write it as"),
        (SERVER, "host:0", "endpoint 'host:0': write it as"),
        (SERVER, "a..host", "endpoint 'a..host:443': write it as"),
        (SERVER.replace("10.6.7.1/24", "10.6.7.1/30, 10.6.7.2/32"), "host", "every address of 10.6.7.0/30 has a peer"),
        (f"{SERVER}nonsense", "host", "line 5"),
    ],
)
def test_an_error_leaves_no_file_and_no_change(server: Path, text: str, endpoint: str, told: str) -> None:
    server.write_text(text)
    with pytest.raises(InvalidSetting, match=told):
        made(server, endpoint=endpoint)
    assert server.read_text() == text
    assert [path.name for path in server.parent.iterdir()] == ["wg0.conf"]


def test_a_wrong_dns_server_is_refused(server: Path) -> None:
    with pytest.raises(InvalidSetting, match=r"DNS: '#' is neither an address nor a domain"):
        invite(server, server.with_name("phone.conf"), "host", dns=["9.9.9.9", "#"])
    assert server.read_text() == SERVER


def test_an_existing_file_of_the_peer_is_kept(server: Path) -> None:
    (server.parent / "phone.conf").write_text("mine")
    with pytest.raises(EndpointError, match="never overwritten"):
        made(server)
    assert server.read_text() == SERVER
    assert (server.parent / "phone.conf").read_text() == "mine"


def test_a_server_that_cannot_be_made_leaves_no_peer(tmp_path: Path) -> None:
    (tmp_path / "phone.conf").write_text("mine")
    with pytest.raises(EndpointError, match="never overwritten"):
        made(tmp_path / "wg0.conf")
    assert [path.name for path in tmp_path.iterdir()] == ["phone.conf"]


def test_a_full_disk_leaves_both_files_as_they_were(server: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write

    def half(file: int, data: bytes) -> int:
        return real(file, data[: len(data) // 2])

    monkeypatch.setattr(os, "write", half)
    with pytest.raises(EndpointError, match="the files are as before"):
        made(server)
    assert server.read_text() == SERVER
    assert not server.with_name("phone.conf").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="files are locked on other systems only")
def test_two_invitations_take_turns(server: Path) -> None:
    from threepipe import platforms

    with server.open() as other:
        assert platforms.try_lock(other.fileno())
        with pytest.raises(EndpointError, match="another threepipe wg invite is changing it"):
            made(server)


@pytest.mark.parametrize(
    ("endpoint", "expected"),
    [
        ("host:7", ("host", 7)),
        ("2001:db8::1", ("2001:db8::1", 443)),
        ("[2001:db8::1]", ("2001:db8::1", 443)),
        ("[2001:db8::1]:7", ("2001:db8::1", 7)),
    ],
)
def test_an_endpoint_has_the_server_s_port_unless_given(server: Path, endpoint: str, expected: tuple[str, int]) -> None:
    made(server, endpoint=endpoint)
    assert read_config(server.with_name("phone.conf")).peers[0].endpoint == expected


def test_the_command_makes_the_files_and_says_what_is_next(
    server: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(server.parent)
    options = ["--endpoint", "host", "--all-traffic", "--dns", "9.9.9.9"]
    done = run_here(monkeypatch, capfd, "wg", "invite", "./wg0.conf", "phone", *options)
    assert done.status == 0, done.complaint
    assert "10.6.7.2, fd67::2" in done.printed
    assert "next: threepipe wg up wg0.conf" in done.printed
    config = read_config(Path("phone.conf"))
    assert config.dns == ("9.9.9.9",)
    assert config.peers[0].allowed_ips == parse_networks(["0.0.0.0/0", "::/0"])
    assert config.private_key is not None
    assert key_to_text(config.private_key) not in done.plain


def test_a_qr_code_without_segno_says_what_to_install_and_makes_nothing(
    server: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "segno", None)
    done = run_here(monkeypatch, capfd, "wg", "invite", str(server), "phone", "--endpoint", "host", "--qr")
    assert (done.status, done.complaint) == (1, 'threepipe: a QR code needs segno; run: pip install "threepipe[qr]"\n')
    assert server.read_text() == SERVER


def test_a_qr_code_has_the_peer_s_file(
    server: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    import segno

    monkeypatch.chdir(server.parent)
    done = run_here(monkeypatch, capfd, "wg", "invite", str(server), "phone", "--endpoint", "host", "--qr")
    assert done.status == 0, done.complaint
    rows = [line for line in done.printed.splitlines() if line and set(line) <= set(" █▀▄")]
    shown = [[character in half for character in line] for line in rows for half in ("█▀", "█▄")]
    code = segno.make_qr(Path("phone.conf").read_text(), error="l", boost_error=False)
    expected = [[not module for module in row] for row in code.matrix_iter(border=2)]
    assert shown[: len(expected)] == expected


@pytest.mark.kernel
@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="this system has no Unix sockets")
def test_a_running_server_knows_the_peer_at_once(server: Path, tmp_path: Path) -> None:
    from threepipe.wireguard.uapi_server import UapiServer
    from threepipe.wireguard.uapi_socket import listen

    inside = ("unshare", "--mount", "sh", "-ec", MANAGED_HERE, str(tmp_path))
    with Device(private_key=KEY) as device, UapiServer(listen("wg0", tmp_path), device, device.close):
        there = str(tmp_path / "phone.conf")
        done = run("wg", "invite", str(server), there, "--endpoint", "host", prefix=inside)
        assert done.status == 0, done.complaint
        (peer,) = device.status().peers
    assert peer.allowed_ips == parse_networks(["10.6.7.2", "fd67::2"])
    assert peer.preshared_key == read_config(Path(there)).peers[0].preshared_key


@pytest.mark.parametrize("written", ["./phone", "../phone", "/tmp/phone", "sub.conf/phone"])
def test_a_path_of_a_device_s_file_that_does_not_end_in_conf_is_refused(written: str) -> None:
    with pytest.raises(InvalidSetting, match=r"the file of a device is NAME\.conf; add \.conf"):
        config_path(written)
    assert config_path(f"{written}.conf") == Path(f"{written}.conf")
