"""Superpackets with the kernel at both ends, which also judges the resulting packets."""

import errno
import fcntl
import io
import os
import select
import socket
import struct
import subprocess
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import pytest

import threepipe
from tests.support.kernel import Network
from tests.support.offload_pair import FAMILIES, SIZE, Pair, joined, look_at_every_packet, pass_on, transfer
from tests.support.waiting import come_true
from threepipe import Adapter, Bundle, Session
from threepipe.core import fast
from threepipe.core.packet import Packet
from threepipe.piping import pipe
from threepipe.platforms.linux import tun
from threepipe.platforms.linux.port import LinuxPort

pytestmark = pytest.mark.kernel
UDP_SEGMENT = 103  # <linux/udp.h>


@pytest.mark.parametrize("offload", [(True, True), (True, False), (False, True)], ids=str)
@pytest.mark.parametrize("prefix", FAMILIES)
def test_tcp_through_a_pipe_arrives_intact(prefix: str, offload: tuple[bool, bool]) -> None:
    with ExitStack() as stack:
        pair = Pair(stack, offload)
        with joined(*pair.sessions, pass_on):
            transfer(pair, prefix)
            assert pair.faults() == {}


@pytest.mark.parametrize("prefix", FAMILIES)
def test_superpackets_of_tcp_pass_through_bundles_whole(prefix: str) -> None:
    sizes: list[int] = []

    def note(source: Session, target: Session) -> None:
        try:
            for bundle in source:
                assert bundle.records is not None
                sizes.extend(map(len, bundle.records))
                target.send(bundle, None, drop_invalid=True)
                assert bundle.records is not None, "sending looked at single packets"
        except threepipe.SessionClosed:
            pass

    with ExitStack() as stack:
        pair = Pair(stack)
        with joined(*pair.sessions, note):
            transfer(pair, prefix)
            counts = pair.sessions[0].statistics
    assert max(sizes) > 30_000
    assert counts.received_packets > SIZE / 1500
    assert counts.received_bytes > SIZE


@pytest.mark.parametrize("prefix", FAMILIES)
def test_split_packets_have_right_checksums(prefix: str) -> None:
    with ExitStack() as stack:
        pair = Pair(stack)
        with joined(*pair.sessions, look_at_every_packet):
            transfer(pair, prefix)
            assert pair.faults() == {}


@pytest.mark.parametrize("prefix", FAMILIES)
@pytest.mark.parametrize("move", [pass_on, look_at_every_packet])
def test_udp_segments_arrive_unchanged(prefix: str, move: Callable[[Session, Session], None]) -> None:
    family = socket.AF_INET6 if ":" in prefix else socket.AF_INET
    data = os.urandom(10_100)
    with ExitStack() as stack:
        pair = Pair(stack)
        with joined(*pair.sessions, move):
            ends = [
                network.namespace.run(lambda: socket.socket(family, socket.SOCK_DGRAM)) for network in pair.networks
            ]
            sender, receiver = [stack.enter_context(end) for end in ends]
            receiver.settimeout(10)
            receiver.bind((f"{prefix}2", 0))
            # Eleven datagrams in one system call: a superpacket if the kernel offers those of UDP.
            option = (socket.SOL_UDP, UDP_SEGMENT, struct.pack("H", 1000))
            sender.sendmsg([data], [option], 0, receiver.getsockname()[:2])
            datagrams = [receiver.recv(2000) for _ in range(11)]
            assert datagrams == [data[start : start + 1000] for start in range(0, len(data), 1000)]
            assert pair.faults() == {}


OVERLAY = """
link add overlay type vxlan id 7 dstport 4789 local {prefix}{here} remote {prefix}{there} {checksum}
link set overlay mtu 1400 up
addr add {inner}{here}/24 dev overlay
"""
INNER = "10.78.0."
CHECKSUMS = {
    "IPv4": ("10.77.0.", "udpcsum"),
    "IPv4, none": ("10.77.0.", "noudpcsum"),
    "IPv6": ("fd77::", ""),
    "IPv6, none": ("fd77::", "udp6zerocsumtx udp6zerocsumrx"),
}
"""The outer addresses of a VXLAN and its options for checksums."""


def lay_over(pair: Pair, prefix: str, checksum: str) -> None:
    """Add a VXLAN between the two networks, or skip the test."""
    for network, here, there in zip(pair.networks, (1, 2), (2, 1), strict=True):
        text = OVERLAY.format(prefix=prefix, here=here, there=there, inner=INNER, checksum=checksum)
        made = subprocess.run(network.command("ip", "-batch", "-"), input=text, text=True, capture_output=True)
        if "Unknown device type" in made.stderr or "not supported" in made.stderr:
            pytest.skip("this kernel has no VXLAN")
        assert made.returncode == 0, made.stderr


@pytest.mark.parametrize("checksum", CHECKSUMS)
@pytest.mark.parametrize("move", [pass_on, pipe, look_at_every_packet])
def test_tcp_in_a_vxlan_arrives_intact_in_superpackets(
    checksum: str, move: Callable[[Session, Session], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    with ExitStack() as stack:
        pair = Pair(stack)
        lay_over(pair, *CHECKSUMS[checksum])
        if move is pipe:
            thread = threading.Thread(target=pipe, args=pair.sessions)
            thread.start()
            transfer(pair, INNER)
            pair.sessions[0].close()
            thread.join()
        else:
            longest = longest_records_sent(monkeypatch)
            with joined(*pair.sessions, move):
                transfer(pair, INNER)
                assert pair.faults() == {}
            # Over IPv6 datagrams without a checksum are not merged.
            assert (max(longest) > 5000) is (checksum != "IPv6, none")
        assert pair.sessions[0].statistics.received_packets > SIZE / 1400


@pytest.mark.parametrize("checksum", ["IPv4", "IPv4, none", "IPv6"])
def test_the_kernel_hands_over_superpackets_in_a_vxlan_whole(checksum: str) -> None:
    sizes: list[int] = []

    def note(source: Session, target: Session) -> None:
        try:
            for bundle in source:
                sizes.extend(map(len, bundle.records or ()))
                target.send(bundle, None, drop_invalid=True)
        except threepipe.SessionClosed:
            pass

    with ExitStack() as stack:
        pair = Pair(stack)
        if not wide_header(pair):
            pytest.skip("no superpackets of tunnels arrive here, as they take the native core and Linux 6.17")
        lay_over(pair, *CHECKSUMS[checksum])
        with joined(*pair.sessions, note):
            transfer(pair, INNER)
    assert max(sizes) > 30_000


def wide_header(pair: Pair) -> bool:
    """Return True if the adapters have wide headers."""
    port = pair.sessions[0]._port
    assert isinstance(port, LinuxPort)
    return port._end.wide


@pytest.mark.parametrize("checksum", ["IPv4", "IPv6"])
def test_a_kernel_without_superpackets_of_tunnels_hands_over_their_datagrams(
    checksum: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Linux before 6.17 refuses the bits, and takes the size of the header."""
    real = fcntl.ioctl

    def ioctl(file: Any, request: int, argument: Any = 0) -> Any:
        if request == tun.TUNSETOFFLOAD and argument & tun.TUN_F_UDP_TUNNEL_GSO:
            raise OSError(errno.EINVAL, "Invalid argument")
        return real(file, request, argument)

    monkeypatch.setattr("threepipe.platforms.linux.tun.fcntl.ioctl", ioctl)
    with ExitStack() as stack:
        pair = Pair(stack)
        assert not wide_header(pair)
        lay_over(pair, *CHECKSUMS[checksum])
        with joined(*pair.sessions, pass_on):
            transfer(pair, INNER)
            transfer(pair, CHECKSUMS[checksum][0])
            assert pair.faults() == {}


def longest_records_sent(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that gets the length of the longest record of each bundle that is sent from now on."""
    found: list[int] = []
    send = fast.send

    def noting(file: io.FileIO, records: Sequence[memoryview], wide: bool = False) -> tuple[int, int]:
        found.append(max(map(len, records)))
        return send(file, records, wide)

    send_by(monkeypatch, noting)
    return found


def send_by(monkeypatch: pytest.MonkeyPatch, send: Callable[..., tuple[int, int]]) -> None:
    """Have every record sent by `send`, those of `send_coalesced` too."""

    def send_coalesced(
        file: io.FileIO, packets: Sequence[Packet], vnet_header: bool, udp: bool, wide: bool
    ) -> tuple[Sequence[memoryview], int, int]:
        records = fast.coalesce([memoryview(packet) for packet in packets], vnet_header, udp)
        written, error = send(file, records, wide)
        return records[written:], written, error

    monkeypatch.setattr(fast, "send", send)
    monkeypatch.setattr(fast, "send_coalesced", send_coalesced)


def superpacket_of_the_kernel(pair: Pair, prefix: str) -> Bundle:
    """Return a bundle with a superpacket, from a stream that is answered only at its beginning."""
    family = socket.AF_INET6 if ":" in prefix else socket.AF_INET
    sender = pair.networks[0].namespace.run(lambda: socket.socket(family, socket.SOCK_DGRAM))
    with sender:
        option = (socket.SOL_UDP, UDP_SEGMENT, struct.pack("H", 1000))
        sender.sendmsg([bytes(10_100)], [option], 0, (f"{prefix}2", 9))
    while True:
        bundle = pair.sessions[0].receive(10)
        assert bundle, "no superpacket came"
        if len(bundle) >= 11:
            return bundle


@pytest.mark.parametrize("prefix", FAMILIES)
def test_receive_packet_returns_the_packets_of_a_superpacket_one_by_one(prefix: str) -> None:
    with ExitStack() as stack:
        pair = Pair(stack)
        session = pair.sessions[0]
        whole = [bytes(packet) for packet in superpacket_of_the_kernel(pair, prefix)][-11:]
        sender = stack.enter_context(
            pair.networks[0].namespace.run(
                lambda: socket.socket(socket.AF_INET6 if ":" in prefix else socket.AF_INET, socket.SOCK_DGRAM)
            )
        )
        option = (socket.SOL_UDP, UDP_SEGMENT, struct.pack("H", 1000))
        sender.sendmsg([bytes(10_100)], [option], 0, (f"{prefix}2", 9))
        packets: list[bytes] = []
        while len(packets) < 11:
            packet = session.receive_packet(10)
            if len(packet) >= 100:
                packets.append(packet)
                # The rest of the superpacket keeps the descriptor readable.
                assert len(packets) == 11 or select.select([session.fileno()], [], [], 0)[0]
        assert [len(packet) for packet in packets] == [len(packet) for packet in whole]
        assert session.statistics.received_packets >= 22


@pytest.mark.parametrize("prefix", FAMILIES)
def test_python_has_the_kernel_split_for_a_program_that_looks(prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fast, "NATIVE", False)
    family = socket.AF_INET6 if ":" in prefix else socket.AF_INET
    data = os.urandom(10_100)
    option = (socket.SOL_UDP, UDP_SEGMENT, struct.pack("H", 1000))
    with ExitStack() as stack:
        pair = Pair(stack)
        sender, receiver = [
            stack.enter_context(network.namespace.run(lambda: socket.socket(family, socket.SOCK_DGRAM)))
            for network in pair.networks
        ]
        receiver.settimeout(10)
        receiver.bind((f"{prefix}2", 0))

        def next_records(packets: int) -> list[Bundle]:
            """Have the kernel send datagrams, and return bundles with that many packets in all."""
            sender.sendmsg([data], [option], 0, receiver.getsockname()[:2])
            bundles: list[Bundle] = []
            while sum(map(len, bundles)) < packets:
                bundles.append(pair.sessions[0].receive(10))
                assert bundles[-1], "no packet came"
            return bundles

        def longest(bundles: list[Bundle]) -> int:
            return max(len(record) for bundle in bundles for record in bundle.records or ())

        whole = next_records(11)
        for _ in range(40):
            for bundle in next_records(1):
                list(bundle)
        while longest(next_records(11)) > 1500:
            list(next_records(1)[0])  # Superpackets may still wait from before.
        for session in pair.sessions:  # The other adapter takes superpackets though it hands over none itself.
            assert isinstance(session._port, LinuxPort)
            assert session._port._splitting is not None
            for _ in range(40):
                session._port._splitting.looked()
        datagrams = [data[at : at + 1000] for at in range(0, len(data), 1000)]

        def arrives() -> bool:
            """Send it on. IPv6 may not be ready in the moments after a link came up."""
            for bundle in whole:
                pair.sessions[1].send(bundle, None, drop_invalid=True)
            try:
                return [receiver.recv(2000) for _ in datagrams] == datagrams
            except TimeoutError:
                return False

        receiver.settimeout(0.5)
        assert come_true(arrives)
        pair.sessions[0]._port.lend()
        assert come_true(lambda: longest(next_records(11)) == longest(whole))
        assert pair.faults() == {}


def test_a_kernel_that_rejects_superpackets_gets_single_packets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels such as 6.10.3 reject the write of a superpacket with EINVAL."""

    with ExitStack() as stack:
        pair = Pair(stack)
        bundle = superpacket_of_the_kernel(pair, "10.77.0.")
        if not any(record[1] for record in bundle.records or ()):
            pytest.skip("this kernel makes no superpackets of UDP, as Linux has done since 6.2")
        expected = [
            bytes(packet) for packet in Bundle.of_records([memoryview(bytearray(r)) for r in bundle.records or ()])
        ]
        refused: list[int] = []
        send: Callable[..., tuple[int, int]] = fast.send

        def refuse(file: io.FileIO, records: Sequence[memoryview], wide: bool = False) -> tuple[int, int]:
            """Write as on a kernel that rejects superpackets."""
            whole = [index for index, record in enumerate(records) if record[1]]
            if not whole:
                return send(file, records, wide)
            refused.append(len(records[whole[0]]))
            return send(file, records[: whole[0]], wide)[0], errno.EINVAL

        send_by(monkeypatch, refuse)
        receiver = pair.networks[1].namespace.run(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW))
        with receiver:
            receiver.bind(("tp0", 3))
            receiver.settimeout(10)
            assert pair.sessions[1].send(bundle) == len(expected)
            seen: list[bytes] = []
            while len(seen) < len(expected):
                data, address = receiver.recvfrom(70_000)
                if address[2] == 0:  # PACKET_HOST: the packet came from the program.
                    seen.append(data)
        assert seen == expected
        assert len(refused) == 1, "refused superpackets are tried again and again"


def test_close_in_mid_traffic_of_superpackets_ends_the_pipe() -> None:
    with ExitStack() as stack:
        pair = Pair(stack)
        thread = threading.Thread(target=pipe, args=pair.sessions)
        thread.start()
        transfer(pair, "10.77.0.")
        pair.sessions[0].close()
        thread.join()
        assert pair.sessions[1].closed


def test_a_persistent_adapter_is_left_without_offload(network: Network) -> None:
    """A program without support for superpackets can open the adapter later, and gets packets of the link's MTU."""
    Adapter.create("tp0", netns=network.path, persistent=True, addresses=["10.77.0.1/24"]).close()

    def open_plainly() -> io.FileIO:
        file = tun.open_tun()
        fcntl.ioctl(file, tun.TUNSETIFF, struct.pack("16sH22x", b"tp0", tun.IFF_TUN | tun.IFF_NO_PI))
        return file

    with network.namespace.run(open_plainly) as file:
        assert come_true(lambda: "state UP" in network.run("ip", "link", "show", "tp0"))
        with network.namespace.run(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as sender:
            option = (socket.SOL_UDP, UDP_SEGMENT, struct.pack("H", 1000))
            try:
                sender.sendmsg([bytes(10_100)], [option], 0, ("10.77.0.2", 9))
            except OSError as error:
                if error.errno != errno.EIO:
                    raise
                return  # Older kernels do not segment for a device without checksum offload: then it is one packet.
        sizes: list[int] = []
        while len(sizes) < 11:
            assert select.select([file], [], [], 10)[0]
            packet = file.read(70_000)
            assert packet
            if packet[0] == 0x45:
                sizes.append(len(packet))
    assert sizes == [1028] * 10 + [128]
