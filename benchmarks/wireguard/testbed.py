"""WireGuard testbeds: one device whose peers do not answer, and two devices joined by a link of the kernel."""

import base64
import os
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from benchmarks.contenders import Contender
from benchmarks.processes import Failed, Process, inside, output, process
from benchmarks.testbed import TARGETS, Testbed, explaining, linked

__all__ = [
    "MTU",
    "PORT",
    "TUNNELLED",
    "configure",
    "device",
    "interface_section",
    "peer_address",
    "peer_sections",
    "public_key",
    "random_key",
    "route_to_peers",
    "set_up",
    "starting",
    "tunnel",
    "wait_until_ready",
]

PORT = 51820
TUNNELLED = "10.98.0.2"
"""The right side's address behind the tunnel."""

_INNER = "10.98.0.{host}"
_OUTER = TARGETS[4].removesuffix("2") + "{host}"
_ALL_PEERS = "10.0.0.0/10"
"""Every address that `peer_address` returns, but not the tunnel's own."""
_NAME = "tunnelled"
MTU = 1420
"""The default of every program: what IPv6 over a link of 1500 holds."""

# The device gets a /run of its own, so its control socket goes with it. No program reads its standard output.
_START = 'mount -t tmpfs none /run && echo apart && exec "$@" >/dev/null'
_UP = f"""
link set {_NAME} mtu {MTU} up
addr add {_INNER}/24 dev {_NAME}
"""
_SECONDS = 10.0
_PAUSE = 0.001
_MANY_PEERS_SECONDS = 120.0


@contextmanager
def device(contender: Contender, network: int) -> Iterator[Process]:
    """Start a device in the network of process `network`, without a configuration. Raises `Failed`."""
    with starting(contender, network) as program:
        wait_until_ready(program)
        yield program


@contextmanager
def starting(contender: Contender, network: int) -> Iterator[Process]:
    """Start a device, which may not be ready yet. Raises `Failed`."""
    command = inside(network, "unshare", "--mount", "sh", "-c", _START, "sh", *contender.device, _NAME)
    with process(command) as program, explaining(program):
        program.wait_for("apart")
        yield program


def wait_until_ready(program: Process) -> None:
    """Wait until the device answers a request for its configuration. Raises `Failed`."""
    deadline = time.monotonic() + _SECONDS
    while not _answers(program):
        if program.ended() or time.monotonic() > deadline:
            raise Failed(program.last_error() or "the device does not answer")
        time.sleep(_PAUSE)


def _answers(program: Process) -> bool:
    """Ask as `wg show` does, which takes longer to start than some devices."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(_SECONDS)
        try:
            client.connect(f"/proc/{program.pid}/root/run/wireguard/{_NAME}.sock")
            client.sendall(b"get=1\n\n")
            return bool(client.recv(1))
        except OSError:
            return False


def configure(program: Process, text: str) -> None:
    """Add sections of a wg(8) configuration file to the device's configuration."""
    output(_beside(program, "wg", "addconf", _NAME, "/dev/stdin"), _MANY_PEERS_SECONDS, text)


def set_up(program: Process, host: int) -> None:
    """Set the interface up, with the address of that host."""
    output(inside(program.pid, "ip", "-batch", "-"), _SECONDS, _UP.format(host=host))


def interface_section(private_key: str) -> str:
    """Return a device's section of a wg(8) configuration file."""
    return f"[Interface]\nPrivateKey = {private_key}\nListenPort = {PORT}\n"


def peer_sections(public_keys: Sequence[str]) -> str:
    """Return the peers' sections of a wg(8) configuration file, each with an IPv4 and an IPv6 address."""
    return "".join(
        f"[Peer]\nPublicKey = {key}\nAllowedIPs = {peer_address(number)}/32, fd98::{number:x}/128\n"
        for number, key in enumerate(public_keys, 1)
    )


def peer_address(number: int) -> str:
    """Return the IPv4 address of a peer; the first peer has number 1."""
    return f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"


def route_to_peers(program: Process) -> None:
    """Route the addresses of all peers to the device."""
    output(inside(program.pid, "ip", "route", "add", _ALL_PEERS, "dev", _NAME), _SECONDS)


@contextmanager
def tunnel(contender: Contender, bystanders: int = 0) -> Iterator[Testbed]:
    """Join two networks by a veth link and by a tunnel over it. Raises `Failed`.

    Both devices have `bystanders` more peers, which receive no packets.
    """
    private = [random_key() for _ in range(2)]
    public = [public_key(key) for key in private]
    with ExitStack() as stack:
        link = stack.enter_context(linked())
        programs = []
        for side, network in enumerate((link.left, link.right)):
            program = stack.enter_context(device(contender, network))
            own_host, other_host = side + 1, 2 - side
            peer = (
                f"[Peer]\nPublicKey = {public[1 - side]}\nAllowedIPs = {_INNER.format(host=other_host)}/32\n"
                f"Endpoint = {_OUTER.format(host=other_host)}:{PORT}\n"
            )
            others = peer_sections([random_key() for _ in range(bystanders)])
            configure(program, interface_section(private[side]) + others + peer)
            set_up(program, own_host)
            programs.append(program)
        testbed = Testbed(link.left, link.right, tuple(programs))
        testbed.wait_for_answer(TUNNELLED)
        yield testbed


def random_key() -> str:
    """Return a key that serves as private or public: any 32 bytes do."""
    return base64.b64encode(os.urandom(32)).decode()


def public_key(private_key: str) -> str:
    """Return what `wg pubkey` prints, without a process for each of many peers."""
    public = X25519PrivateKey.from_private_bytes(base64.b64decode(private_key)).public_key()
    return base64.b64encode(public.public_bytes_raw()).decode()


def _beside(program: Process, *command: str) -> list[str]:
    """Return the command that runs `command` where it sees that device's control socket."""
    return ["nsenter", f"--mount=/proc/{program.pid}/ns/mnt", f"--net=/proc/{program.pid}/ns/net", *command]
