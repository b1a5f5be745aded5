"""Traffic of the kernel through adapters on Linux, and its counts."""

import asyncio
import fcntl
import socket
import struct
from contextlib import suppress

import pytest

import threepipe
from tests.support.hosts import answering, answers
from tests.support.kernel import Network, udp_socket
from threepipe import Adapter, Session
from threepipe.platforms.linux import tun

pytestmark = pytest.mark.kernel

ADDRESSES = ["10.6.7.1/24", "fd00::1/64"]


def receive_exactly(session: Session, count: int) -> list[bytes]:
    packets: list[bytes] = []
    while len(packets) < count:
        bundle = session.receive(timeout=10)
        assert bundle, f"only {len(packets)} packets of {count} came"
        packets += [bytes(packet) for packet in bundle]
    assert len(packets) == count
    return packets


def test_a_session_gets_no_packets_of_an_earlier_one(network: Network) -> None:
    network.disable_ipv6()
    with (
        Adapter.create("tp0", netns=network.path, addresses=["10.6.7.1/24"]) as adapter,
        udp_socket(network, "10.6.7.1") as sock,
    ):
        with adapter.start_session() as first:
            for _ in range(5):
                sock.sendto(b"early", ("10.6.7.2", 9))
            assert first.receive_packet(timeout=10).endswith(b"early")
        sock.sendto(b"between", ("10.6.7.2", 9))
        with adapter.start_session() as second:
            sock.sendto(b"late", ("10.6.7.2", 9))
            (packet,) = receive_exactly(second, 1)
            assert packet.endswith(b"late")


def test_statistics_of_kernel_and_session_agree(network: Network) -> None:
    network.disable_ipv6()
    with (
        Adapter.create("tp0", netns=network.path, addresses=["10.6.7.1/24"]) as adapter,
        adapter.start_session() as session,
        udp_socket(network, "10.6.7.1") as sock,
    ):
        payloads = [bytes(size) for size in (0, 1, 100, 1472, 3)]
        for payload in payloads:
            sock.sendto(payload, ("10.6.7.2", 9))
        packets = receive_exactly(session, 5)
        assert session.send(answers(packets[:3])) == 3
        assert [sock.recv(2000) for _ in range(3)] == payloads[:3]
        received, sent = sum(map(len, packets)), sum(map(len, packets[:3]))
        mine, kernels = session.statistics, adapter.statistics
        assert (mine.received_packets, mine.received_bytes, mine.sent_packets, mine.sent_bytes) == (
            5,
            received,
            3,
            sent,
        )
        assert kernels == threepipe.AdapterStatistics(5, received, 0, 3, sent, 0)


def test_packets_beyond_the_capacity_are_counted_as_dropped(network: Network) -> None:
    network.disable_ipv6()
    capacity, size, sent = 131072, 1400, 0
    with tun.open_tun() as file:
        drops = not tun.features(file) & tun.IFF_BACKPRESSURE
    with (
        Adapter.create("tp0", netns=network.path, addresses=["10.6.7.1/24"]) as adapter,
        adapter.start_session(capacity=capacity) as session,
        udp_socket(network, "10.6.7.1") as sock,
    ):
        with suppress(BlockingIOError):
            while sent < 300:
                sock.sendto(bytes(size), socket.MSG_DONTWAIT, ("10.6.7.2", 9))
                sent += 1
        while session.receive(timeout=0):
            pass
        received = session.statistics.received_packets
        assert received
        assert received * size <= capacity or not drops
        assert received + adapter.statistics.received_dropped == sent


PINGS = [("ping", "-c", "5", "-i", "0.01", "-w", "20", "-s", "1400", host) for host in ("10.6.7.2", "fd00::2")]
"""They fail unless five answers come in time."""


@pytest.mark.parametrize("ping", PINGS)
def test_a_thread_answers_pings(network: Network, ping: tuple[str, ...]) -> None:
    with (
        Adapter.create("tp0", netns=network.path, addresses=ADDRESSES) as adapter,
        adapter.start_session() as session,
        answering(session),
    ):
        network.run(*ping)


@pytest.mark.parametrize("ping", PINGS)
def test_a_task_answers_pings(network: Network, ping: tuple[str, ...]) -> None:
    async def answer(session: Session) -> None:
        async for bundle in session:
            await session.send_async(answers(bundle))

    async def main() -> None:
        with (
            Adapter.create("tp0", netns=network.path, addresses=ADDRESSES) as adapter,
            adapter.start_session() as session,
        ):
            task = asyncio.create_task(answer(session))
            await asyncio.to_thread(network.run, *ping)
            session.close()
            await task

    asyncio.run(main())


def test_an_adapter_used_with_offloads_before_gives_complete_packets(network: Network) -> None:
    """Offloads outlive the descriptor that chose them; without vnet headers, packets would be incomplete."""

    def make() -> None:
        with tun.open_tun() as file:
            flags = tun.IFF_TUN | tun.IFF_NO_PI | tun.IFF_VNET_HDR
            fcntl.ioctl(file, tun.TUNSETIFF, struct.pack("16sH22x", b"tp0", flags))
            fcntl.ioctl(file, tun.TUNSETOFFLOAD, tun.TUN_F_CSUM | tun.TUN_F_TSO4 | tun.TUN_F_TSO6)
            tun.control(file, tun.TUNSETPERSIST, 1)

    network.namespace.run(make)
    network.run("ip", "addr", "add", "10.6.7.1/24", "dev", "tp0")
    with (
        Adapter.open("tp0", netns=network.path) as adapter,
        adapter.start_session() as session,
        udp_socket(network, "10.6.7.1") as sock,
        answering(session),
    ):
        # The kernel drops answers with a wrong checksum.
        sock.sendto(b"whole", ("10.6.7.2", 9))
        assert sock.recv(100) == b"whole"
