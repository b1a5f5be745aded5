"""A forked child has no keys: it and its parent would seal with one counter."""

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from tests.support.forks import in_child
from tests.support.wireguard_pair import BACK, THERE, joined, new_key
from threepipe.errors import SessionClosed
from threepipe.wireguard import Change, Device, PeerChange, parse_networks
from threepipe.wireguard.noise import Identity

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")

SECONDS = 20.0


@contextmanager
def devices() -> Iterator[tuple[Device, Device]]:
    """Two devices that have shaken hands, and a thread for each that receives."""
    keys = new_key(), new_key()
    public = [Identity(key).public for key in keys]
    with Device(private_key=keys[1]) as right, Device(private_key=keys[0]) as left:
        there = PeerChange(
            public[1], endpoint=("127.0.0.1", right.status().listen_port), allowed_ips=parse_networks(["10.0.0.2"])
        )
        left.configure(Change(peers=(there,)))
        right.configure(Change(peers=(PeerChange(public[0], allowed_ips=parse_networks(["10.0.0.1"])),)))
        yield left, right


@contextmanager
def exchanging(left: Device, right: Device) -> Iterator[threading.Semaphore]:
    """Send both ways all the time, in threads; the semaphore counts the answers."""
    came, over = threading.Semaphore(0), threading.Event()

    def answer() -> None:
        for bundle in right.session:
            right.session.send([BACK] * len(bundle))

    def receive() -> None:
        for bundle in left.session:
            for _ in bundle:
                came.release()

    def send() -> None:
        while not over.wait(0.001):
            left.session.send([THERE] * 10)

    threads = [threading.Thread(target=work) for work in (answer, receive, send)]
    for thread in threads:
        thread.start()
    try:
        yield came
    finally:
        over.set()
        threads[2].join()
        left.close()
        right.close()
        for thread in threads[:2]:
            thread.join()


def test_a_child_forked_in_mid_traffic_has_no_keys_and_the_parent_goes_on() -> None:
    with devices() as (left, right), exchanging(left, right) as came:
        assert came.acquire(timeout=SECONDS)
        (peer,) = left._tunnel._peers
        keypair = peer.current
        assert keypair is not None

        def use_all() -> str:
            said = [str(keypair.transport.seal(0, 1, [memoryview(THERE)], False, 0))]
            for use in (
                lambda: left.session.send([THERE]),
                lambda: left.session.receive(0),
                lambda: left.configure(Change(listen_port=0)),
            ):
                with pytest.raises(SessionClosed):
                    use()
            said += [str(any(left.status().private_key)), str(left.status().peers), str(left.rejected)]
            with left, right:
                left.mtu = 1400
            said += [str(datagrams.socket.fileno()) for datagrams in left._port.datagrams]
            return " ".join(said)

        for _ in range(30):
            assert in_child(use_all) == "[] False () {} -1 -1"
        assert keypair.transport.seal(0, 1, [memoryview(THERE)], False, 0)
        while came.acquire(blocking=False):
            pass
        for _ in range(100):
            assert came.acquire(timeout=SECONDS)


def test_a_listen_port_is_free_once_the_parent_has_closed_it_though_a_child_lives() -> None:
    ready, told = os.pipe(), os.pipe()

    def live() -> None:
        os.write(ready[1], b"x")
        os.read(told[0], 1)

    with Device() as device, ThreadPoolExecutor(1) as executor:
        port = device.status().listen_port
        child = executor.submit(in_child, live)
        assert os.read(ready[0], 1) == b"x"
        device.close()
        with Device(listen_port=port) as another:
            assert another.status().listen_port == port
        os.write(told[1], b"x")
        assert child.result() == ""
    for descriptor in (*ready, *told):
        os.close(descriptor)


def test_a_tunnel_without_a_device_has_no_keys_in_a_child() -> None:
    network, left, right = joined()
    left.send(THERE)
    network.settle()

    def send() -> str:
        left.send(THERE)
        network.settle()
        return f"{len(right.packets)} {left.tunnel.status(network.now).peers} {dict(left.tunnel.rejected)}"

    assert in_child(send) == "1 () {'no peer for the destination': 1}"
    left.send(THERE)
    network.settle()
    assert len(right.packets) == 2
