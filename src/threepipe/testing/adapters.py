"""The checks of adapters: their end, MTU, addresses and routes."""

from ipaddress import ip_interface, ip_network

from threepipe.adapter import Adapter
from threepipe.errors import AdapterClosed, AdapterError, InvalidSetting, SessionClosed
from threepipe.testing import probes
from threepipe.testing.wire import Wire

__all__ = ["check_adapter_end", "check_addresses", "check_mtu"]


def check_adapter_end(adapter: Adapter, wire: Wire) -> None:
    """Check that closing the adapter closes its session and removes it unless persistent, and can be repeated."""
    session = adapter.start_session()
    assert wire.adapter_exists()
    adapter.close()
    adapter.close()
    assert session.closed
    probes.raises(SessionClosed, "closing the adapter closes its session", session.receive)
    probes.raises(AdapterClosed, "a closed adapter does nothing", adapter.start_session)
    probes.raises(AdapterClosed, "a closed adapter does nothing", lambda: adapter.info)
    assert wire.adapter_exists() == wire.persistent, "the adapter exists though it is not persistent, or the reverse"


def check_mtu(adapter: Adapter, wire: Wire) -> None:
    """Check that the MTU can be read and set, and that an invalid one is refused and changes nothing."""
    adapter.mtu = 1400
    assert adapter.mtu == 1400
    for mtu in (0, 67, 65536):
        probes.raises(InvalidSetting, "the MTU is checked", setattr, adapter, "mtu", mtu)
    assert adapter.mtu == 1400


def check_addresses(adapter: Adapter, wire: Wire) -> None:
    """Check that addresses and routes can be added and removed with and without a session, each for itself."""
    before = set(adapter.addresses), set(adapter.routes)
    added = [ip_interface(text) for text in ("10.253.1.1/24", "10.253.1.2/24", "fd25:3::1/64")]
    routed = [ip_network(text) for text in ("10.254.0.0/16", "fd25:4::/64")]
    for address in added:
        adapter.add_address(address)
    for route in routed:
        adapter.add_route(str(route))
    assert set(adapter.addresses) >= {*before[0], *added}, "an added address is missing"
    assert set(adapter.routes) >= {*before[1], *routed}, "an added route is missing"
    probes.raises(AdapterError, "an address is added once", adapter.add_address, added[0])
    probes.raises(AdapterError, "a route is added once", adapter.add_route, routed[0])
    with adapter.start_session():
        for place, address in enumerate(added, 1):
            adapter.remove_address(str(address))
            assert address not in adapter.addresses
            assert set(adapter.addresses) >= {*before[0], *added[place:]}, "another address went with one removed"
            assert set(adapter.routes) >= {*before[1], *routed}, "a route went with an address"
        for route in routed:
            adapter.remove_route(route)
    assert not set(adapter.routes) & set(routed), "a removed route is there"
    probes.raises(AdapterError, "only present addresses are removed", adapter.remove_address, added[0])
    probes.raises(AdapterError, "only present routes are removed", adapter.remove_route, routed[0])
