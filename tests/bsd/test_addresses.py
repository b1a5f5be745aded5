"""Addresses, routes and the MTU of adapters on the models of macOS' and the BSDs' kernels."""

from contextlib import ExitStack
from ipaddress import ip_address, ip_interface, ip_network

import pytest

import threepipe
from tests.support.bsd.bench import Bench
from tests.support.bsd.benches import BENCHES, Make, every
from tests.support.bsd.netbsd import NetBsdKernel
from threepipe.platforms.bsd.kind import RTF_STATIC
from threepipe.platforms.bsd.messages import address_of
from threepipe.platforms.bsd.netbsd import NetBsdDriver


@every
def test_an_adapter_has_its_settings(make: Make) -> None:
    bench = make()
    addresses, routes = ["10.1.2.3/24", "10.1.2.9/32", "fd01::1/64"], ["10.7.0.0/16", "0.0.0.0/0", "fd07::/48", "::/0"]
    with bench.create(addresses=addresses, routes=[*routes, "10.1.2.0/24"], mtu=1400) as adapter:
        with adapter.start_session():
            info = adapter.info
            assert set(info.addresses) == {ip_interface(each) for each in addresses}
            assert set(info.routes) == {ip_network(each) for each in routes}
            assert (info.mtu, info.link_up, info.persistent) == (1400, True, False)
            kernel = bench.kernel.interfaces[adapter.name]
            assert ip_network("10.1.2.0/24") in kernel.routes, "a point-to-point interface has no network by itself"
        assert set(adapter.routes) == {ip_network(each) for each in routes}
        if not bench.kernel.keeps_routes:
            assert not kernel.routes.keys() & set(adapter.routes), "the model should have dropped these"
        with adapter.start_session():
            assert kernel.routes.keys() >= {ip_network(each) for each in routes}, "routes came not back with the link"


@every
@pytest.mark.parametrize("addresses", [["fd01::1/64"], ["10.1.2.3/24", "fd01::1/64"], ["fd01::1/64", "fd02::1/64"]])
def test_addresses_are_usable_as_soon_as_a_session_is_open(make: Make, addresses: list[str]) -> None:
    bench = make()
    with bench.create(addresses=addresses) as adapter:
        for _ in range(2):
            with adapter.start_session():
                assert bench.kernel.unusable(adapter.name) == set()
                assert set(adapter.addresses) == {ip_interface(each) for each in addresses}


@every
@pytest.mark.parametrize("in_session", [False, True])
def test_an_address_can_be_removed_and_added_again_and_leaves_no_route(make: Make, in_session: bool) -> None:
    bench = make()
    with bench.create() as adapter, ExitStack() as stack:
        if in_session:
            stack.enter_context(adapter.start_session())
        interface = bench.kernel.interfaces[adapter.name]
        for _ in range(2):
            for address in ("10.1.2.3/24", "10.1.2.4/32", "fd01::1/64"):
                adapter.add_address(address)
            for address in ("10.1.2.3/24", "10.1.2.4/32", "fd01::1/64"):
                adapter.remove_address(address)
            assert interface.routes == {}


@every
def test_routes_lead_by_another_address_after_theirs_is_removed(make: Make) -> None:
    bench = make()
    addresses, routes = ["10.1.2.3/24", "10.1.2.4/24", "fd01::1/64", "fd02::1/64"], ["10.7.0.0/16", "fd07::/48"]
    with bench.create(addresses=addresses, routes=routes) as adapter, adapter.start_session():
        for address in ("10.1.2.3/24", "fd01::1/64"):
            adapter.remove_address(address)
        found = bench.kernel.interfaces[adapter.name].routes
        assert {ip_network(each) for each in ("10.1.2.0/24", *routes)} <= found.keys()
        kind = bench.place.driver.kind
        by = [address_of(gateway, kind) for flags, gateway in found.values() if flags & RTF_STATIC]
        expected = {ip_address("10.1.2.4"), ip_address("fd02::1")} if kind.routes_by_address else {None}
        assert set(by) == expected


@every
def test_routes_wait_for_an_address_when_the_last_one_is_removed(make: Make) -> None:
    bench = make()
    with bench.create(addresses=["10.1.2.3/24"], routes=["10.7.0.0/16"]) as adapter:
        adapter.remove_address("10.1.2.3/24")
        for _ in range(2):
            assert adapter.routes == (ip_network("10.7.0.0/16"),)
            with adapter.start_session():
                assert adapter.routes == (ip_network("10.7.0.0/16"),)
        adapter.add_address("10.1.3.3/24")
        with adapter.start_session():
            assert bench.kernel.interfaces[adapter.name].routes.keys() >= {ip_network("10.7.0.0/16")}
        adapter.remove_route("10.7.0.0/16")
        assert adapter.routes == ()


@pytest.mark.parametrize("make", [each for each in BENCHES if "netbsd" in str(each.id)])
def test_netbsd_does_not_get_an_address_to_which_it_has_a_route(make: Make) -> None:
    bench = make()
    with bench.create(addresses=["10.1.2.3/24"]) as first, bench.create() as second:
        first.add_route("10.1.4.1/32")
        for adapter in (first, second):
            with pytest.raises(threepipe.AdapterError, match=r"route delete -host 10\.1\.4\.1"):
                adapter.add_address("10.1.4.1/24")
        assert second.addresses == ()
        second.add_address("10.1.2.3/32")  # The route belongs to the first one's address.
        first.remove_route("10.1.4.1/32")
        second.add_address("10.1.4.1/24")


def test_an_opened_adapter_minds_the_routes_that_it_has() -> None:
    bench = Bench(NetBsdKernel(), NetBsdDriver())
    addresses, routes = ["10.1.2.3/24", "10.1.3.3/24"], ["10.7.0.0/16"]
    with bench.create("tun1", persistent=True, addresses=addresses, routes=routes):
        pass
    with bench.open("tun1") as adapter:
        assert adapter.routes == (ip_network("10.7.0.0/16"),)
        adapter.remove_address("10.1.2.3/24")
        found = bench.kernel.interfaces["tun1"].routes
        assert found.keys() == {ip_network(each) for each in ("10.1.3.0/24", "10.1.3.3/32", "10.7.0.0/16")}
        adapter.delete()


@every
def test_an_address_does_not_take_the_link_up(make: Make) -> None:
    with make().create() as adapter:
        adapter.add_address("10.1.2.3/24")
        assert not adapter.link_up
        with adapter.start_session():
            adapter.add_address("10.1.3.3/24")
            adapter.remove_address("10.1.2.3/24")
            assert adapter.link_up


@every
def test_a_route_that_the_system_has_is_refused_and_nothing_stays(make: Make) -> None:
    bench = make()
    with bench.create(routes=["10.7.0.0/16"], addresses=["10.1.2.3/24"]) as first, first.start_session():
        second = bench.create(addresses=["10.1.4.1/24"])
        with second, second.start_session():
            with pytest.raises(threepipe.AdapterError, match="has it already"):
                second.add_route("10.7.0.0/16")
            with pytest.raises(threepipe.AdapterError, match="has it already"):
                second.add_address("10.1.2.4/24")
            assert second.addresses == (ip_interface("10.1.4.1/24"),)


@every
def test_without_ipv6_there_is_a_warning_or_if_nothing_is_left_an_error(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    bench = make()
    bench.kernel.has_ipv6 = False
    routes = ["10.7.0.0/16", "fd07::/64"]
    with bench.create(addresses=["10.1.2.3/24", "fd01::1/64"], routes=routes) as adapter:
        assert adapter.addresses == (ip_interface("10.1.2.3/24"),)
        assert adapter.routes == (ip_network("10.7.0.0/16"),)
    assert "fd01::1/64, fd07::/64" in caplog.text
    with pytest.raises(threepipe.IPv6Unavailable):
        bench.create(addresses=["fd01::1/64"])
    assert bench.kernel.interfaces == {}
    assert bench.kernel.files == {}


@every
def test_a_refused_mtu_changes_nothing_and_says_what_is_possible(make: Make) -> None:
    bench = make()
    bench.kernel.max_mtu = 1500
    with bench.create() as adapter:
        if "FreeBsd" in type(bench.kernel).__name__:
            adapter.mtu = 9000
        else:
            with pytest.raises(threepipe.AdapterError, match="refuses an MTU of 9000"):
                adapter.mtu = 9000
            assert adapter.mtu == 1500


@every
def test_a_route_without_an_address_of_its_version_is_refused_with_advice(make: Make) -> None:
    bench = make()
    with pytest.raises(threepipe.AdapterError, match="no address of IPv6; give it one first"):
        bench.create(addresses=["10.1.2.3/24"], routes=["fd07::/48"])
    assert bench.kernel.interfaces == {}
    assert bench.kernel.files == {}
