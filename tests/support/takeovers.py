"""Two devices of `threepipe wg up` in networks of their own, joined by a link, whose processes can be taken over."""

import json
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TypeAlias

from tests.support.kernel import Network
from tests.support.waiting import come_true
from tests.support.wireguard_pair import new_key
from threepipe.wireguard import key_to_text, public_key

__all__ = [
    "CASES",
    "FAULTS",
    "FAULTY",
    "LOOK",
    "Host",
    "Popen",
    "Probes",
    "WireGuardGo",
    "check_fault",
    "counters_sent",
    "has_ended",
    "two_hosts",
    "works",
]

Popen: TypeAlias = "subprocess.Popen[str]"


class Host:
    """A network with a /run of its own, and the configuration file of its device."""

    def __init__(self, number: int, folder: Path) -> None:
        self.number = number
        self.network = Network()
        self.key = new_key()
        self.name = f"take{number}"
        self.path = folder / f"{self.name}.conf"
        self.inside = f"10.5.0.{number}"
        self.processes: list[Popen] = []
        self.said: list[str] = []
        """The lines that devices wrote before they were up."""
        apart = "mount -t tmpfs none /run && mkdir /run/wireguard && echo ready && exec cat"
        self._holder = subprocess.Popen(
            self.network.command("unshare", "--mount", "sh", "-ec", apart),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == "ready\n"

    def write(self, other: "Host", interface: str = "", allowed: str = "") -> None:
        self.path.write_text(
            f"[Interface]\nPrivateKey = {key_to_text(self.key)}\nListenPort = 5000\n"
            f"Address = {self.inside}/24\n{interface}\n"
            f"[Peer]\nPublicKey = {key_to_text(public_key(other.key))}\nAllowedIPs = {allowed or other.inside}\n"
            f"Endpoint = 192.0.2.{other.number}:5000\n"
        )

    @property
    def holder(self) -> int:
        """The process that keeps the network and /run."""
        return self._holder.pid

    def peer_of(self, other: "Host") -> str:
        """Return the public key of the other host."""
        return key_to_text(public_key(other.key))

    def command(self, *command: str) -> list[str]:
        pid = self._holder.pid
        return ["nsenter", f"--net=/proc/{pid}/ns/net", f"--mount=/proc/{pid}/ns/mnt", *command]

    def start(self, *command: str, **environment: str) -> Popen:
        """Start a program whose standard error can be read."""
        process = subprocess.Popen(
            self.command(*command),
            env=os.environ | environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.processes.append(process)
        return process

    def up(self, *options: str, python: tuple[str, ...] = ("-m", "threepipe"), **environment: str) -> Popen:
        """Start `threepipe wg up`, and return it once it says that the device is up, or has ended."""
        program = self.start(
            sys.executable, "-W", "error", *python, "wg", "up", *options, str(self.path), **environment
        )
        assert program.stderr is not None
        said = program.stderr.readline()
        while said and " is up" not in said:
            self.said.append(said)
            said = program.stderr.readline()
        return program

    def pipe(self, *arguments: str, python: tuple[str, ...] = ("-m", "threepipe"), **environment: str) -> Popen:
        """Start `threepipe pipe`, and return it once another process can take it over, or it has ended."""
        program = self.start(sys.executable, "-W", "error", *python, "pipe", *arguments, **environment)
        socket = Path(f"/proc/{self.holder}/root/run/threepipe/{program.pid}.takeover")
        assert come_true(lambda: socket.exists() or has_ended(program), 50)
        return program

    def shell(self, script: str) -> str:
        done = subprocess.run(self.command("sh", "-c", script), capture_output=True, text=True, timeout=50)
        return done.stdout + done.stderr

    def threepipe(self, *arguments: str) -> tuple[int, str]:
        """Run `threepipe` to its end. Return its status and what it said."""
        program = self.command(sys.executable, "-m", "threepipe", *arguments)
        done = subprocess.run(program, capture_output=True, text=True, timeout=50)
        return done.returncode, done.stdout + done.stderr

    def ping(self, other: "Host", seconds: int = 20) -> None:
        """Ping the other end until it answers."""
        said = self.shell(f"ping -c 1 -i 0.2 -w {seconds} {other.inside}")
        assert " 1 received" in said or " 2 received" in said or ", 0% packet loss" in said, said

    def transfer(self) -> tuple[int, int]:
        """Return the bytes received and sent that the device counts."""
        shown = self.threepipe("wg", "show", self.name, "transfer")[1].split()
        return int(shown[1]), int(shown[2])

    def handshake(self) -> str:
        return self.threepipe("wg", "show", self.name, "latest-handshakes")[1].split()[1]

    def close(self) -> None:
        for process in self.processes:
            with suppress(ProcessLookupError):
                process.kill()
            process.communicate()
        self._holder.kill()
        self._holder.communicate()
        self.network.namespace.close()


def two_hosts(folder: Path) -> tuple[Host, Host]:
    """Return hosts 1 and 2, joined by a link; their devices do not run yet."""
    first, second = Host(1, folder), Host(2, folder)
    first.network.run("ip", "link", "add", "v1", "type", "veth", "peer", "name", "v2", "netns", second.network.path)
    for host in (first, second):
        host.network.run("ip", "address", "add", f"192.0.2.{host.number}/24", "dev", f"v{host.number}")
        host.network.run("ip", "link", "set", f"v{host.number}", "up")
    first.write(second)
    second.write(first)
    return first, second


FAULTY = str(Path(__file__).with_name("programs") / "takeover_fault.py")
"""A program with a fault, the step and the arguments of the command."""

NONE, OLD, NEW = "", "old", "new"
STEPS: dict[str, tuple[set[str], set[str]]] = {
    "Giving.greet": ({NONE}, {OLD}),
    "Giving.offer": ({NONE}, {OLD}),
    "Giving.suspend": ({NONE}, {OLD}),
    "Giving.send_state": ({NONE, NEW}, {OLD, NEW}),  # The new process may be quicker.
    "Giving.forget": ({NEW}, {NEW}),
    "Giving.wait_for_running": ({NEW}, {NEW}),
    "Giving.give_away": ({NEW}, set()),
    "Taking.ask": ({OLD}, {OLD}),
    "Taking.take": ({OLD}, {OLD}),
    "Taking.begin": ({OLD}, {OLD}),
    "Taking.confirm": ({OLD, NONE}, {OLD, NONE}),
}
"""Each step, and who may have the device if its process is killed there, or if the step fails (nobody: it cannot)."""
FAULTS = ("kill-before", "kill-after", "fail-before", "fail-after")
CASES = [
    (step, fault) for step, allowed in STEPS.items() for number, fault in enumerate(FAULTS) if allowed[number // 2]
]

LOOK = (
    "ip rule; ip -4 route show table all | sed 's/ linkdown//'; ip link | grep -o 'take[0-9]'; nft list ruleset;"
    " ls /run/wireguard"
)
"""Shell commands that show what a device sets up."""


def works(left: Host, right: Host) -> bool:
    """Return True if packets pass both ways, perhaps after a handshake."""
    return all(
        ", 0% packet loss" in a.shell(f"ping -c 3 -i 0.2 -W 8 {b.inside}") for a, b in ((left, right), (right, left))
    )


def check_fault(left: Host, right: Host, step: str, fault: str) -> None:
    """Take the left device over with a fault of one process; check which process has it then, and that it works."""
    left.write(right, allowed=f"{right.inside}, 0.0.0.0/0")
    before = left.shell(LOOK)
    faulty = (FAULTY, fault, step)
    at_old = step.startswith("Giving")
    old = left.up(python=faulty if at_old else ("-m", "threepipe"))
    right.up()
    left.ping(right)  # The first handshake may need a second try.
    new = left.up("--takeover", python=("-m", "threepipe") if at_old else faulty)
    allowed = STEPS[step][FAULTS.index(fault) // 2]
    if len(allowed) == 1:  # Then it is known which processes end.
        for process in {OLD: [new], NEW: [old], NONE: [old, new]}[min(allowed)]:
            process.wait(20)
        running = [process for process in (old, new) if not has_ended(process)]
    else:
        running = [process for process in (old, new) if not come_true(partial(has_ended, process), 5)]
    assert len(running) <= 1, "both run"
    if running:
        assert works(left, right), f"{step} {fault}: the device does not work"
        left.ping(right)
    status, said = left.threepipe("wg", "down", left.name)
    assert status == 0 or "there is no device" in said, said
    for process in running:
        assert process.wait(20) == 0
    after = left.shell(LOOK)
    assert after == before, f"{after} {before}"
    outcome = NONE if not running else OLD if running[0] is old else NEW
    assert outcome in allowed, f"{outcome} has the device"


def has_ended(process: Popen) -> bool:
    return process.poll() is not None


PROBES = str(Path(__file__).with_name("programs") / "probes.py")
_PROBE_PORT = "7000"


class Probes:
    """A datagram every millisecond in both directions between two hosts, for the time of the block."""

    def __init__(self, left: Host, right: Host) -> None:
        self._receivers = [self._program(host, "receive", host) for host in (left, right)]
        for receiver in self._receivers:
            assert receiver.stdout is not None
            assert receiver.stdout.readline() == "ready\n"
        self._senders = [self._program(right, "send", left), self._program(left, "send", right)]

    @staticmethod
    def _program(host: Host, what: str, target: Host) -> Popen:
        command = host.command(sys.executable, PROBES, what, target.inside, _PROBE_PORT)
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def begin_gap(self) -> None:
        """Measure the longest gap anew from now on."""
        for receiver in self._receivers:
            assert receiver.stdin is not None
            receiver.stdin.write("\n")
            receiver.stdin.flush()

    def finish(self) -> tuple[list[int], list[int], list[list[float]]]:
        """Stop. Return how many probes were sent and lost in each direction, and the milliseconds of the gaps."""
        sent = [int(sender.communicate()[0]) for sender in self._senders]
        told = [json.loads(receiver.communicate()[0]) for receiver in self._receivers]
        lost = [number - each["received"] for number, each in zip(sent, told, strict=True)]
        return sent, lost, [each["gaps"] for each in told]

    def close(self) -> None:
        for program in (*self._senders, *self._receivers):
            program.kill()
            program.communicate()


def counters_sent(packets: Iterable[bytes], source: str) -> list[tuple[int, int]]:
    """Return the receiver's index and the counter of each transport message among IPv4 packets from `source`."""
    found = []
    for packet in packets:
        data = packet[28:]
        if packet[9] == socket.IPPROTO_UDP and packet[12:16] == socket.inet_aton(source) and data[:4] == b"\4\0\0\0":
            found.append(struct.unpack_from("<IQ", data, 4))
    return found


class WireGuardGo:
    """wireguard-go in the place of a device of `threepipe wg up`, on an adapter that stays when it is restarted."""

    def __init__(self, host: Host, other: Host) -> None:
        self._host, self._other = host, other
        self._settings = host.path.with_suffix(".setconf")
        self._settings.write_text(
            f"[Interface]\nPrivateKey = {key_to_text(host.key)}\nListenPort = 5000\n[Peer]\n"
            f"PublicKey = {key_to_text(public_key(other.key))}\nAllowedIPs = {other.inside}/32\n"
            f"Endpoint = 192.0.2.{other.number}:5000\n"
        )
        said = host.shell(
            f"ip tuntap add {host.name} mode tun && ip address add {host.inside}/24 dev {host.name}"
            f" && ip link set {host.name} mtu 1420 up"
        )
        assert not said, said
        self._process = self._started()

    def _started(self) -> Popen:
        for _ in range(3):  # Debian's wireguard-go hangs at some starts.
            process = self._host.start("wireguard-go", "-f", self._host.name)
            if come_true(lambda: not self._host.shell(f"wg setconf {self._host.name} {self._settings}"), 5):
                return process
            process.kill()
            process.wait()
        raise AssertionError("wireguard-go does not start")

    def restart(self) -> None:
        self._process.terminate()
        self._process.wait()
        self._process = self._started()
        self._host.ping(self._other)
