"""Adapters on the models of macOS' and the BSDs' kernels: names, life, leftovers, configuration and refusals."""

import ctypes
import errno
import os
import struct
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path

import pytest

import threepipe
from tests.support.bsd.bench import Bench
from tests.support.bsd.benches import BENCHES, NODES
from tests.support.bsd.darwin import DarwinKernel
from tests.support.bsd.freebsd import FreeBsdKernel
from tests.support.bsd.kernel import Control, Interface
from tests.support.bsd.netbsd import NetBsdKernel
from threepipe.net.watch import Watch
from threepipe.platforms.bsd.darwin import DarwinDriver
from threepipe.platforms.bsd.freebsd import FreeBsdDriver
from threepipe.platforms.bsd.kind import RTF_STATIC
from threepipe.platforms.bsd.messages import address_of
from threepipe.platforms.bsd.netbsd import NetBsdDriver

Make = Callable[[], Bench]
PACKET = bytes([0x45, 0, 0, 28, *bytes(5), 253, *bytes(10)]).ljust(28, b"~")

every = pytest.mark.parametrize("make", BENCHES)
with_nodes = pytest.mark.parametrize("make", NODES)


@every
def test_a_template_becomes_the_first_free_name_of_the_driver(make: Make) -> None:
    bench = make()
    driver = bench.place.driver.kind.driver
    with bench.create() as first, bench.create() as second:
        assert [first.name, second.name] == [f"{driver}0", f"{driver}1"]
        assert sorted(bench.names()) == [f"{driver}0", f"{driver}1"]
    assert bench.names() == []


@every
def test_a_name_of_the_driver_is_taken_as_given_and_only_once(make: Make) -> None:
    bench = make()
    name = f"{bench.place.driver.kind.driver}3"
    with bench.create(name) as adapter:
        assert adapter.name == name
        with pytest.raises(threepipe.NameTaken, match=f"{name} exists"):
            bench.create(name)
        adapter.start_session().close()
    with bench.create(name):
        pass


@pytest.mark.parametrize("make", [each for each in BENCHES if "freebsd" not in str(each.id)])
def test_another_name_is_refused_and_any_template_is_the_drivers(make: Make) -> None:
    bench = make()
    driver = bench.place.driver.kind.driver
    with pytest.raises(threepipe.InvalidSetting, match=rf"{driver}0, {driver}1 and so on"):
        bench.create("tp0")
    with bench.create("tp%d") as adapter:
        assert adapter.name == f"{driver}0"


def test_freebsd_gives_an_interface_any_name() -> None:
    bench = Bench(FreeBsdKernel(), FreeBsdDriver())
    with bench.create("tp%d") as first, bench.create("tp%d") as second, bench.create("office") as third:
        assert [adapter.name for adapter in (first, second, third)] == ["tp0", "tp1", "office"]
        assert bench.names() == ["tp0", "tp1", "office"]
        with pytest.raises(threepipe.NameTaken):
            bench.create("office")
        bench.kernel.rename(bench.kernel.interfaces["office"], _pointer_to("home"))
        assert third.name == third.info.name == "home"
    assert bench.kernel.interfaces == {}


def _pointer_to(name: str) -> bytes:
    text = ctypes.create_string_buffer(name.encode())
    _kept.append(text)
    return struct.pack("P", ctypes.addressof(text))


_kept: list[object] = []


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
def test_without_root_no_adapter_is_made_and_the_text_says_so(make: Make) -> None:
    bench = make()
    bench.kernel.root = False
    with pytest.raises(threepipe.PermissionDenied, match="needs root"):
        bench.create()
    assert bench.kernel.interfaces == {}
    assert bench.kernel.files == {}


@pytest.mark.parametrize(
    ("setting", "text"),
    [
        ({"netns": "blue"}, "network namespaces"),
        ({"queues": 2}, "several queues"),
        ({"metric": 5}, "metrics"),
        ({"packet_information": True}, "packet information"),
        ({"persistent": True, "owner": 0}, "owners"),
        ({"windows": threepipe.WindowsSettings()}, "Windows"),
    ],
)
@every
def test_settings_that_the_system_lacks_are_refused_by_name(make: Make, setting: dict[str, object], text: str) -> None:
    bench = make()
    with pytest.raises(threepipe.InvalidSetting, match=text):
        bench.create(**setting)  # type: ignore[arg-type]
    assert bench.kernel.interfaces == {}


@every
def test_an_adapter_is_not_handed_over_and_stays_usable(make: Make) -> None:
    with make().create(addresses=["10.1.2.3/24"]) as adapter:
        with pytest.raises(threepipe.AdapterUnavailable, match="threepipe pipe"):
            adapter.detach()
        with adapter.start_session() as session:
            assert session.send([PACKET]) == 1


@every
def test_an_adapter_that_another_program_removes_is_gone(make: Make) -> None:
    bench = make()
    adapter = bench.create(addresses=["10.1.2.3/24"])
    session = adapter.start_session()
    interface = bench.kernel.interfaces[adapter.name]
    assert interface.tun is not None
    interface.tun.transient = True  # FreeBSD would wait until the device is closed.
    bench.kernel.unmake(interface)
    with pytest.raises(threepipe.AdapterGone):
        adapter.info  # noqa: B018
    with pytest.raises(threepipe.AdapterGone):
        session.send([PACKET])
    adapter.close()
    assert bench.kernel.files == {}


@pytest.mark.parametrize("make", [each for each in BENCHES if str(each.id).endswith(("netbsd", "openbsd"))])
def test_a_thread_that_waits_learns_that_the_adapter_was_removed(make: Make) -> None:
    bench = make()
    adapter = bench.create(addresses=["10.1.2.3/24"])
    session = adapter.start_session()
    interface = bench.kernel.interfaces[adapter.name]
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(session.receive, 20)
        with bench.kernel.lock:
            bench.kernel.unmake(interface)
        with pytest.raises(threepipe.AdapterGone):
            waiting.result(20)
    adapter.close()
    assert bench.kernel.files == {}


@pytest.mark.parametrize("name", ["tun%d", "tp%d", "office"])
def test_freebsd_makes_interfaces_without_the_cloning_device(name: str) -> None:
    bench = Bench(FreeBsdKernel(has_cloning=False), FreeBsdDriver())
    with bench.create(name) as adapter:
        assert adapter.name == name.replace("%d", "0")
        adapter.start_session().close()
    assert bench.kernel.interfaces == {}


@every
def test_a_killed_program_leaves_nothing_that_the_next_adapter_minds(make: Make) -> None:
    bench = make()
    name = bench.create(addresses=["10.1.2.3/24"]).name
    bench.kernel.kill()
    # Without a file that marks it the interface stays, and on NetBSD it keeps its routes.
    with bench.create(addresses=["10.1.3.3/24" if bench.kernel.keeps_routes else "10.1.2.3/24"]) as adapter:
        adapter.start_session().close()
        assert adapter.name == name or name in bench.kernel.interfaces


def leaving() -> list[Bench]:
    """Return benches whose interfaces outlive their descriptors."""
    return [Bench(NetBsdKernel(), NetBsdDriver()), Bench(FreeBsdKernel(has_transient=False), FreeBsdDriver())]


@pytest.mark.parametrize("number", [0, 1])
def test_the_interface_of_a_killed_program_is_removed_and_others_stay(number: int, tmp_path: Path) -> None:
    bench = leaving()[number]
    bench.place = bench.place._replace(folder=tmp_path / "marks")
    with bench.create("tun0") as alive:
        bench.kernel.make("tun1")
        bench.kernel.make("tun2")
        (tmp_path / "marks" / "tun1.tun").touch()  # The file of a program that is no more; nobody holds its lock.
        with bench.create() as adapter:
            assert adapter.name == "tun1"
            assert sorted(bench.kernel.interfaces) == ["tun0", "tun1", "tun2"]
        assert alive.info
    assert [*(tmp_path / "marks").iterdir()] == []
    assert [*bench.kernel.interfaces] == ["tun2"]


def test_an_adapter_without_a_place_for_its_mark_works_and_warns(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bench = Bench(NetBsdKernel(), NetBsdDriver(), tmp_path / "file" / "marks")
    (tmp_path / "file").touch()
    with bench.create():
        pass
    assert "stays if this program is killed" in caplog.text


@pytest.mark.parametrize("make", [each for each in BENCHES if "openbsd" not in str(each.id)])
def test_a_refused_request_of_the_device_leaves_nothing(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = make()
    before = 3 if isinstance(bench.kernel, FreeBsdKernel) else 1
    ioctl, fails = bench.kernel.ioctl, iter([*[False] * before, True])

    def refuse_one(descriptor: int, request: int, argument: bytes) -> bytes:
        if descriptor in bench.kernel.files and not isinstance(bench.kernel.files[descriptor], Control) and next(fails):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return ioctl(descriptor, request, argument)

    monkeypatch.setattr(bench.kernel, "ioctl", refuse_one)
    with pytest.raises(threepipe.AdapterError):
        bench.create()
    assert bench.kernel.files == {}
    assert bench.kernel.interfaces == {}


def test_a_persistent_interface_of_netbsd_keeps_its_settings_and_is_opened_again() -> None:
    bench = Bench(NetBsdKernel(), NetBsdDriver())
    with bench.create("tun1", persistent=True, addresses=["10.1.2.3/24"]) as adapter:
        assert adapter.info.persistent
        with pytest.raises(threepipe.AdapterBusy):
            bench.open("tun1")
    with bench.open("tun1") as adapter, adapter.start_session() as session:
        assert adapter.addresses == (ip_interface("10.1.2.3/24"),)
        assert session.send([PACKET]) == 1
    assert bench.names() == ["tun1"]
    with bench.open("tun1") as adapter:
        adapter.delete()
    assert bench.names() == []
    with pytest.raises(threepipe.AdapterNotFound):
        bench.open("tun1")


@pytest.mark.parametrize("make", [each for each in BENCHES if "netbsd" not in str(each.id)])
def test_a_persistent_adapter_is_refused_where_closing_takes_its_settings(make: Make) -> None:
    with pytest.raises(threepipe.InvalidSetting, match="persistent"):
        make().create(persistent=True)


@with_nodes
def test_a_missing_node_is_named_with_the_command_that_makes_it(make: Callable[[int], Bench]) -> None:
    bench = make(1)
    with bench.create(), pytest.raises(threepipe.AdapterUnavailable, match="sh MAKEDEV tun1"):
        bench.create()
    assert bench.kernel.interfaces == {}


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
def test_a_forked_child_does_not_hold_the_device(make: Make) -> None:
    bench = make()
    with bench.create() as adapter:
        child = os.fork()
        if not child:
            os._exit(len(bench.kernel.files))  # The model counts its open files.
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        assert adapter.info


@every
def test_a_pipe_joins_two_adapters(make: Make) -> None:
    bench = make()
    with (
        bench.create(addresses=["10.1.1.1/24"]) as left,
        bench.create(addresses=["10.1.2.1/24"]) as right,
        left.start_session() as one,
        right.start_session() as two,
    ):
        bench.kernel.deliver(left.name, [PACKET] * 3)
        two.send(one.receive(timeout=10))
        assert bench.kernel.arrivals(right.name, 10) == [PACKET] * 3


@pytest.mark.parametrize("make", [each for each in BENCHES if "darwin" not in str(each.id)])
def test_an_interface_that_an_administrator_made_is_opened_and_stays(make: Make) -> None:
    bench = make()
    bench.kernel.make("tun3")
    with bench.open("tun3") as adapter, adapter.start_session() as session:
        adapter.add_address("10.1.2.3/24")
        assert session.send([PACKET]) == 1
        with pytest.raises(threepipe.AdapterBusy):
            bench.open("tun3")
    assert bench.names() == ["tun3"]
    with pytest.raises(threepipe.AdapterNotFound):
        bench.open("tun2")


def test_a_mac_has_no_adapter_to_open() -> None:
    bench = Bench(DarwinKernel(), DarwinDriver())
    with bench.create() as adapter, pytest.raises(threepipe.AdapterNotFound, match="end with their program"):
        bench.open(adapter.name)


@pytest.mark.parametrize("make", [each for each in BENCHES if "darwin" not in str(each.id)])
@pytest.mark.parametrize("code", [errno.ENXIO, errno.EIO])
def test_a_node_without_a_driver_is_explained(make: Make, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = make()

    def refuse(path: str) -> int:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(bench.kernel, "open", refuse)
    with pytest.raises(threepipe.AdapterUnavailable, match="/dev/tun"):
        bench.create()
    with pytest.raises(threepipe.AdapterUnavailable, match="/dev/tun"):
        bench.create("tun1")
    assert bench.kernel.interfaces == {}


@pytest.mark.parametrize("system", ["NetBSD", "FreeBSD"])
def test_names_that_others_take_meanwhile_are_passed_over(system: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(NetBsdKernel(), NetBsdDriver()) if system == "NetBSD" else Bench(FreeBsdKernel(), FreeBsdDriver())
    template = "tun%d" if system == "NetBSD" else "tp%d"
    listing, hidden = bench.kernel.sysctl, iter([True])
    bench.kernel.make("tun0")
    if system == "FreeBSD":
        bench.kernel.rename(bench.kernel.interfaces["tun0"], _pointer_to("tp0"))
    # The first list is from before the other program made its interface.
    monkeypatch.setattr(bench.kernel, "sysctl", lambda path: b"" if next(hidden, False) else listing(path))
    with bench.create(template) as adapter:
        assert adapter.name == template.replace("%d", "1")
    assert len(bench.kernel.interfaces) == 1


@every
def test_a_session_that_cannot_start_leaves_the_link_down(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = make()
    with bench.create(addresses=["10.1.2.3/24"]) as adapter:

        def refuse() -> Watch:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

        with monkeypatch.context() as patch:
            patch.setattr(bench.kernel, "watch", refuse)
            with pytest.raises(OSError, match="Too many open files"):
                adapter.start_session()
        assert not adapter.link_up
        with adapter.start_session() as session:
            assert session.send([PACKET]) == 1


@every
def test_a_route_without_an_address_of_its_version_is_refused_with_advice(make: Make) -> None:
    bench = make()
    with pytest.raises(threepipe.AdapterError, match="no address of IPv6; give it one first"):
        bench.create(addresses=["10.1.2.3/24"], routes=["fd07::/48"])
    assert bench.kernel.interfaces == {}
    assert bench.kernel.files == {}


@pytest.mark.parametrize("make", [each for each in BENCHES if "bsd" in str(each.id) and "open" not in str(each.id)])
def test_a_kernel_without_the_driver_is_explained(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = make()

    def refuse(name: str) -> Interface:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(bench.kernel, "make", refuse)
    with pytest.raises(threepipe.AdapterUnavailable, match="load the module if_tun"):
        bench.create("tun3")
