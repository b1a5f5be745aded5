"""The stand-ins for python-pytun and pytun-pmd3: programs written for these see the same with either."""

import asyncio
import contextlib
import errno
import importlib
import importlib.util
import os
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.forks import in_child
from tests.support.kernel import Network, call_elsewhere, links
from threepipe.echo import echo_reply

if sys.platform != "linux":
    pytest.skip(f"{sys.platform} has no TUN device of this sort", allow_module_level=True)

pytestmark = pytest.mark.kernel

PYTUN = ["threepipe.compat.pytun", "pytun"]
PMD3 = ["threepipe.compat.pytun_pmd3", "pytun_pmd3"]
INFORMATION = {4: b"\0\0\x08\x00", 6: b"\0\0\x86\xdd"}


def present(name: str) -> str:
    """Return the name of a module; skip the test if it is not installed."""
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not there; install it")
    return name


def device_of(module: str, *arguments: Any, **named: Any) -> Any:
    """Return a device of one of the modules."""
    return importlib.import_module(module).TunTapDevice(*arguments, **named)


def code_of(call: Callable[[], object]) -> str:
    """Return the name of the errno that a call raises; "" if it raises none."""
    try:
        call()
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error.errno))
    return ""


def swapped(packet: bytes) -> bytes:
    """Return a UDP datagram over IPv4 with addresses and ports swapped."""
    return packet[:12] + packet[16:20] + packet[12:16] + packet[22:24] + packet[20:22] + packet[24:]


def exchange(tun: Any, front: bytes, size: int) -> list[object]:
    """Send a datagram through the device and answer it, as a program with `select` does."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as program:
        program.settimeout(20)
        program.sendto(b"hello", ("10.8.0.2", 5000))
        record = b""
        while record[len(front) :][9:10] != b"\x11" or record[len(front)] != 0x45:
            assert select.select([tun], [], [], 20)[0]
            record = tun.read(size)
        assert select.select([], [tun], [], 20)[1]
        answer = front + swapped(record[len(front) :])
        return [record[: len(front)], len(record), tun.write(answer) - len(answer), program.recv(100)]


def use_pytun(module: str, bare: bool) -> list[object]:
    """Use a device as python-pytun's documentation does, and return everything that can be seen."""
    no_information = importlib.import_module(module).IFF_NO_PI if bare else 0
    tun = device_of(module, name="pt0", flags=importlib.import_module(module).IFF_TUN | no_information)
    seen: list[object] = [tun.name]
    tun.addr = "10.8.0.1"
    seen += [tun.addr, tun.netmask]
    tun.netmask = "255.255.255.0"
    tun.mtu = 1400
    seen += [tun.addr, tun.netmask, tun.mtu]
    tun.up()
    front = b"" if bare else INFORMATION[4]
    seen += exchange(tun, front, tun.mtu + 4)
    seen += [code_of(lambda: tun.write(b"\0" * 40)) if bare else "EINVAL", isinstance(tun.fileno(), int)]
    tun.addr = "10.8.0.9"
    seen += [tun.addr]
    tun.close()
    seen += ["pt0" in os.listdir("/sys/class/net")]
    return seen


@pytest.mark.parametrize("bare", [False, True])
@pytest.mark.parametrize("module", PYTUN)
def test_a_program_for_python_pytun_sees_the_same(network: Network, module: str, bare: bool) -> None:
    front = b"" if bare else INFORMATION[4]
    exchanged = [front, len(front) + 33, 0, b"hello"]
    expected = ["pt0", "10.8.0.1", "255.255.255.255", "10.8.0.1", "255.255.255.0", 1400, *exchanged]
    expected += ["EINVAL", True, "10.8.0.9", False]
    assert call_elsewhere(network, use_pytun, present(module), bare) == expected
    assert links(network) == set()


def point_to_point(module: str) -> list[object]:
    tun = device_of(module, name="pt0")
    tun.addr, tun.dstaddr = "10.8.0.1", "10.8.0.2"
    tun.up()
    seen = [tun.dstaddr, *exchange(tun, INFORMATION[4], 2000)]
    tun.close()
    return seen


@pytest.mark.parametrize("module", PYTUN)
def test_a_destination_address_is_reached(network: Network, module: str) -> None:
    seen = call_elsewhere(network, point_to_point, present(module))
    assert seen == ["10.8.0.2", INFORMATION[4], 37, 0, b"hello"]


def use_pmd3(module: str) -> list[object]:
    """Use a device as programs with pytun-pmd3 do, and return everything that can be seen."""
    tun = device_of(module)
    seen: list[object] = [tun.name]
    tun.mtu = 1400
    subprocess.run(["sysctl", "-qw", f"net.ipv6.conf.{tun.name}.accept_dad=0"], check=True)
    tun.addr = "fd08::1"
    tun.up()
    seen += [tun.mtu, tun.addr, tun.netmask]
    with subprocess.Popen(["ping", "-c", "1", "-w", "20", "fd08::2"], stdout=subprocess.DEVNULL) as ping:
        replies = 0
        while not replies:
            record = tun.read(2000)
            assert record[:4] in INFORMATION.values()
            if reply := echo_reply(record[4:]):
                replies += 1
                seen += [record[:4], tun.write(record[:4] + reply)]
    seen += [ping.returncode]
    tun.close()
    tun.close()
    return seen


@pytest.mark.parametrize("module", PMD3)
def test_a_program_for_pytun_pmd3_sees_the_same(network: Network, module: str) -> None:
    seen = call_elsewhere(network, use_pmd3, present(module))
    assert seen == ["tun0", 1400, "fd08::1", "ffff:ffff:ffff:ffff::", INFORMATION[6], 108, 0]


@contextlib.contextmanager
def made(network: Network, module: str, *arguments: Any) -> Iterator[Any]:
    with network.namespace.run(lambda: device_of(module, *arguments)) as tun:
        yield tun


@pytest.mark.parametrize("module", [PYTUN[0], PMD3[0]])
def test_closing_a_device_wakes_its_reader(network: Network, module: str) -> None:
    with made(network, module, "pt0") as tun:
        tun.up()
        codes: list[str] = []

        def read() -> None:
            while not codes:
                if code := code_of(lambda: tun.read(2000)):
                    codes.append(code)

        reader = threading.Thread(target=read)
        reader.start()
        tun.close()
        reader.join(20)
        assert codes == ["EBADF"]


@pytest.mark.parametrize("module", [PYTUN[0], PMD3[0]])
def test_a_device_that_is_down_refuses_and_comes_up_again(network: Network, module: str) -> None:
    with made(network, module, "pt0") as tun:
        tun.up()
        tun.down()
        assert code_of(lambda: tun.read(2000)) == "ENETDOWN"
        assert code_of(lambda: tun.write(INFORMATION[6] + b"\x60" + bytes(39))) == "ENETDOWN"
        tun.up()
        assert "LOWER_UP" in network.run("ip", "link", "show", "pt0")


@pytest.mark.parametrize("module", [PYTUN[0], PMD3[0]])
def test_what_the_stand_ins_lack_is_refused_with_advice(network: Network, module: str) -> None:
    tap, queues, virtio = 2, 0x101, 0x4001
    for flags in (tap, queues, virtio):
        assert code_of(lambda flags=flags: device_of(module, "pt0", flags)) == "ENOTSUP"  # type: ignore[misc]
    assert code_of(lambda: device_of(module, "pt0", 0)) == "EINVAL"
    assert code_of(lambda: device_of(module, "pt0", 1, "/dev/other")) == "ENOTSUP"
    assert code_of(lambda: device_of(module, "a name that is too long")) == "EINVAL"
    with made(network, module, "pt0") as tun:
        for attribute, value in (("hwaddr", bytes(6)), ("addr", "x"), ("netmask", "255.0.255.0"), ("mtu", 5)):
            assert code_of(lambda a=attribute, v=value: setattr(tun, a, v)) in ("EINVAL", "ENOTSUP"), attribute  # type: ignore[misc]
        for call in (lambda: tun.hwaddr, lambda: tun.addr, lambda: tun.netmask, lambda: tun.dstaddr):
            assert code_of(call) in ("ENOTSUP", "EADDRNOTAVAIL")
        assert (code_of(tun.persist), code_of(lambda: tun.persist(False))) == ("ENOTSUP", "")
        assert (code_of(tun.mq_attach), code_of(lambda: tun.mq_attach(False))) == ("", "ENOTSUP")
        with pytest.raises(ValueError, match="size must be"):
            tun.read(0)


def test_addresses_of_the_other_version_are_refused(network: Network) -> None:
    for module, address in ((PYTUN[0], "fd08::1"), (PMD3[0], "10.8.0.1")):
        with made(network, module, "pt0") as tun:
            assert code_of(lambda tun=tun, address=address: setattr(tun, "addr", address)) == "EINVAL"  # type: ignore[misc]


@pytest.mark.parametrize("module", [PYTUN[0], PMD3[0]])
@pytest.mark.parametrize("attribute", ["addr", "dstaddr"])
def test_an_address_that_is_no_text_is_refused(network: Network, module: str, attribute: str) -> None:
    with made(network, module, "pt0") as tun:
        for value in (5, b"\x0a\x08\x00\x01", None):
            with pytest.raises(TypeError, match=f"{attribute}: give a text"):
                setattr(tun, attribute, value)


@pytest.mark.parametrize("module", [PYTUN[0], PMD3[0]])
def test_in_a_forked_child_the_device_is_closed(network: Network, module: str) -> None:
    with made(network, module, "pt0") as tun:
        tun.up()
        assert in_child(lambda: f"{code_of(lambda: tun.read(9))} {code_of(tun.up)} {tun.close()}") == "EBADF EBADF None"
        assert "LOWER_UP" in network.run("ip", "link", "show", "pt0")


async def carry(tun: Any, near: list[bytes], count: int) -> list[bytes]:
    """Write packets in one turn of the loop, and return as many that are read."""
    for packet in near:
        tun.write(INFORMATION[6] + packet)
    read: list[bytes] = []
    async with asyncio.timeout(20):
        while len(read) < count:
            read += [packet for packet in await tun.async_read_batch() if packet[6] == socket.IPPROTO_UDP]
    return read


def test_packets_of_one_turn_of_the_loop_go_together_and_come_back(network: Network) -> None:
    with made(network, PMD3[0], "pt0") as tun:
        tun.mtu, tun.addr = 1400, "fd08::1"
        tun.up()
        program = network.namespace.run(lambda: socket.socket(socket.AF_INET6, socket.SOCK_DGRAM))
        with program:
            program.settimeout(20)
            program.bind(("fd08::1", 5001))
            for number in range(150):
                program.sendto(number.to_bytes(2, "big"), ("fd08::2", 5000))
            outgoing = asyncio.run(carry(tun, [], 150))
            assert [int.from_bytes(packet[48:50], "big") for packet in outgoing] == list(range(150))
            back = [p[:8] + p[24:40] + p[8:24] + p[42:44] + p[40:42] + p[44:] for p in outgoing]
            before = tun._session.statistics
            program.sendto(b"on", ("fd08::2", 5000))
            asyncio.run(carry(tun, back, 1))
            assert [int.from_bytes(program.recv(100), "big") for _ in range(150)] == list(range(150))
            after = tun._session.statistics
            assert after.sent_packets - before.sent_packets == 150
            assert after.sent_bundles - before.sent_bundles <= 3


def test_an_error_of_gathered_packets_is_raised_by_the_next_write(network: Network) -> None:
    packet = INFORMATION[6] + b"\x60" + bytes(5) + b"\x3b\x40" + bytes(32)

    async def write_twice(tun: Any) -> str:
        assert tun.write(packet) == len(packet)
        await asyncio.sleep(0)
        return code_of(lambda: tun.write(packet))

    with made(network, PMD3[0], "pt0") as tun:
        tun.up()
        network.run("ip", "link", "set", "pt0", "down")
        assert asyncio.run(write_twice(tun)) == "EIO"


def test_single_asynchronous_reads_miss_no_packet(network: Network) -> None:
    async def read(tun: Any, count: int) -> list[int]:
        numbers: list[int] = []
        async with asyncio.timeout(20):
            while len(numbers) < count:
                if (packet := await tun.async_read())[6] == socket.IPPROTO_UDP:
                    numbers.append(packet[48])
        return numbers

    with made(network, PMD3[0], "pt0") as tun:
        tun.addr = "fd08::1"
        tun.up()
        assert not hasattr(tun, "fileno")
        with network.namespace.run(lambda: socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)) as program:
            for number in range(20):
                program.sendto(bytes([number]), ("fd08::2", 5000))
            assert asyncio.run(read(tun, 20)) == list(range(20))


@pytest.mark.parametrize("module", [PYTUN[0], PMD3[0]])
def test_data_that_is_not_a_packet_is_refused(network: Network, module: str) -> None:
    with made(network, module, "pt0") as tun:
        tun.up()
        for data in (b"", INFORMATION[4], INFORMATION[4] + bytes(40), INFORMATION[6] + b"\x60" + bytes(20)):
            assert code_of(lambda data=data: tun.write(data)) == "EINVAL"  # type: ignore[misc]
