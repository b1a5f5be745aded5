"""Traffic between the hosts of `takeovers` that shows what a takeover loses, repeats, reorders or holds up."""

import json
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

from tests.support.takeovers import Host, Popen
from tests.support.waiting import come_true
from threepipe.wireguard import key_to_text, public_key

__all__ = ["Probes", "WireGuardGo", "check_order", "counters_sent"]

SO_RCVBUFFORCE = 33  # <asm-generic/socket.h>
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


def check_order(
    left: Host, right: Host, rate: str, count: int, take_over: Callable[[], object], pause: float = 0
) -> None:
    """Send `count` packets from the left host faster than its link, with the `rate`, lets them out; then take over.

    Check that all of them arrive in order. `pause` is that after each 50 packets, in seconds.
    """
    assert left.shell(f"tc qdisc add dev v1 root tbf rate {rate} burst 64k limit 64m") == ""
    receiver, sender = (
        host.network.namespace.run(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) for host in (right, left)
    )
    with receiver, sender:
        receiver.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 1 << 26)
        receiver.bind((right.inside, 0))
        sender.connect(receiver.getsockname())
        for number in range(count):
            sender.send(number.to_bytes(4, "big").ljust(1300, b"\0"))
            if pause and not number % 50:
                threading.Event().wait(pause)
        take_over()
        receiver.settimeout(20)
        assert [int.from_bytes(receiver.recv(2000)[:4], "big") for _ in range(count)] == list(range(count))


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
