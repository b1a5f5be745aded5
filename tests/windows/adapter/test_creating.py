"""Creating, opening and listing Windows adapters."""

import uuid
from typing import Any

import pytest

import threepipe
from tests.support.contract_dll.library import Kind
from tests.support.contract_system import Bench, ContractIpHelper
from tests.support.windows_adapters import packet
from threepipe.errors import AdapterBusy, AdapterError, AdapterNotFound, InvalidSetting, NameTaken
from threepipe.platforms.windows import structures as win
from threepipe.platforms.windows.device import adapters, guid_of
from threepipe.platforms.windows.iphelper import IpHelper
from threepipe.settings import WindowsSettings

pytestmark = pytest.mark.windows


def test_an_adapter_has_its_settings(bench: Bench) -> None:
    addresses = threepipe.settings.parse_addresses(["10.6.7.1/24", "fd67::1/64"])
    with bench.create("tp0", addresses=addresses, mtu=1400) as adapter:
        (found,) = bench.contract.interfaces()
        assert (found.name, found.description) == ("tp0", "threepipe Tunnel")
        assert bytes(found.guid) == guid_of("tp0").bytes_le
        assert adapter.index == found.luid >> 24 & 0xFFFFFF
        assert (adapter.addresses, adapter.mtu) == (addresses, 1400)
    assert bench.names() == []


def test_a_renamed_adapter_has_its_new_name(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    ip = bench.system.ip
    assert isinstance(ip, ContractIpHelper)
    with bench.create("tp0") as adapter:
        monkeypatch.setitem(ip.new_names, "tp0", "Büro")
        assert (adapter.name, adapter.info.name) == ("Büro", "Büro")
    assert adapter.name == "Büro"


def test_dns_and_metric_are_set_and_dns_is_undone_on_close(bench: Bench) -> None:
    ip = bench.system.ip
    assert isinstance(ip, ContractIpHelper)
    windows = WindowsSettings(dns=["10.6.7.53"], search=["example.org"])
    with bench.create("tp0", windows=windows, metric=7) as adapter:
        assert ip.dns == {win.AF_INET: ("10.6.7.53", "example.org"), win.AF_INET6: ("", "example.org")}
        luid = bench.contract.interfaces()[0].luid
        assert adapter.info.luid == luid
        assert [ip.interface(luid, family).Metric for family in (win.AF_INET, win.AF_INET6)] == [7, 7]
    assert ip.dns == {win.AF_INET: ("", ""), win.AF_INET6: ("", "")}


def test_create_with_dns_on_an_older_windows_makes_nothing(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    without_functions: Any = object()
    monkeypatch.setattr(bench.system.ip, "check_dns", IpHelper(without_functions).check_dns)
    with pytest.raises(AdapterError, match="build 19041"):
        bench.create("tp0", windows=WindowsSettings(dns=["10.6.7.53"]))
    assert bench.names() == []


def test_an_adapter_has_its_given_guid_and_tunnel_type(bench: Bench) -> None:
    guid = uuid.UUID("8f1b2a64-5d3e-4c0b-9a77-2e6d1c0f4b93")
    with bench.create("tp0", windows=WindowsSettings(guid=guid, tunnel_type="Example")):
        (found,) = bench.contract.interfaces()
        assert (uuid.UUID(bytes_le=bytes(found.guid)), found.description) == (guid, "Example Tunnel")


def test_the_default_guid_follows_from_the_name() -> None:
    """The GUID of a name must never change: Windows identifies networks by it."""
    assert str(guid_of("tp0")) == "9c9e33a7-c936-5686-b2e1-d4bd093b4f06"
    assert guid_of("TP0") == guid_of("tp0") != guid_of("tp1")


@pytest.mark.parametrize("name", ["Ethernet", "ethernet"])
def test_create_with_the_name_of_another_interface_raises_and_renames_none(bench: Bench, name: str) -> None:
    bench.contract.ContractAddInterface("Ethernet", Kind.NEIGHBOUR)
    with pytest.raises(NameTaken, match=f"an interface named {name} exists; choose another name"):
        bench.create(name)
    assert bench.names() == ["Ethernet"]


def test_create_with_the_name_of_an_own_adapter_raises(bench: Bench) -> None:
    with bench.create("tp0"):
        with pytest.raises(NameTaken):
            bench.create("TP0")
        assert bench.names() == ["tp0"]


def test_a_name_taken_during_creation_raises(bench: Bench) -> None:
    """In this race, the library silently gives the adapter another name."""
    find = bench.system.ip.luid_of

    def taken_after_the_look(alias: str) -> int | None:
        luid = find(alias)
        bench.contract.ContractAddInterface(alias, Kind.FIXED)
        return luid

    bench.system.ip.luid_of = taken_after_the_look  # type: ignore[method-assign]
    try:
        with pytest.raises(NameTaken):
            bench.create("tp0")
    finally:
        del bench.system.ip.luid_of
    assert bench.names() == ["tp0"]  # This is the other adapter; ours is gone.


def test_create_replaces_an_adapter_left_by_a_crash(bench: Bench) -> None:
    bench.contract.ContractAddInterface("tp0", Kind.LEFTOVER)
    with bench.create("tp0") as adapter:
        assert bench.names() == [adapter.name] == ["tp0"]


def test_a_template_gives_the_first_free_number(bench: Bench) -> None:
    bench.contract.ContractAddInterface("tp1", Kind.NEIGHBOUR)
    with bench.create("tp%d") as first, bench.create("tp%d") as second:
        assert (first.name, second.name) == ("tp0", "tp2")


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"netns": "red"}, "no network namespaces"),
        ({"persistent": True}, "never outlives its program"),
        ({"queues": 2}, "2 queues"),
        ({"packet_information": True}, "leave out packet_information"),
        ({"metric": 10_000}, "on Windows give 1 to 9999"),
    ],
)
def test_a_setting_that_windows_lacks_raises(bench: Bench, settings: dict[str, object], text: str) -> None:
    with pytest.raises(InvalidSetting, match=text):
        bench.create("tp0", **settings)
    assert bench.names() == []


def test_adapters_of_a_namespace_raises() -> None:
    with pytest.raises(InvalidSetting, match="no network namespaces"):
        adapters("red")


def test_a_failed_setup_leaves_no_adapter(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AdapterError(5, "refused")

    monkeypatch.setattr(bench.system.ip, "add_address", refuse)
    with pytest.raises(AdapterError, match="refused"):
        bench.create("tp0", addresses=threepipe.settings.parse_addresses(["10.6.7.1/24"]))
    assert bench.names() == []


def test_an_open_adapter_outlives_a_second_handle(bench: Bench) -> None:
    with bench.create("tp0") as adapter:
        with bench.open("TP0") as opened:
            assert (opened.name, opened.index) == (adapter.name, adapter.index)
            with opened.start_session() as session:
                assert session.send([packet(0)]) == 1
                with pytest.raises(AdapterBusy, match="has a session in another program"):
                    adapter.start_session()
        assert bench.names() == ["tp0"]
        opened.close()
    with pytest.raises(AdapterNotFound):
        bench.open("tp0")


def test_a_session_that_cannot_wait_is_closed_at_start(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(_: int) -> int:
        raise OSError("no more handles")

    with bench.create("tp0") as adapter:
        with monkeypatch.context() as patch:
            patch.setattr(bench.events, "duplicate", exhausted)
            with pytest.raises(OSError, match="no more handles"):
                adapter.start_session()
        adapter.start_session().close()


def test_delete_removes_the_adapter(bench: Bench) -> None:
    bench.create("tp0").delete()
    assert bench.names() == []
