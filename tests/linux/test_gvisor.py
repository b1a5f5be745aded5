"""A plain TUN driver, as gVisor's is: a stand-in that answers as runsc 20240729 does, and runsc itself if found."""

import errno
import fcntl
import shutil
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import threepipe
from tests.support.kernel import Network, links
from threepipe import Adapter

if sys.platform != "linux":
    pytest.skip(f"{sys.platform} has no such driver", allow_module_level=True)

from pyroute2 import IPRoute

from threepipe.platforms.linux import probe, tun

pytestmark = pytest.mark.kernel

REPOSITORY = Path(__file__).parents[2]
real_ioctl: Callable[..., Any] = fcntl.ioctl


def plain_ioctl(file: Any, request: int, argument: Any = 0) -> Any:
    """Answer as gVisor: two requests, the two simplest flags, and no attaching to what exists."""
    if request == tun.TUNGETIFF:
        return real_ioctl(file, request, argument)
    if request != tun.TUNSETIFF:
        raise OSError(errno.ENOTTY, "Inappropriate ioctl for device")
    name, flags = tun.IFREQ.unpack(argument)
    if flags & ~(tun.IFF_TUN | tun.IFF_NO_PI) or not flags & tun.IFF_TUN:
        raise OSError(errno.EINVAL, "Invalid argument")
    assert b"%" not in name, "gVisor takes a template for a name"
    return real_ioctl(file, request, tun.IFREQ.pack(name, flags | tun.IFF_TUN_EXCL))


class PlainRoute(IPRoute):  # type: ignore[misc]
    """Netlink of gVisor, whose refusals pyroute2 0.9.7 cannot read."""

    def addr(self, command: str, **settings: Any) -> Any:
        if settings.keys() & {"flags", "rt_priority"}:
            raise struct.error("unpack_from requires a buffer of at least 37 bytes")
        if ":" in settings["address"] and "local" not in settings:
            return []
        return self.__getattr__("addr")(command, **settings)  # IPRoute has its methods from there.


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch, network: Network) -> Network:
    monkeypatch.setattr("threepipe.platforms.linux.tun.fcntl.ioctl", plain_ioctl)
    monkeypatch.setattr("pyroute2.IPRoute", PlainRoute)
    return network


def test_an_adapter_on_a_plain_driver_has_its_settings_and_sessions(plain: Network) -> None:
    addresses = ["10.6.7.1/24", "fd00::1/64"]
    with Adapter.create("tp%d", netns=plain.path, addresses=addresses, metric=5, mtu=1400) as adapter:
        assert (adapter.name, adapter.mtu) == ("tp0", 1400)
        assert {str(each) for each in adapter.addresses} >= set(addresses)
        for _ in range(2):
            with adapter.start_session() as session:
                assert session.send([bytes([0x45, *bytes(19)])]) == 1
    assert links(plain) == set()


def test_names_on_a_plain_driver_are_looked_for_first(plain: Network) -> None:
    with Adapter.create("tp%d", netns=plain.path), Adapter.create("tp%d", netns=plain.path) as second:
        assert second.name == "tp1"
        for name in ("tp0", "lo"):
            with pytest.raises(threepipe.NameTaken, match=f"{name} exists; choose another name") as caught:
                Adapter.create(name, netns=plain.path)
            assert caught.value.errno == errno.EBUSY
    assert links(plain) == set()


@pytest.mark.parametrize("settings", [{"queues": 2}, {"persistent": True}])
def test_settings_that_a_plain_driver_lacks_raise_and_leave_nothing(plain: Network, settings: dict[str, Any]) -> None:
    with pytest.raises(threepipe.AdapterUnavailable, match=f"plain TUN driver.*leave out {next(iter(settings))}"):
        Adapter.create("tp0", netns=plain.path, **settings)
    assert links(plain) == set()


def test_doctor_says_what_a_plain_driver_lacks(plain: Network) -> None:
    found = {finding.name: finding for finding in plain.namespace.run(probe.probe)}
    assert found["adapters"].ok
    assert not found["TUN driver"].ok
    assert "superpackets, several queues, persistent adapters and a carrier" in found["TUN driver"].detail


def test_a_refusal_that_cannot_be_read_raises(plain: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise struct.error

    with Adapter.create("tp0", netns=plain.path) as adapter:
        with monkeypatch.context() as patch:
            patch.setattr(PlainRoute, "link", refuse, raising=False)
            with pytest.raises(threepipe.AdapterError, match="refused a setting of tp0") as caught:
                adapter.mtu = 1400
        assert caught.value.errno == errno.EOPNOTSUPP
        with monkeypatch.context() as patch:
            patch.setattr(PlainRoute, "addr", refuse)
            with pytest.raises(threepipe.AdapterError, match="Operation not supported"):
                adapter.add_address("10.6.7.1/24")


PROGRAM = """
import socket
from threepipe import Adapter, echo
with Adapter.create("tp%d", addresses=["10.6.7.1/24", "fd00::1/64"], routes=["10.77.0.0/16"], mtu=1400) as adapter:
    with adapter.start_session() as session:
        for own, other in (("10.6.7.1", "10.77.0.2"), ("fd00::1", "fd00::2")):
            family = socket.AF_INET6 if ":" in own else socket.AF_INET
            with socket.socket(family, socket.SOCK_DGRAM) as sock:
                sock.sendto(b"hello", (other, 9))
            while b"hello" not in (packet := bytes(session.receive_packet(timeout=30))):
                assert packet
    print(adapter.name, adapter.mtu)
"""


@pytest.mark.skipif(not shutil.which("runsc"), reason="there is no runsc (gVisor), such as bookworm-backports has")
def test_an_adapter_works_in_gvisor(network: Network) -> None:
    order = ["runsc", "--rootless", "--network=none", "--ignore-cgroups", "do", sys.executable, "-c"]
    before = f"import sys; sys.path[:0] = [{str(REPOSITORY / 'src')!r}]\n"
    assert network.run(*order, before + PROGRAM) == "tp0 1400\n"
