"""Opening an adapter or a namespace fails: exception class, errno, a text with advice, and nothing left behind."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import threepipe
from tests.support.kernel import Network
from tests.support.refusals import create, open_existing, refused
from threepipe.platforms.linux import tun

pytestmark = pytest.mark.kernel

NO_PROCESS = 2**22 + 1
"""A number above the highest process id of Linux."""


def everywhere(netns: str | int) -> Iterator[Any]:
    """Return every call that takes a namespace."""
    yield lambda: create("tp0", netns=netns)
    yield lambda: open_existing("tp0", netns=netns)
    yield lambda: threepipe.adapters(netns)


@pytest.mark.parametrize("netns", ["no-such-name", "/no/such/path", NO_PROCESS, str(NO_PROCESS), -1])
def test_every_call_with_a_missing_namespace_raises(network: Network, netns: str | int) -> None:
    for call in everywhere(netns):
        with refused(network, threepipe.NamespaceNotFound, errno.ENOENT, str(netns), "ip netns"):
            call()


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/", errno.EISDIR),
        ("/dev/null", errno.EINVAL),
        ("/proc/self/ns/mnt", errno.EINVAL),
        ("/proc/self/status", errno.EINVAL),
    ],
)
def test_every_call_with_a_path_that_is_not_a_namespace_raises(network: Network, path: str, code: int) -> None:
    for call in everywhere(path):
        with refused(network, threepipe.NamespaceNotFound, code, path, "network namespace"):
            call()


def test_every_call_with_the_path_of_a_fifo_raises_at_once(network: Network, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for call in everywhere(str(tmp_path / "fifo")):
        with refused(network, threepipe.NamespaceNotFound, errno.EINVAL, "fifo", "not a network namespace"):
            call()


@pytest.mark.parametrize("netns", ["", ".", "..", "a\0b"])
def test_every_call_with_an_invalid_namespace_name_raises(network: Network, netns: str) -> None:
    for call in everywhere(netns):
        with refused(network, threepipe.InvalidSetting, None, "namespace"):
            call()


def test_open_of_a_missing_adapter_raises(network: Network) -> None:
    with refused(network, threepipe.AdapterNotFound, errno.ENODEV, "tp0", "threepipe adapter list"):
        open_existing("tp0", netns=network.path)


def test_open_of_another_interface_raises(network: Network) -> None:
    network.run("ip", "tuntap", "add", "tap0", "mode", "tap")
    network.run("ip", "link", "add", "veth0", "type", "veth", "peer", "name", "veth1")
    kinds = {"tap0": "a TAP device, which carries Ethernet frames", "veth0": "an interface of the kind veth", "lo": ""}
    for name, kind in kinds.items():
        with refused(network, threepipe.AdapterNotFound, errno.EINVAL, f"{name} is not a layer-3 TUN adapter", kind):
            open_existing(name, netns=network.path)


def test_open_of_an_adapter_removed_meanwhile_raises(network: Network) -> None:

    def open_too_late() -> None:
        with tun.open_tun() as file:
            tun.attach(file, "tp0", create=False, offload=False, several=False)

    with refused(network, threepipe.AdapterNotFound, errno.ENODEV, "tp0 was removed while it was opened"):
        network.namespace.run(open_too_late)
