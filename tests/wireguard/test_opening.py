"""Devices made from a file of wg-quick(8): its keys and peers, and errors that leave nothing open."""

import logging
import os
import socket
from pathlib import Path

import pytest

from threepipe.errors import EndpointError, InvalidSetting
from threepipe.wireguard import Device, Event, PeerChange, generate_key, key_to_text, parse_networks, public_key

KEY, THEIRS = generate_key(), public_key(generate_key())
TEXT = f"""[Interface]
PrivateKey = {key_to_text(KEY)}
Address = 10.6.7.1/24
MTU = 1280
PostUp = exit 1
[Peer]
PublicKey = {key_to_text(THEIRS)}
AllowedIPs = 10.6.7.2/32
Endpoint = 127.0.0.1:9
PersistentKeepalive = 25
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "wg0.conf"
    file.write_text(TEXT)
    file.chmod(0o600)
    return file


def test_a_device_has_the_settings_of_its_file_whose_path_may_be_text(path: Path) -> None:
    for given in (path, str(path)):
        with Device.from_config(given) as device:
            status = device.status()
            (peer,) = status.peers
            assert isinstance(device, Device)
            assert device.mtu == 1280
        assert (status.private_key, status.public_key) == (KEY, public_key(KEY))
        assert (peer.public_key, peer.endpoint, peer.persistent_keepalive) == (THEIRS, ("127.0.0.1", 9), 25)
        assert peer.allowed_ips == parse_networks(["10.6.7.2"])


def test_events_are_told_of_the_peers_of_the_file(path: Path) -> None:
    events: list[Event] = []
    back = PeerChange(public_key(KEY), allowed_ips=parse_networks(["10.6.7.1"]))
    with Device(private_key=generate_key(), peers=[back]) as far:
        status = far.status()
        text = TEXT.replace(":9", f":{status.listen_port}")
        path.write_text(text.replace(key_to_text(THEIRS), key_to_text(status.public_key)))
        with Device.from_config(path, on_event=events.append) as near:
            while not events:  # The keepalive begins a handshake.
                far.session.receive(0.05)
                near.session.receive(0.05)
    assert events[0].public_key == status.public_key


def test_a_file_without_a_private_key_is_refused(path: Path) -> None:
    path.write_text(TEXT.replace("PrivateKey", "#"))
    with pytest.raises(InvalidSetting, match=r"wg0\.conf: \[Interface\] has no PrivateKey; threepipe wg genkey"):
        Device.from_config(path)


def test_a_file_with_routing_is_refused_as_there_is_no_adapter(path: Path) -> None:
    path.write_text(TEXT.replace("MTU", "Routing = fd12:3456:789a::/48\nMTU"))
    with pytest.raises(InvalidSetting, match=r"wg0\.conf: Routing needs an adapter; use threepipe wg up"):
        Device.from_config(path)


def test_a_mistake_names_its_line_and_a_missing_file_its_path(path: Path) -> None:
    path.write_text(TEXT.replace("MTU = 1280", "MTU = much"))
    with pytest.raises(InvalidSetting, match=r"wg0\.conf, line 4: MTU = much"):
        Device.from_config(path)
    with pytest.raises(EndpointError, match=r"nosuch\.conf: No such file"):
        Device.from_config(path.with_name("nosuch.conf"))


def test_a_port_in_use_leaves_no_device(path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("0.0.0.0", 0))
        path.write_text(TEXT.replace("MTU", f"ListenPort = {taken.getsockname()[1]}\nMTU"))
        with pytest.raises(EndpointError):
            Device.from_config(path)


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="the modes of files show no access rights here")
def test_a_file_that_other_users_can_open_gets_a_warning(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path.parent.chmod(0o755)
    path.chmod(0o644)
    with caplog.at_level(logging.WARNING):
        Device.from_config(path).close()
    assert "other users can open it" in caplog.text
