"""Names of adapters on the models of macOS' and the BSDs' kernels."""

import ctypes
import struct

import pytest

import threepipe
from tests.support.bsd.bench import Bench
from tests.support.bsd.benches import BENCHES, Make, every
from tests.support.bsd.freebsd import FreeBsdKernel
from tests.support.bsd.netbsd import NetBsdKernel
from threepipe.platforms.bsd.freebsd import FreeBsdDriver
from threepipe.platforms.bsd.netbsd import NetBsdDriver


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


@pytest.mark.parametrize("name", ["tun%d", "tp%d", "office"])
def test_freebsd_makes_interfaces_without_the_cloning_device(name: str) -> None:
    bench = Bench(FreeBsdKernel(has_cloning=False), FreeBsdDriver())
    with bench.create(name) as adapter:
        assert adapter.name == name.replace("%d", "0")
        adapter.start_session().close()
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
