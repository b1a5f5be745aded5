"""Adapters on Linux: their properties as the kernel reports them, and the traffic through them."""

import asyncio
import fcntl
import grp
import ipaddress
import json
import logging
import os
import pwd
import socket
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest

import threepipe
from tests.support.commands import run
from tests.support.hosts import answers
from tests.support.kernel import Network, call_elsewhere, links, needs_root, udp_socket
from threepipe import Adapter, Session
from threepipe.echo import echo_request
from threepipe.platforms.linux import tun

pytestmark = pytest.mark.kernel

ADDRESSES = ["10.6.7.1/24", "10.6.8.1/32", "fd00::1/64", "fd01::1/128"]
ROUTES = ["10.77.0.0/16", "198.51.100.7/32", "fd77::/16", "2001:db8::7/128"]


def shown(network: Network, name: str) -> Any:
    """Return an interface as iproute2 shows it."""
    return json.loads(network.run("ip", "-j", "-d", "addr", "show", "dev", name))[0]


def routes(network: Network, name: str) -> set[str]:
    found = [json.loads(network.run("ip", "-j", family, "route", "show", "dev", name)) for family in ("-4", "-6")]
    return {route["dst"] for family in found for route in family}


def disable_ipv6(network: Network) -> None:
    """Disable IPv6, which also stops the kernel from sending packets on its own where tests count packets."""
    for scope in ("all", "default"):
        network.run("sh", "-c", f"echo 1 > /proc/sys/net/ipv6/conf/{scope}/disable_ipv6")


def receive_exactly(session: Session, count: int) -> list[bytes]:
    packets: list[bytes] = []
    while len(packets) < count:
        bundle = session.receive(timeout=10)
        assert bundle, f"only {len(packets)} packets of {count} came"
        packets += [bytes(packet) for packet in bundle]
    assert len(packets) == count
    return packets


@contextmanager
def answering(session: Session) -> Iterator[None]:
    """Answer packets in a thread until the session is closed."""

    def answer() -> None:
        for bundle in session:
            session.send(answers(bundle))

    thread = threading.Thread(target=answer)
    thread.start()
    try:
        yield
    finally:
        session.close()
        thread.join()


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


def test_addresses_are_usable_at_once(network: Network) -> None:
    with Adapter.create("tp0", netns=network.path, addresses=ADDRESSES) as adapter:
        for address in ADDRESSES:
            udp_socket(network, address.partition("/")[0]).close()  # A tentative address could not be bound.
        found = shown(network, "tp0")["addr_info"]
        assert {f"{address['local']}/{address['prefixlen']}" for address in found} >= set(ADDRESSES)
        assert not [address for address in found if "tentative" in address]
        assert {str(address) for address in adapter.addresses} >= set(ADDRESSES)


def test_addresses_and_routes_outlive_sessions(network: Network) -> None:
    with Adapter.create("tp0", netns=network.path, addresses=ADDRESSES, routes=ROUTES) as adapter:
        wanted = {route.removesuffix("/32").removesuffix("/128") for route in ROUTES}
        assert wanted <= routes(network, "tp0")
        for _ in range(3):
            with adapter.start_session():
                assert wanted <= routes(network, "tp0")
            assert wanted <= routes(network, "tp0")
            assert {str(address) for address in adapter.addresses} >= set(ADDRESSES)


def test_all_routes_of_an_adapter_have_its_metric(network: Network) -> None:
    with Adapter.create("tp0", netns=network.path, addresses=ADDRESSES, routes=ROUTES, metric=7) as adapter:
        wanted = {route.removesuffix("/32").removesuffix("/128") for route in ROUTES}
        wanted |= {str(ipaddress.ip_interface(address).network) for address in ADDRESSES if "/32" not in address}
        found = [each for family in "46" for each in json.loads(network.run("ip", "-j", f"-{family}", "route"))]
        metrics = {each["dst"]: each.get("metric") for each in found if each["dev"] == adapter.name}
        assert {metrics[each.removesuffix("/128")] for each in wanted} == {7}


def test_an_ipv4_route_has_link_scope(network: Network) -> None:
    with Adapter.create("tp0", netns=network.path, routes=["10.77.0.0/16"]):
        (route,) = json.loads(network.run("ip", "-j", "-4", "route", "show", "dev", "tp0"))
        assert (route["dst"], route["scope"]) == ("10.77.0.0/16", "link")


@pytest.mark.parametrize("promote", [0, 1])
def test_addresses_and_routes_removed_later_take_no_others_with_them(network: Network, promote: int) -> None:
    network.run("sh", "-c", f"echo {promote} > /proc/sys/net/ipv4/conf/default/promote_secondaries")
    with Adapter.create(
        "tp0", netns=network.path, addresses=["10.6.7.1/24", "10.6.7.2/24"], routes=["10.77.0.0/16"], metric=77
    ) as adapter:
        adapter.add_address("10.6.7.3/24")
        adapter.add_route("fd77::/16")
        network.run("ip", "address", "add", "10.9.9.1", "peer", "10.9.9.2/32", "dev", "tp0")
        for address in ("10.6.7.1/24", "10.6.7.2/24"):
            adapter.remove_address(address)
        assert {"10.6.7.3/24", "10.9.9.1/32"} == {str(each) for each in adapter.addresses if each.version == 4}
        assert routes(network, "tp0") >= {"10.77.0.0/16", "fd77::/16", "10.6.7.0/24"}
        adapter.remove_address("10.9.9.1")
        adapter.remove_address("10.6.7.3/24")
        shown_routes = json.loads(network.run("ip", "-j", "route", "show", "dev", "tp0"))
        assert [(each["dst"], each["metric"], each["scope"]) for each in shown_routes] == [("10.77.0.0/16", 77, "link")]
    assert not routes(network, "lo")


def test_a_route_to_a_network_of_an_address_is_removed_without_that_of_the_kernel(network: Network) -> None:
    with Adapter.create("tp0", netns=network.path, addresses=["10.6.7.1/24"]) as adapter:
        with pytest.raises(threepipe.AdapterError, match=r"10\.6\.7\.0/24; give one of: none"):
            adapter.remove_route("10.6.7.0/24")
        network.run("ip", "route", "add", "10.6.7.0/24", "dev", "tp0", "metric", "9")
        adapter.remove_route("10.6.7.0/24")
        assert routes(network, "tp0") >= {"10.6.7.0/24"}


def test_packets_to_an_ipv6_address_are_accepted_as_soon_as_it_is_added(network: Network) -> None:
    with Adapter.create("tp0", netns=network.path) as adapter, adapter.start_session() as session:
        wanted = {echo_request(f"fd00::{number:x}", "fd00::ffff", 1, number)[8:40] for number in range(1, 51)}
        for number in range(1, 51):
            adapter.add_address(f"fd00::{number:x}/64")
            session.send_packet(echo_request("fd00::ffff", f"fd00::{number:x}", 1, number))
        while wanted:
            wanted -= {bytes(packet[8:40]) for packet in session.receive(10) if packet[0] == 0x60 and packet[40] == 129}


def test_what_is_added_to_a_persistent_adapter_stays(network: Network) -> None:
    with Adapter.create("tp0", netns=network.path, persistent=True) as adapter:
        adapter.add_address("10.6.7.1/24")
    with Adapter.open("tp0", netns=network.path) as adapter:
        assert [str(address) for address in adapter.addresses] == ["10.6.7.1/24"]
        adapter.delete()


def test_ipv6_added_later_with_ipv6_disabled_or_a_small_mtu_raises(network: Network) -> None:
    with Adapter.create("tp0", netns=network.path, mtu=600) as adapter:
        with pytest.raises(threepipe.InvalidSetting, match="1280"):
            adapter.add_address("fd00::1/64")
        adapter.mtu = 1280
        disable_ipv6(network)
        with pytest.raises(threepipe.IPv6Unavailable, match="to enable it: sysctl"):
            adapter.add_address("fd00::1/64")
        with pytest.raises(threepipe.IPv6Unavailable, match="to enable it: sysctl"):
            adapter.add_route("fd77::/16")


def test_an_address_with_a_peer_is_reported_as_its_own(network: Network) -> None:
    with Adapter.create("tp0", netns=network.path) as adapter:
        network.run("ip", "addr", "add", "10.6.7.1", "peer", "10.6.7.2/32", "dev", "tp0")
        network.run("ip", "addr", "add", "fd00::1", "peer", "fd00::2/128", "dev", "tp0")
        assert [str(address) for address in adapter.addresses] == ["10.6.7.1/32", "fd00::1/128"]


def test_repeated_addresses_and_routes_count_once(network: Network) -> None:
    with Adapter.create("tp0", netns=network.path, addresses=ADDRESSES * 2, routes=ROUTES * 2) as adapter:
        assert len(adapter.addresses) <= len(ADDRESSES) + 1  # The kernel may add a link-local one.


def test_mtu_is_set_at_creation_and_later(network: Network) -> None:
    with Adapter.create("tp0", netns=network.path) as adapter:
        assert adapter.mtu == 1500
    with Adapter.create("tp0", netns=network.path, mtu=9000) as adapter:
        assert adapter.mtu == shown(network, "tp0")["mtu"] == 9000
        for mtu in (68, 65535, 1420):
            adapter.mtu = mtu
            assert adapter.mtu == shown(network, "tp0")["mtu"] == mtu


@pytest.mark.parametrize("extra", [{"addresses": ["fd00::1/64"]}, {"routes": ["fd77::/16"]}])
def test_an_mtu_below_1280_with_ipv6_raises(network: Network, extra: dict[str, Any]) -> None:
    with pytest.raises(threepipe.InvalidSetting, match="1280"):
        Adapter.create("tp0", netns=network.path, mtu=1279, **extra)
    with Adapter.create("tp0", netns=network.path, mtu=1280, **extra) as adapter:
        before = routes(network, "tp0")
        with pytest.raises(threepipe.InvalidSetting, match="1280"):
            adapter.mtu = 1279
        assert adapter.mtu == 1280
        assert routes(network, "tp0") == before


def test_the_index_is_the_one_of_the_kernel(network: Network) -> None:
    with Adapter.create("tp0", netns=network.path) as adapter:
        assert adapter.index == adapter.info.index == shown(network, "tp0")["ifindex"]


def test_the_link_is_up_exactly_while_a_session_is_open(network: Network) -> None:
    def lower_up() -> bool:
        return "LOWER_UP" in shown(network, "tp0")["flags"]

    with Adapter.create("tp0", netns=network.path) as adapter:
        assert (adapter.link_up, lower_up()) == (False, False)
        for _ in range(3):
            with adapter.start_session():
                assert (adapter.link_up, lower_up()) == (True, True)
            assert (adapter.link_up, lower_up()) == (False, False)


def test_a_session_gets_no_packets_of_an_earlier_one(network: Network) -> None:
    disable_ipv6(network)
    with (
        Adapter.create("tp0", netns=network.path, addresses=["10.6.7.1/24"]) as adapter,
        udp_socket(network, "10.6.7.1") as sock,
    ):
        with adapter.start_session() as first:
            for _ in range(5):
                sock.sendto(b"early", ("10.6.7.2", 9))
            assert first.receive_packet(timeout=10).endswith(b"early")
        sock.sendto(b"between", ("10.6.7.2", 9))
        with adapter.start_session() as second:
            sock.sendto(b"late", ("10.6.7.2", 9))
            (packet,) = receive_exactly(second, 1)
            assert packet.endswith(b"late")


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
        assert not shown(network, "tp0")["flags"].count("LOWER_UP")
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


def test_statistics_of_kernel_and_session_agree(network: Network) -> None:
    disable_ipv6(network)
    with (
        Adapter.create("tp0", netns=network.path, addresses=["10.6.7.1/24"]) as adapter,
        adapter.start_session() as session,
        udp_socket(network, "10.6.7.1") as sock,
    ):
        payloads = [bytes(size) for size in (0, 1, 100, 1472, 3)]
        for payload in payloads:
            sock.sendto(payload, ("10.6.7.2", 9))
        packets = receive_exactly(session, 5)
        assert session.send(answers(packets[:3])) == 3
        assert [sock.recv(2000) for _ in range(3)] == payloads[:3]
        received, sent = sum(map(len, packets)), sum(map(len, packets[:3]))
        mine, kernels = session.statistics, adapter.statistics
        assert (mine.received_packets, mine.received_bytes, mine.sent_packets, mine.sent_bytes) == (
            5,
            received,
            3,
            sent,
        )
        assert kernels == threepipe.AdapterStatistics(5, received, 0, 3, sent, 0)


def test_packets_beyond_the_capacity_are_counted_as_dropped(network: Network) -> None:
    disable_ipv6(network)
    capacity, size, sent = 131072, 1400, 0
    with tun.open_tun() as file:
        drops = not tun.features(file) & tun.IFF_BACKPRESSURE
    with (
        Adapter.create("tp0", netns=network.path, addresses=["10.6.7.1/24"]) as adapter,
        adapter.start_session(capacity=capacity) as session,
        udp_socket(network, "10.6.7.1") as sock,
    ):
        with suppress(BlockingIOError):
            while sent < 300:
                sock.sendto(bytes(size), socket.MSG_DONTWAIT, ("10.6.7.2", 9))
                sent += 1
        while session.receive(timeout=0):
            pass
        received = session.statistics.received_packets
        assert received
        assert received * size <= capacity or not drops
        assert received + adapter.statistics.received_dropped == sent


def test_an_adapter_with_ipv6_disabled_has_ipv4_and_logs_a_warning(
    network: Network, caplog: pytest.LogCaptureFixture
) -> None:
    disable_ipv6(network)
    with Adapter.create("tp0", netns=network.path, addresses=ADDRESSES, routes=ROUTES) as adapter:
        assert [str(address) for address in adapter.addresses] == ["10.6.7.1/24", "10.6.8.1/32"]
        assert {"10.77.0.0/16", "198.51.100.7"} <= routes(network, "tp0")
        with adapter.start_session() as session, answering(session):
            network.run("ping", "-c", "1", "-W", "10", "10.6.7.2")
    ((name, level, text),) = caplog.record_tuples
    assert (name, level) == ("threepipe", logging.WARNING)
    for skipped in ("fd00::1/64", "fd01::1/128", "fd77::/16", "2001:db8::7/128", "sysctl"):
        assert skipped in text
    assert "10.6" not in text


@pytest.mark.parametrize("extra", [{"addresses": ["fd00::1/64"]}, {"routes": ["fd77::/16"]}])
def test_ipv6_settings_alone_with_ipv6_disabled_raise(network: Network, extra: dict[str, Any]) -> None:
    disable_ipv6(network)
    with pytest.raises(threepipe.IPv6Unavailable, match="to enable it: sysctl"):
        Adapter.create("tp0", netns=network.path, **extra)
    assert links(network) == set()


PINGS = [("ping", "-c", "5", "-i", "0.01", "-w", "20", "-s", "1400", host) for host in ("10.6.7.2", "fd00::2")]
"""They fail unless five answers come in time."""


@pytest.mark.parametrize("ping", PINGS)
def test_a_thread_answers_pings(network: Network, ping: tuple[str, ...]) -> None:
    with (
        Adapter.create("tp0", netns=network.path, addresses=ADDRESSES) as adapter,
        adapter.start_session() as session,
        answering(session),
    ):
        network.run(*ping)


@pytest.mark.parametrize("ping", PINGS)
def test_a_task_answers_pings(network: Network, ping: tuple[str, ...]) -> None:
    async def answer(session: Session) -> None:
        async for bundle in session:
            await session.send_async(answers(bundle))

    async def main() -> None:
        with (
            Adapter.create("tp0", netns=network.path, addresses=ADDRESSES) as adapter,
            adapter.start_session() as session,
        ):
            task = asyncio.create_task(answer(session))
            await asyncio.to_thread(network.run, *ping)
            session.close()
            await task

    asyncio.run(main())


def test_an_adapter_used_with_offloads_before_gives_complete_packets(network: Network) -> None:
    """Offloads outlive the descriptor that chose them; without vnet headers, packets would be incomplete."""

    def make() -> None:
        with tun.open_tun() as file:
            flags = tun.IFF_TUN | tun.IFF_NO_PI | tun.IFF_VNET_HDR
            fcntl.ioctl(file, tun.TUNSETIFF, struct.pack("16sH22x", b"tp0", flags))
            fcntl.ioctl(file, tun.TUNSETOFFLOAD, tun.TUN_F_CSUM | tun.TUN_F_TSO4 | tun.TUN_F_TSO6)
            tun.control(file, tun.TUNSETPERSIST, 1)

    network.namespace.run(make)
    network.run("ip", "addr", "add", "10.6.7.1/24", "dev", "tp0")
    with (
        Adapter.open("tp0", netns=network.path) as adapter,
        adapter.start_session() as session,
        udp_socket(network, "10.6.7.1") as sock,
        answering(session),
    ):
        # The kernel drops answers with a wrong checksum.
        sock.sendto(b"whole", ("10.6.7.2", 9))
        assert sock.recv(100) == b"whole"
