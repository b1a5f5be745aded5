"""Devices that stand still while another process may take over, piped to adapters: nothing is lost or sent twice."""

import contextlib
import select
import sys
import threading
from collections.abc import Iterator

import pytest

if sys.platform != "linux":
    pytest.skip("no other platform lends descriptors", allow_module_level=True)

import threepipe
from tests.support.piped_devices import SECONDS, End, back, exchange, joined, numbered
from tests.support.waiting import come_true
from threepipe.errors import SessionClosed
from threepipe.platforms.linux.port import LinuxPort
from threepipe.platforms.linux.tun import Offload
from threepipe.pump import give_kept, kept, pause, resume, wait_until_pumped
from threepipe.session import Session
from threepipe.wireguard import Change, Device, Timing
from threepipe.wireguard.machine import Outgoing
from threepipe.wireguard.state import Reader, Writer, read_packets, read_runs, write_packets, write_runs


def nothing_came(end: End) -> bool:
    return not select.select([end.adapter.far], [], [], 0)[0]


@contextlib.contextmanager
def taken_over(end: End) -> Iterator[Device]:
    """Have a new device go on in place of that of `end`, as another process does."""
    end.device.suspend()
    writer = Writer()
    end.device.write_state(writer)
    state = writer.joined()
    device = Device.resumed(Reader(state), [each.dup() for each in end.device.sockets])
    end.device.forget_sessions()
    port = LinuxPort([end.adapter.file], end.adapter.file, "tp0", Offload.TCP_AND_UDP, lambda: None)
    thread = threading.Thread(target=threepipe.pipe, args=(session := Session(port), device.session))
    thread.start()
    end.device.give_away()
    device.resume()
    try:
        yield device
    finally:
        session.close()
        thread.join(SECONDS)
        device.close()


def test_a_suspended_device_passes_nothing_and_all_of_it_once_it_goes_on() -> None:
    with joined() as (left, right):
        exchange(left, right)
        left.device.suspend()
        packets = numbered(8)
        left.adapter.send(*packets)
        right.adapter.send(back(b"one"), back(b"two"))
        assert nothing_came(left)
        assert nothing_came(right)
        left.device.resume()
        assert right.adapter.receive(8) == packets
        assert left.adapter.receive(2) == [back(b"one"), back(b"two")]


def test_a_new_device_goes_on_and_passes_what_waited() -> None:
    with joined() as (left, right):
        exchange(left, right)
        assert come_true(lambda: left.handshakes() == right.handshakes() == 1, SECONDS)  # They are told a bit later.
        with taken_over(left) as device:
            packets = numbered(8)
            left.adapter.send(*packets)
            assert right.adapter.receive(8) == packets
            right.adapter.send(back(b"one"))
            assert left.adapter.receive(1) == [back(b"one")]
            assert device.status().peers[0].rx_bytes > 0
        assert left.handshakes() == right.handshakes() == 1
        with pytest.raises(SessionClosed):
            left.device.suspend()


def test_a_device_that_has_forgotten_its_keys_makes_new_ones_and_loses_nothing_that_it_sends() -> None:
    with joined(timing=Timing(rekey_timeout=0.2)) as (left, right):  # The peer refuses a second initiation at once.
        exchange(left, right)
        left.device.suspend()
        left.device.forget_sessions()
        packets = numbered(5)
        left.adapter.send(*packets)
        left.device.resume(renew=True)
        assert right.adapter.receive(5) == packets
        exchange(left, right)
        assert come_true(lambda: left.handshakes() == 2, SECONDS)


def test_a_suspended_device_can_be_given_away_while_a_pipe_waits_for_it() -> None:
    with joined() as (left, right):
        exchange(left, right)
        left.device.suspend()
        left.device.give_away()
        left.thread.join(SECONDS)
        assert not left.thread.is_alive()
        with pytest.raises(SessionClosed):
            left.device.configure(Change(fwmark=0))


def test_a_change_waits_until_the_device_goes_on() -> None:
    with joined() as (left, right):
        left.device.suspend()
        changing = threading.Thread(target=left.device.configure, args=(Change(replace_peers=True),))
        changing.start()
        assert len(left.device.status().peers) == 1
        left.device.resume()
        changing.join(SECONDS)
        assert not left.device.status().peers
        assert right.device.status().peers


def test_a_closed_session_ends_a_pause() -> None:
    with joined() as (left, _):
        pause(left.device.session)
        left.device.session.close()
        left.thread.join(SECONDS)
        assert not left.thread.is_alive()


def test_a_session_is_pumped_only_while_it_is_not_paused() -> None:
    with joined() as (left, _):
        assert wait_until_pumped(left.device.session, SECONDS)
        pause(left.device.session)
        assert not wait_until_pumped(left.device.session, 0)
        resume(left.device.session)
        assert wait_until_pumped(left.device.session, SECONDS)


def test_a_pump_that_waits_for_one_session_passes_nothing_of_the_other_that_is_paused_meanwhile() -> None:
    packets = numbered(3)
    with joined() as (left, right):
        exchange(left, right)
        left.device.suspend()
        give_kept(left.adapter.session, packets)
        pause(left.adapter.session)  # The pump waits for the device, and has looked at this one before.
        left.device.resume()
        assert not come_true(lambda: not kept(left.adapter.session), 0.2)
        resume(left.adapter.session)
        assert right.adapter.receive(3) == packets


def test_kept_packets_go_to_the_new_session_in_order() -> None:
    packets = numbered(3)
    with joined() as (left, right):
        exchange(left, right)
        left.device.suspend()
        assert kept(left.adapter.session) == []
        give_kept(left.adapter.session, packets)
        assert kept(left.adapter.session) == packets
        left.device.resume()
        assert right.adapter.receive(3) == packets


def test_kept_packets_and_unsent_datagrams_are_read_as_they_were_written() -> None:
    runs = [
        Outgoing(("192.0.2.1", 5), None, [(memoryview(b"abcdef"), 4, 1), (memoryview(b"x"), 1, 0)]),
        Outgoing(("fe80::1%3", 6), b"\xfe\x80" + bytes(14), [(memoryview(b"y"), 1, 2)]),
    ]
    writer = Writer()
    write_packets(writer, [b"one", b"two"])
    write_runs(writer, runs)
    reader = Reader(writer.joined())
    assert read_packets(reader) == [b"one", b"two"]
    read = [(endpoint, local, run) for endpoint, local, (run,) in read_runs(reader)]
    assert read == [(endpoint, local, run) for endpoint, local, each in runs for run in each]
    reader.end()
