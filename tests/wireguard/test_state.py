"""A tunnel that goes on from the state of another one: as if nothing had happened, and with no counter used twice."""

import itertools
import os
import random
from types import ModuleType

import pytest

from tests.support.wireguard_pair import (
    BACK,
    INITIATION,
    RESPONSE,
    THERE,
    TRANSPORT,
    End,
    Network,
    joined,
    packet,
)
from threepipe.core import fast
from threepipe.core import transport as python_transport
from threepipe.wireguard.settings import Change, PeerChange
from threepipe.wireguard.state import Reader, Writer
from threepipe.wireguard.tunnel import Tunnel

KEY = bytes(range(32))
BOTH = [python_transport, fast] if fast.NATIVE else [python_transport]
NAMES = ["python", "native"][: len(BOTH)]


def state_of(tunnel: Tunnel) -> bytearray:
    writer = Writer()
    tunnel.write_state(writer)
    return writer.joined()


def replace(end: End) -> Tunnel:
    """Have a new tunnel go on in place of that of `end`, and return the old one."""
    old, state = end.tunnel, state_of(end.tunnel)
    end.tunnel = Tunnel(wall_clock=end.wall_clock)
    reader = Reader(state)
    end.tunnel.read_state(reader)
    reader.end()
    return old


def settled(**settings: bytes | int | None) -> tuple[Network, End, End]:
    """Return two ends with a keypair in use."""
    network, left, right = joined(**settings)  # type: ignore[arg-type]
    left.send(THERE)
    network.settle()
    right.send(BACK)
    network.settle()
    assert (left.packets, right.packets) == ([BACK], [THERE])
    return network, left, right


def counters(network: Network, sender: End) -> list[int]:
    return [
        int.from_bytes(datagram[8:16], "little")
        for _, end, datagram in network.log
        if end is sender and datagram[0] == TRANSPORT
    ]


@pytest.mark.parametrize("source", BOTH, ids=NAMES)
@pytest.mark.parametrize("target", BOTH, ids=NAMES)
def test_a_transport_goes_on_from_the_state_of_either_core(source: ModuleType, target: ModuleType) -> None:
    sender = source.Transport(KEY, KEY, 7, 7)
    assert sender.reserve(5) == 0
    ((sealed, _, _),) = sender.seal(0, 5, [memoryview(THERE)] * 5, False, 0)
    size = len(sealed) // 5
    assert sender.open(memoryview(bytearray(sealed[:size])), size)[3] == 1
    state = sender.state()
    taken = target.Transport.from_state(state)
    assert (taken.local_index, taken.remote_index, taken.counter) == (7, 7, 5)
    assert taken.state() == state == bytearray(python_transport.STATE.pack(7, 7, 5, KEY, KEY, state[80:]))
    assert taken.open(memoryview(bytearray(sealed)), size)[3] == 4, "the window opened again"
    assert taken.seal(4, 1, [memoryview(THERE)], False, 0)[0][0] == sealed[4 * size :]


@pytest.mark.parametrize("module", BOTH, ids=NAMES)
def test_a_state_of_another_size_is_refused_and_wiped_keys_have_none(module: ModuleType) -> None:
    keys = module.Transport(KEY, KEY, 7, 7)
    with pytest.raises(ValueError, match=f"expected {python_transport.STATE.size} bytes"):
        module.Transport.from_state(keys.state()[1:])
    keys.wipe()
    with pytest.raises(ValueError, match="wiped"):
        keys.state()


@pytest.mark.parametrize("preshared_key", [None, os.urandom(32)], ids=["no-psk", "psk"])
def test_packets_pass_both_ways_after_a_takeover_without_a_handshake(preshared_key: bytes | None) -> None:
    network, left, right = settled(preshared_key=preshared_key)
    handshakes = network.kinds().count(INITIATION)
    for end, other in ((left, right), (right, left)):
        before = end.peer(other)
        replace(end)
        assert end.peer(other) == before
        left.send(THERE)
        network.settle()
        right.send(BACK)
        network.settle()
    assert (left.packets, right.packets) == ([BACK] * 3, [THERE] * 3)
    assert network.kinds().count(INITIATION) == handshakes
    assert all(not end.tunnel.rejected for end in (left, right))


def test_no_counter_is_used_twice_over_many_takeovers() -> None:
    network, left, right = settled()
    for _ in range(20):
        replace(left)
        left.send(*[THERE] * 3)
        network.settle()
    used = counters(network, left)
    assert used == sorted(set(used))
    assert right.packets == [THERE] * 61


def test_a_message_from_before_a_takeover_is_a_replay_after_it() -> None:
    network, left, right = settled()
    left.send(THERE)
    network.settle()
    (replayed,) = [datagram for _, end, datagram in network.log if end is left][-1:]
    replace(right)
    right.take(replayed, left.endpoint)
    assert right.packets == [THERE, THERE]
    assert right.tunnel.rejected["not authentic, or not new"] == 1


def test_messages_on_their_way_during_a_takeover_are_opened_after_it() -> None:
    network, left, right = settled()
    held = network.hold()
    left.send(THERE, THERE)
    network.settle()
    replace(right)
    for datagram in reversed(held):
        right.take(datagram, left.endpoint)
    assert right.packets == [THERE] * 3


def test_staged_packets_and_an_unanswered_handshake_survive_a_takeover() -> None:
    network, left, right = joined()
    held = network.hold()
    left.send(THERE)
    network.settle()
    replace(left)
    network.filter = lambda datagram: True
    (initiation,) = held
    right.take(initiation, left.endpoint)
    network.settle()
    assert right.packets == [THERE]
    assert network.kinds().count(INITIATION) == 1


def test_a_responder_taken_over_before_its_keypair_was_used_accepts_the_first_message() -> None:
    network, left, right = joined()
    network.filter = lambda datagram: datagram[0] != TRANSPORT
    left.send(THERE)
    network.settle()
    assert network.kinds() == [INITIATION, RESPONSE, TRANSPORT]
    replace(right)
    right.take(network.log[-1][2], left.endpoint)
    assert right.packets == [THERE]
    right.send(BACK)
    network.filter = lambda datagram: True
    network.settle()
    assert left.packets == [BACK]


def test_timers_go_on_after_a_takeover() -> None:
    network, left, _ = settled(persistent_keepalive=25)
    network.advance(10)
    replace(left)
    began = network.now
    network.advance(300)
    kinds = network.kinds(left, since=began + 0.1)
    assert kinds.count(INITIATION) >= 2, "the keypair was not renewed"
    sent = [at for at, end, datagram in network.log if end is left and at > began]
    assert max(later - earlier for earlier, later in itertools.pairwise(sent)) <= 25.1


def test_a_repeated_handshake_without_an_answer_ends_at_the_same_time_after_a_takeover() -> None:
    network, left, _ = joined()
    network.filter = lambda datagram: False
    left.send(THERE)
    network.advance(60)
    replace(left)
    network.advance(60)
    tries = [at for at, _, datagram in network.log if datagram[0] == INITIATION]
    assert 1085 < tries[-1] < 1100
    assert left.tunnel.rejected["no answer to handshakes"] == 1


def test_an_initiation_from_before_a_takeover_is_refused_after_it() -> None:
    network, left, right = settled()
    initiation = next(datagram for _, _, datagram in network.log if datagram[0] == INITIATION)
    replace(right)
    right.take(initiation, left.endpoint)
    assert right.tunnel.rejected["initiation replayed"] == 1


def test_timestamps_do_not_go_back_after_a_takeover_with_a_clock_set_back() -> None:
    network, left, right = settled()
    left.wall_error = -1000.0
    replace(left)
    network.advance(130)
    left.send(THERE)
    network.settle()
    assert "initiation replayed" not in right.tunnel.rejected
    assert network.kinds(left).count(INITIATION) == 2


def test_settings_peers_and_counts_are_those_before_the_takeover() -> None:
    network, left, right = settled(persistent_keepalive=7, preshared_key=os.urandom(32))
    peers = [
        PeerChange(os.urandom(32), endpoint=("fe80::1%3", 9), allowed_ips=[f"10.{number}.0.0/16"])
        for number in range(1, 9)
    ]
    left.tunnel.configure(Change(peers=peers), network.now)
    left.tunnel.mtu = 1400
    left.tunnel.reject("a reason", 3)
    right.send(packet("10.9.0.1", "10.0.0.1"))
    network.settle()
    status, rejected = left.tunnel.status(network.now), left.tunnel.rejected
    replace(left)
    assert left.tunnel.status(network.now) == status
    assert left.tunnel.rejected == rejected
    assert left.tunnel.mtu == 1400


def test_a_tunnel_without_a_key_is_taken_over() -> None:
    network, left, _ = settled()
    left.tunnel.configure(Change(bytes(32)), network.now)
    status = left.tunnel.status(network.now)
    replace(left)
    assert left.tunnel.status(network.now) == status


def test_the_old_tunnel_seals_nothing_once_it_has_forgotten_and_recovers_by_a_handshake() -> None:
    network, left, right = settled()
    lost = replace(left)
    lost.forget_sessions()
    lost.send([memoryview(THERE)], False, network.now)
    assert all(memory[0] == INITIATION for out in lost.datagrams_to_send() for memory, _, _ in out.runs)
    lost.forget_sessions()
    left.tunnel = lost  # The new one has failed.
    network.advance(0.1)
    lost.renew_sessions(network.now)
    network.settle()
    assert right.packets == [THERE, THERE]
    right.send(BACK)
    network.settle()
    assert left.packets == [BACK, BACK]


def test_a_state_that_was_cut_off_or_is_too_long_is_refused() -> None:
    _, left, _ = settled(preshared_key=os.urandom(32))
    state = bytes(state_of(left.tunnel))
    for length in [0, 1, 7, 8, *random.Random(1).sample(range(len(state)), 60)]:
        with pytest.raises(ValueError, match="state"):
            Tunnel().read_state(Reader(state[:length]))
    reader = Reader(state + b"\0")
    Tunnel().read_state(reader)
    with pytest.raises(ValueError, match="1 bytes too many"):
        reader.end()


def test_the_parts_with_keys_are_wiped_once_they_are_joined() -> None:
    writer = Writer()
    secret = bytearray(KEY)
    writer.data(secret)
    assert KEY in bytes(writer.joined())
    assert secret == bytes(32)
