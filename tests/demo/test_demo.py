"""The demonstration: over the kernel, over memory, interrupted and killed; and its output."""

import json
import os
import select
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

import threepipe
from tests.support.commands import run_here
from tests.support.kernel import Network
from threepipe import platforms
from threepipe.demo import open_stage, play, single
from threepipe.demo.kernel import KernelStage, kernel_stage
from threepipe.demo.memory import memory_stage
from threepipe.demo.play import PumpThread
from threepipe.demo.single import single_stage
from threepipe.demo.stream import chunks

DEMO = [sys.executable, "-W", "error", "-m", "threepipe", "demo"]
REQUIRED = {
    "backend", "namespaces", "ping4_ms", "ping6_ms", "bytes", "seconds", "bits_per_second", "sha256_match",
    "packets", "bundles", "dropped",
}  # fmt: skip


def demo(*options: str, before: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*before, *DEMO, *options], capture_output=True, text=True, timeout=50)


def without_tun(*options: str) -> subprocess.CompletedProcess[str]:
    """Run the demo without /dev/net/tun, in a mount namespace of its own."""
    shell = ("unshare", "--mount", "sh", "-ec", 'mount -t tmpfs none /dev/net; exec "$@"', "sh")
    return demo(*options, before=shell)


def check_result(result: dict[str, Any], size: int) -> None:
    assert result.keys() >= REQUIRED
    assert result["bytes"] == size
    assert result["sha256_match"] is True
    assert 0 < result["ping4_ms"] < 1000
    assert 0 < result["ping6_ms"] < 1000
    assert result["packets"] >= result["bundles"] > 0
    assert result["packets"] > size / 1500
    assert abs(result["bits_per_second"] - 8 * size / result["seconds"]) < 1
    assert result["dropped"] >= 0


@pytest.mark.kernel
def test_demo_with_json_prints_the_result_over_the_kernel() -> None:
    done = demo("--json", "--size", "20M")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    check_result(result, 20 << 20)
    assert result["backend"] == "linux-tun"
    assert len(set(result["namespaces"])) == 2
    assert os.readlink("/proc/self/ns/net") not in result["namespaces"]


@pytest.mark.kernel
def test_demo_prints_a_table_over_the_kernel() -> None:
    done = demo("--size", "1000000")
    assert done.returncode == 0, done.stderr
    first, *rest = done.stdout.splitlines()
    assert "network namespaces" in first
    assert ("As root" in first) == (not os.geteuid())
    table = "\n".join(rest)
    for word in ("ping, IPv4", "ping, IPv6", "1,000,000 bytes", "Gbit/s", "SHA-256", "packets per bundle", "dropped"):
        assert word in table


@pytest.mark.kernel
def test_demo_without_a_tun_device_runs_over_memory() -> None:
    done = without_tun("--json", "--size", "3M")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    check_result(result, 3 << 20)
    assert result["backend"] == "memory"
    assert result["namespaces"] == []


@pytest.mark.kernel
def test_demo_without_a_tun_device_says_so_first() -> None:
    first = without_tun("--size", "10K").stdout.splitlines()[0]
    assert "/dev/net/tun is missing" in first
    assert "memory" in first


@pytest.mark.parametrize("size", ["", "0", "-1", "1.5M", "8X", "K", "1025G", "5 M"])
def test_demo_with_an_invalid_size_exits_with_2(
    size: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    done = run_here(monkeypatch, capfd, "demo", "--size", size)
    assert done.status == 2
    assert "bytes" in done.complaint
    assert "Traceback" not in done.complaint
    assert done.printed == ""


def children(pid: int) -> set[int]:
    """Return the processes whose parent is `pid`."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            status = path.read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if status.rpartition(")")[2].split()[1] == str(pid):
            found.add(int(path.parent.name))
    return found


def start_long_demo() -> tuple[subprocess.Popen[str], set[int]]:
    """Return a demo in the middle of a long transfer, and the processes at the ends of its stream."""
    process = subprocess.Popen(
        [sys.executable, "-u", "-c", LONG_DEMO], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("moving"):
            break
    return process, children(process.pid)


# The command itself, changed to report that the transfer is under way.
LONG_DEMO = """
import sys
from threepipe.cli import main
from threepipe.demo import kernel
transfer = kernel.KernelStage.transfer
def told(stage, size, progress):
    return transfer(stage, size, lambda done: (print("moving"), progress(done)))
kernel.KernelStage.transfer = told
sys.argv = ["threepipe", "demo", "--size", "1024G", "--json"]
main()
"""


@pytest.mark.kernel
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGKILL"])
def test_demo_stopped_in_mid_transfer_leaves_no_process(name: str) -> None:
    process, ends = start_long_demo()
    with process:
        assert len(ends) == 2
        # Their descriptors become readable when they end; only they hold adapters and namespaces.
        handles = [os.pidfd_open(pid) for pid in ends]
        process.send_signal(getattr(signal, name))
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read()
        errors = process.stderr.read()
    for handle in handles:
        assert select.select([handle], [], [], 20)[0], "an end of the stream goes on"
        os.close(handle)
    if name == "SIGINT":
        assert process.returncode == 130
        assert errors == ""


def test_memory_stage_leaves_no_thread_and_reports_progress() -> None:
    told: list[str] = []
    progress: list[int] = []
    with memory_stage() as stage:
        result = play(stage, 300_000, told.append, progress.append)
    assert result.intact
    assert told == ["ping, IPv4", "ping, IPv6", "transfer"]
    assert progress == sorted(progress)
    assert progress[-1] == 300_000


@pytest.mark.kernel
def test_a_broken_stream_has_no_matching_hash() -> None:
    with kernel_stage() as stage, PumpThread(stage.left, stage.right):
        transfer = stage.transfer(1 << 40, lambda done: stage.left.close())
        assert 0 < transfer.bytes < 1 << 40
        assert not transfer.sha256_match


def test_chunks_add_up_and_differ() -> None:
    pieces = list(chunks(2500, 1000))
    assert [len(piece) for piece in pieces] == [1000, 1000, 500]
    assert len({piece[:500] for piece in pieces}) == 3


@pytest.mark.kernel
def test_open_stage_prefers_the_kernel() -> None:
    with open_stage() as (stage, sentence):
        assert stage.backend == "linux-tun"
        assert "adapters" in sentence


@pytest.mark.kernel
def test_demo_with_ipv6_disabled_shows_ipv4() -> None:
    from threepipe.platforms import private_networks

    with ExitStack() as stack:
        privilege, networks = private_networks()
        adapters = []
        for side, network in enumerate(networks, 1):
            stack.callback(network.close)
            adapter = threepipe.Adapter.create("demo", netns=network.path, addresses=[f"10.77.0.{side}/24"])
            adapters.append(stack.enter_context(adapter))
        result = play(KernelStage(privilege, networks, adapters), 100_000, lambda _: None, lambda _: None)
    assert result.families == (4,)
    assert result.ping6_ms is None
    assert result.intact


@pytest.mark.kernel
def test_the_stage_of_a_system_with_one_network_passes_pings_and_the_stream(network: Network) -> None:
    def show() -> Any:
        with single_stage() as stage:
            return play(stage, 2 << 20, lambda step: None, lambda done: None)

    result = network.namespace.run(show)
    assert result.intact
    assert (result.backend, result.privilege, result.namespaces) == ("adapter", "root", ())
    assert result.packets > (2 << 20) / 1400


@pytest.mark.kernel
def test_a_lost_datagram_of_the_stream_is_told(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(single, "_REPLY_TIMEOUT", 0.05)
    monkeypatch.setattr(single, "_answered", lambda packet: None)

    def show() -> Any:
        with single_stage() as stage, PumpThread(stage.left, stage.right):
            return stage.transfer(5000, lambda done: None)

    assert network.namespace.run(show).sha256_match is False


def test_a_system_with_one_network_shows_it_or_without_privilege_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platforms, "ONE_NETWORK", True)

    def refuse(settings: object) -> None:
        raise threepipe.PermissionDenied(1, "creating utun%d needs root; run as root, for example with sudo")

    monkeypatch.setattr(platforms, "create", refuse)
    with open_stage() as (stage, description):
        assert stage.backend == "memory"
        assert "creating utun%d needs root" in description
