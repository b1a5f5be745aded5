"""Adapters on Linux: their names, owners, namespaces and lives."""

import asyncio
import grp
import os
import pwd
import subprocess
from collections.abc import Callable

import pytest

import threepipe
from tests.support.commands import run
from tests.support.kernel import Network, call_elsewhere, link, links, needs_root
from threepipe import Adapter

pytestmark = pytest.mark.kernel

ADDRESSES = ["10.6.7.1/24", "fd00::1/64"]


def test_create_with_a_taken_name_raises(network: Network) -> None:
    network.run("ip", "link", "add", "veth0", "type", "veth", "peer", "name", "veth1")
    network.run("ip", "tuntap", "add", "tun0", "mode", "tun")
    with Adapter.create("tp0", netns=network.path):
        for name in ("tp0", "tun0", "veth0", "lo"):
            with pytest.raises(threepipe.NameTaken, match=f"interface named {name} exists"):
                Adapter.create(name, netns=network.path)
        assert links(network) == {"tp0", "tun0", "veth0", "veth1"}


def test_a_template_gives_the_first_free_number(network: Network) -> None:
    first, second, third = [Adapter.create("tp%d", netns=network.path) for _ in range(3)]
    with first, third:
        assert [first.name, second.name, third.name] == ["tp0", "tp1", "tp2"]
        second.close()
        with Adapter.create("tp%d", netns=network.path) as again, Adapter.create("a%db", netns=network.path) as inner:
            assert (again.name, inner.name) == ("tp1", "a0b")
            assert links(network) == {"tp0", "tp1", "tp2", "a0b"}


def test_the_index_is_the_one_of_the_kernel(network: Network) -> None:
    with Adapter.create("tp0", netns=network.path) as adapter:
        assert adapter.index == adapter.info.index == link(network, "tp0")["ifindex"]


def test_the_link_is_up_exactly_while_a_session_is_open(network: Network) -> None:
    def lower_up() -> bool:
        return "LOWER_UP" in link(network, "tp0")["flags"]

    with Adapter.create("tp0", netns=network.path) as adapter:
        assert (adapter.link_up, lower_up()) == (False, False)
        for _ in range(3):
            with adapter.start_session():
                assert (adapter.link_up, lower_up()) == (True, True)
            assert (adapter.link_up, lower_up()) == (False, False)


def test_a_persistent_adapter_stays_until_it_is_deleted(network: Network) -> None:
    Adapter.create("tp0", netns=network.path, addresses=["10.6.7.1/24"], mtu=1400, persistent=True).close()
    for _ in range(2):
        with Adapter.open("tp0", netns=network.path) as adapter:
            assert adapter.info.persistent
            assert adapter.mtu == 1400
            assert "10.6.7.1/24" in [str(address) for address in adapter.addresses]
            assert not adapter.link_up
            with adapter.start_session():
                assert adapter.link_up
        assert links(network) == {"tp0"}
        assert not link(network, "tp0")["flags"].count("LOWER_UP")
    Adapter.open("tp0", netns=network.path).delete()
    assert links(network) == set()


@pytest.mark.parametrize("options", ["metric=7", "metric=1", "dns=10.6.7.53,search=example.org", "search=example.org"])
def test_an_option_for_new_adapters_raises_for_an_existing_one(network: Network, options: str) -> None:
    Adapter.create("tp0", netns=network.path, addresses=["10.6.7.1/24"], persistent=True).close()
    address = f"tun:tp0,netns={network.path},address=10.6.7.1/24"
    with pytest.raises(
        threepipe.InvalidSetting, match=f"exists, and {options.partition('=')[0]}.* can only be given to a new one"
    ):
        threepipe.open_endpoint(f"{address},{options}")
    threepipe.open_endpoint(address).close()


def test_delete_removes_an_adapter_that_is_not_persistent(network: Network) -> None:
    Adapter.create("tp0", netns=network.path).delete()
    assert links(network) == set()


@pytest.mark.parametrize("who", [0, "0", pwd.getpwuid(0).pw_name])
def test_owner_accepts_a_name_or_an_id(network: Network, who: str | int) -> None:
    Adapter.create("tp0", netns=network.path, persistent=True, owner=who).close()
    (info,) = threepipe.adapters(network.path)
    assert (info.owner, info.persistent) == (0, True)


@pytest.mark.parametrize("who", [0, "0", grp.getgrgid(0).gr_name])
def test_group_accepts_a_name_or_an_id(network: Network, who: str | int) -> None:
    Adapter.create("tp0", netns=network.path, persistent=True, group=who).close()
    (info,) = threepipe.adapters(network.path)
    assert (info.group, info.persistent) == (0, True)


@pytest.mark.parametrize(("kind", "known"), [("owner", "uid_map"), ("group", "gid_map")])
def test_an_id_that_the_user_namespace_lacks_raises_with_advice(kind: str, known: str) -> None:
    inside = ("unshare", "--user", "--map-root-user", "--net")
    done = run("adapter", "create", "tp0", f"--{kind}=4321", prefix=inside)
    assert (done.status, done.printed) == (1, "")
    assert f"{kind} 4321 does not exist in this user namespace; give an id of /proc/self/{known}" in done.complaint
    assert run("adapter", "create", "tp0", f"--{kind}=0", prefix=inside).printed == "tp0\n"


@needs_root
@pytest.mark.parametrize("number", [61234, 2**31 - 1, 2**31, 2**32 - 2])
def test_owner_and_group_accept_any_id_of_the_kernel(network: Network, number: int) -> None:
    Adapter.create("tp0", netns=network.path, persistent=True, owner=number, group=number).close()
    (info,) = threepipe.adapters(network.path)
    assert (info.owner, info.group) == (number, number)


def test_adapters_lists_all_layer_3_interfaces_of_its_namespace(network: Network) -> None:
    other = Network()
    network.run("ip", "tuntap", "add", "tun0", "mode", "tun", "user", "0")
    network.run("ip", "tuntap", "add", "tap0", "mode", "tap")
    network.run("ip", "link", "add", "veth0", "type", "veth", "peer", "name", "veth1")
    with (
        Adapter.create("tp0", netns=network.path, addresses=ADDRESSES) as adapter,
        Adapter.create("other", netns=other.path),
    ):
        found = {info.name: info for info in threepipe.adapters(network.path)}
        assert set(found) == {"tp0", "tun0"}
        assert found["tp0"] == adapter.info
        assert (found["tun0"].persistent, found["tun0"].owner, found["tun0"].link_up) == (True, 0, False)
        assert [info.name for info in threepipe.adapters(other.path)] == ["other"]
    other.namespace.close()


def use_everything(netns: str | int | None) -> None:
    """Make all control calls on a namespace; the calling thread must stay in its own."""
    before = os.readlink("/proc/thread-self/ns/net")
    with Adapter.create("tp0", netns=netns, addresses=ADDRESSES, persistent=True) as adapter:
        adapter.mtu = 1400
        with adapter.start_session():
            assert adapter.link_up
    assert [info.name for info in threepipe.adapters(netns)] == ["tp0"]
    Adapter.open("tp0", netns=netns).delete()
    assert threepipe.adapters(netns) == []
    assert os.readlink("/proc/thread-self/ns/net") == before


async def use_everything_in_a_loop(netns: str | int | None) -> None:
    use_everything(netns)


def use_everything_here_in_a_loop() -> None:
    asyncio.run(use_everything_in_a_loop(None))


def use_a_named_namespace() -> None:
    use_everything("blue")
    assert subprocess.run(["ip", "netns", "list"], stdout=subprocess.PIPE, check=True).stdout.split() == [b"blue"]


def test_every_call_accepts_a_namespace_by_path(network: Network) -> None:
    use_everything(network.path)


def test_every_call_accepts_a_namespace_by_name(network: Network) -> None:
    call_elsewhere(network, use_a_named_namespace, mounts="mount -t tmpfs none /run; ip netns add blue")


@pytest.mark.parametrize("kind", [int, str])
def test_every_call_accepts_a_namespace_by_process_id(network: Network, kind: Callable[[int], str | int]) -> None:
    # The process echoes a line once it is in the namespace; it ends with its standard input.
    with subprocess.Popen(network.command("cat"), stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"\n")
        process.stdin.flush()
        process.stdout.readline()
        use_everything(kind(process.pid))
        process.stdin.close()


def test_every_call_works_inside_an_event_loop(network: Network) -> None:
    asyncio.run(use_everything_in_a_loop(network.path))
    call_elsewhere(network, use_everything_here_in_a_loop)
