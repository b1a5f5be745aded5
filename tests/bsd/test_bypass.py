"""Routes past a tunnel that carries all traffic, on the models of macOS' and the BSDs' kernels."""

import errno
import json
import os
from collections.abc import Sequence
from ipaddress import ip_network
from pathlib import Path

import pytest

from tests.support.bsd.bench import Bench
from tests.support.bsd.benches import BENCHES, Make, darwin, every, openbsd
from tests.support.bsd.kernel import Kernel
from threepipe import platforms
from threepipe.adapter import Adapter
from threepipe.platforms.bsd import here
from threepipe.platforms.bsd.bypass import Bypass, path_mtu_on, remove_on
from threepipe.platforms.bsd.device import add_routes_on
from threepipe.platforms.bsd.kind import (
    RTF_BLACKHOLE,
    RTF_GATEWAY,
    RTF_HOST,
    RTF_STATIC,
    RTF_UP,
)
from threepipe.settings import Network
from threepipe.wireguard.quick.undo import open_journal, recover

ALL = [ip_network(each) for each in ("0.0.0.0/1", "128.0.0.0/1", "::/1", "8000::/1")]
PEER4, PEER6 = "192.0.2.9", "2001:db8::9"


class Told:
    """The addresses that the journal was told of, and a check that no route to them was there yet."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self.addresses: list[str] = []

    def __call__(self, addresses: list[str]) -> None:
        assert not any(route(self._kernel, each) for each in addresses)
        self.addresses += addresses


def route(kernel: Kernel, address: str) -> tuple[str, int] | None:
    """Return the interface and the flags of the host route to an address."""
    for each in kernel.interfaces.values():
        if ip_network(address) in each.routes:
            return each.name, each.routes[ip_network(address)][0]
    return None


def tunnel(bench: Bench, routes: Sequence[Network] = ALL) -> tuple[Adapter, Bypass, Told]:
    adapter = bench.create(addresses=["10.6.7.1/24", "fd67::1/64"])
    adapter.start_session()
    add_routes_on(bench.place, adapter.index, routes)
    told = Told(bench.kernel)
    return adapter, Bypass(bench.place, adapter.index, (4, 6), told), told


@every
def test_endpoints_get_routes_by_the_gateways_that_the_tunnel_hides(make: Make) -> None:
    bench = make()
    bench.kernel.add_gateway("em0", "198.51.100.7/24", "198.51.100.1")
    bench.kernel.add_gateway("em0", "2001:db8:1::7/64", "2001:db8:1::1")
    adapter, bypass, told = tunnel(bench)
    with adapter, bypass:
        bypass.update([PEER4, PEER6])
        expected = "em0", RTF_UP | RTF_GATEWAY | RTF_HOST | RTF_STATIC
        assert route(bench.kernel, PEER4) == route(bench.kernel, PEER6) == expected
        assert told.addresses in ([PEER4, PEER6], [PEER6, PEER4])
        bypass.update([PEER4, PEER6])
        remove_on(bench.place, told.addresses)
        assert route(bench.kernel, PEER4) is route(bench.kernel, PEER6) is None
        remove_on(bench.place, told.addresses)  # A missing one is not an error.
    assert bench.kernel.files == {}


@every
def test_routes_follow_the_gateway_and_the_endpoints(make: Make) -> None:
    bench = make()
    bench.kernel.add_gateway("em0", "198.51.100.7/24", "198.51.100.1")
    adapter, bypass, told = tunnel(bench)
    with adapter, bypass:
        bypass.update([PEER4])
        del bench.kernel.interfaces["em0"]
        bench.kernel.add_gateway("em1", "203.0.113.7/24", "203.0.113.1")
        bypass.update([PEER4])
        assert route(bench.kernel, PEER4) == ("em1", RTF_UP | RTF_GATEWAY | RTF_HOST | RTF_STATIC)
        bypass.update(["192.0.2.10"])
        assert route(bench.kernel, PEER4) is None
        assert route(bench.kernel, "192.0.2.10") is not None
        assert told.addresses == [PEER4, "192.0.2.10"]


@every
def test_without_a_gateway_packets_to_the_endpoint_are_dropped_until_there_is_one(make: Make) -> None:
    bench = make()
    adapter, bypass, _ = tunnel(bench)
    with adapter, bypass:
        bypass.update([PEER4, PEER6])
        found = route(bench.kernel, PEER4), route(bench.kernel, PEER6)
        assert found == (("lo0", RTF_UP | RTF_GATEWAY | RTF_HOST | RTF_STATIC | RTF_BLACKHOLE),) * 2
        bench.kernel.add_gateway("em0", "198.51.100.7/24", "198.51.100.1")
        bypass.update([PEER4, PEER6])
        assert route(bench.kernel, PEER4) == ("em0", RTF_UP | RTF_GATEWAY | RTF_HOST | RTF_STATIC)


@every
def test_a_default_route_that_is_a_link_serves_as_one(make: Make) -> None:
    bench = make()
    bench.kernel.add_gateway("ppp0", "198.51.100.7/32", None)
    adapter, bypass, _ = tunnel(bench)
    with adapter, bypass:
        bypass.update([PEER4])
        assert route(bench.kernel, PEER4) == ("ppp0", RTF_UP | RTF_HOST | RTF_STATIC)


@every
def test_endpoints_to_which_the_tunnel_has_no_route_get_none(make: Make) -> None:
    bench = make()
    bench.kernel.add_gateway("em0", "192.0.2.7/24", "192.0.2.1")
    adapter, bypass, told = tunnel(bench)
    with adapter, bypass:
        bypass.update([PEER4, "127.0.0.1", "fe80::1%em0", "::1"])  # The first one is a neighbour.
        assert told.addresses == []


@every
def test_a_network_of_the_tunnel_that_holds_the_endpoint_is_passed_too(make: Make) -> None:
    bench = make()
    bench.kernel.add_gateway("em0", "198.51.100.7/24", "198.51.100.1")
    adapter, bypass, _ = tunnel(bench, [*ALL, ip_network("192.0.2.0/28")])
    with adapter, bypass:
        bypass.update([PEER4])
        assert route(bench.kernel, PEER4) is not None


@every
def test_routes_that_an_administrator_has_set_stay(make: Make) -> None:
    bench = make()
    other = bench.kernel.add_gateway("em0", "198.51.100.7/24", "198.51.100.1")
    other.routes[ip_network(PEER4)] = RTF_UP | RTF_HOST | RTF_STATIC, b""
    adapter, bypass, told = tunnel(bench)
    with adapter, bypass:
        bypass.update([PEER4])
        assert told.addresses == []
        assert route(bench.kernel, PEER4) is not None


@every
def test_routes_of_a_killed_device_are_removed_by_the_next(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = make()
    monkeypatch.setattr(here, "_place", lambda: bench.place)
    monkeypatch.setattr(platforms, "remove_bypass", here.remove_bypass)
    bench.kernel.add_gateway("em0", "198.51.100.7/24", "198.51.100.1")
    adapter, bypass, told = tunnel(bench)
    with adapter, bypass:
        bypass.update([PEER4, PEER6])
        lines = {"scope": platforms.network_scope()}, {"undo": "bypass", "addresses": told.addresses}
        (tmp_path / "office.journal").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
        (tmp_path / "office.journal").chmod(0o600)
        with open_journal("office", folder=tmp_path) as journal:
            assert recover(journal, "office") == []
        assert route(bench.kernel, PEER4) is route(bench.kernel, PEER6) is None


@pytest.mark.parametrize("make", [each for each in BENCHES if str(each.id).endswith(("netbsd", "old_freebsd"))])
def test_the_interface_of_a_killed_device_is_removed_with_its_routes(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = make()
    bench.place = bench.place._replace(folder=tmp_path)
    monkeypatch.setattr(here, "_place", lambda: bench.place)
    monkeypatch.setattr(platforms, "remove_leftovers", here.remove_leftovers)
    dead, alive = bench.kernel.make("tun1"), bench.create("tun2", addresses=["10.6.8.1/24"])
    dead.routes[ALL[0]] = RTF_UP | RTF_STATIC, b""
    (tmp_path / "tun1.tun").touch()  # The file of a program that is no more; nobody holds its lock.
    with alive, open_journal("office", folder=tmp_path) as journal:
        assert recover(journal, "office") == []
        assert [*bench.kernel.interfaces] == ["tun2"]


def test_routes_that_macos_makes_for_single_machines_and_sockets_count_for_nothing() -> None:
    bench = darwin()
    other = bench.kernel.add_gateway("en0", "198.51.100.7/24", "198.51.100.1")
    other.routes[ip_network(PEER4)] = RTF_UP | RTF_HOST | RTF_GATEWAY | 0x20000, b""  # RTF_WASCLONED
    bench.kernel.add_gateway("en1", "203.0.113.7/24", "203.0.113.1")
    scoped = bench.kernel.interfaces["en1"].routes
    flags, gateway = scoped[ip_network("0.0.0.0/0")]
    scoped[ip_network("0.0.0.0/0")] = flags | 0x1000000, gateway  # RTF_IFSCOPE
    adapter, bypass, told = tunnel(bench)
    with adapter, bypass:
        del other.routes[ip_network(PEER4)]
        bypass.update([PEER4])
        assert told.addresses == [PEER4]
        assert route(bench.kernel, PEER4) == ("en0", RTF_UP | RTF_GATEWAY | RTF_HOST | RTF_STATIC)


@every
def test_a_refused_route_is_told_and_tried_again_after_a_change(
    make: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    bench = make()
    bench.kernel.add_gateway("em0", "198.51.100.7/24", "198.51.100.1")
    adapter, bypass, _ = tunnel(bench)
    with adapter, bypass:
        with monkeypatch.context() as patch:

            def refuse(gateway: bytes) -> None:
                raise OSError(errno.ENETUNREACH, os.strerror(errno.ENETUNREACH))

            patch.setattr(bench.kernel, "_by_router", refuse)
            bypass.update([PEER4])
        assert f"route {PEER4}" in caplog.text
        bench.kernel.tell()
        bypass.update([PEER4])
        assert route(bench.kernel, PEER4) is not None


def test_a_refused_socket_leaves_no_descriptor(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = openbsd()

    def refuse(descriptor: int, request: int, argument: bytes) -> bytes:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(bench.kernel, "ioctl", refuse)
    with pytest.raises(OSError, match="Invalid"):
        Bypass(bench.place, 1, (4,), lambda addresses: None)
    assert bench.kernel.files == {}


@every
def test_changes_that_the_system_could_not_keep_are_looked_for(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = make()
    adapter, bypass, _ = tunnel(bench)
    with adapter, bypass:
        bypass.update([PEER4])
        bench.kernel.add_gateway("em0", "198.51.100.7/24", "198.51.100.1")

        def overflow(socket: object) -> bytes:
            raise OSError(errno.ENOBUFS, os.strerror(errno.ENOBUFS))

        monkeypatch.setattr(bench.kernel, "hear", overflow)
        bypass.update([PEER4])
        assert route(bench.kernel, PEER4) == ("em0", RTF_UP | RTF_GATEWAY | RTF_HOST | RTF_STATIC)


@every
def test_the_mtu_of_a_path_is_that_of_the_interface_by_which_packets_leave(make: Make) -> None:
    bench = make()
    bench.kernel.add_gateway("em0", "198.51.100.7/24", "198.51.100.1", mtu=1492)
    bench.kernel.add_gateway("em1", "192.0.2.7/24", None, mtu=9000)
    del bench.kernel.interfaces["em1"].routes[ip_network("0.0.0.0/0")]
    assert path_mtu_on(bench.place, "203.0.113.1") == 1492
    assert path_mtu_on(bench.place, PEER4) == (1500 if "Net" in type(bench.kernel).__name__ else 9000)
    assert path_mtu_on(bench.place, PEER6) == 1500
