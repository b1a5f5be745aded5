"""Marks and interfaces of sockets on macOS and the BSDs, over a fake socket."""

import errno
import socket
import sys
from typing import Any

import pytest

import threepipe
from threepipe.platforms.bsd.sockets import bind_to_interface, mark_socket


class Socket:
    """A socket that keeps its options, or refuses them."""

    def __init__(self, family: int = socket.AF_INET, error: int = 0) -> None:
        self.family = family
        self.options: list[tuple[int, int, Any]] = []
        self._error = error

    def setsockopt(self, level: int, option: int, value: Any) -> None:
        if self._error:
            raise OSError(self._error, "refused")
        self.options.append((level, option, value))


def on(monkeypatch: pytest.MonkeyPatch, system: str) -> None:
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(socket, "if_nametoindex", {"em0": 3}.__getitem__)


@pytest.mark.parametrize(("system", "option"), [("freebsd14", 0x1015), ("openbsd7", 0x1021)])
def test_a_mark_is_the_option_of_the_system(monkeypatch: pytest.MonkeyPatch, system: str, option: int) -> None:
    on(monkeypatch, system)
    opened: Any = Socket()
    mark_socket(opened, 0x80000001)
    ((level, number, value),) = opened.options
    assert (level, number) == (socket.SOL_SOCKET, option)
    assert int.from_bytes(value, sys.byteorder) == 0x80000001
    refusing: Any = Socket(error=errno.EPERM)
    with pytest.raises(threepipe.EndpointError, match="mark 5: refused; run as root") as raised:
        mark_socket(refusing, 5)
    assert raised.value.errno == errno.EPERM


@pytest.mark.parametrize("system", ["darwin", "netbsd10"])
def test_a_system_without_marks_says_so(monkeypatch: pytest.MonkeyPatch, system: str) -> None:
    on(monkeypatch, system)
    opened: Any = Socket()
    with pytest.raises(threepipe.EndpointError, match="this system marks no packets"):
        mark_socket(opened, 5)


@pytest.mark.parametrize(
    ("family", "expected"),
    [(socket.AF_INET, (socket.IPPROTO_IP, 25, 3)), (socket.AF_INET6, (socket.IPPROTO_IPV6, 125, 3))],
)
def test_macos_binds_to_the_index_of_an_interface(
    monkeypatch: pytest.MonkeyPatch, family: int, expected: tuple[int, int, int]
) -> None:
    on(monkeypatch, "darwin")
    opened: Any = Socket(family)
    bind_to_interface(opened, "em0")
    assert opened.options == [expected]
    refusing: Any = Socket(family, errno.ENXIO)
    with pytest.raises(threepipe.EndpointError, match="interface em0: refused; check its name"):
        bind_to_interface(refusing, "em0")


@pytest.mark.parametrize("system", ["freebsd14", "openbsd7", "netbsd10"])
def test_a_system_that_binds_to_no_interface_says_what_to_do(monkeypatch: pytest.MonkeyPatch, system: str) -> None:
    on(monkeypatch, system)
    opened: Any = Socket()
    with pytest.raises(threepipe.EndpointError, match="leave out interface=, and set a route instead"):
        bind_to_interface(opened, "em0")
