"""Descriptors and settings that a program finds in its environment."""

import os
import socket
import sys

import pytest

import threepipe
from tests.support.endpoints import SECONDS, packet, posix, received
from threepipe.endpoints.environment import Offer, count_listed, find_descriptor, offered, starter
from threepipe.endpoints.handover import HEADERS, conventions
from threepipe.settings import parse_addresses, parse_routes

VARIABLES = ("VPNFD", "TUNTAP_SOCKET_FD", "WG_TUN_FD", "XRAY_TUN_FD")
LISTED = {"LISTEN_FDS": "3", "LISTEN_FDNAMES": "web:tun:mail", "LISTEN_PID": str(os.getpid())}


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in (*VARIABLES, *LISTED):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


@posix
@pytest.mark.parametrize("variable", VARIABLES)
def test_a_session_is_on_the_descriptor_of_any_convention_and_found_once(
    clean: pytest.MonkeyPatch, variable: str
) -> None:
    ours, theirs = socket.socketpair(type=socket.SOCK_DGRAM)
    clean.setenv(variable, str(theirs.detach()))
    with ours, threepipe.from_environment() as session:
        ours.settimeout(SECONDS)
        ours.send(packet(1))
        ours.send(b"")
        assert received(session, 1) == [packet(1)]
        assert session.send([packet(2)]) == 1
        assert ours.recv(1 << 16) == packet(2)
        with pytest.raises(threepipe.InvalidSetting, match="no descriptor is in the environment"):
            threepipe.from_environment()


@posix
def test_a_descriptor_that_carries_no_packets_is_refused_and_stays(clean: pytest.MonkeyPatch) -> None:
    with open(os.devnull) as null:
        clean.setenv("VPNFD", str(null.fileno()))
        with pytest.raises(threepipe.InvalidSetting, match=f"descriptor {null.fileno()} is a device other than a TUN"):
            threepipe.from_environment()
        assert os.environ["VPNFD"] == str(null.fileno())


@pytest.mark.parametrize(
    ("environment", "number"),
    [
        ({"VPNFD": "9", "WG_TUN_FD": "3"}, 9),
        ({"TUNTAP_SOCKET_FD": "7", **LISTED}, 7),
        (LISTED, 4),
        ({**LISTED, "LISTEN_FDNAMES": "tun"}, 3),
        ({**LISTED, "LISTEN_FDNAMES": "tun:tun:mail"}, 4),
    ],
)
def test_the_first_convention_counts(environment: dict[str, str], number: int) -> None:
    assert find_descriptor(environment) == number


@pytest.mark.parametrize(
    ("environment", "text"),
    [
        ({}, r"no descriptor is in the environment .*LISTEN_FDS.*threepipe exec"),
        ({"VPNFD": "nine"}, "VPNFD=nine is not the number"),
        ({"WG_TUN_FD": "-1"}, "WG_TUN_FD=-1 is not the number"),
        ({**LISTED, "LISTEN_PID": "1"}, "no descriptor"),
        ({**LISTED, "LISTEN_FDS": "1"}, "no descriptor"),
        ({**LISTED, "LISTEN_FDNAMES": "web"}, "no descriptor"),
        ({**LISTED, "LISTEN_FDS": "x"}, "no descriptor"),
    ],
)
def test_an_environment_without_a_descriptor_is_refused(environment: dict[str, str], text: str) -> None:
    with pytest.raises(threepipe.InvalidSetting, match=text):
        find_descriptor(environment)


@pytest.mark.parametrize("header", HEADERS)
@pytest.mark.parametrize("others", [0, 2])
def test_what_exec_tells_is_found(header: str, others: int) -> None:
    inherited = {"LISTEN_FDS": str(others), "LISTEN_PID": str(os.getpid())} if others else {}
    told = conventions(header, 3 + others, 1400, inherited)  # type: ignore[arg-type]
    assert find_descriptor(told) == 3 + others
    assert find_descriptor({name: told[name] for name in LISTED}) == 3 + others


def test_names_of_descriptors_before_it_are_kept() -> None:
    inherited = {"LISTEN_FDS": "2", "LISTEN_FDNAMES": "web:mail", "LISTEN_PID": str(os.getpid())}
    assert conventions("none", 5, 1400, inherited)["LISTEN_FDNAMES"] == "web:mail:tun"
    assert not LISTED.keys() & conventions("none", 5, 1400, inherited, listed=False).keys()
    assert "INTERNAL_IP4_MTU" not in conventions("none", 3, 1400, {"INTERNAL_IP4_MTU": "1300"})


@pytest.mark.parametrize(
    ("names", "passed_on"),
    [
        (None, "unknown:unknown:tun"),
        ("web", "web:unknown:tun"),
        ("web:mail:more", "web:mail:tun"),
        ("", ":unknown:tun"),
    ],
)
def test_each_descriptor_before_it_has_one_name(names: str | None, passed_on: str) -> None:
    inherited = {**LISTED, "LISTEN_FDS": "2"}
    del inherited["LISTEN_FDNAMES"]
    inherited |= {} if names is None else {"LISTEN_FDNAMES": names}
    passed = conventions("none", 5, 1400, inherited)
    assert (passed["LISTEN_FDS"], passed["LISTEN_FDNAMES"]) == ("3", passed_on)
    assert find_descriptor({**passed, "VPNFD": "5"}) == 5


@pytest.mark.parametrize("huge", ["2147483648", "9" * 30, "9" * 5000], ids=["large", "larger", "longest"])
def test_numbers_that_no_descriptor_or_process_has_are_refused(huge: str) -> None:
    with pytest.raises(threepipe.InvalidSetting, match="is not the number of a descriptor"):
        find_descriptor({"VPNFD": huge})
    assert count_listed({**LISTED, "LISTEN_FDS": huge}) == 0
    with pytest.raises(threepipe.InvalidSetting, match="MTU"):
        offered({"INTERNAL_IP4_MTU": huge})


@posix
def test_a_number_that_no_process_has_is_not_the_starter() -> None:
    assert starter({"VPNPID": "2147483648"}) == starter({"VPNPID": "-1"}) == starter({}) == os.getppid()
    assert starter({"VPNPID": "7"}) == 7


def offer(addresses: list[str], mtu: int | None = None, routes: list[str] | None = None) -> Offer:
    return Offer(parse_addresses(addresses), parse_routes(routes or []), mtu)


OPENCONNECT = {
    "INTERNAL_IP4_ADDRESS": "10.77.0.137",
    "INTERNAL_IP4_NETMASK": "255.255.255.0",
    "INTERNAL_IP4_NETMASKLEN": "24",
    "INTERNAL_IP4_MTU": "1334",
    "INTERNAL_IP6_ADDRESS": "fd77::5",
    "INTERNAL_IP6_NETMASK": "fd77::5/64",
}
"""The variables of OpenConnect 9.01 for ocserv 1.1.6, with a shorter length."""

OPENVPN = {"TUNTAP_MTU": "1500", "ifconfig_local": "10.8.0.2", "ifconfig_ipv6_local": "fd08::2"}


@pytest.mark.parametrize(
    ("environment", "found"),
    [
        ({}, offer([])),
        (OPENCONNECT, offer(["10.77.0.137/24", "fd77::5/64"], 1334)),
        ({"INTERNAL_IP4_ADDRESS": "10.77.0.137", "INTERNAL_IP6_ADDRESS": "fd77::5"}, offer(["10.77.0.137", "fd77::5"])),
        (
            {**OPENVPN, "ifconfig_netmask": "255.255.255.0", "ifconfig_ipv6_netbits": "64"},
            offer(["10.8.0.2/24", "fd08::2/64"], 1500),
        ),
        ({**OPENVPN, "ifconfig_remote": "10.8.0.1"}, offer(["10.8.0.2", "fd08::2"], 1500, ["10.8.0.1"])),
    ],
)
def test_addresses_and_mtu_are_those_of_the_other_program(environment: dict[str, str], found: Offer) -> None:
    assert offered(environment) == found


@pytest.mark.parametrize("wrong", [{"INTERNAL_IP4_ADDRESS": "10.77.0"}, {"INTERNAL_IP4_MTU": "much"}])
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, str]) -> None:
    with pytest.raises(threepipe.InvalidSetting, match=r"10\.77\.0|'much'"):
        offered(wrong)


def test_options_of_the_address_come_before_those_offered() -> None:
    other = offer(["10.8.0.2"], 1400, ["10.8.0.1"])
    assert other.complete({}) == {"address": [*other.addresses], "route": [*other.routes], "mtu": 1400}
    given = {"address": [*parse_addresses(["10.9.9.9"])], "mtu": 1280}
    assert other.complete(given) == given
    assert offer([]).complete({}) == {}


@pytest.mark.skipif(sys.platform != "win32", reason="this looks at Windows, as other systems have such descriptors")
def test_on_windows_no_descriptor_is_taken(clean: pytest.MonkeyPatch) -> None:
    clean.setenv("VPNFD", "9")
    with pytest.raises(threepipe.InvalidSetting, match="on Windows"):
        threepipe.from_environment()
