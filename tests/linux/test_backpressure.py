"""A kernel that lets packets wait while the ring is full (after Linux 7.2), by a fake of its driver's flag."""

import fcntl
import sys
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.kernel import Network
from threepipe import Adapter
from threepipe.platforms.linux import tun

pytestmark = pytest.mark.kernel

real_ioctl: Callable[..., Any] = fcntl.ioctl


class Driver:
    """The kernel's TUN driver, which says that it knows the flag, or that it does not; notes all flags asked for."""

    def __init__(self, knows: bool) -> None:
        self._knows = knows
        self.asked: list[int] = []

    def ioctl(self, file: Any, request: int, argument: Any = 0) -> Any:
        if request == tun.TUNSETIFF:
            name, flags = tun.IFREQ.unpack(argument)
            self.asked.append(flags)
            return real_ioctl(file, request, tun.IFREQ.pack(name, flags & ~tun.IFF_BACKPRESSURE))
        answer = real_ioctl(file, request, argument)
        if request != tun.TUNGETFEATURES:
            return answer
        features = int.from_bytes(answer, sys.byteorder) & ~tun.IFF_BACKPRESSURE
        return (features | tun.IFF_BACKPRESSURE * self._knows).to_bytes(4, sys.byteorder)

    def asked_for_backpressure(self) -> list[bool]:
        """Return for each attached file whether it asked for backpressure."""
        return [bool(flags & tun.IFF_BACKPRESSURE) for flags in self.asked if flags & tun.IFF_TUN]


@pytest.fixture
def make_driver(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], Driver]:
    def make(knows: bool) -> Driver:
        driver = Driver(knows)
        monkeypatch.setattr("threepipe.platforms.linux.tun.fcntl.ioctl", driver.ioctl)
        return driver

    return make


@pytest.mark.parametrize("offered", [True, False])
@pytest.mark.parametrize("queues", [1, 3])
def test_every_queue_asks_for_backpressure_where_it_is_offered(
    make_driver: Callable[[bool], Driver], network: Network, queues: int, offered: bool
) -> None:
    driver = make_driver(offered)

    with Adapter.create("tp0", netns=network.path, persistent=True, queues=queues):
        pass
    with Adapter.open("tp0", netns=network.path, queues=queues) as adapter:
        adapter.delete()

    asked = driver.asked_for_backpressure()
    assert len(asked) >= 2 * queues
    assert set(asked) == {offered}


def test_adapter_without_offload_asks_for_backpressure_too(
    make_driver: Callable[[bool], Driver], network: Network
) -> None:
    driver = make_driver(True)

    with Adapter.create("tp0", netns=network.path, offload=False):
        pass

    assert driver.asked_for_backpressure() == [True]
