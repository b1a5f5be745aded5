"""Adapters and sessions of the Windows platform, on the contract library: faults, threads, event loops."""

import asyncio
import itertools
import os
import subprocess
import sys
import threading
import uuid
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import threepipe
from tests.support.contract_dll.build import build, sanitizer
from tests.support.contract_dll.library import Fault, Function, Kind
from tests.support.contract_system import Bench, ContractIpHelper, ContractWire, find_contract
from threepipe.core import fast
from threepipe.errors import (
    AdapterBusy,
    AdapterError,
    AdapterGone,
    AdapterNotFound,
    InvalidPacket,
    InvalidSetting,
    NameTaken,
    RingCorrupt,
    SessionClosed,
)
from threepipe.platforms.windows import structures as win
from threepipe.platforms.windows.device import adapters, guid_of
from threepipe.platforms.windows.iphelper import IpHelper
from threepipe.platforms.windows.waiting import Arrival
from threepipe.settings import MIN_CAPACITY, WindowsSettings
from threepipe.testing import CHECKS, Wire

pytestmark = pytest.mark.windows

Check = Callable[[threepipe.Adapter, Wire], None]
Made = tuple[threepipe.Adapter, ContractWire]

Run = Callable[[Coroutine[Any, Any, Any]], Any]

LOOPS = ["SelectorEventLoop", *(["ProactorEventLoop"] if sys.platform == "win32" else [])]
SECONDS = 10.0


@pytest.fixture(scope="module")
def loaded(request: pytest.FixtureRequest) -> Iterator[Bench]:
    bench = Bench(find_contract(request.config))
    yield bench
    bench.close()


@pytest.fixture
def bench(loaded: Bench) -> Iterator[Bench]:
    """What a test did wrong by Wintun's contract, or left open, fails it."""
    loaded.contract.ContractReset()
    yield loaded
    wrongs = loaded.contract.counters()
    for allowed in ("released_out_of_order", "sent_out_of_order", "lost_wakeups"):
        wrongs.pop(allowed, None)
    loaded.contract.ContractReset()
    assert not wrongs
    if sys.platform == "linux":
        from tests.support.contract_events import EventFds

        assert isinstance(loaded.events, EventFds)
        assert not loaded.events.open
        assert not loaded.events.watches


@pytest.fixture
def made(bench: Bench) -> Iterator[Made]:
    with bench.wired() as made:
        yield made


def packet(number: int, size: int = 100) -> bytes:
    return (b"\x45\0" + size.to_bytes(2, "big") + number.to_bytes(4, "big")).ljust(size, b"~")


def packets(number: int, size: int = 100) -> list[bytes]:
    return [packet(index, size) for index in range(number)]


def number_of(found: bytes | memoryview) -> int:
    return int.from_bytes(found[4:8], "big")


@contextmanager
def in_threads(*functions: Callable[[], None]) -> Iterator[None]:
    """Run them while the body does, and raise what they raise."""
    with ThreadPoolExecutor(len(functions)) as pool:
        running = [pool.submit(function) for function in functions]
        yield
        for each in running:
            each.result(SECONDS)


# The contract.


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("check", CHECKS)
def test_it_keeps_the_whole_contract(check: Check, loop: str, made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asyncio.events, "new_event_loop", getattr(asyncio, loop))  # What asyncio.run takes.
    check(*made)


@pytest.mark.skipif(not sanitizer(), reason="there is no gcc with AddressSanitizer")
@pytest.mark.timeout(300)
def test_all_of_this_under_address_sanitizer(request: pytest.FixtureRequest) -> None:
    environment = os.environ | {
        "THREEPIPE_CONTRACT": str(build("linux-asan", request.config.cache.mkdir("contract"))),
        "LD_PRELOAD": str(sanitizer()),
        "ASAN_OPTIONS": "detect_leaks=0",  # Python leaves much behind on purpose.
    }
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "not sanitizer", __file__]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout


def test_who_waits_by_the_handle_is_told_of_the_end_whoever_clears(bench: Bench) -> None:
    """A receiver that finds nothing clears it, and the end may have come between its two looks."""
    event = bench.events.create()
    arrival = Arrival(bench.events, event)
    arrival.end()
    arrival.clear()
    told = threading.Event()
    cancel = bench.events.watch(arrival.fileno(), 2 * SECONDS, told.set)
    try:
        assert told.wait(SECONDS)
    finally:
        cancel()
        arrival.close()
        bench.events.close(event)


# Making and opening adapters.


def test_an_adapter_has_what_was_asked_for(bench: Bench) -> None:
    addresses = threepipe.settings.parse_addresses(["10.6.7.1/24", "fd67::1/64"])
    with bench.create("tp0", addresses=addresses, mtu=1400) as adapter:
        (found,) = bench.contract.interfaces()
        assert (found.name, found.description) == ("tp0", "threepipe Tunnel")
        assert bytes(found.guid) == guid_of("tp0").bytes_le
        assert adapter.index == found.luid >> 24 & 0xFFFFFF
        assert (adapter.addresses, adapter.mtu) == (addresses, 1400)
    assert bench.names() == []


def test_dns_and_a_metric_are_given_and_dns_is_taken_back(bench: Bench) -> None:
    ip = bench.system.ip
    assert isinstance(ip, ContractIpHelper)
    windows = WindowsSettings(dns=["10.6.7.53"], search=["example.org"])
    with bench.create("tp0", windows=windows, metric=7) as adapter:
        assert ip.dns == {win.AF_INET: ("10.6.7.53", "example.org"), win.AF_INET6: ("", "example.org")}
        luid = bench.contract.interfaces()[0].luid
        assert adapter.info.luid == luid
        assert [ip.interface(luid, family).Metric for family in (win.AF_INET, win.AF_INET6)] == [7, 7]
    assert ip.dns == {win.AF_INET: ("", ""), win.AF_INET6: ("", "")}


def test_where_windows_cannot_be_told_dns_nothing_is_made(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    without_functions: Any = object()
    monkeypatch.setattr(bench.system.ip, "check_dns", IpHelper(without_functions).check_dns)
    with pytest.raises(AdapterError, match="build 19041"):
        bench.create("tp0", windows=WindowsSettings(dns=["10.6.7.53"]))
    assert bench.names() == []


def test_an_adapter_can_have_a_guid_and_a_type_of_its_own(bench: Bench) -> None:
    guid = uuid.UUID("8f1b2a64-5d3e-4c0b-9a77-2e6d1c0f4b93")
    with bench.create("tp0", windows=WindowsSettings(guid=guid, tunnel_type="Example")):
        (found,) = bench.contract.interfaces()
        assert (uuid.UUID(bytes_le=bytes(found.guid)), found.description) == (guid, "Example Tunnel")


def test_the_guid_is_the_names_own() -> None:
    """It was drawn once and must stay, for Windows knows networks by it."""
    assert str(guid_of("tp0")) == "9c9e33a7-c936-5686-b2e1-d4bd093b4f06"
    assert guid_of("TP0") == guid_of("tp0") != guid_of("tp1")


@pytest.mark.parametrize("name", ["Ethernet", "ethernet"])
def test_a_name_that_somebody_has_is_taken_and_nobody_renamed(bench: Bench, name: str) -> None:
    bench.contract.ContractAddInterface("Ethernet", Kind.NEIGHBOUR)
    with pytest.raises(NameTaken, match=f"an interface named {name} exists; choose another name"):
        bench.create(name)
    assert bench.names() == ["Ethernet"]


def test_a_name_of_an_adapter_of_the_same_driver_is_taken(bench: Bench) -> None:
    with bench.create("tp0"):
        with pytest.raises(NameTaken):
            bench.create("TP0")
        assert bench.names() == ["tp0"]


def test_a_name_that_is_taken_in_the_meantime_is_noticed(bench: Bench) -> None:
    """The library then gives the adapter another name, and says nothing."""
    find = bench.system.ip.luid_of

    def taken_after_the_look(alias: str) -> int | None:
        luid = find(alias)
        bench.contract.ContractAddInterface(alias, Kind.FIXED)
        return luid

    bench.system.ip.luid_of = taken_after_the_look  # type: ignore[method-assign]
    try:
        with pytest.raises(NameTaken):
            bench.create("tp0")
    finally:
        del bench.system.ip.luid_of
    assert bench.names() == ["tp0"]  # Somebody else's; ours is gone.


def test_what_a_crash_left_is_taken_over(bench: Bench) -> None:
    bench.contract.ContractAddInterface("tp0", Kind.LEFTOVER)
    with bench.create("tp0") as adapter:
        assert bench.names() == [adapter.name] == ["tp0"]


def test_a_template_becomes_the_first_free_number(bench: Bench) -> None:
    bench.contract.ContractAddInterface("tp1", Kind.NEIGHBOUR)
    with bench.create("tp%d") as first, bench.create("tp%d") as second:
        assert (first.name, second.name) == ("tp0", "tp2")


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"netns": "red"}, "no network namespaces"),
        ({"persistent": True}, "never outlives its program"),
        ({"queues": 2}, "2 queues"),
        ({"metric": 10_000}, "on Windows give 1 to 9999"),
    ],
)
def test_what_windows_does_not_have_is_refused(bench: Bench, settings: dict[str, object], text: str) -> None:
    with pytest.raises(InvalidSetting, match=text):
        bench.create("tp0", **settings)
    assert bench.names() == []


def test_listing_knows_no_namespaces() -> None:
    with pytest.raises(InvalidSetting, match="no network namespaces"):
        adapters("red")


def test_when_setting_up_fails_nothing_is_left(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AdapterError(5, "refused")

    monkeypatch.setattr(bench.system.ip, "add_address", refuse)
    with pytest.raises(AdapterError, match="refused"):
        bench.create("tp0", addresses=threepipe.settings.parse_addresses(["10.6.7.1/24"]))
    assert bench.names() == []


def test_an_adapter_that_is_there_can_be_opened_and_stays(bench: Bench) -> None:
    with bench.create("tp0") as adapter:
        with bench.open("TP0") as opened:
            assert (opened.name, opened.index) == (adapter.name, adapter.index)
            with opened.start_session() as session:
                assert session.send([packet(0)]) == 1
                with pytest.raises(AdapterBusy, match="has a session in another program"):
                    adapter.start_session()
        assert bench.names() == ["tp0"]
        opened.close()
    with pytest.raises(AdapterNotFound):
        bench.open("tp0")


def test_a_session_that_cannot_wait_is_ended(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(_: int) -> int:
        raise OSError("no more handles")

    with bench.create("tp0") as adapter:
        with monkeypatch.context() as patch:
            patch.setattr(bench.events, "duplicate", exhausted)
            with pytest.raises(OSError, match="no more handles"):
                adapter.start_session()
        adapter.start_session().close()


def test_deleting_is_closing(bench: Bench) -> None:
    bench.create("tp0").delete()
    assert bench.names() == []


# Packets.


def test_bundles_are_of_256_packets_and_the_rest_is_not_forgotten(made: Made) -> None:
    adapter, wire = made
    with adapter.start_session() as session:
        wire.send(packets(600))
        assert [len(session.receive(SECONDS)) for _ in range(3)] == [256, 256, 88]
        assert not session.receive(0)


def test_several_that_wait_share_what_came(made: Made) -> None:
    """One of them is woken, and leaves what does not fit in a bundle to the others."""
    adapter, wire = made
    with adapter.start_session() as session:
        waiting = threading.Barrier(4)
        sizes: list[int] = []

        def receive() -> None:
            waiting.wait(SECONDS)
            sizes.append(len(session.receive(SECONDS)))

        with in_threads(receive, receive, receive):
            waiting.wait(SECONDS)
            for _ in range(3):
                wire.send(packets(256))
        while left := session.receive(0):
            sizes.append(len(left))
        assert sum(sizes) == 768


def test_one_packet_at_a_time_is_of_a_bundle_whose_rest_comes_next(made: Made) -> None:
    adapter, wire = made
    with adapter.start_session() as session:
        wire.send(packets(600))
        assert [number_of(session.receive_packet(SECONDS)) for _ in range(100)] == list(range(100))
        rest = [number_of(packet) for _ in range(3) for packet in session.receive(SECONDS)]
        assert rest == list(range(100, 600))
        assert session.receive_packet(0) == b""


def test_who_waits_is_woken_for_what_is_kept_too(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three packets may wake one thread only, which takes all of them and one for itself."""
    monkeypatch.setattr("threepipe.platforms.windows.waiting.PATIENCE", 10 * SECONDS)
    adapter, wire = made
    with adapter.start_session() as session:
        waiting = threading.Barrier(4)
        found: list[int] = []

        def receive() -> None:
            waiting.wait(SECONDS)
            found.append(number_of(session.receive_packet()))

        for _ in range(20):
            with in_threads(receive, receive, receive):
                waiting.wait(SECONDS)
                wire.send(packets(3))
        assert sorted(found) == sorted([0, 1, 2] * 20)


def test_the_ring_is_used_up_to_its_end_and_again(made: Made) -> None:
    adapter, wire = made
    with adapter.start_session(MIN_CAPACITY) as session:
        numbers = itertools.count()
        for size in (40, 1000, 1500, 9000, 65535) * 30:
            sent = [packet(next(numbers), size)]
            wire.send(sent)
            assert session.receive(SECONDS)[0] == sent[0]
            assert session.send(sent, SECONDS) == 1
            assert wire.receive(SECONDS) == sent


def test_a_bundle_may_be_larger_than_the_memory_at_hand(made: Made) -> None:
    adapter, wire = made
    with adapter.start_session(0x1000000) as session:
        sent = packets(100, 65535)
        wire.send(sent)
        bundle = session.receive(SECONDS)
        assert [bytes(each) for each in bundle] == sent
        bundle[0][:4] = b"\x45\0\0\0"  # It is the program's own.


def test_a_full_ring_takes_what_fits_and_says_so(made: Made) -> None:
    adapter, wire = made
    with adapter.start_session(MIN_CAPACITY) as session:
        wire.fault(Fault.STALL, 1)
        sent = packets(300, 1000)
        accepted = session.send(sent)
        assert 0 < accepted < 300
        assert session.statistics.sent_dropped == 300 - accepted
        assert session.send(sent[:1]) == 0
        assert session.send(sent[:1], timeout=0.05) == 0
        wire.fault(Fault.STALL, 0)
        assert session.send(sent[accepted:], SECONDS) == 300 - accepted
        wire.settle()
        assert wire.receive(SECONDS) == sent


def test_too_long_a_packet_never_reaches_the_library(made: Made) -> None:
    """Nobody gets one past a session; but it would break the ring, so the port looks, too."""
    adapter, _ = made
    with adapter.start_session() as session:
        long = threepipe.Bundle([packet(0), packet(1, 65535) + b"~"])
        with pytest.raises(InvalidPacket) as caught:
            session._port.send(long)
        assert caught.value.index == 1
        assert session.send([packet(2)]) == 1


def test_a_packet_that_cannot_be_copied_holds_nothing_up(made: Made) -> None:
    adapter, wire = made
    with adapter.start_session() as session:
        bundle = threepipe.Bundle(map(memoryview, packets(3)))
        released = list(bundle)[1]

        views: list[memoryview] = [bundle[0], Disappearing(released), bundle[2]]  # type: ignore[list-item]
        with pytest.raises((ValueError, TypeError)):
            session._port.send(threepipe.Bundle.of_views(views))
        assert session.send([packet(7)]) == 1
        assert wire.receive(SECONDS) == [packet(7)]
        assert bench_discarded(wire) == (0 if fast.NATIVE else 3)  # The core looks before it asks for places.


class Disappearing:
    """A packet that has a length, and is gone when it is to be copied."""

    def __init__(self, view: memoryview) -> None:
        self._view = view

    def __len__(self) -> int:
        return len(self._view)


def bench_discarded(wire: ContractWire) -> int:
    return wire.discarded()


# Faults.


def test_a_corrupt_ring_ends_the_session_with_its_own_error(made: Made) -> None:
    adapter, wire = made
    with adapter.start_session() as session:
        wire.send(packets(2))
        wire.fault(Fault.CORRUPT_SIZE, 70_000)
        assert len(session.receive(SECONDS)) == 2  # What came before is good.
        for _ in range(2):
            with pytest.raises(RingCorrupt, match="start another"):
                session.receive(SECONDS)
            with pytest.raises(RingCorrupt):
                session.send([packet(0)])
    with adapter.start_session() as session:
        wire.send([packet(3)])
        assert session.receive(SECONDS)[0] == packet(3)


@pytest.mark.parametrize("waiters", [1, 4])
def test_an_adapter_that_is_removed_wakes_all_who_wait(made: Made, waiters: int) -> None:
    adapter, wire = made
    with adapter.start_session() as session:
        waiting = threading.Barrier(waiters + 1)

        def receive() -> None:
            waiting.wait(SECONDS)
            with pytest.raises(AdapterGone, match="tp0 was removed"):
                session.receive()

        with in_threads(*[receive] * waiters):
            waiting.wait(SECONDS)
            wire.fault(Fault.TERMINATE)
        with pytest.raises(AdapterGone):
            session.send([packet(0)])
    with pytest.raises(AdapterGone):
        adapter.start_session()


def test_a_driver_that_gave_up_receiving_ends_the_session(made: Made) -> None:
    adapter, wire = made
    with adapter.start_session() as session:
        wire.fault(Fault.CORRUPT_HEAD, 0xFFFFFFFF)
        with pytest.raises(AdapterGone, match="or its driver failed"):
            session.send([packet(0)])
        with pytest.raises(AdapterGone):
            session.receive()


def test_an_error_nobody_knows_ends_the_session_too(made: Made, bench: Bench) -> None:
    adapter, _ = made
    with adapter.start_session() as session:
        bench.contract.ContractFailCall(Function.RECEIVE_PACKET, 1460, 2)  # Who fails is asked once more.
        with pytest.raises(AdapterError, match="tp0: "):
            session.receive()


def test_a_lost_wake_up_costs_a_second_at_most(made: Made) -> None:
    adapter, wire = made
    with adapter.start_session() as session:
        waiting = threading.Barrier(2)
        found: list[bytes] = []

        def receive() -> None:
            waiting.wait(SECONDS)
            found.append(session.receive_packet())

        with in_threads(receive):
            waiting.wait(SECONDS)
            wire.fault(Fault.LOST_WAKEUPS, 1)
            wire.send([packet(5)])
        assert found == [packet(5)]


# Threads and event loops.


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest) -> Run:
    """`asyncio.run` on each kind of event loop that this system has."""

    def run(main: Coroutine[Any, Any, Any]) -> Any:
        with asyncio.Runner(loop_factory=getattr(asyncio, request.param)) as runner:
            return runner.run(main)

    return run


def test_eight_threads_lose_and_mix_nothing(made: Made) -> None:
    adapter, wire = made
    each = 1500
    with adapter.start_session() as session:
        received: list[int] = []
        lock = threading.Lock()

        def receive() -> None:
            for bundle in session:
                numbers = [number_of(packet) for packet in bundle]
                with lock:
                    received.extend(numbers)
                    if len(received) == 4 * each:
                        done.set()

        def send(first: int) -> None:
            for start in range(first, first + each, 50):
                session.send([packet(index) for index in range(start, start + 50)], timeout=None)

        done = threading.Event()
        senders = [lambda first=first: send(first) for first in range(0, 4 * each, each)]
        with in_threads(*[receive] * 4, *senders):
            for index in range(4 * each):
                wire.send([packet(index)])
            assert done.wait(SECONDS * 3)
            sent: list[int] = []
            while len(sent) < 4 * each and (more := wire.receive(SECONDS)):
                sent += map(number_of, more)
            session.close()
    assert sorted(received) == sorted(sent) == list(range(4 * each))
    for first in range(0, 4 * each, each):
        own = [number for number in sent if first <= number < first + each]
        assert own == sorted(own)


def test_closing_again_and_again_while_others_use_it(made: Made) -> None:
    adapter, wire = made
    for index in range(30):
        session = adapter.start_session()

        def receive(session: threepipe.Session = session) -> None:
            for _ in session:
                pass

        def send(session: threepipe.Session = session) -> None:
            bundles = itertools.repeat(packets(20))
            with pytest.raises(SessionClosed):
                deque(map(session.send, bundles, itertools.repeat(None)), 0)

        with in_threads(receive, receive, send):
            wire.send(packets(index))
            session.close()


def test_tasks_share_one_watch_which_goes_with_them(made: Made, bench: Bench, run: Run) -> None:
    adapter, wire = made

    async def use() -> None:
        with adapter.start_session() as session:
            tasks = [asyncio.create_task(session.receive_async()) for _ in range(5)]
            await asyncio.sleep(0)
            tasks.pop().cancel()
            for index in range(4):
                wire.send([packet(index)])
                done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED, timeout=SECONDS)
                assert [number_of(packet) for task in done for packet in task.result()] == [index]
                tasks = [task for task in tasks if task not in done]

    run(use())
    if sys.platform != "win32":
        assert vars(bench.events)["most_watches"] <= 2  # The next may begin before the last is given back.


def test_what_woke_a_task_that_was_cancelled_wakes_another(made: Made, run: Run) -> None:
    adapter, wire = made

    async def use() -> None:
        with adapter.start_session() as session:
            first, second = (asyncio.create_task(session.receive_async()) for _ in range(2))
            for index in range(50):
                await asyncio.sleep(0)
                wire.send([packet(index)])
                first.cancel()
                bundle = await asyncio.wait_for(second, SECONDS)
                assert [number_of(packet) for packet in bundle] == [index]
                await asyncio.wait([first])
                first, second = (asyncio.create_task(session.receive_async()) for _ in range(2))
            for task in (first, second):
                task.cancel()
            await asyncio.wait([first, second])

    run(use())


def test_a_task_waits_for_room(made: Made, run: Run) -> None:
    adapter, wire = made

    async def use() -> None:
        with adapter.start_session(MIN_CAPACITY) as session:
            wire.fault(Fault.STALL, 1)
            sending = asyncio.create_task(session.send_async(packets(300, 1000)))
            await asyncio.sleep(0.01)
            assert not sending.done()
            wire.fault(Fault.STALL, 0)
            assert await asyncio.wait_for(sending, SECONDS) == 300
            wire.settle()
            assert len(wire.receive(SECONDS)) == 300

    run(use())


def test_a_task_is_told_of_a_lost_wake_up_too(made: Made, run: Run) -> None:
    adapter, wire = made

    async def use() -> bytes:
        with adapter.start_session() as session:
            receiving = asyncio.create_task(session.receive_async())
            await asyncio.sleep(0)
            wire.fault(Fault.LOST_WAKEUPS, 1)
            wire.send([packet(5)])
            return bytes((await asyncio.wait_for(receiving, SECONDS))[0])

    assert run(use()) == packet(5)


def test_two_event_loops_may_wait_for_one_session(made: Made) -> None:
    adapter, wire = made
    with adapter.start_session() as session:
        both = threading.Barrier(3)
        found: list[int] = []

        async def use() -> None:
            both.wait(SECONDS)
            async for bundle in session:
                found.extend(map(number_of, bundle))
                if len(found) == 20:
                    session.close()

        with in_threads(lambda: asyncio.run(use()), lambda: asyncio.run(use())):
            both.wait(SECONDS)
            wire.send(packets(20))
    assert sorted(found) == list(range(20))


def test_a_loop_that_was_closed_is_not_told(made: Made, bench: Bench) -> None:
    adapter, wire = made
    with adapter.start_session() as session:
        loop = asyncio.new_event_loop()
        forget = session._port.readable.notify(loop, lambda: None)
        loop.close()
        wire.send([packet(1)])
        assert session.receive(SECONDS)[0] == packet(1)
        forget()


# Ends.

FORGOTTEN = """
import gc
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from tests.support.contract_dll.library import Contract
from tests.support.contract_system import Bench
bench = Bench(Path(sys.argv[1]))
bench.close()
del bench
gc.collect()
if Contract(Path(sys.argv[1])).WintunOpenAdapter("nowhere"):
    print("found")
"""

OUTLIVED = """
import sys
from pathlib import Path
from typing import Any
sys.path.insert(0, sys.argv[2])
from tests.support.contract_system import Bench
bench = Bench(Path(sys.argv[1]))
adapter = bench.create("tp0")
session = adapter.start_session()
session.send([bytes([0x45]).ljust(100)])
"""


@pytest.mark.parametrize(
    "program",
    [
        pytest.param(FORGOTTEN, id="a library that logs when who listened is gone"),
        pytest.param(OUTLIVED, id="an interpreter that ends while all is open"),
    ],
)
def test_nothing_is_called_that_is_no_more(request: pytest.FixtureRequest, program: str) -> None:
    command = [sys.executable, "-c", program, str(find_contract(request.config)), str(Path(__file__).parents[2])]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=50)
    assert (done.returncode, done.stdout) == (0, "")
