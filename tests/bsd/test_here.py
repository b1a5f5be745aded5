"""The choice of the driver by the system's name, the findings of `threepipe doctor`, and routes of WireGuard."""

import ctypes
import errno
import os
import sys
from ipaddress import ip_network

import pytest

import threepipe
from tests.support.bsd.bench import Bench
from tests.support.bsd.netbsd import NetBsdKernel
from threepipe.platforms.bsd import here, probe
from threepipe.platforms.bsd.device import add_routes_on
from threepipe.platforms.bsd.netbsd import NetBsdDriver


@pytest.mark.parametrize(
    ("platform", "name"),
    [("darwin", "macOS"), ("freebsd14", "FreeBSD"), ("netbsd10", "NetBSD"), ("openbsd7", "OpenBSD")],
)
def test_the_name_of_the_system_chooses_the_driver(platform: str, name: str) -> None:
    driver = here.driver_of(platform)
    assert driver is not None
    assert driver.kind.name == name


def test_a_system_without_a_driver_has_no_adapters_and_the_doctor_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "dragonfly6")
    assert here.driver_of("dragonfly6") is None
    with pytest.raises(threepipe.AdapterUnavailable) as caught:
        here.adapters(None)
    assert caught.value.errno == errno.ENOSYS
    (finding,) = here.probe()
    assert not finding.ok
    assert finding.essential


class Library:
    """FreeBSD's C library, as far as the doctor calls it."""

    def __init__(self, modules: set[bytes]) -> None:
        self._modules = modules

    def modfind(self, name: bytes) -> int:
        return 7 if name in self._modules else -1


@pytest.mark.parametrize("modules", [{b"if_tuntap"}, {b"if_tun"}, {b"if_tap"}])
def test_the_doctor_looks_for_freebsds_driver_without_making_an_interface(
    modules: set[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: object) -> bool:
        raise AssertionError(f"to look for {path} would make an interface")

    driver = here.driver_of("freebsd14")
    assert driver is not None
    monkeypatch.setattr(os.path, "exists", refuse)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: Library(modules))
    (found,) = [finding for finding in probe.findings(driver.kind) if finding.name == "TUN"]
    assert found.ok == (modules != {b"if_tap"})
    assert ("kldload" in found.advice) == (not found.ok)


@pytest.mark.parametrize("platform", ["darwin", "freebsd14", "netbsd10", "openbsd7"])
@pytest.mark.parametrize("user", [0, 1000])
def test_the_doctor_names_system_privilege_node_and_ipv6(
    platform: str, user: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = here.driver_of(platform)
    assert driver is not None
    monkeypatch.setattr(os, "geteuid", lambda: user)
    monkeypatch.setattr(os.path, "exists", lambda path: False)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: Library({b"if_tuntap"}))
    findings = {finding.name: finding for finding in probe.findings(driver.kind)}
    assert set(findings) >= {"system", "privilege", "IPv6"}
    assert findings["system"].detail.startswith(driver.kind.name)
    assert findings["privilege"].ok == (user == 0)
    assert ("TUN" in findings) == (platform != "darwin")
    if platform in ("netbsd10", "openbsd7"):
        assert "MAKEDEV" in findings["TUN"].advice


def test_routes_of_wireguard_lead_to_the_interface_and_go_with_it() -> None:
    bench = Bench(NetBsdKernel(), NetBsdDriver())
    networks = [ip_network("10.7.0.0/16"), ip_network("fd07::/48")]
    with bench.create(addresses=["10.1.2.3/24", "fd01::1/64"]) as adapter, adapter.start_session():
        add_routes_on(bench.place, adapter.index, networks)
        assert set(adapter.routes) == set(networks)
        with pytest.raises(threepipe.AdapterError, match="has it already"):
            add_routes_on(bench.place, adapter.index, networks)
    with pytest.raises(threepipe.AdapterGone):
        add_routes_on(bench.place, adapter.index, networks)
