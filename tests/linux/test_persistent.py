"""Persistent adapters in the state in which another program left them: queues, packet information, headers, offload."""

import fcntl
import itertools
import os
import socket
import struct
import sys

import pytest

from tests.support.hosts import answers
from tests.support.kernel import Network, udp_socket
from threepipe import Adapter, Session

if sys.platform != "linux":
    pytest.skip(f"{sys.platform} has no persistent adapters", allow_module_level=True)

from threepipe.platforms.linux import tun

pytestmark = pytest.mark.kernel

SUPERPACKETS = tun.TUN_F_CSUM | tun.TUN_F_TSO4 | tun.TUN_F_TSO6
UDP_SEGMENT = 103  # <linux/udp.h>
SEGMENT = 1000
DATA = bytes(range(256)) * 40

STATES = list(itertools.product([1, 3], [False, True], [0, 10, 12, 20], [False, True]))
"""Numbers of queues, True with `struct tun_pi`, bytes of the virtio header, True with offload on."""


def leave(queues: int, information: bool, header: int, offload: bool) -> None:
    """Create tp0 as other programs do, and leave it without undoing anything."""
    flags = tun.IFF_TUN | (0 if information else tun.IFF_NO_PI) | (tun.IFF_VNET_HDR if header else 0)
    flags |= tun.IFF_MULTI_QUEUE if queues > 1 else 0
    files = [os.open(tun.TUN_PATH, os.O_RDWR) for _ in range(queues)]
    for file in files:
        fcntl.ioctl(file, tun.TUNSETIFF, tun.IFREQ.pack(b"tp0", flags))
    if header:
        fcntl.ioctl(files[0], tun.TUNSETVNETHDRSZ, struct.pack("i", header))
    if offload:
        fcntl.ioctl(files[0], tun.TUNSETOFFLOAD, SUPERPACKETS)
    fcntl.ioctl(files[0], tun.TUNSETPERSIST, 1)
    for file in files:
        os.close(file)


@pytest.mark.parametrize(("queues", "information", "header", "left_on"), STATES)
def test_packets_pass_unchanged_whatever_state_an_adapter_was_left_in(
    network: Network, queues: int, information: bool, header: int, left_on: bool
) -> None:
    network.namespace.run(lambda: leave(queues, information, header, left_on))
    network.run("ip", "address", "add", "10.6.7.1/24", "dev", "tp0")
    for offload in (True, False):
        with (
            Adapter.open("tp0", netns=network.path, offload=offload, queues=queues) as adapter,
            adapter.start_session() as session,
            udp_socket(network, "10.6.7.1") as sock,
        ):
            for size in (0, 1, 100, 1472):
                assert_echoed(session, sock, [DATA[:size]])
            assert_echoed(session, sock, [DATA[start : start + SEGMENT] for start in range(0, 10 * SEGMENT, SEGMENT)])


def assert_echoed(session: Session, sock: socket.socket, payloads: list[bytes]) -> None:
    """Send datagrams in one call, as a superpacket if they are several, and echo the session's packets."""
    several = [(socket.SOL_UDP, UDP_SEGMENT, struct.pack("H", SEGMENT))] if len(payloads) > 1 else []
    sock.sendmsg([b"".join(payloads)], several, 0, ("10.6.7.2", 9))
    replies: list[bytes] = []
    while len(replies) < len(payloads):
        bundle = session.receive(timeout=10)
        assert bundle
        replies += answers(bundle)
    assert [reply[28:] for reply in replies] == payloads
    assert session.send(replies) == len(replies)
    assert [sock.recv(2000) for _ in payloads] == payloads
