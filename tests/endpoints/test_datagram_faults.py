"""Warnings of endpoints over datagrams: wrong datagrams, errors, and their own datagrams that come back."""

import errno
import re
import socket
import sys
from collections.abc import Sequence
from contextlib import ExitStack

import pytest

import threepipe
from tests.support.endpoints import SECONDS, here, opened, packet, received, unix
from threepipe.endpoints.datagram_port import DatagramPort
from threepipe.endpoints.request import RateLimitedLog
from threepipe.net.datagrams import Datagrams, Source

IPV6 = b"\x60".ljust(60, b"\x01")
ADDRESSES = bytes(range(12))  # Of Ethernet.

WRONG = {
    "packet information, IPv4": (b"\0\0\x08\0" + packet(1), "give iff-no-pi"),
    "packet information, IPv6": (b"\0\0\x86\xdd" + IPV6, "give iff-no-pi"),
    "packet information, another version": (b"\0\0\x86\xdd" + packet(1), "another program that sends bare IP packets"),
    "a frame, IPv4": (ADDRESSES + b"\x08\0" + packet(1), "an Ethernet frame (IPv4); use a TUN device there"),
    "a frame, IPv6": (ADDRESSES + b"\x86\xdd" + IPV6, "an Ethernet frame (IPv6)"),
    "a frame, ARP": (ADDRESSES + b"\x08\x06" + bytes(28), "an Ethernet frame (ARP)"),
    "a frame, VLAN": (ADDRESSES + b"\x81\0\0\x07\x08\0" + packet(1), "an Ethernet frame (VLAN)"),
    "a frame of no packet": (ADDRESSES + b"\x08\0" + b"hello", "check that"),
    "something else": (b"hello", "datagram of 5 bytes that is not an IP packet (68 65 6c 6c 6f); check that"),
    "something long": (bytes(30), f"({' '.join(['00'] * 20)} ...); check that"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_datagram_without_a_packet_is_shown_and_explained(
    stack: ExitStack, caplog: pytest.LogCaptureFixture, what: str
) -> None:
    place = here()
    listener = opened(stack, f"udp-listen:{place}")
    sender = plain_socket(stack)
    data, explanation = WRONG[what]
    for each in (data, packet(1)):
        sender.sendto(each, parts(place))
    assert received(listener, 1) == [packet(1)]
    (line,) = warnings(caplog)
    assert f"sent a datagram of {len(data)} bytes that is not an IP packet ({data[:5].hex(' ')}" in line
    assert explanation in line


def plain_socket(stack: ExitStack) -> socket.socket:
    plain = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    plain.bind(("127.0.0.1", 0))
    plain.settimeout(SECONDS)
    return plain


def parts(place: str) -> tuple[str, int]:
    host, _, port = place.partition(":")
    return host, int(port)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]


def test_an_empty_datagram_is_a_probe_and_changes_nothing(stack: ExitStack, caplog: pytest.LogCaptureFixture) -> None:
    place = here()
    listener = opened(stack, f"udp-listen:{place}")
    peer, prober = plain_socket(stack), plain_socket(stack)
    peer.sendto(packet(1), parts(place))
    for _ in range(3):
        prober.sendto(b"", parts(place))
    peer.sendto(packet(2), parts(place))
    assert received(listener, 2) == [packet(1), packet(2)]
    assert listener.send([packet(3)]) == 1
    assert peer.recv(1000) == packet(3)
    assert listener.statistics[:2] == (2, 200)
    assert not warnings(caplog)


@unix
def test_an_empty_datagram_on_a_descriptor_is_a_probe(stack: ExitStack, caplog: pytest.LogCaptureFixture) -> None:
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    stack.enter_context(far)
    session = opened(stack, f"fd:{near.detach()}")
    for each in (b"", packet(1), b"", packet(2), b""):
        far.send(each)
    assert received(session, 2) == [packet(1), packet(2)]
    assert not session.receive(0.01)
    assert not warnings(caplog)


def test_a_caller_says_nothing_of_strangers(stack: ExitStack, caplog: pytest.LogCaptureFixture) -> None:
    peer, other, place = plain_socket(stack), plain_socket(stack), here()
    caller = opened(stack, f"udp:127.0.0.1:{peer.getsockname()[1]},bind={place}")
    other.sendto(packet(1), parts(place))
    peer.sendto(packet(2), parts(place))
    assert received(caller, 1) == [packet(2)]
    assert not warnings(caplog)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have one loopback address")
def test_a_caller_explains_a_peer_that_answers_from_another_address(
    stack: ExitStack, caplog: pytest.LogCaptureFixture
) -> None:
    peer, place = plain_socket(stack), here()
    port = peer.getsockname()[1]
    caller = opened(stack, f"udp:127.0.0.1:{port},bind={place}")
    elsewhere = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    elsewhere.bind(("127.0.0.2", port))
    elsewhere.sendto(packet(1), parts(place))
    peer.sendto(packet(2), parts(place))
    assert received(caller, 1) == [packet(2)]
    (line,) = warnings(caplog)
    assert f"127.0.0.2 port {port} sent a datagram" in line
    assert "bind its end to that address" in line


class Refusing(Datagrams):
    """A socket whose system refuses to send."""

    def __init__(self, bound: socket.socket, error: int) -> None:
        super().__init__(bound)
        self._error = error

    def send(self, packets: Sequence[memoryview], target: Source) -> tuple[int, int]:
        return 0, self._error


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (errno.EPERM, "a firewall on this machine forbids it; allow UDP .* for output"),
        (errno.ENETUNREACH, "this machine has no route there; check its network"),
        (errno.EHOSTUNREACH, "there is no way to that host"),
        (errno.EADDRNOTAVAIL, "the address to send from is not one of this machine .*check bind="),
        (errno.ENETDOWN, "the interface there is down; take it up"),
        (errno.EACCES, "this machine forbids it: the address is a broadcast address, or a route"),
        (errno.EIO, r"(?i)input.output error \(EIO\)"),
        (99_999, r"\(error 99999\)"),
    ],
)
def test_an_error_of_sending_is_a_sentence(
    stack: ExitStack, caplog: pytest.LogCaptureFixture, error: int, sentence: str
) -> None:
    peer = plain_socket(stack)
    refusing = Refusing(plain_socket(stack), error)
    session = threepipe.Session(DatagramPort(refusing, RateLimitedLog("udp:x"), peer=peer.getsockname()))
    stack.callback(session.close)
    with pytest.raises(threepipe.LinkDown, match=sentence) as raised:
        session.send([packet(1)])
    assert raised.value.errno == error
    (line,) = warnings(caplog)
    assert line.startswith("udp:x: packets cannot be delivered: ")
    assert re.search(sentence, line)


def own_datagram(source: tuple[str, int], target: tuple[str, int], inner: bytes) -> bytes:
    """Return the datagram of `inner`, as a packet."""
    family, head = (
        (socket.AF_INET6, b"\x60\0\0\0" + (8 + len(inner)).to_bytes(2, "big") + b"\x11\x40")
        if ":" in source[0]
        else (socket.AF_INET, b"\x45\0" + (28 + len(inner)).to_bytes(2, "big") + b"\0\0\x40\0\x40\x11\0\0")
    )
    udp = b"".join(number.to_bytes(2, "big") for number in (source[1], target[1], 8 + len(inner), 0))
    return head + socket.inet_pton(family, source[0]) + socket.inet_pton(family, target[0]) + udp + inner


@pytest.mark.parametrize("loopback", ["127.0.0.1", "::1"])
def test_datagrams_that_come_back_are_dropped_and_explained(
    stack: ExitStack, caplog: pytest.LogCaptureFixture, loopback: str
) -> None:
    family = socket.AF_INET6 if ":" in loopback else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as peer:
        peer.bind((loopback, 0))
        peer.settimeout(SECONDS)
        target = peer.getsockname()[:2]
        caller = opened(stack, f"udp:{f'[{loopback}]' if family == socket.AF_INET6 else loopback}:{target[1]}")
        assert caller.send([packet(1)]) == 1
        data, (_, port, *_) = peer.recvfrom(1000)
        assert data == packet(1)
        comes_back = own_datagram(("fd00::1" if ":" in loopback else "10.0.0.1", port), target, packet(1))
        with pytest.raises(threepipe.LinkDown, match="come back to be sent again"):
            caller.send([comes_back, comes_back])
        assert caller.statistics.sent_dropped == 2
        others = [
            own_datagram((loopback, port ^ 1), target, packet(2)),
            own_datagram((loopback, port), (loopback, target[1] ^ 1), packet(3)),
            with_protocol(comes_back, socket.IPPROTO_TCP),
        ]
        assert caller.send([comes_back, others[0], comes_back, *others[1:]]) == 5
        assert [peer.recv(1000) for _ in others] == others
    (line,) = warnings(caplog)
    assert f"the datagrams to {loopback} port {target[1]} come back" in line
    assert "mark= or interface=" in line


def with_protocol(given: bytes, protocol: int) -> bytes:
    offset = 9 if given[0] >> 4 == 4 else 6
    return given[:offset] + bytes([protocol]) + given[offset + 1 :]


def test_a_listener_drops_its_own_datagrams_to_an_ipv4_peer_of_an_ipv6_socket(stack: ExitStack) -> None:
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as free:
        free.bind(("::", 0))
        port = free.getsockname()[1]
    listener = opened(stack, f"udp-listen:[::]:{port}")
    peer = plain_socket(stack)
    peer.sendto(packet(1), ("127.0.0.1", port))
    assert received(listener, 1) == [packet(1)]
    with pytest.raises(threepipe.LinkDown, match=r"the datagrams to 127\.0\.0\.1 port \d+ come back"):
        listener.send([own_datagram(("10.0.0.1", port), peer.getsockname(), packet(2))])
