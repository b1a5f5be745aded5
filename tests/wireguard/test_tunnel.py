"""The protocol without I/O: two tunnels, a network that is a list, and a clock that the tests set."""

import itertools
import os
import threading

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.wireguard_pair import (
    BACK,
    COOKIE,
    INITIATION,
    RESPONSE,
    THERE,
    THERE6,
    TRANSPORT,
    End,
    Network,
    joined,
    new_key,
    packet,
)
from threepipe.wireguard.constants import (
    MAX_PER_SOURCE,
    MAX_STAGED,
    REJECT_AFTER_MESSAGES,
    REKEY_AFTER_MESSAGES,
    UNDER_LOAD,
    Timing,
)
from threepipe.wireguard.noise import Identity
from threepipe.wireguard.peer import NEVER
from threepipe.wireguard.settings import Change, PeerChange

KEEPALIVE = 32


@pytest.mark.parametrize("preshared_key", [None, os.urandom(32)], ids=["no-psk", "psk"])
def test_packets_of_both_families_pass_both_ways(preshared_key: bytes | None) -> None:
    network, left, right = joined(preshared_key=preshared_key)
    left.send(THERE, THERE6)
    network.settle()
    assert right.packets == [THERE, THERE6]
    right.send(BACK)
    network.settle()
    assert left.packets == [BACK]
    assert network.kinds() == [INITIATION, RESPONSE, TRANSPORT, TRANSPORT, TRANSPORT]
    mine, theirs = left.peer(right), right.peer(left)
    assert mine.last_handshake == theirs.last_handshake == 1.7e9 + 1000
    assert (mine.tx_bytes, mine.rx_bytes) == (theirs.rx_bytes, theirs.tx_bytes)
    assert [event.name for event in left.tunnel.events] == ["handshake"]


def test_a_handshake_with_another_preshared_key_fails() -> None:
    network, left, right = joined()
    right.add(left, preshared_key=os.urandom(32))
    left.send(THERE)
    network.settle()
    assert right.packets == []
    assert left.tunnel.rejected["response does not open"] == 1


def test_an_initiator_without_packets_confirms_the_keypair_with_a_keepalive() -> None:
    network, left, right = joined(persistent_keepalive=25)
    network.settle()
    assert network.kinds(left) == [INITIATION, TRANSPORT]
    assert len(network.log[-1][2]) == KEEPALIVE
    right.send(BACK)
    network.settle()
    assert left.packets == [BACK]


def test_persistent_keepalives_are_sent_at_their_interval() -> None:
    network, left, _ = joined(persistent_keepalive=25)
    network.advance(100)
    sent = [at for at, end, _ in network.log if end is left][2:]
    assert sent == [1025, 1050, 1075, 1100]


def test_data_without_an_answer_gets_a_keepalive_after_ten_seconds() -> None:
    network, left, right = joined()
    left.send(THERE)
    network.settle()
    network.advance(9.9)
    assert network.kinds(right) == [RESPONSE]
    network.advance(0.2)
    assert network.kinds(right) == [RESPONSE, TRANSPORT]
    assert network.log[-1][0] == 1010
    network.advance(60)
    assert network.kinds(since=1010.1) == []  # A keepalive gets no answer.


def test_data_with_an_answer_gets_no_keepalive() -> None:
    network, left, right = joined()
    left.send(THERE)
    network.settle()
    network.advance(5)
    right.send(BACK)
    network.advance(6)
    assert network.kinds(right) == [RESPONSE, TRANSPORT]
    network.advance(4)
    assert network.kinds(left)[-1] == TRANSPORT  # This is the keepalive of the other side.
    assert network.log[-1][0] == 1015


def test_data_received_during_the_wait_gets_another_keepalive() -> None:
    network, left, right = joined()
    left.send(THERE)
    network.advance(5)
    left.send(THERE)
    network.advance(30)
    assert [at for at, end, datagram in network.log if end is right and len(datagram) == KEEPALIVE] == [1010, 1020]


def test_silence_after_data_starts_a_handshake() -> None:
    network, left, right = joined()
    left.send(THERE)
    network.settle()
    network.advance(1)
    right.send(BACK)
    network.settle()
    network.filter = lambda datagram: False
    left.send(THERE)
    network.advance(14.9)
    assert INITIATION not in network.kinds(left, since=1000.5)
    network.advance(0.2)
    assert network.kinds(left)[-1] == INITIATION
    assert network.log[-1][0] == 1016


def test_a_handshake_is_retried_for_ninety_seconds() -> None:
    network, left, right = joined()
    network.filter = lambda datagram: False
    left.send(THERE)
    network.advance(400)
    tries = [at for at, end, datagram in network.log if datagram[0] == INITIATION]
    assert all(5 <= later - earlier <= 5.335 for earlier, later in itertools.pairwise(tries))
    assert 1085 < tries[-1] < 1090
    assert left.tunnel.rejected["no answer to handshakes"] == 1
    network.filter = lambda datagram: True
    left.send(THERE)
    network.settle()
    assert right.packets == [THERE]  # The earlier packet is not delivered late.


def test_an_initiator_that_sends_renews_its_keypair_after_120_seconds() -> None:
    network, left, right = joined()
    left.send(THERE)
    network.settle()
    network.advance(119)
    left.send(THERE)
    network.settle()
    assert network.kinds().count(INITIATION) == 1
    network.advance(1)
    left.send(THERE)
    network.settle()
    assert network.kinds().count(INITIATION) == 2
    assert right.packets == [THERE] * 3
    left.send(THERE)
    right.send(BACK)
    network.settle()
    assert (len(right.packets), left.packets) == (4, [BACK])


def test_a_responder_does_not_renew_its_keypair() -> None:
    network, left, right = joined()
    left.send(THERE)
    network.settle()
    network.advance(150)
    right.send(BACK)
    network.settle()
    assert left.packets == [BACK]
    assert INITIATION not in network.kinds(right)


def test_an_initiator_that_only_receives_renews_its_keypair_before_its_end() -> None:
    network, left, right = joined()
    left.send(THERE)
    network.settle()
    network.advance(164)
    right.send(BACK)
    network.settle()
    assert network.kinds().count(INITIATION) == 1
    network.now += 2
    right.send(BACK)
    network.settle()
    assert network.kinds().count(INITIATION) == 2
    assert network.kinds(left)[-2:] == [INITIATION, TRANSPORT]


def test_a_keypair_of_180_seconds_neither_sends_nor_receives() -> None:
    network, left, right = joined()
    left.send(THERE)
    network.settle()
    network.advance(100)
    held = network.hold()
    left.send(THERE)
    network.settle()
    network.now += 80
    right.take(held[0], left.endpoint)
    assert right.packets == [THERE]
    assert right.tunnel.rejected["no keypair"] == 1
    network.filter = lambda datagram: True
    left.send(THERE)
    network.settle()
    assert network.kinds().count(INITIATION) == 2
    assert len(right.packets) == 2


def test_a_keypair_is_renewed_after_the_limit_of_messages() -> None:
    network, left, right = joined()
    left.send(THERE)
    network.settle()
    network.advance(6)
    (peer,) = left.tunnel._peers
    assert peer.current is not None
    peer.current.transport.counter = REKEY_AFTER_MESSAGES
    left.send(THERE)
    network.settle()
    assert network.kinds().count(INITIATION) == 2
    assert len(right.packets) == 2
    peer.current.transport.counter = 2**64 - 2**13 - 1
    left.send(THERE)
    assert peer.current.transport.counter == 2**64 - 2**13 - 1
    assert len(peer.staged) == 1


def test_keys_are_wiped_after_540_seconds_without_a_handshake() -> None:
    network, left, right = joined()
    left.send(THERE)
    network.settle()
    (peer,) = right.tunnel._peers
    keypair = peer.current
    assert keypair is not None
    assert keypair.transport.reserve(1) is not None
    network.advance(539)
    assert keypair.transport.seal(0, 1, [memoryview(THERE)], False, 0)
    network.advance(2)
    assert not keypair.transport.seal(0, 1, [memoryview(THERE)], False, 0)
    assert peer.keypairs == []
    assert [event.name for event in right.tunnel.events] == ["handshake", "expired"]
    assert right.tunnel._peers.indices == {}


def test_simultaneous_handshakes_agree_on_one_keypair() -> None:
    network, left, right = joined()
    right.add(left)
    right.tunnel.configure(Change(peers=(PeerChange(left.public, endpoint=left.endpoint),)), network.now)
    left.send(THERE)
    right.send(BACK)
    network.settle()
    assert (left.packets, right.packets) == ([BACK], [THERE])
    left.send(THERE)
    right.send(BACK)
    network.settle()
    assert (len(left.packets), len(right.packets)) == (2, 2)


def test_the_endpoint_follows_authentic_messages_only() -> None:
    network, left, right = joined()
    left.send(THERE)
    network.settle()
    left.endpoint = ("198.51.100.7", 7)
    left.take(b"\4\0\0\0" + bytes(60), ("203.0.113.1", 1))
    left.send(THERE)
    network.settle()
    assert right.peer(left).endpoint == ("198.51.100.7", 7)
    right.send(BACK)
    network.settle()
    assert left.packets == [BACK]
    assert right.tunnel.events[-1][:3] == ("roamed", left.public, ("198.51.100.7", 7))
    assert left.peer(right).endpoint == right.endpoint


def test_packets_are_routed_and_filtered_by_allowed_ips() -> None:
    network, left, right = joined()
    third = End(network)
    third.add(right, "10.0.0.2/32")
    right.add(third, "10.0.0.3/32", endpoint=False)
    left.send(THERE, packet("10.0.0.3", "10.0.0.2"), packet("fd00::1", "fd00::2"), packet("10.0.0.1", "10.9.9.9"))
    network.settle()
    assert right.packets == [THERE, packet("fd00::1", "fd00::2")]
    assert right.tunnel.rejected["source is not among the peer's allowed IPs"] == 1
    assert left.tunnel.rejected["no peer for the destination"] == 1
    third.send(packet("10.0.0.3", "10.0.0.2"))
    right.send(packet("10.0.0.2", "10.0.0.3"), BACK)
    network.settle()
    assert right.packets[2:] == [packet("10.0.0.3", "10.0.0.2")]


def test_replayed_or_reordered_messages_are_accepted_once() -> None:
    network, left, right = joined()
    left.send(THERE)
    network.settle()
    held = network.hold()
    for number in range(10):
        left.send(packet("10.0.0.1", "10.0.0.2", bytes([number])))
    network.settle()
    for datagram in [*reversed(held), *held]:
        right.take(datagram, left.endpoint)
    assert [data[20] for data in right.packets[1:]] == list(range(9, -1, -1))


def test_a_replayed_initiation_gets_no_answer() -> None:
    network, left, right = joined()
    left.send(THERE)
    network.settle()
    initiation = network.log[0][2]
    network.advance(1)
    right.take(initiation, ("203.0.113.1", 1))
    network.settle()
    assert right.tunnel.rejected["initiation replayed"] == 1
    assert network.kinds(right) == [RESPONSE]
    assert right.peer(left).endpoint == left.endpoint


def test_initiations_of_one_peer_beyond_the_rate_are_dropped() -> None:
    network, left, right = joined(Timing(rekey_timeout=0.001))
    left.send(THERE)
    network.settle()
    network.now += 0.018
    left.tunnel._machine.initiate(next(iter(left.tunnel._peers)), network.now)
    network.settle()
    assert right.tunnel.rejected["too many initiations from one peer"] == 1


def test_an_initiation_under_load_needs_a_cookie() -> None:
    network, left, right = joined()
    network.filter = lambda datagram: datagram[0] != RESPONSE
    left.send(THERE)
    network.settle()
    initiation = network.log[0][2]
    for _ in range(UNDER_LOAD + 1):
        right.take(initiation, ("203.0.113.9", 9))
    network.filter = lambda datagram: True
    network.advance(0)
    assert all(end is right for _, end, datagram in network.log if datagram[0] == COOKIE)
    before = network.kinds().count(COOKIE)
    assert before >= 1
    network.now = 1000.9
    left.tunnel._machine.retry(next(iter(left.tunnel._peers)), network.now)
    network.settle()
    assert network.kinds().count(COOKIE) == before + 1
    left.tunnel._machine.retry(next(iter(left.tunnel._peers)), network.now)
    network.settle()
    assert right.packets == [THERE]


@pytest.mark.parametrize(
    ("form", "refused"),
    [("2001:db8::{:x}", 5), ("2001:db8:0:{:x}::1", 0), ("192.0.2.{}", 0), ("2001:db8::1", 5), ("192.0.2.1", 5)],
    ids=["one-64", "many-64s", "many-ipv4", "one-ipv6", "one-ipv4"],
)
def test_handshakes_under_load_are_limited_by_ipv4_address_and_by_ipv6_network(form: str, refused: int) -> None:
    network, left, right = joined()
    (peer,) = left.tunnel._peers

    def initiate() -> None:
        peer.initiation_sent = -NEVER
        left.tunnel._machine.initiate(peer, network.now)
        network.settle()

    initiate()
    for _ in range(UNDER_LOAD - 1):
        right.take(network.log[0][2], ("203.0.113.9", 9))
    for number in range(MAX_PER_SOURCE + 5):
        left.endpoint = (form.format(number + 1), 1000 + number)
        initiate()  # It is answered with a cookie for that address and port, which the next one has.
        initiate()
    assert network.kinds(right).count(COOKIE) == MAX_PER_SOURCE + 5
    assert right.tunnel.rejected["too many handshakes from one source"] == refused


def test_a_bounded_number_of_packets_waits_for_a_handshake() -> None:
    network, left, right = joined()
    network.filter = lambda datagram: False
    for number in range(MAX_STAGED + 3):
        left.send(packet("10.0.0.1", "10.0.0.2", number.to_bytes(2, "big")))
    network.filter = lambda datagram: True
    network.settle()
    assert [int.from_bytes(data[20:], "big") for data in right.packets] == list(range(3, MAX_STAGED + 3))
    assert left.tunnel.rejected["too many packets wait for a handshake"] == 3


def test_a_packet_for_a_peer_without_an_endpoint_is_dropped_and_counted() -> None:
    network, _, right = joined()
    right.send(BACK)
    network.settle()
    assert right.tunnel.rejected["no endpoint"] == 1
    assert network.log == []


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None, max_examples=150)
@given(st.data())
def test_any_datagram_is_handled_without_an_error_or_a_wrong_packet(data: st.DataObject) -> None:
    network, left, right = joined()
    left.send(THERE)
    network.settle()
    right.send(BACK)
    network.settle()
    messages = [datagram for _, _, datagram in network.log]
    for _ in range(10):
        message = bytearray(data.draw(st.sampled_from(messages)))
        match data.draw(st.sampled_from(["flip", "cut", "again", "type", "noise"])):
            case "flip":
                place = data.draw(st.integers(0, len(message) - 1))
                message[place] ^= 1 << data.draw(st.integers(0, 7))
            case "cut":
                del message[data.draw(st.integers(0, len(message) - 1)) :]
            case "type":
                message[0] = data.draw(st.integers(0, 5))
            case "noise":
                message = bytearray(data.draw(st.binary(max_size=200)))
        network.now += data.draw(st.sampled_from([0.0, 0.05, 6.0, 200.0]))
        data.draw(st.sampled_from([left, right])).take(bytes(message), ("203.0.113.1", 1))
        network.settle()
    assert (left.packets, right.packets) == ([BACK], [THERE])
    assert left.peer(right).endpoint == right.endpoint


def test_a_keypair_wiped_meanwhile_seals_nothing() -> None:
    network, left, _right = joined()
    left.send(THERE)
    network.settle()
    (sealing,) = left.tunnel._prepare([memoryview(THERE)], False, network.now)
    left.tunnel.configure(Change(replace_peers=True), network.now)
    assert sealing.seal(0) == []


def test_a_removed_peer_has_no_timers() -> None:
    network = Network()
    end = End(network)
    everybody = PeerChange(Identity(new_key()).public, persistent_keepalive=5)
    end.tunnel.configure(Change(peers=(everybody,)), network.now)
    end.tunnel.configure(Change(replace_peers=True), network.now)
    end.tunnel.handle_timers(network.now)
    assert end.tunnel.timer == NEVER


def test_a_bundle_beyond_the_last_counter_is_not_sealed() -> None:
    network, left, _right = joined()
    left.send(THERE)
    network.settle()
    (peer,) = left.tunnel._peers
    assert peer.current is not None
    peer.current.transport.counter = REJECT_AFTER_MESSAGES - 1
    assert left.tunnel._prepare([memoryview(THERE)] * 2, False, network.now) == []
    assert len(left.tunnel._prepare([memoryview(THERE)], False, network.now)) == 1


def test_a_peer_is_answered_from_the_local_address_that_it_last_sent_to() -> None:
    network, left, right = joined()
    first, second = bytes([127, 0, 0, 1]), bytes([127, 0, 0, 2])

    def answered_from() -> bytes | None:
        right.tunnel.send([memoryview(BACK)], False, network.now)
        (outgoing,) = right.tunnel.datagrams_to_send()
        return outgoing.local

    left.send(THERE)
    network.settle()
    for local in (first, second, None):
        left.tunnel.send([memoryview(THERE)], False, network.now)
        ((endpoint, _, [(memory, size, _)]),) = left.tunnel.datagrams_to_send()
        assert endpoint == right.endpoint
        assert right.tunnel.receive(memory, size, left.endpoint, network.now, local)
        assert answered_from() == local
    right.tunnel.receive(memoryview(bytearray(b"\4\0\0\0" + bytes(60))), 64, left.endpoint, network.now, first)
    assert answered_from() is None


def test_a_local_address_that_fails_is_forgotten() -> None:
    network, left, right = joined()
    left.send(THERE)
    network.settle()
    (peer,) = right.tunnel._peers
    peer.local = bytes(4)
    right.tunnel.forget_local_address(("203.0.113.1", 1))
    assert peer.local == bytes(4)
    right.tunnel.forget_local_address(left.endpoint)
    assert peer.local is None


def test_threads_that_send_at_once_use_each_counter_once() -> None:
    network, left, right = joined()
    left.send(THERE)
    network.settle()

    def send() -> None:
        for _ in range(200):
            left.tunnel.send([memoryview(THERE)] * 3, False, network.now)

    threads = [threading.Thread(target=send) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    network.settle()
    assert len(right.packets) == 1 + 4 * 200 * 3
    assert not right.tunnel.rejected


def test_a_router_learns_of_peers_whose_state_changed() -> None:
    network, left, right = joined()
    left.tunnel.track_changes()
    (route,) = left.tunnel.changed_routes()
    assert (route.endpoint, route.sending, route.receiving) == (right.endpoint, None, [])
    assert left.tunnel.changed_routes() == []
    left.send(THERE)
    network.settle()
    (route,) = left.tunnel.changed_routes()
    assert route.sending is not None
    assert (route.sending.expires_at, route.sending.attend_at) == (network.now + 180, network.now + 120)
    assert [keypair.attend_at for keypair in route.receiving] == [network.now + 165]
    network.advance(120)
    left.send(THERE)
    network.settle()
    (route,) = left.tunnel.changed_routes()
    assert [keypair.attend_at for keypair in route.receiving] == [network.now + 165, NEVER]
    left.tunnel.configure(Change(replace_peers=True), network.now)
    (route,) = left.tunnel.changed_routes()
    assert (route.networks, route.sending, route.receiving) == ((), None, [])
