"""Refusals on the models of macOS' and the BSDs' kernels: each says what to do, and leaves nothing."""

import errno
import os
from collections.abc import Callable

import pytest

import threepipe
from tests.support.bsd.bench import Bench
from tests.support.bsd.benches import BENCHES, NODES, PACKET, Make, every
from tests.support.bsd.darwin import DarwinKernel
from tests.support.bsd.freebsd import FreeBsdKernel
from tests.support.bsd.interfaces import Control, Interface
from threepipe.platforms.bsd.darwin import DarwinDriver


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


@pytest.mark.parametrize("make", [each for each in BENCHES if "netbsd" not in str(each.id)])
def test_a_persistent_adapter_is_refused_where_closing_takes_its_settings(make: Make) -> None:
    with pytest.raises(threepipe.InvalidSetting, match="persistent"):
        make().create(persistent=True)


@pytest.mark.parametrize("make", NODES)
def test_a_missing_node_is_named_with_the_command_that_makes_it(make: Callable[[int], Bench]) -> None:
    bench = make(1)
    with bench.create(), pytest.raises(threepipe.AdapterUnavailable, match="sh MAKEDEV tun1"):
        bench.create()
    assert bench.kernel.interfaces == {}


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


@pytest.mark.parametrize("make", [each for each in BENCHES if "bsd" in str(each.id) and "open" not in str(each.id)])
def test_a_kernel_without_the_driver_is_explained(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = make()

    def refuse(name: str) -> Interface:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(bench.kernel, "make", refuse)
    with pytest.raises(threepipe.AdapterUnavailable, match="load the module if_tun"):
        bench.create("tun3")
