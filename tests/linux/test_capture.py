"""Captures with real peers: the kernel, tcpdump and Wireshark's tshark, on adapters and on running pipes."""

import errno
import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

import threepipe
from tests.support.captures import reader
from tests.support.capturing import (
    OTHERS,
    SECONDS,
    TUN,
    answering,
    echoes,
    made,
    packets_of,
    ping,
    sees,
    shown,
    so_far,
    started_pipe,
)
from tests.support.kernel import STRANGER, Network, call_elsewhere, needs_root
from tests.support.waiting import come_true
from threepipe import Adapter, Session
from threepipe.backend import INBOUND, OUTBOUND, CapturedBundle, Sink
from threepipe.capture.live import open_source
from threepipe.capture.tap import Taps

pytestmark = pytest.mark.kernel


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
