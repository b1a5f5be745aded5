"""Devices piped to adapters that lend their descriptors: the native core's loop, and in pure Python the shuttle.

The far ends of the adapters are sockets of the test; the devices are joined by loopback.
"""

import contextlib
import gc
import os
import socket
import sys
import threading

import pytest

if sys.platform != "linux":
    pytest.skip("no other platform lends descriptors", allow_module_level=True)

import threepipe
from tests.support.frames import TCP4, frame, superpacket
from tests.support.piped_devices import LEFT, RIGHT, SECONDS, Adapter, End, back, exchange, joined, numbered
from tests.support.waiting import come_true
from tests.support.wireguard_pair import new_key, packet
from threepipe.core.superpacket import split
from threepipe.errors import AdapterGone
from threepipe.platforms.linux.tun import Offload
from threepipe.pump import interrupt, pump
from threepipe.wireguard import Change, Device, PeerChange
from threepipe.wireguard.constants import Timing


@pytest.mark.parametrize("offload", list(Offload))
@pytest.mark.parametrize("version", [0, 1], ids=["ipv4", "ipv6"])
def test_packets_pass_both_ways_in_order_and_are_counted(offload: Offload, version: int) -> None:
    with joined(offload) as (left, right):
        packets = numbered(50, version)
        left.adapter.send(*packets[:10])  # The first packets wait for a handshake.
        assert right.adapter.receive(10) == packets[:10]
        left.adapter.send(*packets[10:])
        assert right.adapter.receive(40) == packets[10:]
        right.adapter.send(back(b"back"))
        assert left.adapter.receive(1) == [back(b"back")]
        total = sum(map(len, packets))

        def counted() -> bool:
            near, far = left.device.session.statistics, right.device.session.statistics
            return (near.sent_packets, near.sent_bytes, far.received_packets, far.received_bytes) == (50, total) * 2

        assert come_true(counted, SECONDS)
        near, far = left.adapter.session.statistics, right.adapter.session.statistics
        assert (near.received_packets, near.received_bytes) == (50, total)
        assert come_true(lambda: right.adapter.session.statistics.sent_bytes == total, SECONDS)
        assert far.sent_dropped == near.sent_dropped == 0
        (mine,), (theirs,) = left.device.status().peers, right.device.status().peers
        assert mine.tx_bytes == theirs.rx_bytes > total
        assert theirs.tx_bytes == mine.rx_bytes


def test_each_segment_of_a_superpacket_arrives() -> None:
    record = superpacket(TCP4, frame(TCP4, os.urandom(20_000)), 1000)
    segments = [bytes(segment) for segment in split([memoryview(bytearray(record))])]
    source, destination = (socket.inet_ntoa(segments[0][start : start + 4]) for start in (12, 16))
    with joined() as (left, right):
        left.know(right, f"{destination}/32", endpoint=True)
        right.know(left, f"{source}/32")
        left.adapter.far.send(record)
        assert right.adapter.receive(len(segments)) == segments


def test_much_and_little_traffic_in_turns_passes_both_ways() -> None:
    """The native core uses a thread for each direction under much traffic, and one for both under little."""
    there = [packet(LEFT[0], RIGHT[0], number.to_bytes(4, "big") + bytes(1300)) for number in range(60)]
    here = [packet(RIGHT[0], LEFT[0], number.to_bytes(4, "big") + bytes(1300)) for number in range(60)]
    with joined() as (left, right):
        exchange(left, right)
        for _ in range(3):
            left.adapter.send(*there)
            right.adapter.send(*here)
            assert right.adapter.receive(60) == there
            assert left.adapter.receive(60) == here
            for _ in range(100):
                exchange(left, right)


def test_packets_without_a_peer_and_invalid_packets_are_dropped_and_counted() -> None:
    with joined(Offload.NONE) as (left, right):
        exchange(left, right)
        left.adapter.send(packet(LEFT[0], "10.9.9.9", b"nobody's"), b"\x45no packet")
        exchange(left, right)
        assert left.device.rejected["no peer for the destination"] == 1
        assert left.device.session.statistics.sent_dropped == 1


def test_a_packet_from_outside_the_allowed_ips_is_dropped_and_counted() -> None:
    with joined() as (left, right):
        exchange(left, right)
        left.adapter.send(packet("10.0.0.3", RIGHT[0], b"from elsewhere"))
        exchange(left, right)
        assert right.device.rejected["source is not among the peer's allowed IPs"] == 1


def test_forged_messages_are_dropped_and_counted() -> None:
    with joined() as (left, right), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        exchange(left, right)
        there = ("127.0.0.1", right.device.status().listen_port)
        for index in [*right.device._tunnel._peers.indices, 7]:
            stranger.sendto(b"\4\0\0\0" + index.to_bytes(4, "little") + bytes(48), there)
        stranger.sendto(b"\1" * 148, there)
        stranger.sendto(b"", there)

        def counted() -> bool:
            rejected = right.device.rejected
            return rejected.get("no keypair") == 1 and "not authentic, or not new" in rejected

        assert come_true(counted, SECONDS)
        exchange(left, right)


def test_a_peer_that_moves_is_followed() -> None:
    with joined() as (left, right):
        exchange(left, right)
        left.device.configure(Change(listen_port=0))
        exchange(left, right)
        (peer,) = right.device.status().peers
        assert peer.endpoint == ("127.0.0.1", left.device.status().listen_port)
        assert come_true(lambda: any(event.name == "roamed" for event in right.events), SECONDS)


def test_answers_come_from_the_local_address_that_was_used() -> None:
    with joined() as (left, right):
        left.know(right, *RIGHT, endpoint=True, host="127.0.0.2")
        exchange(left, right)
        exchange(left, right)
        assert left.device.status().peers[0].endpoint == ("127.0.0.2", right.device.status().listen_port)


def test_an_unreachable_peer_does_not_block_the_others() -> None:
    with contextlib.ExitStack() as stack:
        hub, *spokes = (End(new_key(), Offload.TCP_AND_UDP, None) for _ in range(6))
        for number, end in enumerate([hub, *spokes]):
            stack.callback(end.close)
            end.thread.start()
            if end is not hub:
                hub.know(end, f"10.0.1.{number}", endpoint=True)
                end.know(hub, LEFT[0])

        def sent_by_turns(rounds: int) -> list[list[bytes]]:
            """Send a packet to each spoke in turn, round after round."""
            packets = [
                packet(LEFT[0], f"10.0.1.{number}", f"{turn}".encode())
                for turn in range(rounds)
                for number in range(1, 6)
            ]
            hub.adapter.send(*packets)
            return [packets[number::5] for number in range(5)]

        for end, packets in zip(spokes, sent_by_turns(1), strict=True):
            assert end.adapter.receive(1) == packets
        broadcast = ("255.255.255.255", 9)  # A socket needs SO_BROADCAST for this.
        hub.device.configure(Change(peers=(PeerChange(spokes[2].public, endpoint=broadcast),)))
        for index, (end, packets) in enumerate(zip(spokes, sent_by_turns(40), strict=True)):
            if index != 2:
                assert end.adapter.receive(40) == packets
        assert hub.device.rejected == {"not sent: EACCES": 40}


def test_keypairs_are_renewed_while_packets_pass() -> None:
    timing = Timing(rekey_after=0.1, reject_after=2.0, rekey_attempt=2.0, rekey_timeout=0.05, keepalive=0.2)
    with joined(timing=timing) as (left, right):

        def exchanged() -> bool:
            exchange(left, right)
            return min(left.handshakes(), right.handshakes()) > 3

        assert come_true(exchanged, SECONDS)


def test_an_initiator_that_only_receives_renews_its_keypair_before_its_end() -> None:
    timing = Timing(rekey_after=9.0, reject_after=1.0, rekey_attempt=2.0, rekey_timeout=0.1, keepalive=0.3)
    with joined(timing=timing) as (left, right):
        exchange(left, right)

        def received() -> bool:
            right.adapter.send(back(b"one way"))
            return left.adapter.receive(1) == [back(b"one way")] and left.handshakes() > 2

        assert come_true(received, SECONDS)


def test_a_received_packet_without_an_answer_gets_a_keepalive() -> None:
    with joined(timing=Timing(keepalive=0.2)) as (left, right):
        exchange(left, right)
        (before,) = left.device.status().peers
        left.adapter.send(*numbered(1))
        right.adapter.receive(1)
        assert come_true(lambda: left.device.status().peers[0].rx_bytes == before.rx_bytes + 32, SECONDS)


def test_a_peer_can_be_removed_and_added_again_while_running() -> None:
    with joined(timing=Timing(rekey_timeout=0.1)) as (left, right):
        exchange(left, right)
        left.device.configure(Change(replace_peers=True))
        left.adapter.send(*numbered(1))
        assert come_true(lambda: left.device.rejected.get("no peer for the destination") == 1, SECONDS)
        left.know(right, *RIGHT, endpoint=True)
        exchange(left, right)


def test_an_interrupted_pipe_continues() -> None:
    with joined() as (left, right):
        for end in (left, right):
            exchange(left, right)
            interrupt(end.device.session)
            exchange(left, right)
            interrupt(end.adapter.session)
        exchange(left, right)


def test_two_loops_over_one_device_carry_the_packets_of_both_adapters() -> None:
    with contextlib.closing(Adapter(Offload.NONE)) as second, joined() as (left, right):
        looping = threading.Thread(target=pump, args=(second.session, left.device.session))
        exchange(left, right)
        looping.start()
        before = left.device.session.statistics.sent_packets
        for data in numbered(20):
            second.send(data)
            left.adapter.send(data)
            assert right.adapter.receive(2) == [data, data]
        assert come_true(lambda: left.device.session.statistics.sent_packets >= before + 2 * 20, SECONDS)
        interrupt(second.session)
        looping.join(SECONDS)
        assert not looping.is_alive()
        exchange(left, right)
        gc.collect()


def test_a_pipe_accepts_its_ends_in_either_order() -> None:
    with contextlib.closing(Adapter(Offload.NONE)) as adapter, Device() as device:
        piping = threading.Thread(target=threepipe.pipe, args=(device.session, adapter.session))
        piping.start()
        adapter.send(packet(LEFT[0], RIGHT[0], b"nobody's"))
        assert come_true(lambda: "no peer for the destination" in device.rejected, SECONDS)
        device.close()
        piping.join(SECONDS)
        assert not piping.is_alive()


def test_an_adapter_piped_to_memory_passes_bundles() -> None:
    near, far = threepipe.MemoryAdapter.pair()
    with contextlib.closing(Adapter(Offload.NONE)) as adapter, near, far, far.start_session() as end:
        session = near.start_session()
        piping = threading.Thread(target=threepipe.pipe, args=(adapter.session, session))
        piping.start()
        adapter.send(*numbered(1))
        assert len(end.receive(SECONDS)) == 1
        session.close()
        piping.join(SECONDS)
        assert not piping.is_alive()


def test_an_adapter_that_is_gone_ends_the_pipe_with_its_error() -> None:
    with joined() as (left, right):
        exchange(left, right)
        with open("/dev/null", "wb") as null:
            os.dup2(null.fileno(), left.adapter.file.fileno())
        interrupt(left.device.session)
        left.thread.join(SECONDS)
        assert isinstance(left.failure, AdapterGone | threepipe.AdapterError)
