"""Endpoints over UDP: a packet in each datagram, runs of datagrams, path MTU, and peers."""

import asyncio
import select
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

import threepipe
from tests.support.endpoints import SECONDS, at_work, here, opened, packet, received
from tests.support.kernel import Network
from threepipe.echo import echo_reply, echo_request

descriptors = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no descriptor for a set of others")

LONGEST = 65507  # Bytes of payload of a UDP datagram over IPv4.


def pair(stack: ExitStack) -> tuple[threepipe.Session, threepipe.Session]:
    """Return a listener that knows its caller, and the caller."""
    place = here()
    listener, caller = opened(stack, f"udp-listen:{place}"), opened(stack, f"udp:{place}")
    assert caller.send([packet(0)]) == 1
    assert received(listener, 1) == [packet(0)]
    return listener, caller


def program(stack: ExitStack, place: str = "") -> socket.socket:
    """Return a plain UDP socket, connected to `place`."""
    plain = stack.enter_context(socket.socket(type=socket.SOCK_DGRAM))
    plain.settimeout(SECONDS)
    if place:
        host, _, port = place.partition(":")
        plain.connect((host, int(port)))
    return plain


def test_packets_of_all_sizes_arrive_in_order_both_ways(stack: ExitStack) -> None:
    ends = pair(stack)
    sizes = [20, 1400, 1400, 1400, 600, 21, 1400, 1400, LONGEST, 100, 100, 9000, 9000, 9000, 8999, 40] * 4
    packets = [packet(number, size) for number, size in enumerate(sizes)]
    for source, target in (ends, ends[::-1]):
        for start in range(0, len(packets), 16):
            part = packets[start : start + 16]
            assert source.send(part) == len(part)
            assert received(target, len(part)) == part


def test_runs_of_one_size_arrive_as_single_packets(stack: ExitStack) -> None:
    listener, caller = pair(stack)
    packets = [packet(number, 1400) for number in range(300)]
    for start in range(0, 300, 60):  # Every system queues that many for a socket that nobody reads.
        assert caller.send(packets[start : start + 60], SECONDS) == 60
        assert received(listener, 60) == packets[start : start + 60]
    assert listener.statistics[:2] == (301, 300 * 1400 + 100)


def test_a_datagram_is_the_bare_packet(stack: ExitStack) -> None:
    place = here()
    with at_work(opened(stack, f"udp-listen:{place}")):
        plain = program(stack, place)
        for addresses in (("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")):
            request = echo_request(*addresses, 1, 2, b"data")
            plain.send(request)
            assert plain.recv(1 << 16) == echo_reply(request)


def test_a_caller_sends_from_its_bind_address(stack: ExitStack) -> None:
    plain = program(stack)
    plain.bind(("127.0.0.1", 0))
    own = here()
    host, port = plain.getsockname()
    caller = opened(stack, f"udp:{host}:{port},bind={own}")
    packets = [packet(number, 200) for number in range(5)]
    assert caller.send(packets) == 5
    for expected in packets:
        data, address = plain.recvfrom(1 << 16)
        assert data == expected
        assert f"{address[0]}:{address[1]}" == own
    plain.sendto(packet(9), address)
    assert received(caller, 1) == [packet(9)]


def test_a_caller_receives_only_from_its_peer(stack: ExitStack) -> None:
    plain, stranger = program(stack), program(stack)
    plain.bind(("127.0.0.1", 0))
    own = here()
    host, port = plain.getsockname()
    caller = opened(stack, f"udp:{host}:{port},bind={own}")
    address = (own.partition(":")[0], int(own.partition(":")[2]))
    stranger.sendto(packet(1), address)
    plain.sendto(packet(2), address)
    assert received(caller, 1) == [packet(2)]
    assert not caller.receive(0)


def test_a_listener_sends_to_the_peer_of_the_last_packet(stack: ExitStack) -> None:
    place = here()
    listener = opened(stack, f"udp-listen:{place}")
    with pytest.raises(threepipe.LinkDown, match="no peer has sent a packet yet"):
        listener.send([packet(0)])
    programs = [program(stack, place) for _ in range(3)]
    for each in (*programs, *programs):
        each.send(packet(1))
        assert received(listener, 1) == [packet(1)]
        assert listener.send([packet(2), packet(3)]) == 2
        assert [each.recv(1 << 16), each.recv(1 << 16)] == [packet(2), packet(3)]


def test_a_listener_on_all_addresses_receives_ipv4_and_ipv6(stack: ExitStack) -> None:
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as free:
        free.bind(("::", 0))
        port = free.getsockname()[1]
    listener = opened(stack, f"udp-listen:[::]:{port}")
    for host in ("127.0.0.1", "[::1]"):
        caller = opened(stack, f"udp:{host}:{port}")
        packets = [packet(number, 1300) for number in range(20)]
        assert caller.send(packets) == 20
        assert received(listener, 20) == packets
        assert listener.send(packets) == 20
        assert received(caller, 20) == packets


@descriptors
def test_receive_packet_keeps_the_other_packets(stack: ExitStack) -> None:
    listener, caller = pair(stack)
    packets = [packet(number, 500) for number in range(20)]
    assert caller.send(packets) == 20
    for expected in packets:
        assert select.select([listener], [], [], SECONDS)[0]
        assert listener.receive_packet(SECONDS) == expected
    assert not select.select([listener], [], [], 0)[0]


def test_a_caller_without_a_listener_keeps_waiting(stack: ExitStack, caplog: pytest.LogCaptureFixture) -> None:
    place = here()
    caller = opened(stack, f"udp:{place}")
    assert caller.send([packet(1)]) == 1
    assert not caller.receive(0.2)
    for _ in range(2):  # Some systems report the fate of a datagram at the next send.
        assert caller.send([packet(1)]) == 1
    if sys.platform == "linux":  # Wine, unlike Windows, reports no ICMP errors to a socket that is not connected.
        assert "packets cannot be delivered: nothing listens there (yet)" in caplog.text
    listener = opened(stack, f"udp-listen:{place}")
    assert caller.send([packet(2)], SECONDS) == 1
    assert received(listener, 1) == [packet(2)]


@descriptors
@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
def test_a_reported_error_does_not_keep_a_caller_readable(stack: ExitStack, host: str) -> None:
    caller = opened(stack, f"udp:{host}:9")
    for many in (1, 3, 100):
        caller.send([packet(number, 1000) for number in range(many)])
        assert not caller.receive(0.05)
        assert not select.select([caller], [], [], 0)[0]


def test_a_listener_at_a_taken_port_raises(stack: ExitStack) -> None:
    place = here()
    opened(stack, f"udp-listen:{place}")
    with pytest.raises(threepipe.EndpointError, match="another program uses it"):
        threepipe.open_endpoint(f"udp-listen:{place}")


def test_receive_async_returns_all_packets(stack: ExitStack) -> None:
    listener, caller = pair(stack)
    packets = [packet(number) for number in range(50)]

    async def run() -> list[bytes]:
        found: list[bytes] = []
        assert await caller.send_async(packets) == 50
        while len(found) < 50:
            found += map(bytes, await asyncio.wait_for(listener.receive_async(), SECONDS))
        return found

    assert asyncio.run(run()) == packets


def test_close_wakes_a_waiting_receive(stack: ExitStack) -> None:
    listener, _ = pair(stack)
    with ThreadPoolExecutor(1) as executor:
        waiting = executor.submit(listener.receive)
        while not waiting.running():
            pass
        listener.close()
        with pytest.raises(threepipe.SessionClosed):
            waiting.result(SECONDS)


def test_a_packet_too_long_for_a_datagram_is_dropped_and_logged(
    stack: ExitStack, caplog: pytest.LogCaptureFixture
) -> None:
    _, caller = pair(stack)
    with pytest.raises(threepipe.LinkDown):
        caller.send([packet(1, 65535)])
    assert caller.statistics.sent_dropped == 1
    assert "packets of 65535 bytes do not fit in" in caplog.text


@pytest.mark.kernel
def test_a_packet_above_the_path_mtu_is_logged_and_sent_in_fragments(
    stack: ExitStack, caplog: pytest.LogCaptureFixture
) -> None:
    networks = [Network(), Network()]
    for network in networks:
        stack.callback(network.namespace.close)
    networks[0].run("ip", "link", "add", "v0", "type", "veth", "peer", "v0", "netns", networks[1].path)
    for host, network in enumerate(networks, 1):
        network.run("ip", "address", "add", f"10.88.0.{host}/24", "dev", "v0")
        network.run("ip", "link", "set", "v0", "up", "mtu", "1400")
    listener = networks[1].namespace.run(lambda: opened(stack, "udp-listen:10.88.0.2:4242"))
    caller = networks[0].namespace.run(lambda: opened(stack, "udp:10.88.0.2:4242"))
    packets = [packet(number, size) for number, size in enumerate([1372, 1373, 1372, 1500, 1500, 1500, 100])]
    # The path's MTU is asked for in the sender's network; this machine's own may be the same by chance.
    assert networks[0].namespace.run(lambda: caller.send(packets, SECONDS)) == len(packets)
    assert received(listener, len(packets)) == packets
    lines = [line.getMessage() for line in caplog.records if "do not fit" in line.getMessage()]
    assert len(lines) == 1
    assert "packets of 1373 bytes do not fit in datagrams of 1372 bytes" in lines[0]
    assert "set mtu=1372 on the adapters of both ends" in lines[0]
