"""Interfaces that an administrator renames or moves to another network namespace while a program holds them."""

import errno
import os
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

import threepipe
from tests.support.kernel import STRANGER, Network, call_elsewhere, needs_root
from threepipe import Adapter

if sys.platform != "linux":
    pytest.skip(f"{sys.platform} has no network namespaces", allow_module_level=True)

from threepipe.platforms.linux.namespace import CLONE_NEWNET, unshare

pytestmark = pytest.mark.kernel

PACKET = bytes([0x45, *bytes(19)])


@pytest.fixture
def elsewhere(network: Network) -> Iterator[Network]:
    """Provide another namespace."""
    other = Network()
    yield other
    other.namespace.close()


def move(network: Network, elsewhere: Network, *options: str) -> None:
    network.run("ip", "link", "set", "tp0", "netns", elsewhere.path, *options)


def test_a_renamed_adapter_has_its_new_name_everywhere(network: Network) -> None:
    with Adapter.create("tp0", netns=network.path) as adapter, adapter.start_session() as session:
        network.run("ip", "link", "set", "tp0", "down")
        network.run("ip", "link", "set", "tp0", "name", "tp7")
        assert (adapter.name, adapter.info.name, repr(adapter)) == ("tp7", "tp7", "<Adapter tp7>")
        with pytest.raises(threepipe.LinkDown, match="tp7 was set down; as root: ip link set tp7 up"):
            session.send([PACKET])
        network.run("ip", "link", "del", "tp7")
        with pytest.raises(threepipe.AdapterGone, match="tp7 was removed"):
            assert adapter.info
    assert adapter.name == "tp7"


@pytest.mark.parametrize("queues", [1, 2])
def test_a_moved_adapter_is_followed_though_its_name_and_index_change(
    network: Network, elsewhere: Network, queues: int
) -> None:
    with (
        Adapter.create("tp0", netns=network.path, queues=queues) as adapter,
        Adapter.create("tp0", netns=elsewhere.path) as other,
    ):
        index = adapter.index
        assert index == other.index  # A new namespace counts from the start.
        move(network, elsewhere, "name", "tp7")
        assert adapter.index not in (index, 0)
        assert adapter.index == adapter.info.index
        adapter.mtu = 1400
        assert (adapter.name, adapter.mtu) == ("tp7", 1400)
        with adapter.start_session():
            assert adapter.link_up
            assert "tp7" in elsewhere.run("ip", "link", "show", "up")
        elsewhere.run("ip", "link", "set", "tp7", "netns", network.path, "name", "tp0")
        assert (adapter.name, adapter.mtu) == ("tp0", 1400)
    assert "tp0" not in network.run("ip", "link")


def test_an_adapter_is_used_where_it_is_though_the_program_moves(network: Network) -> None:
    def create_and_leave() -> None:
        with Adapter.create("tp0") as adapter:
            unshare(CLONE_NEWNET)
            assert adapter.info.name == "tp0"
            with adapter.start_session():
                assert adapter.link_up

    network.namespace.run(create_and_leave)


@needs_root
def test_a_user_who_may_not_follow_an_adapter_is_told_that_it_was_moved(network: Network, elsewhere: Network) -> None:
    with pytest.raises(threepipe.PermissionDenied, match="tp0 was moved to another network namespace") as caught:
        call_elsewhere(network, use_without_privilege_once_moved, elsewhere.path)
    assert caught.value.errno == errno.EPERM


def use_without_privilege_once_moved(path: str) -> None:
    with Adapter.create("tp0") as adapter:
        index = adapter.index
        subprocess.run(["ip", "link", "set", "tp0", "netns", path], check=True)
        os.seteuid(STRANGER)
        try:
            assert (adapter.name, adapter.index) == ("tp0", index)
            assert adapter.info
        finally:
            os.seteuid(0)


@needs_root
def test_an_adapter_in_the_programs_own_namespace_needs_no_privilege_to_enter_others(network: Network) -> None:
    program = "from threepipe import Adapter; a = Adapter.create('tp0'); a.mtu = 1400; print(a.mtu, a.index > 0)"
    without = ["setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin"]
    assert network.run(*without, sys.executable, "-c", program) == "1400 True\n"


def test_moves_during_calls_are_followed(network: Network, elsewhere: Network) -> None:
    def move_to_and_fro() -> None:
        for _ in range(5):
            move(network, elsewhere)
            elsewhere.run("ip", "link", "set", "tp0", "netns", network.path)

    with Adapter.create("tp0", netns=network.path) as adapter:
        moving = threading.Thread(target=move_to_and_fro)
        moving.start()
        looks = 0
        while moving.is_alive() or not looks:
            assert adapter.info.name == "tp0"
            looks += 1
        moving.join()
