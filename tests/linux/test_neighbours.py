"""Persistent adapters that programs share in turn: the leavings of a killed one, and OpenVPN as the next."""

import json
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import threepipe
from tests.support.kernel import STRANGER, Network, needs_root
from tests.support.waiting import come_true

if sys.platform != "linux":
    pytest.skip(f"{sys.platform} has no persistent adapters", allow_module_level=True)

pytestmark = pytest.mark.kernel

THREEPIPE = [sys.executable, "-W", "error", "-m", "threepipe"]
KILLED = """
import os, signal, threepipe
with threepipe.Adapter.open("ovpn0") as adapter, adapter.start_session():
    os.kill(os.getpid(), signal.SIGKILL)
"""
SIZE = 16 << 20


def leave(network: Network) -> None:
    """Create a persistent adapter, and kill a program that has superpackets on there."""
    make = ["adapter", "create", "ovpn0", "--address", "10.8.0.2/24", "--owner", str(STRANGER)]
    network.run(*THREEPIPE, *make)
    assert not is_left_on(network)
    done = subprocess.run(network.command(sys.executable, "-c", KILLED), timeout=50)
    assert done.returncode == -signal.SIGKILL


def is_left_on(network: Network) -> bool:
    (info,) = threepipe.adapters(network.path)
    return info.offload_left_on


def test_what_a_killed_program_left_is_told_and_reset(network: Network) -> None:
    leave(network)
    assert is_left_on(network)
    listed = subprocess.run(network.command(*THREEPIPE, "adapter", "list"), capture_output=True, text=True, timeout=50)
    assert "ovpn0: a killed program left superpackets on" in listed.stderr
    assert "threepipe adapter reset ovpn0" in listed.stderr
    found = json.loads(network.run(*THREEPIPE, "doctor", "--json", check=False))["findings"]
    (finding,) = (each for each in found if each["name"] == "adapter ovpn0")
    assert (finding["ok"], finding["advice"]) == (False, "threepipe adapter reset ovpn0")
    network.run(*THREEPIPE, "adapter", "reset", "ovpn0")
    assert not is_left_on(network)
    assert "pi off vnet_hdr off" in network.run("ip", "-d", "link", "show", "ovpn0")
    assert "adapter ovpn0" not in network.run(*THREEPIPE, "doctor", "--json", check=False)


def test_an_adapter_in_use_is_not_taken_for_a_left_one(network: Network) -> None:
    with threepipe.Adapter.create("ovpn0", netns=network.path, persistent=True) as adapter, adapter.start_session():
        assert not is_left_on(network)
    assert not is_left_on(network)


@pytest.mark.parametrize("options", [["pi"], ["vnet_hdr"], ["multi_queue"], ["pi", "vnet_hdr", "multi_queue"]])
def test_adapters_that_others_made_are_reset(network: Network, options: list[str]) -> None:
    network.run("ip", "tuntap", "add", "mode", "tun", "name", "ovpn0", *options)
    network.run(*THREEPIPE, "adapter", "reset", "ovpn0")
    shown = network.run("ip", "-d", "link", "show", "ovpn0")
    assert "pi off vnet_hdr off" in shown
    assert ("numtxqueues 1 " in shown) == ("multi_queue" not in options)
    assert "persist on" in shown


@contextmanager
def openvpn(network: Network, log: Path, *options: str, user: int | None = None) -> Iterator[None]:
    ids = [] if user is None else ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"]
    words = [*ids, "openvpn", "--dev-type", "tun", "--cipher", "AES-256-CBC", "--allow-compression", "no", *options]
    with log.open("w") as said, subprocess.Popen(network.command(*words), stdout=said, stderr=said) as process:
        try:
            yield
        finally:
            process.terminate()
            process.wait(20)


@needs_root
@pytest.mark.skipif(not shutil.which("openvpn"), reason="openvpn is missing; install it")
def test_openvpn_of_an_ordinary_user_passes_tcp_on_an_adapter_of_ours(network: Network, tmp_path: Path) -> None:
    """The commands of docs/handing-over.md, with another OpenVPN at the far end."""
    far = Network()
    network.run("ip", "link", "add", "v1", "type", "veth", "peer", "name", "v2", "netns", str(far.path))
    for number, each in ((1, network), (2, far)):
        each.run("ip", "address", "add", f"192.0.2.{number}/24", "dev", f"v{number}")
        each.run("ip", "link", "set", f"v{number}", "up")
    leave(network)
    network.run(*THREEPIPE, "adapter", "reset", "ovpn0")
    key = tmp_path / "key"
    subprocess.run(["openvpn", "--genkey", "secret", str(key)], check=True, timeout=50)
    tmp_path.chmod(0o755)
    key.chmod(0o644)
    common = ["--secret", str(key), "--proto", "udp4"]
    theirs = ["--dev", "tun0", "--ifconfig", "10.8.0.1", "10.8.0.2", "--local", "192.0.2.2"]
    ours = ["--dev", "ovpn0", "--ifconfig-noexec", "--route-noexec", "--remote", "192.0.2.2"]
    with (
        openvpn(far, tmp_path / "far", *common, *theirs),
        openvpn(network, tmp_path / "near", *common, *ours, user=STRANGER),
    ):
        assert come_true(lambda: "tun0" in far.run("ip", "link"), 20), (tmp_path / "far").read_text()
        assert come_true(
            lambda: " 0% packet loss" in network.run("ping", "-c", "1", "-W", "1", "10.8.0.1", check=False), 30
        ), (tmp_path / "near").read_text()
        assert transferred(network, far, "10.8.0.1") == SIZE
    far.namespace.close()


def transferred(network: Network, far: Network, address: str) -> int:
    """Send `SIZE` bytes by TCP and return how many arrived."""
    listening = far.namespace.run(lambda: socket.create_server((address, 5000)))
    sending = network.namespace.run(lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM))
    for each in (listening, sending):
        each.settimeout(40)

    def send() -> None:
        with sending:
            sending.connect((address, 5000))
            sending.sendall(bytes(SIZE))

    thread = threading.Thread(target=send)
    thread.start()
    with listening:
        accepted, _ = listening.accept()
        with accepted:
            accepted.settimeout(40)
            count = 0
            while data := accepted.recv(1 << 20):
                count += len(data)
    thread.join()
    return count
