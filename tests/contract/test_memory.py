"""Memory adapters, the behaviour that all adapters share, and races between the two ends."""

import errno
import ipaddress
import select
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing

import pytest

from threepipe import (
    Adapter,
    AdapterClosed,
    AdapterError,
    AdapterGone,
    AdapterInfo,
    AdapterStatistics,
    AdapterUnavailable,
    EndpointEnded,
    InvalidSetting,
    LinkDown,
    MemoryAdapter,
    Session,
    SessionClosed,
    SessionExists,
    memory,
)
from threepipe.backend import Port
from threepipe.net.doorbell import Doorbell
from threepipe.ring import RingReader
from threepipe.settings import Address, Network

CAPACITY = 0x20000
PACKET = b"\x45" + bytes(99)

Pair = tuple[MemoryAdapter, MemoryAdapter]


@pytest.fixture
def pair() -> Iterator[Pair]:
    left, right = MemoryAdapter.pair()
    with left, right:
        yield left, right


def test_a_pair_is_two_distinct_adapters(pair: Pair) -> None:
    left, right = pair
    other, _ = MemoryAdapter.pair()
    assert len({left.name, right.name, other.name}) == len({left.index, right.index, other.index}) == 3
    assert left.info == AdapterInfo(left.name, left.index, 1500, False)
    assert left.addresses == ()
    assert repr(left) == f"<Adapter {left.name}>"
    assert left.start_session().send([PACKET]) == 0


def test_the_mtu_of_a_memory_adapter_is_reported_and_not_enforced() -> None:
    left, right = MemoryAdapter.pair(mtu=68)
    with left, right:
        assert (left.mtu, right.mtu) == (68, 68)
        left.mtu = 9000
        assert (left.mtu, right.mtu) == (9000, 68)
        for mtu in (67, 65536):
            with pytest.raises(InvalidSetting, match=f"MTU {mtu}"):
                right.mtu = mtu
        near, far = left.start_session(), right.start_session()
        assert far.send([PACKET * 600]) == 1
        assert near.receive()[0] == PACKET * 600
    with pytest.raises(InvalidSetting, match="MTU 67"):
        MemoryAdapter.pair(mtu=67)


def test_the_link_is_up_while_a_session_is_open(pair: Pair) -> None:
    left, right = pair
    for _ in range(2):
        assert not left.link_up
        with left.start_session(CAPACITY):
            assert left.link_up
            assert not right.link_up
    assert not left.link_up


def test_a_second_session_raises_session_exists(pair: Pair) -> None:
    left, right = pair
    session, far = left.start_session(CAPACITY), right.start_session(CAPACITY)
    with pytest.raises(SessionExists, match=f"{left.name} has a session; an adapter has one at a time"):
        left.start_session(CAPACITY)
    assert session.send([PACKET]) == 1
    assert far.receive()[0] == PACKET


def test_a_session_can_follow_a_closed_one(pair: Pair) -> None:
    left, right = pair
    far = right.start_session(CAPACITY)
    for number in range(3):
        with left.start_session(CAPACITY) as session:
            assert far.send([PACKET] * (number + 1)) == number + 1
            assert len(session.receive()) == number + 1
        assert far.send([PACKET]) == 0
    assert far.statistics.sent_dropped == 3


def test_packets_not_received_are_lost_with_the_session(pair: Pair) -> None:
    left, right = pair
    near, far = left.start_session(CAPACITY), right.start_session(CAPACITY)
    assert near.send([PACKET] * 3) == 3
    far.close()
    with right.start_session(CAPACITY) as far:
        assert not far.receive(timeout=0)
        assert near.send([PACKET]) == 1
        assert len(far.receive()) == 1


@pytest.mark.parametrize("capacity", [0, CAPACITY - 1, CAPACITY + 4, 3 * CAPACITY, 0x8000000])
def test_an_invalid_capacity_raises(pair: Pair, capacity: int) -> None:
    with pytest.raises(InvalidSetting, match=f"capacity {capacity}: "):
        pair[0].start_session(capacity)
    assert not pair[0].link_up


@pytest.mark.parametrize("capacity", [0x20000, 0x40000, 0x400000])
def test_a_session_holds_as_many_packets_as_its_capacity(pair: Pair, capacity: int) -> None:
    near, far = pair[0].start_session(capacity), pair[1].start_session(CAPACITY)
    fitting = (capacity - 4) // 104
    assert far.send([PACKET] * (fitting + 1)) == fitting
    assert near.send([PACKET] * 2000) == (CAPACITY - 4) // 104


def test_adapter_statistics_add_up_all_sessions(pair: Pair) -> None:
    left, right = pair
    for _ in range(2):
        with left.start_session(CAPACITY) as near, right.start_session(CAPACITY) as far:
            assert near.send([PACKET] * 2000) == 1260
            far.send([PACKET] * 3)
            near.receive()
            far.receive()
    assert left.statistics == AdapterStatistics(6, 600, 0, 2520, 252_000, 0)
    assert right.statistics == AdapterStatistics(512, 51_200, 0, 6, 600, 0)


def test_close_of_the_far_end_ends_the_session_after_its_last_packets(pair: Pair) -> None:
    left, right = pair
    near, far = left.start_session(CAPACITY), right.start_session(CAPACITY)
    assert far.send([PACKET] * 300) == 300
    right.close()
    assert [len(near.receive()), len(near.receive())] == [256, 44]
    for use in (near.receive, lambda: near.receive(0), lambda: near.send([PACKET]), lambda: near.send([])):
        with pytest.raises(EndpointEnded, match=f"the other end of {left.name} was closed"):
            use()
    assert near.statistics.sent_dropped == 1
    near.close()
    with pytest.raises(SessionClosed):
        near.receive()


def test_the_repr_of_a_session_shows_its_state_and_counts(pair: Pair) -> None:
    near, far = [adapter.start_session(CAPACITY) for adapter in pair]
    assert near.send([PACKET, PACKET]) == 2
    assert len(far.receive()) == 2
    near.close()
    assert repr(near) == "<Session closed: 0 packets received, 2 sent>"
    assert repr(far) == "<Session open: 2 packets received, 0 sent>"


def test_a_session_started_after_the_far_end_closed_raises_endpoint_ended(pair: Pair) -> None:
    pair[1].close()
    near = pair[0].start_session(CAPACITY)
    with pytest.raises(EndpointEnded):
        near.receive()


def test_every_use_of_a_closed_adapter_raises(pair: Pair) -> None:
    left, _ = pair
    session = left.start_session(CAPACITY)
    left.close()
    left.close()
    assert session.closed
    assert repr(left) == f"<Adapter {left.name} closed>"
    uses: list[Callable[[], object]] = [
        lambda: left.info,
        lambda: left.mtu,
        lambda: left.addresses,
        lambda: left.link_up,
        lambda: left.statistics,
        left.start_session,
        left.delete,
        lambda: setattr(left, "mtu", 1400),
    ]
    for use in uses:
        with pytest.raises(AdapterClosed, match=f"{left.name} was closed; create or open it again"):
            use()


def readable(session: Session) -> bool:
    return bool(select.select([session.fileno()], [], [], 0)[0])


def test_the_descriptor_is_readable_exactly_while_there_are_packets_or_the_end(pair: Pair) -> None:
    near = pair[0].start_session(CAPACITY)
    assert not readable(near)
    far = pair[1].start_session(CAPACITY)
    assert not readable(near)
    far.send([PACKET] * 300)
    assert readable(near)
    assert len(near.receive(timeout=0)) == 256
    assert readable(near)
    assert len(near.receive(timeout=0)) == 44
    assert not readable(near)
    assert not near.receive(timeout=0)
    assert not readable(near)
    far.close()
    assert not readable(near)
    with pair[1].start_session(CAPACITY) as far:
        far.send([PACKET] * 2)
        assert near.receive_packet(timeout=0)
        assert readable(near)
        assert near.receive_packet(timeout=0)
        assert not readable(near)
        far.send([PACKET])
    pair[1].close()
    assert readable(near)
    assert near.receive(timeout=0)
    assert readable(near)
    with pytest.raises(EndpointEnded):
        near.receive()
    assert readable(near)


def test_a_name_in_place_of_a_device_raises_with_the_calls_to_use() -> None:
    with pytest.raises(TypeError, match=r"call Adapter\.create\('tp9'\) .* or Adapter\.open\('tp9'\)"):
        Adapter("tp9")  # type: ignore[arg-type]


def test_delete_closes_the_adapter_and_its_session(pair: Pair) -> None:
    left, right = pair
    session = left.start_session(CAPACITY)
    left.delete()
    assert session.closed
    with pytest.raises(AdapterClosed):
        left.delete()
    with pytest.raises(EndpointEnded):
        right.start_session(CAPACITY).receive()


class FakeDevice:
    """A device with addresses, whose link does not come up before the second try."""

    name = "fake0"
    index = 7

    def __init__(self, addresses: Sequence[str] = (), routes: Sequence[str] = ()) -> None:
        self.addresses: tuple[Address, ...] = tuple([ipaddress.ip_interface(text) for text in addresses])
        self.routes: tuple[Network, ...] = tuple([ipaddress.ip_network(text) for text in routes])
        self.mtu = 1500
        self.calls: list[str] = []
        self.other, self.real = MemoryAdapter.pair()

    def info(self) -> AdapterInfo:
        return AdapterInfo(self.name, self.index, self.mtu, False, addresses=self.addresses, routes=self.routes)

    def set_mtu(self, mtu: int) -> None:
        self.mtu = mtu

    def add(self, item: Address | Network) -> None:
        self.calls.append(f"add {item}")

    def remove(self, item: Address | Network) -> None:
        self.calls.append(f"remove {item}")

    def start(self, capacity: int) -> Port:
        self.calls.append("start")
        if len(self.calls) == 1:
            raise LinkDown(5, "set down")
        return self.real._device.start(capacity)

    def detach(self, capacity: int) -> int:
        self.calls.append(f"detach {capacity}")
        return 77

    def unpersist(self) -> None:
        self.calls.append("unpersist")

    def close(self) -> None:
        self.calls.append("close")


@pytest.mark.parametrize(
    ("addresses", "routes", "lowest"),
    [
        ([], [], 68),
        (["10.0.0.1/8"], ["10.0.0.0/8"], 68),
        (["fe80::1/64"], ["fe80::/64"], 68),
        (["10.0.0.1/8", "fd00::1/64"], [], 1280),
        (["10.0.0.1/8"], ["fd00::/64"], 1280),
    ],
)
def test_the_lowest_mtu_follows_from_addresses_and_routes(addresses: list[str], routes: list[str], lowest: int) -> None:
    with Adapter(device := FakeDevice(addresses, routes)) as adapter:
        adapter.mtu = lowest
        with pytest.raises(InvalidSetting, match=f"MTU {lowest - 1}"):
            adapter.mtu = lowest - 1
        assert adapter.mtu == device.mtu == lowest
        assert adapter.addresses == device.addresses


def test_an_address_or_route_that_cannot_be_added_or_removed_changes_nothing() -> None:
    with Adapter(device := FakeDevice(["10.0.0.1/8"], ["10.2.0.0/16"])) as adapter:
        device.mtu = 600
        for call, argument, kind, text in (
            (adapter.add_address, "10.0.0.1/8", AdapterError, "fake0 has 10.0.0.1/8 already; leave it out"),
            (adapter.add_address, "10.0.0.1/33", InvalidSetting, "address '10.0.0.1/33'"),
            (adapter.add_address, "224.0.0.1", InvalidSetting, "give a unicast address"),
            (adapter.add_address, "fd00::1/64", InvalidSetting, "IPv6 needs at least 1280"),
            (adapter.add_route, "10.2.0.0/16", AdapterError, "fake0 has 10.2.0.0/16 already"),
            (adapter.add_route, "10.2.0.1/16", InvalidSetting, "host bits set"),
            (adapter.remove_address, "10.0.0.1/16", AdapterError, "does not have 10.0.0.1/16; give one of: 10.0.0.1/8"),
            (adapter.remove_route, "10.0.0.0/8", AdapterError, "does not have 10.0.0.0/8; give one of: 10.2.0.0/16"),
        ):
            with pytest.raises(kind, match=text):
                call(argument)
        assert device.calls == []
        adapter.add_address("fe80::1/64")
        adapter.remove_route("10.2.0.0/16")
        assert device.calls == ["add fe80::1/64", "remove 10.2.0.0/16"]


def test_a_detached_adapter_is_closed_and_its_descriptor_returned() -> None:
    adapter = Adapter(device := FakeDevice())
    assert adapter.detach(CAPACITY) == 77
    assert device.calls == [f"detach {CAPACITY}", "close"]
    with pytest.raises(AdapterClosed):
        adapter.detach()


def test_a_memory_adapter_cannot_be_detached_and_stays_open() -> None:
    left, right = MemoryAdapter.pair()
    with left, right:
        with pytest.raises(AdapterUnavailable, match="has no descriptor"):
            left.detach()
        with pytest.raises(InvalidSetting, match="capacity 5"):
            left.detach(5)
        with left.start_session(), pytest.raises(SessionExists):
            left.detach()


class DeviceClosedMeanwhile(FakeDevice):
    """A device whose interface is gone because another thread closes its adapter at the moment of a call."""

    adapter: Adapter

    def __init__(self, moment: str) -> None:
        super().__init__()
        self._moment = moment

    def _pass(self, moment: str) -> None:
        if moment == self._moment:
            self.adapter.close()
            raise AdapterGone(errno.ENODEV, "removed")

    def info(self) -> AdapterInfo:
        self._pass("info")
        return super().info()

    def set_mtu(self, mtu: int) -> None:
        self._pass("set_mtu")


@pytest.mark.parametrize("moment", ["info", "set_mtu"])
def test_a_call_that_close_overtakes_raises_adapter_closed(moment: str) -> None:
    device = DeviceClosedMeanwhile(moment)
    with Adapter(device) as device.adapter, pytest.raises(AdapterClosed, match="fake0 was closed"):
        device.adapter.mtu = 1400


class RemovedDevice(FakeDevice):
    def info(self) -> AdapterInfo:
        raise AdapterGone(errno.ENODEV, "removed")


def test_the_state_of_an_adapter_that_others_removed_raises_adapter_gone() -> None:
    with Adapter(RemovedDevice()) as adapter, pytest.raises(AdapterGone):
        assert adapter.info


def test_a_session_can_start_after_one_failed_to() -> None:
    with Adapter(device := FakeDevice()) as adapter:
        with pytest.raises(LinkDown):
            adapter.start_session(CAPACITY)
        adapter.start_session(CAPACITY).close()
        adapter.start_session(CAPACITY)
    assert device.calls == ["start", "start", "start", "close"]


def test_delete_removes_a_persistent_interface() -> None:
    adapter = Adapter(device := FakeDevice())
    assert (adapter.name, adapter.index) == ("fake0", 7)
    adapter.delete()
    assert device.calls == ["unpersist", "close"]


class Moments:
    """Actions of another thread at the moments of a race, which tests choose here; each happens once."""

    def __init__(self) -> None:
        self.after_reading_nothing: Callable[[], object] | None = None
        self.before_clearing_a_bell: Callable[[], object] | None = None


@pytest.fixture
def moments(monkeypatch: pytest.MonkeyPatch) -> Moments:
    """Interrupt memory adapters made in this test at these moments."""
    chosen = Moments()

    class Reader(RingReader):
        def read(self, target: memoryview, limit: int) -> list[int]:
            sizes = super().read(target, limit)
            action = None if sizes else chosen.after_reading_nothing
            if action:
                chosen.after_reading_nothing = None
                action()
            return sizes

    class Bell(Doorbell):
        def clear(self) -> None:
            if action := chosen.before_clearing_a_bell:
                chosen.before_clearing_a_bell = None
                action()
            super().clear()

    monkeypatch.setattr(memory, "RingReader", Reader)
    monkeypatch.setattr(memory, "Doorbell", Bell)
    return chosen


def test_a_packet_that_arrives_as_receive_gives_up_is_received(moments: Moments, pair: Pair) -> None:
    near, far = pair[0].start_session(CAPACITY), pair[1].start_session(CAPACITY)
    for moment in ("after_reading_nothing", "before_clearing_a_bell"):
        setattr(moments, moment, lambda: far.send([PACKET]))
        assert len(near.receive(timeout=0)) == 1
        assert not near.receive(timeout=0)


def test_room_that_appears_as_send_gives_up_is_used(moments: Moments, pair: Pair) -> None:
    near, far = pair[0].start_session(CAPACITY), pair[1].start_session(CAPACITY)
    assert near.send([PACKET] * 1260) == 1260
    moments.before_clearing_a_bell = lambda: far.receive(timeout=0)
    assert near.send([PACKET] * 300) == 256


def send_and_go(far: Session, adapter: Adapter) -> None:
    far.send([PACKET])
    adapter.close()


@pytest.mark.parametrize("moment", ["after_reading_nothing", "before_clearing_a_bell"])
def test_a_packet_sent_right_before_close_is_received(moments: Moments, pair: Pair, moment: str) -> None:
    near, far = pair[0].start_session(CAPACITY), pair[1].start_session(CAPACITY)
    setattr(moments, moment, lambda: send_and_go(far, pair[1]))
    assert len(near.receive(timeout=0)) == 1
    with pytest.raises(EndpointEnded):
        near.receive(timeout=0)


@pytest.mark.parametrize("moment", ["after_reading_nothing", "before_clearing_a_bell"])
def test_a_receive_about_to_wait_notices_that_the_far_end_closes(moments: Moments, pair: Pair, moment: str) -> None:
    near = pair[0].start_session(CAPACITY)
    setattr(moments, moment, pair[1].close)
    try:
        assert not near.receive(timeout=0)
    except EndpointEnded:
        pass  # As good: a caller that does not wait needs no signal.
    assert select.select([near._port.readable], [], [], 0)[0], (
        "the end was cleared away, and a caller that waits now waits for ever"
    )


def test_a_send_about_to_wait_notices_that_the_far_end_closes(moments: Moments, pair: Pair) -> None:
    near = pair[0].start_session(CAPACITY)
    moments.before_clearing_a_bell = pair[1].close
    with pytest.raises(EndpointEnded):
        near.send([PACKET], timeout=1)


def test_a_port_reports_a_closed_far_end_on_every_call(pair: Pair) -> None:
    with closing(pair[0].start_session(CAPACITY)) as near:
        pair[1].close()
        for _ in range(3):
            with pytest.raises(EndpointEnded):
                near.receive()
            assert select.select([near._port.readable, near._port.writable], [], [], 0)[0]
