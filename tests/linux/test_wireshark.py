"""Captures in Wireshark's tshark through extcap, and files of tcpdump that are replayed."""

import shutil
import subprocess
import sys
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import pytest

import threepipe
from tests.support.capturing import (
    OTHERS,
    SECONDS,
    TUN,
    Program,
    answering,
    echoes,
    ping,
    sees,
    shown,
    so_far,
    started_pipe,
)
from tests.support.commands import run
from tests.support.kernel import Network, needs_root
from tests.support.waiting import come_true
from threepipe.endpoints import open_endpoint

pytestmark = pytest.mark.kernel

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
def test_wireshark_finds_the_program_that_was_installed(network: Network, tmp_path: Path) -> None:
    installed = run("capture", "--install-extcap", HOME=str(tmp_path))
    assert (installed.status, installed.complaint) == (0, "")
    assert Path(installed.printed.strip()).is_relative_to(tmp_path)
    with answering(network):
        command = network.command("env", f"HOME={tmp_path}", "tshark", "-D")
        listed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=50).stdout
    assert "threepipe-tp0 (threepipe adapter tp0)" in listed


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
