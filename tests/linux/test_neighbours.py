"""Persistent adapters that programs share in turn: the leavings of a killed one, and OpenVPN as the next."""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import threepipe
from tests.support.kernel import STRANGER, Network, needs_root
from tests.support.neighbours import THREEPIPE, openvpn_pair, transferred

if sys.platform != "linux":
    pytest.skip(f"{sys.platform} has no persistent adapters", allow_module_level=True)

pytestmark = pytest.mark.kernel

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


@needs_root
@pytest.mark.skipif(not shutil.which("openvpn"), reason="openvpn is missing; install it")
def test_openvpn_of_an_ordinary_user_passes_tcp_on_an_adapter_of_ours(network: Network, tmp_path: Path) -> None:
    leave(network)
    network.run(*THREEPIPE, "adapter", "reset", "ovpn0")
    with openvpn_pair(network, tmp_path) as far:
        assert transferred(network, far, "10.8.0.1", SIZE) == SIZE
