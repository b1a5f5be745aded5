"""UDP sockets on Linux: local addresses, ECN and errors."""

import errno
import socket
import sys

import pytest

if sys.platform != "linux":
    pytest.skip("other systems do not report local addresses", allow_module_level=True)

from tests.support.frames import UDP4, frame
from tests.support.sessions import readable
from threepipe.bundle import Bundle
from threepipe.endpoints.datagram_port import DatagramPort
from threepipe.endpoints.request import RateLimitedLog
from threepipe.platforms.linux.sockets import LinuxDatagrams

HOSTS = pytest.mark.parametrize(
    ("family", "host", "elsewhere"),
    [(socket.AF_INET, "127.0.0.1", "203.0.113.9"), (socket.AF_INET6, "::1", "2001:db8::9")],
    ids=["ipv4", "ipv6"],
)


def bound(family: socket.AddressFamily, host: str) -> socket.socket:
    opened = socket.socket(family, socket.SOCK_DGRAM)
    opened.bind((host, 0))
    opened.settimeout(10)
    return opened


@HOSTS
def test_a_received_run_reports_its_local_address(family: socket.AddressFamily, host: str, elsewhere: str) -> None:
    with bound(family, host) as asked, bound(family, host) as asker:
        datagrams = LinuxDatagrams(asked)
        datagrams.report_local_addresses()
        asker.sendto(b"asked", asked.getsockname())
        assert datagrams.receive_run(memoryview(bytearray(0xFFFF)))[:2] == (5, 5)
        assert datagrams.received_local == socket.inet_pton(family, host)
        datagrams.send_local = datagrams.received_local
        assert datagrams.send_run(memoryview(b"answer"), 3, asker.getsockname()) == 6
        assert [asker.recvfrom(10) for _ in range(2)] == [(data, asked.getsockname()) for data in (b"ans", b"wer")]
        assert datagrams.send_local == datagrams.received_local


@HOSTS
@pytest.mark.parametrize("size", [300, 100], ids=["one", "a-run"])
def test_a_run_from_a_local_address_that_is_gone_is_sent_from_another(
    family: socket.AddressFamily, host: str, elsewhere: str, size: int
) -> None:
    with bound(family, host) as receiver, bound(family, host) as sender:
        datagrams = LinuxDatagrams(sender)
        longest = datagrams.longest_segment
        datagrams.send_local = socket.inet_pton(family, elsewhere)
        assert datagrams.send_run(memoryview(bytes(300)), size, receiver.getsockname()) == 300
        assert [len(receiver.recv(1000)) for _ in range(300 // size)] == [size] * (300 // size)
        assert datagrams.send_local is None
        assert datagrams.longest_segment == longest  # The failure was not due to the length of the run.


@HOSTS
@pytest.mark.parametrize("sent_from_known", [False, True], ids=["", "from-a-known-address"])
@pytest.mark.parametrize("size", [300, 100], ids=["one", "a-run"])
def test_a_run_arrives_with_the_ecn_field_it_was_sent_with(
    family: socket.AddressFamily, host: str, elsewhere: str, size: int, sent_from_known: bool
) -> None:
    with bound(family, host) as asked, bound(family, host) as asker:
        sender, receiver = LinuxDatagrams(asker), LinuxDatagrams(asked)
        receiver.report_ecn()
        receiver.report_local_addresses()
        sender.send_local = socket.inet_pton(family, host) if sent_from_known else None
        for ecn in (3, 1, 0, 2):
            sender.send_ecn = ecn
            assert sender.send_run(memoryview(bytes(300)), size, asked.getsockname()) == 300
            taken = 0
            while taken < 300:
                used, _, _ = receiver.receive_run(memoryview(bytearray(0xFFFF)))
                assert receiver.received_ecn == ecn
                taken += used
            assert receiver.received_local == socket.inet_pton(family, host)
        assert sender.longest_segment >= 300


@HOSTS
def test_a_run_with_ecn_from_a_local_address_that_is_gone_keeps_it(
    family: socket.AddressFamily, host: str, elsewhere: str
) -> None:
    with bound(family, host) as asked, bound(family, host) as asker:
        sender, receiver = LinuxDatagrams(asker), LinuxDatagrams(asked)
        receiver.report_ecn()
        sender.send_local, sender.send_ecn = socket.inet_pton(family, elsewhere), 3
        assert sender.send_run(memoryview(bytes(300)), 300, asked.getsockname()) == 300
        assert receiver.receive_run(memoryview(bytearray(0xFFFF)))[0] == 300
        assert receiver.received_ecn == 3
        assert sender.send_local is None


def test_an_error_that_was_raised_elsewhere_keeps_no_port_readable() -> None:
    with bound(socket.AF_INET, "127.0.0.1") as sender:
        with bound(socket.AF_INET, "127.0.0.1") as gone:
            nobody = gone.getsockname()
        port = DatagramPort(LinuxDatagrams(sender), RateLimitedLog("udp:x"), peer=nobody)
        port.send(Bundle([frame(UDP4, b"data")]))
        port.readable.wait(10.0)
        assert sender.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED
        assert readable(port.readable)
        assert not port.receive()
        assert not readable(port.readable)
        port.wake()
        port.dispose()
