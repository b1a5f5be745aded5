"""Addresses, routes and the MTU of adapters on Linux, as the kernel reports them."""

import ipaddress
import json
import logging
from typing import Any

import pytest

import threepipe
from tests.support.hosts import answering
from tests.support.kernel import Network, link, links, udp_socket
from threepipe import Adapter
from threepipe.echo import echo_request

pytestmark = pytest.mark.kernel

ADDRESSES = ["10.6.7.1/24", "10.6.8.1/32", "fd00::1/64", "fd01::1/128"]
ROUTES = ["10.77.0.0/16", "198.51.100.7/32", "fd77::/16", "2001:db8::7/128"]


def routes(network: Network, name: str) -> set[str]:
    found = [json.loads(network.run("ip", "-j", family, "route", "show", "dev", name)) for family in ("-4", "-6")]
    return {route["dst"] for family in found for route in family}


def test_addresses_are_usable_at_once(network: Network) -> None:
    with Adapter.create("tp0", netns=network.path, addresses=ADDRESSES) as adapter:
        for address in ADDRESSES:
            udp_socket(network, address.partition("/")[0]).close()  # A tentative address could not be bound.
        found = link(network, "tp0")["addr_info"]
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
        network.disable_ipv6()
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
        assert adapter.mtu == link(network, "tp0")["mtu"] == 9000
        for mtu in (68, 65535, 1420):
            adapter.mtu = mtu
            assert adapter.mtu == link(network, "tp0")["mtu"] == mtu


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


def test_an_adapter_with_ipv6_disabled_has_ipv4_and_logs_a_warning(
    network: Network, caplog: pytest.LogCaptureFixture
) -> None:
    network.disable_ipv6()
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
    network.disable_ipv6()
    with pytest.raises(threepipe.IPv6Unavailable, match="to enable it: sysctl"):
        Adapter.create("tp0", netns=network.path, **extra)
    assert links(network) == set()
