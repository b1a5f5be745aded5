"""Several queues: every flow stays in order, no packet is lost, and one program at a time uses the interface."""

import errno
import fcntl
import io
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest

import threepipe
from tests.support.kernel import Network, needs_root
from tests.support.ordinary import as_user
from threepipe import Adapter
from threepipe.piping import pipe
from threepipe.platforms.linux import namespace, netlink, tun
from threepipe.platforms.linux.namespace import opening

pytestmark = pytest.mark.kernel

SO_RCVBUFFORCE = 33  # <asm/socket.h>
QUEUES = 4
FLOWS = 16
EACH = 500


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as fresh:
        yield fresh


def sockets(network: Network, stack: ExitStack, own: str, other: str) -> list[socket.socket]:
    """Return a socket for each flow, connected to the socket of the flow at the other end."""

    def make() -> list[socket.socket]:
        return [stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) for _ in range(FLOWS)]

    found = network.namespace.run(make)
    for number, end in enumerate(found):
        end.settimeout(10)
        end.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 1 << 22)
        end.bind((own, 20_000 + number))
        end.connect((other, 20_000 + number))
    return found


def talk(ends: list[socket.socket]) -> None:
    """Send numbered datagrams of all flows in turn."""
    for number in range(EACH):
        for end in ends:
            end.send(struct.pack("!I", number))


def listen(ends: list[socket.socket]) -> list[list[int]]:
    return [[struct.unpack("!I", end.recv(100))[0] for _ in range(EACH)] for end in ends]


@pytest.mark.parametrize("offload", [True, False])
def test_every_flow_stays_in_order_both_ways(stack: ExitStack, offload: bool) -> None:
    """Both ends send at once: a kernel that moves a flow to the queue of its answers would reorder it."""
    networks = [Network(), Network()]
    sessions = []
    for side, network in enumerate(networks, 1):
        stack.callback(network.namespace.close)
        adapter = stack.enter_context(
            Adapter.create("tp0", netns=network.path, addresses=[f"10.77.0.{side}/24"], queues=QUEUES, offload=offload)
        )
        sessions.append(adapter.start_session(1 << 26))
    executor = stack.enter_context(ThreadPoolExecutor(5))
    for session in sessions:
        stack.callback(session.close)
    piping = executor.submit(pipe, *sessions)
    ends = [
        sockets(networks[0], stack, "10.77.0.1", "10.77.0.2"),
        sockets(networks[1], stack, "10.77.0.2", "10.77.0.1"),
    ]
    talking = [executor.submit(talk, side) for side in ends]
    listening = [executor.submit(listen, side) for side in ends]
    for heard in listening:
        assert heard.result(30) == [list(range(EACH))] * FLOWS
    for talked in talking:
        talked.result(10)
    sessions[0].close()
    piping.result(10)
    assert sessions[0].statistics.received_packets >= FLOWS * EACH
    assert sessions[1].statistics.sent_dropped == 0


def test_the_kernel_fills_all_queues(network: Network) -> None:
    with Adapter.create("tp0", netns=network.path, addresses=["10.77.0.1/24"], queues=QUEUES) as adapter:
        assert "numqueues 4" in network.run("ip", "-d", "link", "show", "tp0")
        with adapter.start_session() as session, ExitStack() as stack:
            for end in sockets(network, stack, "10.77.0.1", "10.77.0.2"):
                end.send(b"x" * 100)
            seen: set[int] = set()
            bundles = 0
            while len(seen) < FLOWS:
                found = {int.from_bytes(packet[20:22], "big") for packet in session.receive(10) if packet[9] == 17}
                bundles += bool(found)
                seen |= found
            assert bundles > 1, "sixteen flows came by one queue"


def test_receive_packet_returns_packets_of_all_queues(network: Network) -> None:
    with ExitStack() as stack:
        adapter = Adapter.create("tp0", netns=network.path, addresses=["10.77.0.1/24"], queues=QUEUES)
        with adapter, adapter.start_session() as session:
            for end in sockets(network, stack, "10.77.0.1", "10.77.0.2"):
                end.send(b"x" * 100)
            ports = set[bytes]()
            while len(ports) < FLOWS:
                packet = session.receive_packet(10)
                if packet[0] == 0x45 and packet[9] == 17:
                    ports.add(packet[20:22])


@pytest.fixture
def persistent(network: Network) -> Network:
    Adapter.create("tp0", netns=network.path, persistent=True, queues=QUEUES).close()
    return network


@pytest.mark.parametrize("queues", [1, 2, QUEUES, QUEUES + 1])
def test_a_persistent_adapter_with_queues_can_be_opened_with_any_number(persistent: Network, queues: int) -> None:
    for _ in range(2):
        with Adapter.open("tp0", netns=persistent.path, queues=queues) as adapter, adapter.start_session():
            assert f"numqueues {queues} " in persistent.run("ip", "-d", "link", "show", "tp0")


@pytest.mark.parametrize("queues", [1, 2])
def test_open_of_an_adapter_with_queues_in_use_raises(persistent: Network, queues: int) -> None:
    with Adapter.open("tp0", netns=persistent.path, queues=queues) as adapter, adapter.start_session():
        for other, offload in ((1, True), (QUEUES, False)):
            with pytest.raises(threepipe.AdapterBusy, match="in use by another program") as caught:
                Adapter.open("tp0", netns=persistent.path, queues=other, offload=offload)
            assert caught.value.errno == errno.EBUSY
            assert adapter.link_up
            assert f"numqueues {queues} " in persistent.run("ip", "-d", "link", "show", "tp0")
    Adapter.open("tp0", netns=persistent.path, queues=queues).delete()


def test_two_programs_that_open_at_once_never_both_get_the_adapter(persistent: Network) -> None:
    def open_once(start: threading.Barrier) -> Adapter | None:
        start.wait(10)
        try:
            return Adapter.open("tp0", netns=persistent.path, queues=2)
        except threepipe.AdapterBusy:
            return None

    with ThreadPoolExecutor(2) as executor:
        for _ in range(10):
            start = threading.Barrier(2)
            tries = [executor.submit(open_once, start) for _ in range(2)]
            opened = [adapter for done in tries if (adapter := done.result(20))]
            for adapter in opened:
                adapter.close()
            assert len(opened) == 1


def test_a_holder_that_attaches_during_an_open_keeps_the_adapter_undisturbed(
    persistent: Network, monkeypatch: pytest.MonkeyPatch, stack: ExitStack
) -> None:
    """Such a program waits for no lock of ours."""
    count = netlink.queues
    holders: list[Adapter] = []

    def hold_after_counting(index: int, name: str) -> int:
        counted = count(index, name)
        if not holders:
            monkeypatch.setattr(netlink, "queues", count)
            holders.append(stack.enter_context(Adapter.open("tp0", netns=persistent.path, queues=2)))
            stack.enter_context(holders[0].start_session())
        return counted

    monkeypatch.setattr(netlink, "queues", hold_after_counting)
    monkeypatch.setattr(namespace, "_SECONDS_FOR_TURN", 0.0)
    with pytest.raises(threepipe.AdapterBusy):
        Adapter.open("tp0", netns=persistent.path)
    assert holders[0].link_up
    assert "numqueues 2 " in persistent.run("ip", "-d", "link", "show", "tp0")


def lock_namespace_and_say_so() -> None:
    with opening():
        print("locked", flush=True)  # noqa: T201
        signal.pause()


def test_the_lock_is_one_of_the_namespace_and_goes_with_a_killed_program(persistent: Network, stack: ExitStack) -> None:
    other = Network()
    stack.callback(other.namespace.close)
    code = "from tests.linux import test_queues; test_queues.lock_namespace_and_say_so()"
    command = persistent.command(sys.executable, "-c", code)
    with subprocess.Popen(command, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"locked\n"
        assert not persistent.namespace.run(takes_the_lock)
        assert other.namespace.run(takes_the_lock)
        holder.kill()
    assert persistent.namespace.run(takes_the_lock)


def takes_the_lock() -> bool:
    with open("/proc/thread-self/ns/net") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def test_a_program_that_keeps_the_lock_delays_others_and_no_more(
    persistent: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(namespace, "_SECONDS_FOR_TURN", 0.01)

    def open_beside_the_keeper() -> None:
        with opening():
            Adapter.open("tp0", netns=persistent.path).close()

    persistent.namespace.run(open_beside_the_keeper)


@pytest.mark.parametrize("queues", [1, 2])
def test_an_adapter_opened_by_an_altname_has_its_true_name(network: Network, queues: int) -> None:
    Adapter.create("tp0", netns=network.path, persistent=True, queues=queues).close()
    network.run("ip", "link", "property", "add", "dev", "tp0", "altname", "a-longer-name")
    with Adapter.open("a-longer-name", netns=network.path, queues=queues) as adapter:
        assert adapter.name == "tp0"
        adapter.delete()


INTRUDE = """
import fcntl, struct, sys
with open("/dev/net/tun", "r+b", 0) as file:
    fcntl.ioctl(file, 0x400454CA, struct.pack("16sH22x", b"tp0", int(sys.argv[1])))
"""


@needs_root
def test_a_queue_of_an_adapter_is_refused_to_other_users(network: Network) -> None:
    """The kernel gives queues of an interface without an owner to everybody who may open its device."""
    with Adapter.create("tp0", netns=network.path, queues=2):
        flags = tun.IFF_TUN | tun.IFF_NO_PI | tun.IFF_VNET_HDR | tun.IFF_MULTI_QUEUE
        words = as_user(network, "-c", INTRUDE, str(flags))
        done = subprocess.run(words, capture_output=True, text=True, timeout=50)
        assert "Operation not permitted" in done.stderr
        assert "numqueues 2 " in network.run("ip", "-d", "link", "show", "tp0")


def test_a_queue_taken_before_an_adapter_has_an_owner_undoes_the_adapter(
    network: Network, monkeypatch: pytest.MonkeyPatch, stack: ExitStack
) -> None:
    attach = tun.attach

    def attach_and_lose_a_queue(file: io.FileIO, name: str, **form: Any) -> str:
        name = attach(file, name, **form)
        taken = stack.enter_context(tun.open_tun())
        tun.attach_queue(taken, name, form["offload"], receives=True)
        return name

    monkeypatch.setattr(tun, "attach", attach_and_lose_a_queue)
    with pytest.raises(threepipe.AdapterBusy, match="another program took a queue of tp0 before it had an owner"):
        Adapter.create("tp0", netns=network.path, queues=2)


def test_a_name_of_the_kernel_ends_at_the_first_nul() -> None:
    assert tun.read_name(b"tp0\0nger-name\0\0\0".ljust(tun.IFREQ.size, b"\0")) == "tp0"


def test_open_of_an_adapter_of_one_queue_with_two_raises(network: Network) -> None:
    Adapter.create("tp0", netns=network.path, persistent=True).close()
    with pytest.raises(threepipe.InvalidSetting, match="tp0 has one queue"):
        Adapter.open("tp0", netns=network.path, queues=2)
    Adapter.open("tp0", netns=network.path).delete()


@pytest.mark.parametrize("queues", [0, -1, 256])
def test_an_impossible_number_of_queues_raises(network: Network, queues: int) -> None:
    with pytest.raises(threepipe.InvalidSetting, match="give 1 to 255"):
        Adapter.create("tp0", netns=network.path, queues=queues)
    with pytest.raises(threepipe.InvalidSetting, match="give 1 to 255"):
        Adapter.open("tp0", netns=network.path, queues=queues)


def test_an_adapter_can_have_255_queues(network: Network) -> None:
    with Adapter.create("tp0", netns=network.path, queues=255) as adapter, adapter.start_session():
        pass
