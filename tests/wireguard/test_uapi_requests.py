"""Requests to a device by its management socket, with the results that wireguard-go has for them.

The expected results were read from wireguard-go at ecfc5a8d5446.
"""

import errno
import logging
import shutil
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.kernel import Network
from threepipe.wireguard import Change, Device, PeerChange, PeerStatus, Status, key_to_text, parse_networks
from threepipe.wireguard.noise import Identity

pytestmark = pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="this system has no Unix sockets")
if hasattr(socket, "AF_UNIX"):
    from threepipe.wireguard.uapi_server import UapiServer
    from threepipe.wireguard.uapi_socket import ask, listen

KEY, THEIRS = bytes(range(32)), bytes(range(1, 33))
ONE, TWO = "11" * 32, "22" * 32
MANAGED_HERE = 'mount -t tmpfs none /run; mkdir /run/wireguard; mount --bind "$0" /run/wireguard; exec "$@"'


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Device]:
    with Device() as device, UapiServer(listen("real", tmp_path), device, device.close):
        yield device


def half_closed(path: Path, request: bytes) -> bytes:
    """Send a request and the end of the connection; return all that is answered."""
    with socket.socket(socket.AF_UNIX) as client, client.makefile("rb") as answer:
        client.settimeout(10)
        client.connect(str(path))
        client.sendall(request)
        client.shutdown(socket.SHUT_WR)
        return answer.read()


@pytest.mark.parametrize(
    ("lines", "owned"),
    [
        (["{one}", "+10.0.0.0/8", "+10.1.0.0/16", "-10.0.0.0/8"], {ONE: ["10.1.0.0/16"]}),
        (["{one}", "+10.2.0.0/16", "-10.2.0.0/16"], {ONE: []}),
        (["{one}", "-10.2.0.0/16", "+10.2.0.0/16"], {ONE: ["10.2.0.0/16"]}),
        (["{one}", "+10.2.0.0/16", "-10.2.0.0/16", "+10.2.0.0/16"], {ONE: ["10.2.0.0/16"]}),
        (["{one}", "+10.1.0.0/16", "{two}", "+10.1.0.0/16", "-10.1.0.0/16"], {ONE: [], TWO: []}),
        (["{one}", "+10.1.0.0/16", "{two}", "-10.1.0.0/16"], {ONE: ["10.1.0.0/16"], TWO: []}),
        (["{one}", "+10.3.0.0/16", "-10.3.7.7/16"], {ONE: []}),
        (["{one}", "+10.9.0.0/16", "replace_allowed_ips=true"], {ONE: []}),
        (["{one}", "+10.9.0.0/16", "replace_allowed_ips=true", "+fd00::/8"], {ONE: ["fd00::/8"]}),
        (["{one}", "remove=true", "+10.6.0.0/16"], {}),
        (["{one}", "+10.6.0.0/16", "{two}", "+10.6.0.0/16", "remove=true"], {ONE: []}),
        (["{one}", "-fd00::/8"], {ONE: []}),
        (["{one}", "+10.2.0.0/16", "-10.2.0.0/16", "update_only=true", "+10.3.0.0/16"], {}),
        (["{one}", "{two}", "+10.2.0.0/16", "-10.2.0.0/16", "update_only=true"], {ONE: []}),
    ],
)
def test_allowed_ips_are_added_and_removed_in_the_order_of_the_lines(
    device: Device, tmp_path: Path, lines: list[str], owned: dict[str, list[str]]
) -> None:
    keys = {"{one}": f"public_key={ONE}", "{two}": f"public_key={TWO}", "+": "allowed_ip=", "-": "allowed_ip=-"}
    text = "\n".join(
        keys.get(line) or (keys[line[0]] + line[1:] if line[0] in keys else line) for line in ["set=1", *lines]
    )
    assert ask("real", f"{text}\n\n", tmp_path) == "errno=0\n\n"
    found = {peer.public_key.hex(): list(map(str, peer.allowed_ips)) for peer in device.status().peers}
    assert found == owned


@pytest.mark.parametrize(
    "request_", [b"set=1\nlisten_port={}\n", b"set=1\nlisten_port={}", b"get=1\n\nset=1\nlisten_port={}\n"]
)
def test_the_end_of_the_connection_completes_a_set(device: Device, tmp_path: Path, request_: bytes) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("0.0.0.0", 0))
        port = free.getsockname()[1]
    answer = half_closed(tmp_path / "real.sock", request_.replace(b"{}", str(port).encode()))
    assert answer.endswith(b"errno=0\n\n")
    assert device.status().listen_port == port


@pytest.mark.parametrize("request_", [b"", b"set=1", b"get=1\n", b"please\n", b"\n"])
def test_what_is_not_a_request_at_the_end_of_the_connection_gets_no_answer(
    device: Device, tmp_path: Path, request_: bytes
) -> None:
    before = device.status()
    assert half_closed(tmp_path / "real.sock", request_) == b""
    assert device.status() == before
    assert ask("real", "get=1\n\n", tmp_path).endswith("errno=0\n\n")


def test_half_a_line_at_the_end_of_the_connection_is_an_error(device: Device, tmp_path: Path) -> None:
    before = device.status()
    assert half_closed(tmp_path / "real.sock", b"set=1\nlisten_port=9\nfwma") == f"errno=-{errno.EPROTO}\n\n".encode()
    assert device.status() == before


@pytest.mark.usefixtures("device")
def test_a_client_that_stops_sending_gets_all_answers(tmp_path: Path) -> None:
    assert half_closed(tmp_path / "real.sock", b"get=1\n\n" * 5000).count(b"errno=0\n\n") == 5000


@pytest.mark.kernel
def test_a_mark_has_all_of_its_32_bits(network: Network, tmp_path: Path) -> None:
    device = network.namespace.run(lambda: Device(fwmark=0x80000000))
    with device, UapiServer(listen("real", tmp_path), device, device.close):
        for mark in (0xFFFFFFFF, 0x7FFFFFFF, 0, 0xCA6C):
            assert ask("real", f"set=1\nfwmark={mark}\n\n", tmp_path) == "errno=0\n\n"
            assert device.status().fwmark == mark


class Defective:
    """A device with a defect."""

    def configure(self, change: Change) -> None:
        raise ZeroDivisionError

    def status(self) -> Status:
        return Status()


def test_a_defect_is_logged_and_the_device_stays_manageable(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with UapiServer(listen("real", tmp_path), Defective(), lambda: None):
        with caplog.at_level(logging.ERROR):
            assert ask("real", "set=1\n\n", tmp_path) == f"errno=-{errno.EIO}\n\n"
        assert "ZeroDivisionError" in caplog.text
        assert ask("real", "get=1\n\n", tmp_path).endswith("errno=0\n\n")


@pytest.mark.kernel
@pytest.mark.skipif(shutil.which("wg") is None, reason="wg is not there; install wireguard-tools")
def test_wg_prints_the_reason_of_a_failure(device: Device, tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("0.0.0.0", 0))
        inside = ("unshare", "--mount", "sh", "-ec", MANAGED_HERE, str(tmp_path))
        command = ("wg", "set", "real", "listen-port", str(taken.getsockname()[1]))
        done = subprocess.run([*inside, *command], capture_output=True, text=True, timeout=50)
    assert done.returncode == 1
    assert done.stderr == "Unable to modify interface: Address already in use\n"
    assert device.status().listen_port


@pytest.mark.kernel
@pytest.mark.skipif(shutil.which("wg") is None, reason="wg is not there; install wireguard-tools")
def test_setconf_of_wg_takes_from_a_kept_peer_what_its_file_leaves_out(tmp_path: Path) -> None:
    public = Identity(THEIRS).public
    everything = PeerChange(public, preshared_key=KEY, endpoint=("127.0.0.1", 9), persistent_keepalive=25)
    file = tmp_path / "file"
    file.write_text(
        f"[Interface]\nPrivateKey = {key_to_text(KEY)}\n"
        f"[Peer]\nPublicKey = {key_to_text(public)}\nAllowedIPs = 10.0.0.0/8\n"
    )
    with (
        Device(private_key=KEY, peers=[everything]) as device,
        UapiServer(listen("fake", tmp_path), device, device.close),
    ):
        inside = ("unshare", "--mount", "sh", "-ec", MANAGED_HERE, str(tmp_path))
        done = subprocess.run([*inside, "wg", "setconf", "fake", str(file)], capture_output=True, text=True, timeout=50)
        assert done.returncode == 0, done.stderr
        (peer,) = device.status().peers
    assert replace(peer, tx_bytes=0) == PeerStatus(public, allowed_ips=parse_networks(["10.0.0.0/8"]))
