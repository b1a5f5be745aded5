"""The pump for minutes, while links flap, MTUs change and rings overflow, until an adapter is removed.

This file, run as a program, is the process with the pump; the environment chooses its implementation. It forks the
hosts of both networks. All processes share a `Board` that shows what each does.
"""

import hashlib
import mmap
import multiprocessing
import os
import random
import re
import signal
import socket
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from itertools import takewhile
from pathlib import Path

import pytest

from tests.support.kernel import Network
from tests.support.waiting import come_true
from threepipe import Adapter, AdapterGone
from threepipe.core import fast
from threepipe.demo.stream import chunks
from threepipe.piping import pipe

REPOSITORY = Path(__file__).parents[2]
PACKETS, SECONDS = (2_000_000, 8_100_000), (60, 120)  # The minimum, without offload and with it.
GROWTH, MTUS = 4 << 10, (1280, 1500, 9000, 65535)  # KiB of memory growth allowed after a phase's first million packets.
FAMILIES = (("10.77.0.", "/24", socket.AF_INET), ("fd77::", "/64", socket.AF_INET6))
# A flap must keep IPv6 addresses, and incomplete fragments must expire after a second.
SYSCTLS = ("ipv6/conf/all/keep_addr_on_down", "ipv4/ipfrag_time", "ipv6/ip6frag_time")
PORT, UDP_SEGMENT, UDP_GRO, MAX_DATAGRAMS = (
    20_000,
    103,
    104,
    64,
)  # <linux/udp.h>; the last is the limit of a superpacket.
HEAD = struct.Struct("!QI")  # Flow and number of a datagram, and a checksum of those and the payload.

Board = memoryview  # 64-bit numbers shared by all processes, by row and place: those of each flow, and then the orders.
PLACES = ("sent", "refused", "received", "reached", "corrupt", "duplicate", "late")
SENT, REFUSED, RECEIVED, REACHED, CORRUPT, DUPLICATE, LATE = range(7)
FLOWS, SEGMENTED = range(8), 4  # Bit 0 of a flow is its source network, bit 1 its family, bit 2 SEGMENTED.
ORDER, WINDOW, IDLE, STREAMED = (8, 0), (8, 1), [(8, 2), (8, 3), (8, 4), (8, 5)], [(8, 6), (8, 7)]
PAUSE, PLAIN, ALL, END = range(4)  # Orders. PLAIN: only datagrams that are one packet each at any MTU.


class Flow:
    """An end of a flow: it sends numbered datagrams, ahead of the arrived ones by the window at most."""

    def __init__(self, flow: int, board: Board, chance: random.Random) -> None:
        self.flow, self.board, self.chance = flow, board, chance
        prefix, _, family = FAMILIES[flow >> 1 & 1]
        self.target = f"{prefix}{2 - (flow & 1)}", PORT + flow
        self.socket = socket.socket(family, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        self.socket.setsockopt(
            socket.SOL_UDP, UDP_GRO, flow & 6 == SEGMENTED
        )  # One family receives superpackets whole.
        self.socket.bind(("", PORT + flow))
        self.small = [chance.randbytes(chance.choice((0, 50, 500, 1188, chance.randrange(1188)))) for _ in range(200)]
        self.large = [chance.randbytes(chance.randrange(1188, 20_000)) for _ in range(20)]
        self.checksums = {data: zlib.crc32(data) for data in self.small + self.large}
        self.reached, self.base, self.since = 0, 0, 0.0
        self.buffer, self.missing, self.next = memoryview(bytearray(1 << 16)), set[int](), 0

    def ready(self) -> bool:
        """Return True if the window is open. A lost datagram is waited for only a moment."""
        reached, sent = self.board[self.flow, REACHED], self.board[self.flow, SENT]
        if reached != self.reached:
            self.base, self.reached, self.since = max(self.base, reached), reached, time.monotonic()
        elif time.monotonic() > self.since + 0.05:
            self.base, self.since = sent, time.monotonic()
        return sent - self.base < self.board[WINDOW]

    def send(self) -> bool:
        """Send some datagrams. One that the kernel rejects was not sent; its number is used again."""
        small, large = self.chance.choices(self.small, k=16), self.chance.choices(self.large)
        full = self.board[ORDER] == ALL
        count = self.chance.randint(2, min(MAX_DATAGRAMS, 65_000 // (HEAD.size + len(small[0]))))
        try:
            if full and self.flow & SEGMENTED:
                option = (socket.SOL_UDP, UDP_SEGMENT, struct.pack("H", HEAD.size + len(small[0])))
                self.socket.sendmsg([self.datagram(n, small[0]) for n in range(count)], [option], 0, self.target)
                self.board[self.flow, SENT] += count
                return True
            for data in small + large if full else small:
                self.socket.sendto(self.datagram(0, data), self.target)
                self.board[self.flow, SENT] += 1
        except OSError:
            self.board[self.flow, REFUSED] += 1
            return False
        return True

    def datagram(self, index: int, data: bytes) -> bytes:
        head = (self.flow << 56 | self.board[self.flow, SENT] + index).to_bytes(8, "big")
        return head + zlib.crc32(head, self.checksums[data]).to_bytes(4, "big") + data

    def receive(self) -> bool:
        for turn in range(64):
            try:
                size, ancillary, _, _ = self.socket.recvmsg_into([self.buffer], 64, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return turn > 0
            step = struct.unpack("i", ancillary[0][2])[0] if ancillary else max(size, 1)
            for start in range(0, size or 1, step):
                self.board[self.flow, self.judge(self.buffer[start : min(start + step, size)])] += 1
            self.board[self.flow, REACHED] = self.next
        return True

    def judge(self, data: memoryview) -> int:
        """Return the place where a datagram counts."""
        number, checksum = HEAD.unpack_from(data) if len(data) >= HEAD.size else (0, 1)
        if zlib.crc32(data[:8], zlib.crc32(data[HEAD.size :])) != checksum or number >> 56 != self.flow:
            return CORRUPT
        number &= (1 << 56) - 1
        if number < self.next and number not in self.missing:
            return DUPLICATE
        self.board[self.flow, LATE] += number < self.next
        self.missing.discard(number)
        self.missing.update(range(self.next, number))
        self.next = max(self.next, number + 1)
        return RECEIVED


def host(board: Board, network: Network, side: int, seed: int) -> None:
    """Run the ends of all UDP flows in one network."""
    chance, parent = random.Random(seed + side), os.getppid()
    flows = network.namespace.run(lambda: [Flow(flow, board, chance) for flow in FLOWS])
    sources, sinks = flows[side::2], flows[1 - side :: 2]
    while (order := board[ORDER]) != END and os.getppid() == parent:
        board[IDLE[side]] = order == PAUSE
        moved = [sink.receive() for sink in sinks]
        moved += [source.send() for source in sources if order != PAUSE and source.ready()]
        if not any(moved):
            time.sleep(0.001)  # Leave the processor to the pump, or to the process that sets the link up again.


def stream(board: Board, side: int, outgoing: Network, incoming: Network) -> None:
    """Send TCP from one network to the other while the order is ALL; the same bytes must arrive."""
    sent, received, (prefix, _, family) = hashlib.sha256(), hashlib.sha256(), FAMILIES[side]
    come_true(lambda: board[ORDER] == ALL, 60)
    listener = incoming.namespace.run(lambda: socket.create_server((f"{prefix}{2 - side}", 0), family=family))
    near = outgoing.namespace.run(lambda: socket.create_connection(listener.getsockname()[:2]))
    far, _ = listener.accept()
    far.settimeout(60)

    def push() -> None:
        for chunk in takewhile(lambda _: board[ORDER] == ALL, chunks(1 << 50)):
            near.sendall(chunk)
            sent.update(chunk)
        near.shutdown(socket.SHUT_WR)

    with ThreadPoolExecutor(1) as executor:
        pushed = executor.submit(push)
        while data := far.recv(1 << 20):
            received.update(data)
            board[STREAMED[side]] += len(data)
        pushed.result()
    assert sent.digest() == received.digest(), "a stream did not arrive as it was sent"
    board[IDLE[2 + side]] = 1


@contextmanager
def forked(function: Callable[..., None], *arguments: object) -> Iterator[None]:
    """Call the function in another process; it must end without error when the block ends."""
    process = multiprocessing.get_context("fork").Process(target=function, args=arguments)
    process.start()
    try:
        yield
        process.join(10)
        assert process.exitcode == 0, f"{function.__name__} failed"
    finally:
        process.kill()
        process.join()


class Phase:
    """Two networks, two adapters and a pump, from their creation to a removal in mid stream."""

    def __init__(self, stack: ExitStack, offload: bool, seed: int) -> None:
        self.offload, self.chance, self.stolen = offload, random.Random(seed), [0, 0]
        self.flaps, self.memory, self.began, self.told = 0, 0, time.monotonic(), 0.0
        self.board = memoryview(mmap.mmap(-1, mmap.PAGESIZE)).cast("Q", [mmap.PAGESIZE // 64, 8])
        self.networks = [Network() for _ in range(2)]
        for side, network in enumerate(self.networks):
            stack.callback(network.namespace.close)
            network.run("sh", "-c", 'for name; do echo 1 >"/proc/sys/net/$name"; done', "sh", *SYSCTLS)
            stack.enter_context(forked(host, self.board, network, side, seed))
            if offload:
                stack.enter_context(forked(stream, self.board, side, network, self.networks[1 - side]))
        executor = stack.enter_context(ThreadPoolExecutor(1))
        self.adapters = list[Adapter]()
        for side, network in enumerate(self.networks, 1):
            addresses = [f"{prefix}{side}{length}" for prefix, length, _ in FAMILIES]
            adapter = Adapter.create("tp0", netns=network.path, offload=offload, addresses=addresses)
            self.adapters.append(stack.enter_context(adapter))
        self.sessions = [adapter.start_session() for adapter in self.adapters]
        self.pump = executor.submit(pipe, *self.sessions)
        assert come_true(lambda: all(self.board[place] for place in IDLE[:2])), "the hosts have no sockets"

    def total(self, place: int, side: int | None = None) -> int:
        return sum(self.board[flow, place] for flow in FLOWS if side in (None, flow & 1))

    def packets(self) -> int:
        """Return how many packets were forwarded; print it every few seconds."""
        packets = sum(session.statistics.sent_packets for session in self.sessions)
        self.memory = self.memory or (footprint()[0] if packets >= 1_000_000 else 0)
        if time.monotonic() > self.told + 5:
            self.told = time.monotonic()
            udp = ", ".join(f"{self.total(place):,} {name}" for place, name in enumerate(PLACES))
            tcp = sum(self.board[place] for place in STREAMED) >> 20
            text = f"{packets:,} packets; {self.flaps} flaps; {footprint()[0]:,} KiB; UDP {udp}; TCP {tcp:,} MiB"
            print(f"{self.told - self.began:4.0f} s: {text}", flush=True)  # noqa: T201
        return packets

    def order(self, order: int) -> None:
        self.board[ORDER], self.board[WINDOW] = order, 500
        assert order != PAUSE or come_true(lambda: all(self.board[place] for place in IDLE[: 2 + 2 * self.offload]), 60)

    def disturb(self) -> None:
        """Disturb an interface; every flow must recover, and then has a quiet time."""
        side, mtu, kind = self.chance.randrange(2), self.chance.choice(MTUS), self.chance.randrange(4)
        if kind == 0:
            self.adapters[side].mtu = mtu
        elif kind == 1:
            self.networks[side].run("ip", "link", "set", "tp0", "mtu", str(mtu))
        else:
            self.board[WINDOW], refused = self.chance.choice((10, 500, 500, 20_000)), self.total(REFUSED)
            self.networks[side].run("ip", "link", "set", "tp0", "down")
            come_true(lambda: self.total(REFUSED) > refused + 200, self.chance.random() / 3)
            self.networks[side].run("ip", "link", "set", "tp0", "up")
            self.flaps += 1
        self.get_on()
        self.board[WINDOW] = 500  # A ring that overflows for long would starve TCP.
        goal = self.packets() + self.chance.randrange(100_000)
        come_true(lambda: self.packets() >= goal, 3)

    def get_on(self) -> None:
        before = [self.board[flow, RECEIVED] for flow in FLOWS]
        assert come_true(lambda: all(self.board[flow, RECEIVED] > before[flow] for flow in FLOWS), 20), "a flow stopped"

    def run(self) -> None:
        self.order(ALL if self.offload else PLAIN)
        assert not self.offload or come_true(lambda: all(self.board[place] for place in STREAMED))
        while self.packets() < PACKETS[self.offload] or time.monotonic() < self.began + SECONDS[self.offload]:
            self.disturb()
        assert self.total(LATE) == 0, "packets were overtaken"
        # One packet of a superpacket, received beside the pump, makes the pump deliver the others: these are late.
        for side in [0, 1] * 150:
            self.stolen[side] += bool(self.sessions[side].receive_packet(1))
        self.order(PAUSE)
        assert come_true(lambda: not self.unequal()), self.unequal()
        assert self.total(CORRUPT) == self.total(DUPLICATE) == 0
        self.order(ALL if self.offload else PLAIN)
        self.get_on()
        # Removal of an adapter in mid stream ends the pump.
        self.chance.choice(self.networks).run("ip", "link", "del", "tp0")
        assert isinstance(self.pump.exception(5), AdapterGone)
        self.order(END)
        for near, far in ((0, 1), (1, 0)):
            source, target = self.sessions[near].statistics, self.sessions[far].statistics
            assert source.received_packets == target.sent_packets + target.sent_dropped + self.stolen[near]
            assert target.sent_dropped > 0, "no link was down"

    def unequal(self) -> dict[str, tuple[object, ...]]:
        """Return the counts along the way of a packet that should be equal and are not.

        The interface and IP count a superpacket as one packet; the session and the flows count all its packets.
        """
        found: dict[str, tuple[object, ...]] = {}
        kernels = [counters(network) for network in self.networks]
        for near, far in ((0, 1), (1, 0)):
            out, into = kernels[near], kernels[far]
            read, written = self.adapters[near].statistics, self.adapters[far].statistics
            source, target = self.sessions[near].statistics, self.sessions[far].statistics
            sent, received, dropped = self.total(SENT, near), self.total(RECEIVED, near), read.received_dropped
            handed = out["IpOutRequests"] - out["IpLooped"] + out["IpFragCreates"] - out["IpFragOKs"]
            # Addresses are removed when a link goes down; packets that arrive then are for a stranger.
            lost = sum(into[f"Ip{name}"] for name in ("InAddrErrors", "InNoRoutes", "InDiscards", "InHdrErrors"))
            pairs: dict[str, tuple[object, ...]] = {
                # IP alone counts packets queued at the interface when it goes down, and packets for another MTU.
                "out": (gap := handed - read[0] - dropped, min(max(gap, 0), self.flaps + out["IpFragFails"])),
                "pump": (source.received_packets, target.sent_packets + target.sent_dropped + self.stolen[near]),
                "in": (written.sent_packets, into["IpInReceives"] - into["IpLooped"]),
            }
            if self.offload:
                # Every loss explains as many datagrams as a superpacket has, or the one datagram of a fragment.
                losses = MAX_DATAGRAMS * (gap + dropped + lost + into["UdpInErrors"]) + into["IpReasmFails"]
                losses += target.sent_dropped + self.stolen[near]
                pairs["missing"] = sent - received, min(sent - received, losses)
            else:
                # All other packets are IPv6 to multicast groups. While a link is down it counts no messages.
                said, unheard = handed - sent, into["IpInReceives"] - into["IpInDelivers"] - lost
                pairs |= {
                    "sent": (sent, out["UdpOutDatagrams"]),
                    "said": (said, min(max(said, out["IcmpOutMsgs"]), out["IcmpOutMsgs"] + 4 * self.flaps)),
                    "read": (source[:2], read[:2]),  # Packets and bytes.
                    "written": (target[3:5], written[3:5]),
                    "delivered": (into["IpInDelivers"], received + into["UdpInErrors"] + into["IcmpInMsgs"]),
                    "unheard": (unheard, min(max(unheard, 0), into["IpInMcastPkts"])),
                }
            found |= {f"{name} from {near}": pair for name, pair in pairs.items() if len(set(pair)) > 1}
        return found


def counters(network: Network) -> dict[str, int]:
    """Return the counts of the kernel in `network`, of both families together; IpLooped is its messages to itself."""
    found: dict[str, int] = {}
    text = network.run("sh", "-c", "nstat -azs; sed -En 's/^ *lo: *[0-9]+/IpLooped/p' /proc/net/dev")
    for kind, name, count in re.findall(r"^(Ip|Udp|Icmp)6?(\w+)\s+(\d+)", text, re.M):
        found[kind + name] = found.get(kind + name, 0) + int(count)
    return found


def footprint() -> tuple[int, int, int]:
    """Return the KiB in memory, the descriptors and the threads of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * (mmap.PAGESIZE >> 10), len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))


def soak(seed: int) -> None:
    """Run all phases; it is the main function of the process with the pump."""
    print(f"SOAK_SEED={seed}; the core is {'native' if fast.NATIVE else 'pure'}", flush=True)  # noqa: T201
    memory, *before = footprint()
    for offload in (False, True):
        with ExitStack() as stack:
            phase = Phase(stack, offload, seed)
            phase.run()
            memory = memory if offload else phase.memory
            assert footprint()[0] < min(phase.memory + GROWTH, memory + 2 * GROWTH), f"it grew to {footprint()[0]} KiB"
        # Namespaces are descriptors as well.
        assert come_true(lambda: [*footprint()[1:]] == before), f"descriptors, threads: {before}, now {footprint()}"


@pytest.mark.soak
@pytest.mark.kernel
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("pure", ["1", ""], ids=["pure", "native"])
def test_ten_million_packets_are_forwarded_and_accounted_for(pure: str, capsys: pytest.CaptureFixture[str]) -> None:
    if not pure:
        pytest.importorskip("threepipe._native", reason="there is no native core")
    command = [sys.executable, "-m", __name__, os.environ.get("SOAK_SEED") or str(random.randrange(1 << 32))]
    with capsys.disabled():
        assert subprocess.run(command, env=os.environ | {"THREEPIPE_PURE": pure}, cwd=REPOSITORY).returncode == 0


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends all processes, and the kernel cleans up.
    soak(int(sys.argv[1]))
