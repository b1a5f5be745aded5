"""Programs over adapters on the models: the echo example's answers, a pipe, and a pair of WireGuard devices."""

import ipaddress
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import pytest

import threepipe
from tests.support.bsd.bench import Bench
from tests.support.bsd.benches import Make, every
from tests.support.wireguard_pair import new_key, packet
from threepipe.echo import echo_reply, echo_request
from threepipe.session import Session
from threepipe.wireguard import Device, PeerChange, parse_networks
from threepipe.wireguard.noise import Identity

SECONDS = 20.0


@contextmanager
def joined(*pairs: tuple[Session, Session]) -> Iterator[None]:
    """Run a pipe between each of the pairs, in threads, until the block ends."""
    with ThreadPoolExecutor(len(pairs)) as pool, ExitStack() as stack:
        for left, right in pairs:
            stack.callback(pool.submit(threepipe.pipe, left, right).result, SECONDS)
        for left, right in pairs:
            stack.callback(left.close)
            stack.callback(right.close)
        yield


def arrived(bench: Bench, name: str, count: int) -> list[bytes]:
    found: list[bytes] = []
    while len(found) < count and (more := bench.kernel.arrivals(name, SECONDS)):
        found += more
    return found


@every
@pytest.mark.parametrize("addresses", [("10.6.7.1", "10.6.7.9"), ("fd67::1", "fd67::9")])
def test_echo_requests_of_the_system_are_answered(make: Make, addresses: tuple[str, str]) -> None:
    bench = make()
    own, other = map(ipaddress.ip_address, addresses)
    requests = [echo_request(str(own), str(other), 7, number) for number in range(200)]
    with bench.create(addresses=["10.6.7.1/24", "fd67::1/64"]) as adapter, adapter.start_session() as session:
        for request in requests:
            assert bench.kernel.deliver(adapter.name, [request]) == 1
            replies = [echo_reply(each) for each in session.receive(SECONDS)]
            session.send([reply for reply in replies if reply])
        assert arrived(bench, adapter.name, len(requests)) == [echo_reply(request) for request in requests]


@every
def test_a_pipe_joins_two_adapters_both_ways(make: Make) -> None:
    bench = make()
    with bench.create(addresses=["10.1.1.1/24"]) as left, bench.create(addresses=["10.1.2.1/24"]) as right:
        there = [packet("10.1.1.1", "10.1.2.9", bytes([number]) * 700) for number in range(30)]
        back = [packet("10.1.2.1", "10.1.1.9", bytes([number]) * 300) for number in range(30)]
        with joined((left.start_session(), right.start_session())):
            assert bench.kernel.deliver(left.name, there) == len(there)
            assert bench.kernel.deliver(right.name, back) == len(back)
            assert arrived(bench, right.name, len(there)) == there
            assert arrived(bench, left.name, len(back)) == back


@every
def test_wireguard_carries_packets_between_two_machines(make: Make) -> None:
    keys = new_key(), new_key()
    public = [Identity(key).public for key in keys]
    machines = make(), make()
    with ExitStack() as stack:
        right = stack.enter_context(Device(private_key=keys[1]))
        endpoint = ("127.0.0.1", right.status().listen_port)
        there = PeerChange(public[1], endpoint=endpoint, allowed_ips=parse_networks(["10.9.0.2", "fd09::2"]))
        left = stack.enter_context(Device(private_key=keys[0], peers=[there], mtu=1420))
        right.configure(
            threepipe.wireguard.Change(
                peers=(PeerChange(public[0], allowed_ips=parse_networks(["10.9.0.1", "fd09::1"])),)
            )
        )
        adapters = [
            stack.enter_context(bench.create(addresses=[f"10.9.0.{number}/24", f"fd09::{number}/64"], mtu=1420))
            for number, bench in enumerate(machines, 1)
        ]
        sessions = [adapter.start_session() for adapter in adapters]
        with joined((sessions[0], left.session), (sessions[1], right.session)):
            for near, far, version in ((0, 1, 4), (1, 0, 4), (0, 1, 6), (1, 0, 6)):
                place = "10.9.0.{}" if version == 4 else "fd09::{}"
                sent = [packet(place.format(near + 1), place.format(far + 1), bytes([n]) * 900) for n in range(20)]
                machines[near].kernel.deliver(adapters[near].name, sent)
                assert arrived(machines[far], adapters[far].name, len(sent)) == sent
