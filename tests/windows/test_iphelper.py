"""Settings of an adapter on Windows: the real code over a fake IP Helper, which also checks every argument.

The fake is built here, or is the file that THREEPIPE_FAKE_IPHELPER names.
"""

import ctypes
import ipaddress
import logging
import os
import sys
from collections.abc import Iterable, Iterator
from ctypes import POINTER, c_char_p, c_int, c_uint16, c_uint32, c_uint64
from pathlib import Path
from typing import Any

import pytest

from tests.support.fake_iphelper.build import build, compiler
from threepipe.backend import AdapterStatistics
from threepipe.errors import AdapterError, AdapterGone, AdapterUnavailable, IPv6Unavailable, PermissionDenied
from threepipe.platforms.windows import iphelper
from threepipe.platforms.windows import structures as win
from threepipe.platforms.windows.interface import DEFAULT_MTU, Interface, describe_all
from threepipe.platforms.windows.iphelper import IpHelper
from threepipe.platforms.windows.values import socket_address, wide
from threepipe.platforms.windows.winerror import (
    ERROR_ACCESS_DENIED,
    ERROR_FILE_NOT_FOUND,
    ERROR_INVALID_PARAMETER,
    ERROR_OBJECT_ALREADY_EXISTS,
    ERROR_PROC_NOT_FOUND,
    error_code,
)
from threepipe.settings import AdapterSettings, WindowsSettings, parse_addresses, parse_routes

pytestmark = pytest.mark.windows

GIVEN = os.environ.get("THREEPIPE_FAKE_IPHELPER", "")

LUID = 53 << 48 | 7 << 24
OTHER = 6 << 48 | 8 << 24
INDEX = 17
ETHERNET = (6, 0)  # IF_TYPE_ETHERNET_CSMACD, NdisMedium802_3.
VIRTUAL = (win.IF_TYPE_PROP_VIRTUAL, win.NdisMediumIP)

CONTROLS: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "FakeReset": (None, ()),
    "FakeAddInterface": (None, (c_uint64, c_uint32, POINTER(c_uint16), c_uint32, c_int)),
    "FakeRemoveInterface": (None, (c_uint64,)),
    "FakeAdopt": (None, (c_int,)),
    "FakeHideFamily": (None, (c_uint64, c_uint32, c_int)),
    "FakeLink": (POINTER(win.MIB_IF_ROW2), (c_uint64,)),
    "FakeAddSystemRoute": (None, (POINTER(win.MIB_IPFORWARD_ROW2),)),
    "FakeFail": (None, (c_char_p, c_uint32)),
    "FakeCalls": (c_char_p, ()),
    "FakeComplaints": (c_char_p, ()),
    "FakeUnfreed": (c_int, ()),
    "FakeLeft": (c_int, ()),
    "FakeFamily": (POINTER(win.MIB_IPINTERFACE_ROW), (c_uint64, c_uint32)),
    "FakeDns": (POINTER(c_uint16), (c_uint64, c_uint32, c_int)),
}


class Fake:
    """The fake's controls as Python, and the IP Helper on it."""

    def __init__(self, path: Path) -> None:
        library = ctypes.CDLL(
            str(path)
        )  # 64-bit Windows has one calling convention; the fake is built for 64 bits only.
        for name, (result, arguments) in CONTROLS.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
        self.library = library
        self.ip = IpHelper(library)

    def add(self, luid: int, index: int, alias: str, kind: tuple[int, int] = VIRTUAL) -> None:
        self.library.FakeAddInterface(luid, index, wide(alias), *kind)

    def family(self, version: int) -> win.MIB_IPINTERFACE_ROW:
        row: win.MIB_IPINTERFACE_ROW = self.library.FakeFamily(LUID, {4: win.AF_INET, 6: win.AF_INET6}[version])[0]
        return row

    def dns(self, version: int) -> tuple[str, str]:
        family = {4: win.AF_INET, 6: win.AF_INET6}[version]
        texts = [self.library.FakeDns(LUID, family, which)[:256] for which in (0, 1)]
        servers, search = ["".join(map(chr, text)).partition("\0")[0] for text in texts]
        return servers, search

    def calls(self) -> list[str]:
        return [line.decode() for line in self.library.FakeCalls().splitlines()]

    def fail(self, function: str, code: int) -> None:
        self.library.FakeFail(function.encode(), code)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Fake:
    if GIVEN:
        return Fake(Path(GIVEN))
    if sys.platform != "linux" or not compiler("linux"):
        pytest.skip("there is no gcc to build the fake IP Helper with, and THREEPIPE_FAKE_IPHELPER names none")
    return Fake(build("linux", tmp_path_factory.mktemp("fake_iphelper")))


@pytest.fixture
def fake(loaded: Fake) -> Iterator[Fake]:
    """Provide two interfaces, one an adapter; check at the end that all arguments were valid and all memory freed."""
    loaded.library.FakeReset()
    loaded.add(LUID, INDEX, "tp0")
    loaded.add(OTHER, 3, "Ethernet", ETHERNET)
    yield loaded
    assert loaded.library.FakeComplaints() == b""
    assert loaded.library.FakeUnfreed() == 0


@pytest.fixture
def interface(fake: Fake) -> Iterator[Interface]:
    """Return the interface of the adapter; its settings are undone at the end."""
    made = Interface(fake.ip, LUID, "tp0", seconds_for_family=0)
    yield made
    made.undo()
    assert fake.library.FakeLeft() == 0


def settings(addresses: Iterable[str], routes: Iterable[str] = (), mtu: int | None = None) -> AdapterSettings:
    return AdapterSettings("tp0", parse_addresses(addresses), parse_routes(routes), mtu)


BOTH = settings(["10.6.7.1/24", "fd67::1/64"], ["10.8.0.0/16", "fd68::/16"], 1420)


def test_names_indexes_and_luids_are_converted(fake: Fake) -> None:
    assert fake.ip.index_of(LUID) == INDEX
    assert fake.ip.alias_of(LUID) == "tp0"
    assert fake.ip.luid_of("ETHERNET") == OTHER
    assert fake.ip.luid_of("tp1") is None
    fake.add(LUID + 1, 18, "Füße 🦶")
    assert fake.ip.alias_of(LUID + 1) == "Füße 🦶"
    assert fake.ip.luid_of("Füße 🦶") == LUID + 1


def test_a_configured_adapter_has_its_settings(fake: Fake, interface: Interface) -> None:
    interface.configure(BOTH)
    info = interface.describe()
    assert (info.name, info.index, info.mtu, info.link_up) == ("tp0", INDEX, 1420, False)
    assert info.addresses == BOTH.addresses
    assert info.routes == BOTH.routes
    assert not info.persistent
    for version in 4, 6:
        row = fake.family(version)
        assert (row.NlMtu, row.DadTransmits, row.RouterDiscoveryBehavior) == (1420, 0, win.RouterDiscoveryDisabled)
        assert row.UseAutomaticMetric


def test_undo_reverts_every_change_in_reverse_order(fake: Fake, interface: Interface) -> None:
    before = {version: bytes(fake.family(version)) for version in (4, 6)}
    interface.configure(BOTH)
    interface.set_mtu(1300)
    made = len(fake.calls())
    interface.undo()
    assert {version: bytes(fake.family(version)) for version in (4, 6)} == before
    assert fake.calls()[made:] == [
        *["DeleteIpForwardEntry2"] * 2,
        *["DeleteUnicastIpAddressEntry"] * 2,
        *["SetIpInterfaceEntry"] * 2,
    ]
    assert fake.library.FakeLeft() == 0
    interface.undo()
    assert len(fake.calls()) == made + 6


def test_what_is_added_later_is_undone_and_what_was_removed_is_not_undone_again(
    fake: Fake, interface: Interface
) -> None:
    interface.configure(BOTH)
    (address,), (route,) = parse_addresses(["10.9.0.1/32"]), parse_routes(["10.9.0.1/32"])
    interface.add(address)
    interface.add(route)
    assert interface.describe().addresses == (*BOTH.addresses, address)
    assert interface.describe().routes == (*BOTH.routes, route)
    for item in (address, BOTH.routes[1], BOTH.addresses[0]):
        interface.remove(item)
    assert interface.describe().addresses == BOTH.addresses[1:]
    assert interface.describe().routes == (BOTH.routes[0], route)
    made = len(fake.calls())
    interface.undo()
    assert [call for call in fake.calls()[made:] if call.startswith("Delete")] == [
        "DeleteIpForwardEntry2",
        "DeleteIpForwardEntry2",
        "DeleteUnicastIpAddressEntry",
    ]


def test_an_ipv6_address_added_without_ipv6_raises(fake: Fake, interface: Interface) -> None:
    interface.configure(settings(["10.6.7.1/24"]))
    fake.library.FakeHideFamily(LUID, win.AF_INET6, -1)
    with pytest.raises(IPv6Unavailable, match="does not get fd67::1/64"):
        interface.add(BOTH.addresses[1])


def test_the_default_mtu_replaces_that_of_the_driver(fake: Fake, interface: Interface) -> None:
    interface.configure(settings(["10.6.7.1/24"]))
    assert (fake.family(4).NlMtu, fake.family(6).NlMtu) == (DEFAULT_MTU, DEFAULT_MTU)
    assert fake.family(6).DadTransmits == 1  # No IPv6 address was given.


def test_an_mtu_too_small_for_ipv6_is_set_for_ipv4_alone(fake: Fake, interface: Interface) -> None:
    interface.configure(settings(["10.6.7.1/24"], mtu=600))
    assert (fake.family(4).NlMtu, fake.family(6).NlMtu) == (600, 65535)
    assert interface.describe().mtu == 600


def test_a_metric_is_set_for_each_family(fake: Fake, interface: Interface) -> None:
    interface.set_metric(4, 5)
    interface.set_metric(6, None)
    assert (fake.family(4).Metric, fake.family(4).UseAutomaticMetric) == (5, 0)
    assert fake.family(6).UseAutomaticMetric == 1
    interface.set_metric(4, 6)
    interface.undo()
    assert (fake.family(4).Metric, fake.family(4).UseAutomaticMetric) == (25, 1)


def test_a_default_route_sets_the_best_metric(fake: Fake, interface: Interface) -> None:
    interface.configure(settings(["10.6.7.1/24", "fd67::1/64"], ["0.0.0.0/0"]))
    assert (fake.family(4).Metric, fake.family(4).UseAutomaticMetric) == (0, 0)
    assert fake.family(6).UseAutomaticMetric == 1


def test_a_route_implied_by_an_address_is_not_added(fake: Fake, interface: Interface) -> None:
    interface.configure(settings(["10.6.7.1/24", "10.6.7.1/24"], ["10.6.7.0/24", "10.8.0.0/16", "10.8.0.0/16"]))
    assert fake.calls().count("CreateUnicastIpAddressEntry") == 1
    assert fake.calls().count("CreateIpForwardEntry2") == 1


def test_routes_of_windows_itself_are_not_listed(fake: Fake, interface: Interface) -> None:
    row = win.MIB_IPFORWARD_ROW2(Protocol=win.RouteProtocolLocal)
    row.InterfaceLuid.Value = LUID
    row.DestinationPrefix.Prefix = socket_address(ipaddress.ip_address("10.6.7.255"))
    row.DestinationPrefix.PrefixLength = 32
    fake.library.FakeAddSystemRoute(row)
    assert interface.describe().routes == ()


def test_a_given_metric_is_set_for_both_families(fake: Fake, interface: Interface) -> None:
    before = {version: bytes(fake.family(version)) for version in (4, 6)}
    interface.configure(BOTH._replace(routes=parse_routes(["0.0.0.0/0"]), metric=7))
    assert [(fake.family(version).Metric, fake.family(version).UseAutomaticMetric) for version in (4, 6)] == [
        (7, 0)
    ] * 2
    interface.undo()
    assert {version: bytes(fake.family(version)) for version in (4, 6)} == before


def test_a_given_metric_without_ipv6_is_set_for_ipv4(fake: Fake, interface: Interface) -> None:
    fake.library.FakeHideFamily(LUID, win.AF_INET6, -1)
    interface.configure(settings(["10.6.7.1/24"])._replace(metric=7))
    assert (fake.family(4).Metric, fake.family(6).UseAutomaticMetric) == (7, 1)


DNS = WindowsSettings(dns=["10.6.7.53", "fd67::53"], search=["example.org", "example.net"])
WITH_DNS = BOTH._replace(windows=DNS)


def test_given_dns_is_set_and_undone(fake: Fake, interface: Interface) -> None:
    interface.configure(WITH_DNS)
    assert fake.dns(4) == ("10.6.7.53", "example.org,example.net")
    assert fake.dns(6) == ("fd67::53", "example.org,example.net")
    interface.undo()
    assert fake.dns(4) == fake.dns(6) == ("", "")


def test_rejected_dns_leaves_nothing(fake: Fake, interface: Interface) -> None:
    fake.fail("SetInterfaceDnsSettings", ERROR_ACCESS_DENIED)
    with pytest.raises(PermissionDenied, match="setting DNS: access denied"):
        interface.configure(WITH_DNS)
    assert fake.dns(4) == fake.dns(6) == ("", "")
    assert fake.library.FakeLeft() == 0


def test_dns_is_set_for_each_family(fake: Fake, interface: Interface) -> None:
    servers = [ipaddress.ip_address(text) for text in ("10.6.7.53", "fd67::53", "10.6.7.54")]
    interface.set_dns(servers, ["example.org", "example.net"])
    assert fake.dns(4) == ("10.6.7.53,10.6.7.54", "example.org,example.net")
    assert fake.dns(6) == ("fd67::53", "example.org,example.net")
    interface.undo()
    assert fake.dns(4) == fake.dns(6) == ("", "")


def test_dns_of_one_family_removes_that_of_the_other(fake: Fake, interface: Interface) -> None:
    Interface(fake.ip, LUID, "tp0").set_dns(DNS.dns, DNS.search)
    interface.set_dns([ipaddress.ip_address("10.6.7.54")], [])
    assert (fake.dns(4), fake.dns(6)) == (("10.6.7.54", ""), ("", ""))


def test_dns_left_by_a_crash_is_removed(fake: Fake, interface: Interface) -> None:
    """DNS settings outlive the adapter in the registry, and the next adapter of that name has the same GUID."""
    Interface(fake.ip, LUID, "tp0").set_dns(DNS.dns, DNS.search)
    interface.configure(settings(["10.6.7.1/24"]))
    assert fake.dns(4) == fake.dns(6) == ("", "")


@pytest.mark.parametrize(("code", "told"), [(ERROR_FILE_NOT_FOUND, False), (ERROR_ACCESS_DENIED, True)])
def test_old_dns_that_cannot_be_removed_is_logged(
    fake: Fake, interface: Interface, caplog: pytest.LogCaptureFixture, code: int, told: bool
) -> None:
    fake.fail("SetInterfaceDnsSettings", code)
    interface.configure(BOTH)
    assert interface.describe().addresses == BOTH.addresses
    assert [
        text.startswith("tp0: an earlier adapter's DNS settings were not removed: ") for text in caplog.messages
    ] == [True] * told


class Older:
    """An IP Helper that lacks some functions."""

    def __init__(self, library: ctypes.CDLL, missing: Iterable[str]) -> None:
        self._library = library
        self._missing = missing

    def __getattr__(self, name: str) -> Any:
        if name in self._missing:
            raise AttributeError(name)
        return getattr(self._library, name)


def test_a_missing_function_raises_on_use(fake: Fake) -> None:
    lacking: Any = Older(fake.library, ["SetIpInterfaceEntry"])
    interface = Interface(IpHelper(lacking), LUID, "tp0")
    assert interface.describe().index == INDEX
    with pytest.raises(AdapterError, match="this Windows has no SetIpInterfaceEntry") as raised:
        interface.set_mtu(1400)
    assert error_code(raised.value) == ERROR_PROC_NOT_FOUND


def test_dns_on_an_older_windows_raises_with_advice(fake: Fake) -> None:
    older: Any = Older(fake.library, win.NEWER_FUNCTIONS)
    with pytest.raises(AdapterError, match="since Windows 10, build 19041"):
        IpHelper(older).check_dns()
    with pytest.raises(AdapterError, match=r"build 19041 .*; set NameServer and SearchList in the registry") as raised:
        Interface(IpHelper(older), LUID, "tp0").set_dns([], ["example.org"])
    assert error_code(raised.value) == ERROR_PROC_NOT_FOUND


def test_statistics_are_named_from_the_side_of_the_program(fake: Fake, interface: Interface) -> None:
    link = fake.library.FakeLink(LUID)[0]
    link.OperStatus = win.IfOperStatusUp
    link.OutUcastPkts, link.OutNUcastPkts, link.OutOctets, link.OutDiscards, link.OutErrors = 1, 2, 3 << 40, 4, 5
    link.InUcastPkts, link.InNUcastPkts, link.InOctets = 10, 20, 30
    link.InDiscards, link.InErrors, link.InUnknownProtos = 40, 50, 60
    info = interface.describe()
    assert info.link_up
    assert info.statistics == AdapterStatistics(3, 3 << 40, 9, 30, 30, 150)


def test_only_layer_3_virtual_interfaces_are_listed(fake: Fake, interface: Interface) -> None:
    interface.configure(BOTH)
    fake.add(LUID + 1, 18, "tp1")
    tp0, tp1 = describe_all(fake.ip)
    assert tp0 == interface.describe()
    assert (tp1.name, tp1.index, tp1.addresses, tp1.routes, tp1.mtu) == ("tp1", 18, (), (), 65535)


def test_a_family_that_appears_late_is_waited_for(fake: Fake) -> None:
    interface = Interface(fake.ip, LUID, "tp0")
    fake.library.FakeHideFamily(LUID, win.AF_INET, 3)
    fake.library.FakeHideFamily(LUID, win.AF_INET6, 3)
    interface.configure(BOTH)
    assert interface.describe().addresses == BOTH.addresses
    interface.undo()


def test_ipv6_settings_without_ipv6_log_a_warning(
    fake: Fake, interface: Interface, caplog: pytest.LogCaptureFixture
) -> None:
    fake.library.FakeHideFamily(LUID, win.AF_INET6, -1)
    interface.configure(BOTH)
    assert interface.describe().addresses == BOTH.addresses[:1]
    (text,) = caplog.messages
    assert text.startswith("IPv6 is disabled here, so tp0 does not get fd67::1/64, fd68::/16; to enable it")


def test_ipv6_settings_alone_without_ipv6_raise(fake: Fake, interface: Interface) -> None:
    fake.library.FakeHideFamily(LUID, win.AF_INET6, -1)
    with pytest.raises(IPv6Unavailable, match="does not get fd67::1/64; to enable it, remove DisabledComponents"):
        interface.configure(settings(["fd67::1/64"]))
    assert fake.calls() == []


REFUSALS: list[tuple[str, int, type[AdapterError], str]] = [
    ("SetIpInterfaceEntry", ERROR_ACCESS_DENIED, PermissionDenied, "setting up IPv4: access denied"),
    ("SetIpInterfaceEntry", ERROR_INVALID_PARAMETER, AdapterError, "setting up IPv4: Windows refuses the value"),
    ("GetIpInterfaceEntry", ERROR_FILE_NOT_FOUND, AdapterGone, "asking about IPv4: the adapter was removed"),
    ("CreateUnicastIpAddressEntry", ERROR_OBJECT_ALREADY_EXISTS, AdapterError, "adding 10.6.7.1/24: the system has it"),
    (
        "CreateIpForwardEntry2",
        ERROR_OBJECT_ALREADY_EXISTS,
        AdapterError,
        "adding the route 10.8.0.0/16: the system has",
    ),
    ("CreateIpForwardEntry2", 1450, AdapterError, "adding the route 10.8.0.0/16: "),
]


@pytest.mark.parametrize(("function", "code", "kind", "text"), REFUSALS)
def test_a_rejected_setting_raises_and_leaves_nothing(
    fake: Fake, interface: Interface, function: str, code: int, kind: type[AdapterError], text: str
) -> None:
    before = {version: bytes(fake.family(version)) for version in (4, 6)}
    fake.fail(function, code)
    with pytest.raises(kind) as raised:
        interface.configure(BOTH)
    assert type(raised.value) is kind
    assert error_code(raised.value) == code
    assert str(raised.value.strerror).startswith(text)
    assert {version: bytes(fake.family(version)) for version in (4, 6)} == before
    assert fake.library.FakeLeft() == 0


def test_an_address_of_another_adapter_raises(fake: Fake, interface: Interface) -> None:
    fake.ip.add_address(OTHER, ipaddress.ip_address("10.6.7.1"), 24)
    with pytest.raises(
        AdapterError, match=r"adding 10\.6\.7\.1/24: the system has it already, perhaps on another adapter"
    ):
        interface.configure(settings(["10.6.7.1/24"]))
    fake.ip.delete_address(OTHER, ipaddress.ip_address("10.6.7.1"))


def test_undo_of_a_removed_address_is_silent(
    fake: Fake, interface: Interface, caplog: pytest.LogCaptureFixture
) -> None:
    interface.configure(BOTH)
    fake.ip.delete_address(LUID, ipaddress.ip_address("10.6.7.1"))
    interface.undo()
    assert caplog.messages == []


def test_a_failed_undo_is_logged(fake: Fake, interface: Interface, caplog: pytest.LogCaptureFixture) -> None:
    interface.configure(settings(["10.6.7.1/24"]))
    fake.fail("DeleteUnicastIpAddressEntry", ERROR_ACCESS_DENIED)
    interface.undo()
    assert caplog.record_tuples == [
        (
            "threepipe",
            logging.WARNING,
            "tp0: 10.6.7.1/24 was not undone: removing 10.6.7.1: access denied; use an elevated terminal",
        )
    ]
    assert fake.family(4).NlMtu == 65535
    fake.ip.delete_address(LUID, ipaddress.ip_address("10.6.7.1"))


def test_every_call_on_a_removed_adapter_raises_adapter_gone(fake: Fake, interface: Interface) -> None:
    interface.configure(BOTH)
    fake.library.FakeRemoveInterface(LUID)
    with pytest.raises(AdapterGone, match="asking about the adapter: the adapter was removed by another program"):
        interface.describe()
    with pytest.raises(AdapterGone):
        interface.set_mtu(1400)
    with pytest.raises(AdapterError, match="looking up the adapter's index"):
        fake.ip.index_of(LUID)
    interface.undo()


def test_an_interface_made_by_a_driver_is_found(fake: Fake) -> None:
    fake.library.FakeAdopt(True)
    luid = 53 << 48 | 99 << 24
    assert fake.ip.index_of(luid) == 99
    with pytest.raises(AdapterGone):
        fake.ip.link(7 << 48)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has an IP Helper")
def test_the_ip_helper_on_another_system_raises() -> None:
    with pytest.raises(AdapterUnavailable):
        iphelper.system()
