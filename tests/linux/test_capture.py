"""Captures with real peers: the kernel, tcpdump and Wireshark's tshark, on adapters and on running pipes."""

import errno
import json
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

import threepipe
from tests.support import pinging
from tests.support.captures import reader
from tests.support.hosts import answers
from tests.support.kernel import STRANGER, Network, call_elsewhere, needs_root
from tests.support.waiting import come_true
from threepipe import Adapter, Session
from threepipe.backend import INBOUND, OUTBOUND, CapturedBundle, Sink
from threepipe.capture.live import open_source
from threepipe.capture.tap import Taps
from threepipe.endpoints import open_endpoint

pytestmark = pytest.mark.kernel

SECONDS = 10.0
OWN, OTHERS = ("10.9.0.1", "fd99::1"), ("10.9.0.2", "fd99::2")


def made(network: Network, offload: bool = True) -> Adapter:
    addresses = [f"{OWN[0]}/24", f"{OWN[1]}/64"]
    return Adapter.create("tp0", netns=network.path, addresses=addresses, offload=offload)


@contextmanager
def answering(network: Network) -> Iterator[Session]:
    """Make an adapter tp0, behind which hosts answer pings."""
    with made(network) as adapter, adapter.start_session() as session:
        thread = threading.Thread(target=_answer, args=(session,))
        thread.start()
        try:
            yield session
        finally:
            session.close()
            thread.join()


def _answer(session: Session) -> None:
    for bundle in session:
        session.send(answers(bundle), None)


def ping(network: Network, count: int = 3) -> None:
    for host in OTHERS:
        pinging.ping(network, host, count)


class Program:
    """A program that captures until it is told to end."""

    def __init__(self, stack: ExitStack, command: list[str], started: Callable[[str], bool], **options: Any) -> None:
        """Start the program, and wait until `started` is true for its standard error."""
        self.said = ""
        self._begun = threading.Event()
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, **options)
        self._listener = threading.Thread(target=self._listen, args=(started,))
        self._listener.start()
        stack.callback(self.end)
        assert come_true(lambda: self._begun.is_set() or self.process.poll() is not None, SECONDS * 3)
        assert self._begun.is_set(), self.said

    def _listen(self, started: Callable[[str], bool]) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.said += line
            if started(self.said):
                self._begun.set()

    def end(self, how: signal.Signals = signal.SIGINT) -> int:
        """End the program and return its status; repeating this is harmless."""
        if self.process.returncode is None:
            self.process.send_signal(how)
        status = self.process.wait(SECONDS * 3)
        self._listener.join()
        assert self.process.stderr is not None
        self.process.stderr.close()
        return status


def shown(path: Path, *fields: str) -> list[list[str]]:
    """Return `fields` of each packet that tshark reads in a file."""
    command = ["tshark", "-n", "-r", str(path), "-T", "fields", "-E", "separator=|", "-E", "occurrence=f"]
    for field in fields:
        command += ["-e", field]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=50)
    return [line.split("|") for line in done.stdout.splitlines()]


def so_far(path: Path) -> list[bytes]:
    """Return the packets in a file that may not exist yet or is being written."""
    data = path.read_bytes() if path.exists() else b""
    return [bytes(packet) for _, packet, _ in reader(data)] if len(data) >= _HEADERS else []


_HEADERS = 512  # Bytes: more than a program writes before the first packet, and less than a file with some packets has.


# An adapter, from Python.


def captured_while(
    network: Network, action: Callable[[], None], done: Callable[[list[CapturedBundle]], bool]
) -> list[CapturedBundle]:
    """Return the packets captured on tp0 from before `action` until `done`."""
    seen: list[CapturedBundle] = []
    note = _copying(seen)
    source = open_source("tp0", network.path)

    def collect() -> None:
        for several in source:
            for one in several:
                note(one)

    thread = threading.Thread(target=collect)
    thread.start()
    try:
        action()
        assert come_true(lambda: done(seen))
    finally:
        source.stop()
        thread.join()
        dropped = source.dropped
        source.close()
    assert source.dropped == dropped == 0
    return seen


def echoes(packets: Iterable[bytes]) -> int:
    """Return how many packets are ICMP echo requests and replies."""
    return sum(
        [packet[9] == 1 if packet[0] >> 4 == 4 else packet[6] == 58 and packet[40] in (128, 129) for packet in packets]
    )


def packets_of(seen: list[CapturedBundle], *directions: int) -> list[bytes]:
    """Return the packets of `directions`, or of all."""
    chosen = [one for one in seen if not directions or one.direction in directions]
    return [bytes(packet) for one in chosen for packet in one.packets]


def test_a_capture_has_both_directions_of_an_adapter(network: Network) -> None:
    with answering(network):
        seen = captured_while(network, lambda: ping(network), lambda seen: echoes(packets_of(seen)) == 12)
    for direction in (OUTBOUND, INBOUND):
        assert echoes(packets_of(seen, direction)) == 6
    times = [one.time_ns for one in seen]
    assert times == sorted(times)
    assert times[-1] - times[0] < 60 * 10**9


@contextmanager
def pumped(network: Network, offload: bool = True) -> Iterator[tuple[Network, Taps, Session]]:
    """Join `network` and another one by a direct pump with taps; yield the other, the taps and the near session."""
    with ExitStack() as stack:
        second = Network()
        stack.callback(second.namespace.close)
        addresses = [f"{OTHERS[0]}/24", f"{OTHERS[1]}/64"]
        far = stack.enter_context(Adapter.create("tp0", netns=second.path, addresses=addresses, offload=offload))
        near = stack.enter_context(made(network, offload))
        taps = Taps()
        session = near.start_session()
        pump = threading.Thread(target=threepipe.pipe, args=taps.around(session, far.start_session()))
        pump.start()
        stack.callback(pump.join)
        stack.callback(session.close)
        yield second, taps, session


def payloads(seen: list[CapturedBundle]) -> dict[int, bytes]:
    """Return the payloads of outbound TCP over IPv4, by sequence number."""
    packets = [packet for packet in packets_of(seen, OUTBOUND) if packet[0] == 0x45 and packet[9] == 6]
    data = {int.from_bytes(packet[24:28]): packet[20 + (packet[32] >> 4) * 4 :] for packet in packets}
    return {sequence: part for sequence, part in data.items() if part}


@pytest.mark.parametrize("offload", [True, False])
def test_superpackets_are_captured_as_single_packets(network: Network, offload: bool) -> None:
    payload = os.urandom(1 << 20)
    with pumped(network, offload) as (second, _, _):

        def transfer() -> None:
            listening = second.namespace.run(lambda: socket.create_server((OTHERS[0], 0)))
            with listening:
                address = listening.getsockname()
                sending = network.namespace.run(lambda: socket.create_connection(address, SECONDS))
                with sending, listening.accept()[0] as accepted:
                    thread = threading.Thread(target=sending.sendall, args=(payload,))
                    thread.start()
                    left = len(payload)
                    while left:
                        left -= len(accepted.recv(1 << 20))
                    thread.join()

        seen = captured_while(network, transfer, lambda seen: sum(map(len, payloads(seen).values())) >= len(payload))
    packets = packets_of(seen)
    assert max(map(len, packets)) <= 1500
    assert all(is_right(packet) for packet in packets if packet[0] == 0x45 and packet[9] == 6)
    found = payloads(seen)
    start = next(iter(found))
    ordered = sorted(found, key=lambda sequence: (sequence - start + 2**31) % 2**32)
    assert b"".join(found[sequence] for sequence in ordered) == payload


def is_right(packet: bytes) -> bool:
    """Return True if the checksum of a TCP packet over IPv4 is right."""
    pseudo = packet[12:20] + bytes([0, 6]) + (len(packet) - 20).to_bytes(2)
    data = pseudo + packet[20:]
    data += bytes(len(data) % 2)
    return sum(int.from_bytes(data[at : at + 2]) for at in range(0, len(data), 2)) % 0xFFFF == 0


def test_a_capture_continues_after_the_link_was_down(network: Network) -> None:
    with made(network) as adapter:

        def up_and_down() -> None:
            for _ in range(2):
                with adapter.start_session() as session:
                    network.run("ping", "-n", "-c", "1", "-W", "0.1", OTHERS[0], check=False)
                    assert session.receive(SECONDS)
                network.run("ip", "link", "set", "tp0", "down")

        captured_while(network, up_and_down, lambda seen: echoes(packets_of(seen)) >= 2)


def test_removal_of_the_adapter_ends_the_capture(network: Network) -> None:
    with made(network) as adapter:
        source = open_source("tp0", network.path)
        adapter.close()
        with pytest.raises(threepipe.AdapterGone, match="tp0 was removed"):
            list(source)
        source.close()


def test_capture_of_a_missing_or_foreign_interface_raises(network: Network) -> None:
    with pytest.raises(threepipe.AdapterNotFound, match="there is no adapter tp0") as missing:
        open_source("tp0", network.path)
    assert missing.value.errno == errno.ENODEV
    with pytest.raises(threepipe.AdapterNotFound, match="lo is not a layer-3 interface"):
        open_source("lo", network.path)
    with pytest.raises(threepipe.NamespaceNotFound):
        open_source("tp0", "no-such-namespace")
    with pytest.raises(threepipe.InvalidSetting):
        open_source("a name that is far too long")


def _try_to_capture() -> None:
    open_source("lo")


@needs_root
def test_capture_by_an_ordinary_user_raises(network: Network) -> None:
    with pytest.raises(threepipe.PermissionDenied, match="needs CAP_NET_RAW"):
        call_elsewhere(network, _try_to_capture, user=STRANGER)


# The command.


def capture_command(*arguments: str) -> list[str]:
    return [sys.executable, "-W", "error", "-m", "threepipe", "capture", *arguments]


def sees(network: Network) -> bool:
    """Return True if a packet socket, that of a capture, is open in `network`."""
    return "tp0" in network.run("ss", "-0", "-a", "-n")


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_command_writes_packets_of_an_adapter_until_it_is_stopped(
    network: Network, tmp_path: Path, how: signal.Signals
) -> None:
    path = tmp_path / "tp0.pcapng"
    command = capture_command("tp0", "--netns", network.path, "--write", str(path), "--json")
    with answering(network), subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert come_true(lambda: sees(network) and path.exists() and path.stat().st_size > 0)
        ping(network)
        assert come_true(lambda: echoes(so_far(path)) == 12)
        for _ in range(1 + (how == signal.SIGHUP)):
            process.send_signal(how)
        _, complaint = process.communicate(timeout=SECONDS)
    assert process.returncode == 0
    summary = json.loads(complaint)
    packets = [bytes(packet) for _, packet, _ in reader(path.read_bytes())]
    assert summary == {"packets": len(packets), "bytes": sum(map(len, packets)), "dropped": 0}
    echo = [
        fields[1:] for fields in shown(path, "frame.number", "frame.packet_flags_direction", "icmp.type") if fields[2]
    ]
    assert echo == [["0x00000002", "8"], ["0x00000001", "0"]] * 3


def test_the_command_with_count_ends_after_that_many_packets(network: Network) -> None:
    command = capture_command("tp0", "--netns", network.path, "--count", "4")
    with answering(network), subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert come_true(lambda: sees(network))
        ping(network)
        printed, complaint = process.communicate(timeout=SECONDS)
    assert process.returncode == 0
    assert len(list(reader(printed))) == 4
    assert re.fullmatch(rb"threepipe: 4 packets, \d+ bytes, 0 dropped\n", complaint)


@needs_root  # As root, tcpdump changes to another user first.
def test_tcpdump_reads_the_output_of_the_command(network: Network) -> None:
    command = " ".join(capture_command("tp0", "--netns", network.path)) + " | tcpdump -n -l -c 6 -r - icmp"
    with (
        answering(network),
        subprocess.Popen(
            command, shell=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        ) as process,
    ):
        assert come_true(lambda: sees(network))
        ping(network)  # Once tcpdump has exited, the next packet breaks the pipe.
        assert come_true(lambda: network.run("ping", "-c", "1", OTHERS[0]) != "" and process.poll() is not None)
        printed, complaint = process.communicate(timeout=SECONDS)
    assert [line.split(", ")[0].split("ICMP ")[1] for line in printed.splitlines()] == [
        "echo request",
        "echo reply",
    ] * 3
    assert "Traceback" not in complaint
    assert " packets, " in complaint


@pytest.mark.parametrize("source", ["adapter", "pipe"])
@pytest.mark.parametrize("program", ["command", "extcap"])
def test_a_capture_whose_reader_leaves_ends_while_nothing_passes(
    network: Network, tmp_path: Path, runtime: dict[str, str], source: str, program: str
) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with ExitStack() as stack:
        name = "tp0"
        if source == "adapter":
            stack.enter_context(made(network))
        else:
            name = f"pipe:{started_pipe(stack, network, runtime, 'memory', 'discard').process.pid}"
        command = [sys.executable, "-W", "error", "-m", "threepipe", "capture", name, "--write", str(fifo)]
        if program == "extcap":
            code = "from threepipe.capture.extcap import main; main()"
            capture = ("--capture", "--extcap-interface", f"threepipe-{name}", "--fifo", str(fifo))
            command = [sys.executable, "-W", "error", "-c", code, *capture]
        process = stack.enter_context(
            subprocess.Popen(network.command(*command), stderr=subprocess.PIPE, text=True, env=runtime)
        )
        with open(os.open(fifo, os.O_RDONLY | os.O_NONBLOCK), "rb") as output:
            assert select.select([output], [], [], SECONDS * 2)[0]
            assert output.read(4) == b"\x0a\x0d\x0d\x0a"
        _, complaint = process.communicate(timeout=SECONDS)
    assert process.returncode == 0
    assert complaint == ("" if program == "extcap" else "threepipe: 0 packets, 0 bytes, 0 dropped\n")


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("tp9", "--netns", "{}"), 1, "there is no adapter tp9"),
        (("pipe:x",), 1, "does not name a running pipe"),
        (("pipe:1", "--netns", "x"), 2, "a running pipe is found by its process id"),
        (("tp0", "--count", "0"), 2, "count"),
        (("lo", "--netns", "{}"), 1, "lo is not a layer-3 interface"),
    ],
)
def test_the_command_with_bad_arguments_fails_with_a_reason(
    network: Network, arguments: tuple[str, ...], status: int, said: str
) -> None:
    command = capture_command(*[argument.format(network.path) for argument in arguments])
    done = subprocess.run(command, capture_output=True, text=True, timeout=50)
    assert done.returncode == status
    assert done.stdout == ""
    assert said in re.sub(r"\x1b\[[\d;]*m", "", done.stderr)


def test_the_command_with_a_terminal_as_output_fails() -> None:
    terminal, own = os.openpty()
    try:
        done = subprocess.run(capture_command("lo"), stdout=own, stderr=subprocess.PIPE, text=True, timeout=50)
    finally:
        os.close(terminal)
        os.close(own)
    assert done.returncode == 2
    assert "packets are not printed on a terminal" in " ".join(done.stderr.split())


# A pipe that runs in a process of its own.

PIPE = """
import sys, threepipe
from pathlib import Path
from threepipe.capture.server import serve_captures
from threepipe.capture.tap import Taps
from threepipe.endpoints import open_endpoint
left, right, taps = open_endpoint(sys.argv[1]), open_endpoint(sys.argv[2], side="right"), Taps()
with serve_captures(taps, sys.argv[1], sys.argv[2]):
    ends = taps.around(left, right)
    print("runs", file=sys.stderr, flush=True)
    try:
        threepipe.pipe(*ends)
    except KeyboardInterrupt:
        pass
"""


@pytest.fixture
def runtime(tmp_path: Path) -> dict[str, str]:
    """Return an environment with a runtime folder for running pipes, even if /run is not writable."""
    return os.environ | {"XDG_RUNTIME_DIR": str(tmp_path)}


def started_pipe(stack: ExitStack, network: Network, environment: dict[str, str], left: str, right: str) -> Program:
    command = network.command(sys.executable, "-W", "error", "-c", PIPE, left, right)
    return Program(stack, command, lambda said: "runs" in said, env=environment)


TUN = f"tun:tp0,address={OWN[0]}/24,address={OWN[1]}/64"


def test_the_command_captures_a_running_pipe(network: Network, tmp_path: Path, runtime: dict[str, str]) -> None:
    path = tmp_path / "pipe.pcapng"
    with ExitStack() as stack:
        pipe = started_pipe(stack, network, runtime, TUN, "echo")
        ping(network, 1)
        command = capture_command(f"pipe:{pipe.process.pid}", "--write", str(path))
        capture = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=runtime)
        with capture:
            assert come_true(lambda: path.exists() and path.stat().st_size > 0)
            # Packets are not captured before the pipe has answered the request.
            assert come_true(
                lambda: network.run("ping", "-c", "1", OTHERS[0]) != "" and len(shown(path, "icmp.type")) > 0
            )
            ping(network)
            assert pipe.end() == 0
            _, complaint = capture.communicate(timeout=SECONDS)
        assert capture.returncode == 0
    assert re.fullmatch(r"threepipe: \d+ packets, \d+ bytes, 0 dropped\n", complaint)
    fields = shown(path, "frame.packet_flags_direction", "icmp.type", "icmpv6.type", "frame.interface_name")
    assert {fields[3] for fields in fields} == {f"{TUN} echo"}
    assert ["0x00000002", "8", ""] in [fields[:3] for fields in fields]
    assert ["0x00000001", "0", ""] in [fields[:3] for fields in fields]
    assert [fields[:3] for fields in fields if fields[2] in ("128", "129")] == [
        ["0x00000002", "", "128"],
        ["0x00000001", "", "129"],
    ] * 3


def test_a_direct_pump_moves_bundles_while_captured(network: Network) -> None:
    with pumped(network) as (_, taps, session):
        ping(network)
        seen: list[CapturedBundle] = []
        for _ in range(2):  # The second time, the pump moves bundles already.
            seen.clear()
            taps.add(sink := _copying(seen))
            ping(network)
            taps.remove(sink)
            assert [echoes(packets_of(seen, direction)) for direction in (OUTBOUND, INBOUND)] == [6, 6]
            ping(network)
        # A waiting caller is not woken in vain, as it would be by a pump's doorbell that nobody clears.
        assert come_true(lambda: not select.select([session.fileno()], [], [], 0)[0])


def _copying(seen: list[CapturedBundle]) -> Sink:
    return lambda one: seen.append(CapturedBundle(one.direction, list(map(bytes, one.packets)), one.time_ns))


# Wireshark.

needs_tshark = pytest.mark.skipif(not shutil.which("tshark"), reason="tshark is not installed")


def extcap_folder() -> str:
    done = subprocess.run(["tshark", "-G", "folders"], capture_output=True, text=True, check=True, timeout=50)
    return next(line.split("\t")[-1] for line in done.stdout.splitlines() if line.startswith("Extcap path"))


@pytest.fixture
def tshark(network: Network, tmp_path: Path) -> list[str]:
    """Return the command for tshark inside `network`, with our program in its folder for extcap."""
    program = tmp_path / "extcap" / "threepipe-extcap"
    program.parent.mkdir()
    code = "from threepipe.capture.extcap import main; main()"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -W error -c "{code}" "$@"\n')
    program.chmod(0o755)
    script = f'mount --bind {program.parent} {extcap_folder()}; exec tshark "$@"'
    return network.command("unshare", "--mount", "sh", "-ec", script, "sh")


@needs_tshark
def test_wireshark_lists_and_captures_an_adapter(network: Network, tshark: list[str], tmp_path: Path) -> None:
    path = tmp_path / "shark.pcapng"
    with answering(network), ExitStack() as stack:
        listed = subprocess.run([*tshark, "-D"], capture_output=True, text=True, check=True, timeout=50).stdout
        assert "threepipe-tp0 (threepipe adapter tp0)" in listed
        command = [*tshark, "-i", "threepipe-tp0", "-w", str(path)]
        program = Program(stack, command, lambda said: "Capturing on" in said)
        assert come_true(lambda: sees(network), SECONDS * 2)
        ping(network)
        assert come_true(lambda: echoes(so_far(path)) == 12, SECONDS * 2)
        assert program.end() == 0
    kinds = shown(path, "frame.packet_flags_direction", "icmp.type")
    # The order may differ: a request may have overtaken the answer to the one before.
    assert sorted(fields for fields in kinds if fields[1]) == [["0x00000001", "0"]] * 3 + [["0x00000002", "8"]] * 3


@needs_tshark
def test_wireshark_captures_a_running_pipe(
    network: Network, tshark: list[str], tmp_path: Path, runtime: dict[str, str]
) -> None:
    path = tmp_path / "shark.pcapng"
    with ExitStack() as stack:
        pipe = started_pipe(stack, network, runtime, TUN, "echo")
        name = f"threepipe-pipe:{pipe.process.pid}"
        listed = subprocess.run([*tshark, "-D"], capture_output=True, text=True, check=True, timeout=50, env=runtime)
        assert f"{name} (threepipe pipe {TUN} echo)" in listed.stdout
        command = [*tshark, "-i", name, "-w", str(path), "-a", "packets:8"]
        program = Program(stack, command, lambda said: "Capturing on" in said, env=runtime)
        assert come_true(
            lambda: network.run("ping", "-c", "1", OTHERS[0]) != "" and program.process.poll() is not None, SECONDS * 2
        )
        assert program.end() == 0
        assert pipe.end() == 0
    kinds = [fields for fields in shown(path, "frame.packet_flags_direction", "icmp.type") if fields[1]]
    first = kinds.index(["0x00000002", "8"])  # Wireshark speaks of capturing before it does: an answer may come first.
    assert kinds[first : first + 2] == [["0x00000002", "8"], ["0x00000001", "0"]]


# Files of tcpdump, replayed.

TCPDUMP = {
    "ethernet": ("lo", ()),
    "nanoseconds": ("lo", ("--time-stamp-precision=nano",)),
    "raw": ("tp0", ()),
    "sll2": ("any", ()),
    "sll": ("any", ("-y", "LINUX_SLL")),
}


@needs_root  # As root of a user namespace, tcpdump cannot keep its user.
@pytest.mark.parametrize("case", TCPDUMP)
def test_a_file_of_tcpdump_is_replayed_with_its_packets_intact(network: Network, tmp_path: Path, case: str) -> None:
    device, options = TCPDUMP[case]
    path = tmp_path / "a.pcap"
    host = OTHERS[0] if device == "tp0" else "127.0.0.1"
    with answering(network), ExitStack() as stack:
        command = network.command("tcpdump", "-Z", "root", "-U", "-n", "-i", device, *options, "-w", str(path), "icmp")
        program = Program(stack, command, lambda said: "listening on" in said)
        network.run("ping", "-n", "-c", "4", "-i", "0.01", "-p", "c0ffee", host)
        assert come_true(lambda: len(so_far(path)) >= 8)
        program.end()
    replay = open_endpoint(f"pcap:{path},speed=1000")
    packets: list[bytes] = []
    with closing(replay), suppress(threepipe.EndpointEnded):
        while bundle := replay.receive(SECONDS):
            packets += map(bytes, bundle)
    read = subprocess.run(["tcpdump", "-nn", "-r", str(path)], capture_output=True, text=True, check=True, timeout=50)
    assert len(packets) == len(read.stdout.splitlines()) >= 8
    assert {len(packet) for packet in packets} == {84}
    assert all(packet[9] == 1 and packet[36:].count(b"\xc0\xff\xee") > 5 for packet in packets)
    for kind in (0, 8):  # An answer may come after the next request.
        numbers = [packet[26:28] for packet in packets if packet[20] == kind]
        assert numbers == sorted(numbers)
