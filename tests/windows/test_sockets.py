"""UDP sockets on Windows: runs of datagrams in one call, over a fake socket that segments as Windows does."""

import errno
import socket
import sys
from collections.abc import Sequence
from typing import Any

import pytest

from threepipe.errors import EndpointError
from threepipe.net.datagrams import Datagrams
from threepipe.platforms.windows import sockets
from threepipe.platforms.windows.sockets import (
    IP_UNICAST_IF,
    IPV6_UNICAST_IF,
    UDP_SEND_MSG_SIZE,
    WindowsDatagrams,
    bind_to_interface,
    enlarge_buffers,
    mark_socket,
    open_datagrams,
)

pytestmark = pytest.mark.windows

TARGET = ("192.0.2.1", 4242)
ROOM = 1472  # Bytes of payload in 1500 over IPv4.


class CuttingSocket:
    """A socket that segments sent data at UDP_SEND_MSG_SIZE, if that is not 0, as Windows does.

    `known`: True if the system has that option. `refusing`: the error of a run with segments longer than `takes`.
    `room`: the number of calls that find room.
    """

    family = socket.AF_INET

    def __init__(self, known: bool = True, refusing: int = 0, takes: int = 0, room: int = 1000) -> None:
        self.datagrams: list[tuple[bytes, Any]] = []
        self.calls = 0
        self.options: dict[tuple[int, int], int] = {}
        self.changes: list[int] = []
        self._known, self._refusing, self._takes, self._room = known, refusing, takes, room

    def setblocking(self, flag: bool) -> None:
        assert not flag

    def setsockopt(self, level: int, option: int, value: int) -> None:
        if (level, option) == (socket.IPPROTO_UDP, UDP_SEND_MSG_SIZE):
            if not self._known:
                raise OSError(errno.ENOPROTOOPT, "unknown option")
            self.changes.append(value)
        self.options[level, option] = value

    def send(self, data: memoryview) -> None:
        self.sendto(data, None)

    def sendto(self, data: memoryview, target: Any) -> None:
        if self.calls == self._room:
            raise BlockingIOError(errno.EWOULDBLOCK, "no room")
        segment = self.options.get((socket.IPPROTO_UDP, UDP_SEND_MSG_SIZE), 0) or len(data)
        if segment < len(data) and self._refusing and segment > self._takes:
            raise OSError(self._refusing, "no such runs")
        self.calls += 1
        for start in range(0, len(data), segment):
            self.datagrams.append((bytes(data[start : start + segment]), target))


def packets(*sizes: int) -> list[memoryview]:
    return [memoryview(bytes([number % 251]) * size) for number, size in enumerate(sizes)]


def sent(opened: CuttingSocket, given: Sequence[memoryview], target: Any = TARGET) -> list[bytes]:
    """Send with a new `WindowsDatagrams`, check that it reports all as sent, and return the datagrams."""
    bound: Any = opened
    assert WindowsDatagrams(bound).send(given, target) == (len(given), 0)
    assert {to for _, to in opened.datagrams} <= {target}
    return [data for data, _ in opened.datagrams]


@pytest.mark.parametrize("target", [TARGET, None])
def test_a_run_of_equal_datagrams_is_one_call(target: Any) -> None:
    opened, given = CuttingSocket(), packets(*[1400] * 44, 300)
    assert sent(opened, given, target) == given
    assert (opened.calls, opened.changes) == (1, [0, 1400])


@pytest.mark.parametrize(
    ("sizes", "calls", "changes"),
    [
        ([1400] * 100, 3, [0, 1400]),  # Runs of 46: that many fit in 65000 bytes.
        ([40] * 130, 3, [0, 40]),  # Runs of 64.
        ([100, 200], 2, [0]),
        ([200, 200, 100, 100], 2, [0, 200]),
        ([200, 200, 150, 201], 2, [0, 200, 0]),  # The last datagram would be segmented if it went alone.
        ([200, 200, 1400, 1400], 2, [0, 200, 1400]),
        ([ROOM, ROOM], 1, [0, ROOM]),
        ([ROOM + 1, ROOM + 1], 2, [0]),  # These datagrams may be fragmented.
        ([9000, 60, 60, 9000], 3, [0, 60, 0]),
    ],
)
def test_datagrams_of_every_size_arrive_unchanged(sizes: list[int], calls: int, changes: list[int]) -> None:
    opened, given = CuttingSocket(), packets(*sizes)
    assert sent(opened, given) == given
    assert (opened.calls, opened.changes) == (calls, changes)


def test_datagrams_without_segmentation_support_go_one_by_one() -> None:
    opened, given = CuttingSocket(known=False), packets(*[1400] * 10)
    assert sent(opened, given) == given
    assert opened.calls == 10


@pytest.mark.parametrize("code", [errno.EINVAL, errno.EMSGSIZE, errno.EOPNOTSUPP])
def test_datagrams_after_a_rejected_run_go_one_by_one(code: int) -> None:
    opened, given = CuttingSocket(refusing=code), packets(*[1400] * 10, 1472, 1472)
    assert sent(opened, given) == given
    assert opened.calls == 12


def test_runs_of_smaller_segments_continue_after_a_rejection() -> None:
    opened, given = CuttingSocket(refusing=errno.EMSGSIZE, takes=1000), packets(*[1400] * 10, *[1000] * 10)
    assert sent(opened, given) == given
    assert opened.calls == 11


def test_send_without_room_returns_the_count_sent() -> None:
    bound: Any = CuttingSocket(room=1)
    given = packets(*[1400] * 46, *[1400] * 46)
    assert WindowsDatagrams(bound).send(given, TARGET) == (46, 0)
    assert [data for data, _ in bound.datagrams] == given[:46]


def test_an_error_of_single_datagrams_is_returned() -> None:
    bound: Any = CuttingSocket(refusing=errno.ECONNRESET)
    assert WindowsDatagrams(bound).send(packets(1400, 1400), TARGET) == (0, errno.ECONNRESET)


def test_enlarge_buffers_sets_both_sizes() -> None:
    bound: Any = CuttingSocket()
    enlarge_buffers(bound)
    assert bound.options == {(socket.SOL_SOCKET, option): 1 << 22 for option in (socket.SO_RCVBUF, socket.SO_SNDBUF)}


def test_a_socket_that_is_not_udp_is_unchanged() -> None:
    bound: Any = CuttingSocket()
    bound.family = 1  # AF_UNIX
    assert type(open_datagrams(bound)) is Datagrams
    assert bound.options == {}


RUN = memoryview(bytes(range(100)) * 3)[:250]


def datagrams(opened: CuttingSocket) -> WindowsDatagrams:
    bound: Any = opened
    return WindowsDatagrams(bound)


def test_a_contiguous_run_is_one_call() -> None:
    opened = CuttingSocket()
    assert datagrams(opened).send_run(RUN, 100, TARGET) == 250
    assert opened.calls == 1
    assert [len(data) for data, _ in opened.datagrams] == [100, 100, 50]
    assert datagrams(opened).send_run(RUN, 250, None) == 250
    assert opened.datagrams[-1] == (bytes(RUN), None)


def test_a_contiguous_run_without_room_sends_nothing() -> None:
    assert datagrams(CuttingSocket(room=0)).send_run(RUN, 100, TARGET) == 0


def test_a_rejected_contiguous_run_goes_one_by_one() -> None:
    opened = CuttingSocket(refusing=errno.EINVAL, room=2)
    refused = datagrams(opened)
    assert refused.send_run(RUN, 100, TARGET) == 200
    assert refused.longest_segment == 99
    assert [len(data) for data, _ in opened.datagrams] == [100, 100]


def test_a_contiguous_run_to_an_unreachable_target_raises() -> None:
    with pytest.raises(OSError, match="no such runs") as caught:
        datagrams(CuttingSocket(refusing=errno.ENETUNREACH)).send_run(RUN, 100, TARGET)
    assert caught.value.errno == errno.ENETUNREACH


def test_a_mark_on_windows_raises() -> None:
    datagrams(CuttingSocket()).mark(0)
    with pytest.raises(EndpointError, match="leave out the fwmark"):
        datagrams(CuttingSocket()).mark(7)


class Interfaces:
    """An IP Helper of one interface."""

    def luid_of(self, alias: str) -> int | None:
        return 0x6000000000000 if alias == "Wi-Fi" else None

    def index_of(self, luid: int) -> int:
        return 0x0102


class OptionSocket:
    """A socket that keeps its options; `lacking`: the levels that it does not have."""

    def __init__(self, family: int, lacking: tuple[int, ...] = ()) -> None:
        self.family = family
        self.options: list[tuple[int, int, bytes]] = []
        self._lacking = lacking

    def setsockopt(self, level: int, option: int, value: bytes) -> None:
        if level in self._lacking:
            raise OSError(errno.EINVAL, "no such level")
        self.options.append((level, option, value))


IPV4_INDEX = (socket.IPPROTO_IP, IP_UNICAST_IF, b"\0\0\1\2")  # In network byte order.
IPV6_INDEX = (socket.IPPROTO_IPV6, IPV6_UNICAST_IF, (0x0102).to_bytes(4, sys.byteorder))


@pytest.mark.parametrize(
    ("family", "lacking", "expected"),
    [
        (socket.AF_INET, (), [IPV4_INDEX]),
        (socket.AF_INET6, (), [IPV6_INDEX, IPV4_INDEX]),
        (socket.AF_INET6, (socket.IPPROTO_IP,), [IPV6_INDEX]),
    ],
)
def test_an_interface_is_set_by_its_index(
    monkeypatch: pytest.MonkeyPatch, family: int, lacking: tuple[int, ...], expected: list[tuple[int, int, bytes]]
) -> None:
    monkeypatch.setattr(sockets, "system", Interfaces)
    opened: Any = OptionSocket(family, lacking)
    bind_to_interface(opened, "Wi-Fi")
    assert opened.options == expected


def test_an_interface_that_is_missing_or_refused_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets, "system", Interfaces)
    opened: Any = OptionSocket(socket.AF_INET, (socket.IPPROTO_IP,))
    with pytest.raises(EndpointError, match=r"interface Ethernet: there is none of that name; see Get-NetAdapter"):
        bind_to_interface(opened, "Ethernet")
    with pytest.raises(EndpointError, match=r"interface Wi-Fi: no such level"):
        bind_to_interface(opened, "Wi-Fi")


def test_a_mark_of_a_socket_is_refused() -> None:
    opened: Any = OptionSocket(socket.AF_INET)
    with pytest.raises(EndpointError, match="Windows marks no packets"):
        mark_socket(opened, 1)
