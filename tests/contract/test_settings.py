"""Checks before an adapter is made: names, MTU, addresses, routes, owners."""

import ipaddress
import sys
import uuid
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from threepipe import Adapter, InvalidSetting, WindowsSettings
from threepipe.settings import AdapterSettings, check_mtu, check_name, parse_addresses, parse_routes, unknown_name

PROPERTY = settings(derandomize=True, deadline=None, max_examples=500)


def check(name: str, *, addresses: Any = (), routes: Any = (), **others: Any) -> AdapterSettings:
    """Return the settings that `Adapter.create` makes of its arguments."""
    return AdapterSettings(name, parse_addresses(addresses), parse_routes(routes), **others).checked()


def kernel_takes(name: bytes) -> bool:
    """Return True if dev_valid_name() of Linux's net/core/dev.c does; its white space is that of Latin-1."""
    spaces = b" \t\n\v\f\r\xa0"
    return 0 < len(name) < 16 and name not in (b".", b"..") and not any(byte in b"/:\0" + spaces for byte in name)


@pytest.mark.parametrize("name", ["t", "tun0", "a" * 15, "ü" * 7, "...", "-", "wg-home.1", "\U0001f40d" * 3])
def test_a_valid_name_is_accepted(name: str) -> None:
    assert check_name(name) == name
    assert check(name).name == name


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "has 0 bytes; give 1 to 15"),
        ("a" * 16, "has 16 bytes"),
        ("ü" * 8, "has 16 bytes"),
        (".", "'.' and '..' cannot be used"),
        ("..", "'.' and '..' cannot be used"),
        ("a/b", "slashes"),
        ("a:b", "colons"),
        ("a b", "white space"),
        ("a\tb", "white space"),
        ("a\n", "white space"),
        ("a\0b", "cannot be used"),
        ("tun%d", "of percent signs, none is allowed here"),
        ("100%", "of percent signs, none is allowed here"),
    ],
)
def test_an_invalid_name_raises_with_the_reason(name: str, reason: str) -> None:
    with pytest.raises(InvalidSetting, match=reason):
        check_name(name)
    with pytest.raises(InvalidSetting, match=reason):
        Adapter.open(name)


@pytest.mark.parametrize("name", ["à", "Ġ", "x\xa0"])
def test_a_name_with_white_space_of_latin_1_raises(name: str) -> None:
    with pytest.raises(InvalidSetting, match="white space"):
        check_name(name)


@pytest.mark.parametrize("name", ["\ud800", "tun\udfff0", "tun\udcff"], ids=["first", "middle", "byte of a path"])
def test_a_name_that_is_not_utf_8_raises(name: str) -> None:
    with pytest.raises(InvalidSetting, match="cannot be encoded as UTF-8"):
        check_name(name)


@PROPERTY
@given(st.text(st.characters(max_codepoint=0x17F, exclude_characters="%") | st.sampled_from("./: %d"), max_size=17))
def test_every_accepted_name_is_valid_for_the_kernel(name: str) -> None:
    try:
        check_name(name)
    except InvalidSetting:
        return
    assert kernel_takes(name.encode())
    assert "%" not in name


def test_a_template_with_more_than_one_number_raises() -> None:
    for name in ("tun%d", "%d", "tun", "a%db"):
        assert check_name(name, template=True) == name
        assert check(name).name == name
    for name in ("%d%d", "%", "%s", "%%d", "tun%i"):
        with pytest.raises(InvalidSetting, match="of percent signs, one %d is allowed, for a number that"):
            Adapter.create(name)


@pytest.mark.parametrize("ipv6", [True, False])
def test_an_impossible_mtu_raises(ipv6: bool) -> None:
    for mtu in (-1, 0, 67, 65536):
        with pytest.raises(InvalidSetting, match=f"MTU {mtu}: give 68 to 65535 bytes"):
            check_mtu(mtu, ipv6=ipv6)


def test_an_mtu_below_1280_with_ipv6_raises() -> None:
    assert check_mtu(68, ipv6=False) == 68
    assert check_mtu(1279, ipv6=False) == 1279
    assert check_mtu(1280, ipv6=True) == 1280
    assert check_mtu(65535, ipv6=True) == 65535
    with pytest.raises(InvalidSetting, match="MTU 1279: IPv6 needs at least 1280 bytes"):
        check_mtu(1279, ipv6=True)


@pytest.mark.parametrize(
    "wanted", [{"addresses": ["fd00::1/64"]}, {"routes": ["fd00::/8"]}, {"addresses": ["10.0.0.1/8", "fd00::1/64"]}]
)
def test_the_mtu_is_checked_for_the_families_of_addresses_and_routes(wanted: dict[str, Any]) -> None:
    assert check("t", mtu=1280, **wanted).mtu == 1280
    with pytest.raises(InvalidSetting, match="IPv6 needs"):
        check("t", mtu=1279, **wanted)
    assert check("t", mtu=1279, addresses=["10.0.0.1/8"], routes=["10.0.0.0/8"]).mtu == 1279


def test_settings_have_the_parsed_values() -> None:
    checked = check(
        "tun%d",
        addresses=["10.6.7.1/24", ipaddress.ip_interface("fd00::1/64")],
        routes=iter(["0.0.0.0/0", ipaddress.ip_network("fd00::/8")]),
        mtu=1400,
        netns="blue",
        persistent=True,
        owner="somebody",
        group=100,
    )
    addresses = ipaddress.ip_interface("10.6.7.1/24"), ipaddress.ip_interface("fd00::1/64")
    routes = ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("fd00::/8")
    assert checked == AdapterSettings(
        "tun%d", addresses, routes, mtu=1400, netns="blue", persistent=True, owner="somebody", group=100
    )
    assert check("tun") == AdapterSettings("tun")


def test_an_address_without_a_prefix_gets_the_longest_one() -> None:
    hosts = check("t", addresses=["10.0.0.1", "fd00::1"]).addresses
    assert [str(host) for host in hosts] == ["10.0.0.1/32", "fd00::1/128"]


@pytest.mark.parametrize("address", ["", "10.0.0.256/8", "10.0.0.1/33", "fd00::g/64", "fd00::1/129", "example.com"])
def test_an_invalid_address_raises(address: str) -> None:
    with pytest.raises(InvalidSetting, match=r"write it like 10\.6\.7\.1/24 or fd00::1/64"):
        check("t", addresses=["10.0.0.1/8", address])


@pytest.mark.parametrize(
    "address", ["224.0.0.1/4", "ff02::1/64", "0.0.0.0", "::", "0.0.0.0/24", "::/64", "127.0.0.1/8", "::1"]
)
def test_an_address_that_no_adapter_can_have_raises(address: str) -> None:
    with pytest.raises(InvalidSetting, match="cannot be assigned to an adapter"):
        check("t", addresses=[address])


@pytest.mark.parametrize(
    ("wanted", "what"),
    [
        ({"addresses": ["fe80::1%eth0/64"]}, "address 'fe80::1%eth0/64'"),
        ({"routes": ["fe80::%1/64"]}, "route 'fe80::%1/64'"),
    ],
)
def test_an_address_with_a_zone_raises(wanted: dict[str, Any], what: str) -> None:
    with pytest.raises(InvalidSetting, match=f"^{what}: leave out the zone"):
        check("t", **wanted)


@pytest.mark.parametrize("route", ["", "10.0.0.1/8", "fd00::1/8", "10.0.0.0/33", "default"])
def test_an_invalid_route_raises(route: str) -> None:
    with pytest.raises(InvalidSetting, match=r"write it like 10\.0\.0\.0/8, 0\.0\.0\.0/0 or fd00::/8"):
        check("t", routes=["10.0.0.0/8", route])


@pytest.mark.parametrize("wanted", [{"addresses": "10.0.0.1/8"}, {"routes": "10.0.0.0/8"}])
def test_a_string_in_place_of_a_list_raises(wanted: dict[str, Any]) -> None:
    with pytest.raises(InvalidSetting, match=r"'10\.0\.0\.[01]/8': give a list, even for one"):
        check("t", **wanted)


@pytest.mark.parametrize("wanted", [{"owner": 0}, {"group": 0}, {"owner": "root", "group": "root"}])
def test_an_owner_without_persistent_raises(wanted: dict[str, Any]) -> None:
    with pytest.raises(InvalidSetting, match="owner and group need a persistent adapter"):
        check("t", **wanted)
    assert check("t", persistent=True, **wanted).persistent


@pytest.mark.parametrize("metric", [-1, 0, 1 << 32])
def test_an_impossible_metric_raises(metric: int) -> None:
    assert check("t", metric=1).metric == 1
    assert check("t", metric=(1 << 32) - 1).metric == (1 << 32) - 1
    with pytest.raises(InvalidSetting, match=f"metric {metric}: give 1 to 4294967295; the smallest is preferred"):
        Adapter.create("t", metric=metric)


@pytest.mark.parametrize(
    ("wanted", "text"),
    [
        ({"dns": ["10.6.7.53/24"]}, r"DNS server '10\.6\.7\.53/24': .*; write it like 10\.6\.7\.53 or fd00::53"),
        ({"dns": ["dns.example.org"]}, "DNS server 'dns.example.org': "),
        ({"dns": "10.6.7.53"}, r"'10\.6\.7\.53': give a list, even for one"),
        ({"dns": ["fe80::1%eth0"]}, "DNS server 'fe80::1%eth0': leave out the zone"),
        ({"dns": ["224.0.0.251"]}, "DNS server '224.0.0.251' cannot be asked"),
        ({"dns": ["::"]}, "DNS server '::' cannot be asked"),
        ({"search": "example.org"}, "'example.org': give a list, even for one"),
        ({"search": ["a", ""]}, "search domain '': not a domain name; write it like example.org"),
        ({"search": ["a,b"]}, "search domain 'a,b'"),
        ({"search": ["a..b"]}, "search domain 'a..b'"),
        ({"search": ["example.org\n"]}, "search domain "),
        ({"search": ["köln.example"]}, "search domain 'köln.example'.*other letters in their xn-- form"),
        ({"search": ["a" * 64]}, "search domain 'a"),
        ({"search": [".".join(["a" * 63] * 4)]}, "search domain 'a"),
        ({"guid": "tp0"}, "GUID 'tp0': expected 32 hexadecimal digits; write it like 8f1b2a64-"),
        ({"tunnel_type": ""}, "tunnel type '': give 1 to 127 printable characters"),
        ({"tunnel_type": "\U0001f40d" * 64}, "tunnel type '\U0001f40d"),
        ({"tunnel_type": "a\0b"}, "tunnel type "),
    ],
)
def test_an_invalid_windows_setting_raises_on_every_system(wanted: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidSetting, match=text):
        WindowsSettings(**wanted)


def test_a_guid_with_a_name_template_raises() -> None:
    with pytest.raises(InvalidSetting, match="a GUID belongs to one adapter: give a name without %d"):
        Adapter.create("t%d", windows=WindowsSettings(guid=uuid.UUID(int=1)))


def test_the_longest_windows_settings_are_accepted() -> None:
    longest = ".".join(["a" * 63] * 3 + ["a" * 61])
    tunnel_type = "\U0001f40d" * 63 + "a"
    settings = WindowsSettings(search=[longest, "A-1._x"], tunnel_type=tunnel_type, guid=str(uuid.UUID(int=1)))
    assert (settings.search, settings.guid) == ((longest, "A-1._x"), uuid.UUID(int=1))
    assert settings.tunnel_type == tunnel_type
    assert check("t", windows=settings).windows is settings


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lacks these settings")
@pytest.mark.parametrize(
    ("wanted", "text"),
    [
        ({"dns": ["10.6.7.53"]}, "leave out dns and search, .*resolvectl dns NAME SERVER .*resolvconf"),
        ({"search": ["example.org"]}, "resolvectl domain NAME DOMAIN"),
        ({"guid": "{8f1b2a64-5d3e-4c0b-9a77-2e6d1c0f4b93}"}, "only adapters on Windows have a GUID and a tunnel type"),
        ({"tunnel_type": "Example"}, "only adapters on Windows have a GUID and a tunnel type"),
    ],
)
def test_windows_settings_on_linux_raise(wanted: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidSetting, match=text):
        Adapter.create("t", windows=WindowsSettings(**wanted))


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("addr", "unknown option 'addr' of tun; did you mean address?"),
        ("MTU", "unknown option 'MTU' of tun; did you mean mtu?"),
        ("nothing", "unknown option 'nothing' of tun; expected one of address, mtu"),
        ("", "unknown option '' of tun; expected one of address, mtu"),
    ],
)
def test_an_unknown_name_is_answered_by_a_similar_one_or_by_all(name: str, told: str) -> None:
    assert str(unknown_name("option", name, ["address", "mtu"], "tun")) == told
