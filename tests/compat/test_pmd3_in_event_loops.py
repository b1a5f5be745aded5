"""The stand-in for pytun-pmd3 in event loops: waiting for packets, and packets too long to be gathered."""

import asyncio
import errno
import selectors
import socket
import sys
from collections.abc import Iterator

import pytest

from tests.support.kernel import Network
from threepipe.compat.pytun_pmd3 import TunTapDevice

if sys.platform != "linux":
    pytest.skip(f"{sys.platform} has no TUN device of this sort", allow_module_level=True)

pytestmark = pytest.mark.kernel

INFORMATION = b"\0\0\x86\xdd"
NEAR, FAR = "fd08::1", "fd08::2"
MTU = 16000


@pytest.fixture
def tun(network: Network) -> Iterator[TunTapDevice]:
    with network.namespace.run(lambda: TunTapDevice("pt0")) as device:
        device.addr, device.mtu = NEAR, MTU
        device.up()
        yield device


@pytest.fixture
def program(network: Network, tun: TunTapDevice) -> Iterator[socket.socket]:
    """A program on this side of the device."""
    with network.namespace.run(lambda: socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)) as endpoint:
        endpoint.settimeout(20)
        endpoint.bind((NEAR, 5000))
        yield endpoint


async def read(tun: TunTapDevice, count: int) -> list[int]:
    """Return the number in each datagram of `count` that the program sent."""
    numbers: list[int] = []
    async with asyncio.timeout(20):
        while len(numbers) < count:
            numbers += numbers_of(await tun.async_read_batch())
    return numbers


def numbers_of(packets: list[bytes]) -> list[int]:
    return [packet[48] for packet in packets if packet[6] == socket.IPPROTO_UDP]


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def send(program: socket.socket, number: int) -> None:
    program.sendto(bytes([number]), (FAR, 5000))


def datagram(number: int, size: int) -> bytes:
    """Return a datagram of `size` bytes to the program, behind packet information."""
    ends = socket.inet_pton(socket.AF_INET6, FAR) + socket.inet_pton(socket.AF_INET6, NEAR)
    udp = bytes.fromhex("13881388") + (size - 40).to_bytes(2, "big")
    data = bytes([number]) + bytes(size - 49)
    pseudo = ends + (size - 40).to_bytes(4, "big") + b"\0\0\0\x11" + udp + b"\0\0" + data + b"\0" * (size % 2)
    checksum = -sum(int.from_bytes(pseudo[at : at + 2], "big") for at in range(0, len(pseudo), 2)) % 0xFFFF
    header = b"\x60\0\0\0" + (size - 40).to_bytes(2, "big") + b"\x11\x40"
    return INFORMATION + header + ends + udp + checksum.to_bytes(2, "big") + data


@pytest.mark.parametrize("later", range(5))
def test_a_reader_that_is_cancelled_loses_no_packet(tun: TunTapDevice, program: socket.socket, later: int) -> None:
    async def cancel_and_read() -> list[int]:
        reader = asyncio.create_task(tun.async_read_batch())
        await turns(2)
        send(program, 1)
        await turns(later)
        reader.cancel()
        await asyncio.wait([reader])
        numbers = [] if reader.cancelled() else numbers_of(reader.result())
        return numbers or await read(tun, 1)

    assert asyncio.run(cancel_and_read()) == [1]


def test_tasks_that_read_at_once_all_get_packets(tun: TunTapDevice, program: socket.socket) -> None:
    async def read_twice() -> list[int]:
        readers = {asyncio.create_task(read(tun, 1)) for _ in range(2)}
        numbers = []
        for number in range(2):
            await turns(2)
            send(program, number)
            done, readers = await asyncio.wait(readers, return_when=asyncio.FIRST_COMPLETED)
            numbers += [number for task in done for number in task.result()]
        return numbers

    assert asyncio.run(read_twice()) == [0, 1]


def test_a_loop_whose_tasks_do_not_read_stops_watching(tun: TunTapDevice, program: socket.socket) -> None:
    async def read_then_leave(selector: selectors.BaseSelector) -> list[object]:
        watched = len(selector.get_map())
        reader = asyncio.create_task(read(tun, 1))
        await turns(5)
        seen: list[object] = [len(selector.get_map()) - watched]
        send(program, 1)
        seen += [await reader]
        send(program, 2)
        await turns(5)
        return [*seen, len(selector.get_map()) - watched, await read(tun, 1)]

    selector = selectors.DefaultSelector()
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selector)) as runner:
        assert runner.run(read_then_leave(selector)) == [1, [1], 0, [2]]


def test_a_reader_is_told_that_the_device_goes_down_or_is_closed(tun: TunTapDevice, program: socket.socket) -> None:
    async def code_of_read(end: str) -> int | None:
        reader = asyncio.create_task(tun.async_read_batch())
        while not reader.done():
            await turns(2)
            getattr(tun, end)()
            await asyncio.wait([reader], timeout=20)
            reader = reader if reader.exception() else asyncio.create_task(tun.async_read_batch())
        error = reader.exception()
        assert isinstance(error, TunTapDevice.Error)
        return error.errno

    async def come_and_go() -> list[object]:
        seen: list[object] = [await code_of_read("down")]
        tun.up()
        send(program, 3)
        return [*seen, await read(tun, 1), await code_of_read("close")]

    assert asyncio.run(come_and_go()) == [errno.ENETDOWN, [3], errno.EBADF]


def test_long_packets_go_at_once_and_behind_those_that_were_gathered(tun: TunTapDevice, program: socket.socket) -> None:
    async def write() -> list[int]:
        for number, size in enumerate([100, MTU, 100, 100, MTU - 1]):
            data = datagram(number, size)
            assert tun.write(data) == len(data)
        program.setblocking(False)  # All have arrived before the loop's next turn.
        numbers = [program.recv(MTU)[0] for _ in range(5)]
        tun.write(datagram(5, 100))
        with pytest.raises(BlockingIOError):
            program.recv(MTU)
        await turns(2)
        return [*numbers, program.recv(MTU)[0]]

    assert asyncio.run(write()) == list(range(6))


def test_a_long_packet_that_cannot_be_sent_is_refused_at_once(network: Network, tun: TunTapDevice) -> None:
    async def codes() -> list[object]:
        long, seen = datagram(1, MTU), list[object]()
        for data in (INFORMATION + bytes(MTU), bytes(MTU), long):
            if data is long:
                network.run("ip", "link", "set", "pt0", "down")
            with pytest.raises(TunTapDevice.Error) as caught:
                tun.write(data)
            seen += [caught.value.errno]
        return seen

    assert asyncio.run(codes()) == [errno.EINVAL, errno.EINVAL, errno.EIO]
