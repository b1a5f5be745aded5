"""WireGuard devices: one with peers that are nowhere, and two that are each other's, over a link of the kernel."""

import base64
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from benchmarks.contenders import CONTENDERS, Contender
from benchmarks.network import Process, inside, output, process
from benchmarks.paths import TARGETS, Path, blaming, path

__all__ = [
    "PORT",
    "TUNNELLED",
    "address",
    "come_up",
    "configure",
    "crowd",
    "device",
    "interface",
    "lead_to_crowd",
    "public_key",
    "random_key",
    "tunnel",
]

TUNNELLED = "10.98.0.2"
"""The right side's address behind the tunnel."""

_INNER = "10.98.0.{host}"
_OUTER = TARGETS[4].removesuffix("2") + "{host}"
_CROWD = "10.0.0.0/10"
"""All addresses of a crowd, and none of the tunnel's own."""
_NAME = "tunnelled"
PORT = 51820
_MTU = 1420  # As all programs set it by themselves: what IPv6 over a link of 1500 holds.

# A folder of its own for the control socket, which goes with the program. What it says on its way is not read.
_START = 'mount -t tmpfs none /run && echo apart && exec "$@" >/dev/null'
_ANSWERS = f"until wg show {_NAME} >/dev/null 2>&1; do sleep 0.02; done"
_UP = f"""
link set {_NAME} mtu {_MTU} up
addr add {_INNER}/24 dev {_NAME}
"""
_SECONDS = 10.0
_MANY_PEERS_SECONDS = 120.0


@contextmanager
def device(contender: Contender, network: int) -> Iterator[Process]:
    """A device in the network of that process, which answers to `wg` and is not configured. Raises `Failed`."""
    command = inside(network, "unshare", "--mount", "sh", "-c", _START, "sh", *contender.device, _NAME)
    with process(command, contender.environment) as program, blaming(program):
        program.wait_for("apart")
        output(_wg(program, "sh", "-c", _ANSWERS), _SECONDS)
        yield program


def configure(program: Process, text: str) -> None:
    """Add what a file of wg(8) says to the device's configuration."""
    output(_wg(program, "wg", "addconf", _NAME, "/dev/stdin"), _MANY_PEERS_SECONDS, text)


def come_up(program: Process, host: int) -> None:
    """Set the interface up, with the address of that host."""
    output(inside(program.pid, "ip", "-batch", "-"), _SECONDS, _UP.format(host=host))


def crowd(public_keys: Sequence[str]) -> str:
    """Peers as a file of wg(8) has them, each with an address of either version."""
    return "".join(
        f"[Peer]\nPublicKey = {key}\nAllowedIPs = {address(number)}/32, fd98::{number:x}/128\n"
        for number, key in enumerate(public_keys, 1)
    )


def address(number: int) -> str:
    """Of a peer of a crowd, whose first one has number 1."""
    return f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"


def lead_to_crowd(program: Process) -> None:
    """Have packets for a crowd's addresses go to the device."""
    output(inside(program.pid, "ip", "route", "add", _CROWD, "dev", _NAME), _SECONDS)


@contextmanager
def tunnel(contender: Contender, bystanders: int = 0) -> Iterator[Path]:
    """Two networks, joined by a veth link and by the tunnel that goes over it, after a ping. Raises `Failed`.

    Both devices have so many peers besides, with addresses that nobody speaks to.
    """
    private = [random_key() for _ in range(2)]
    public = [public_key(key) for key in private]
    with ExitStack() as stack:
        over = stack.enter_context(path(CONTENDERS["veth"], "forward"))
        programs = []
        for end, network in enumerate((over.left, over.right)):
            program = stack.enter_context(device(contender, network))
            other = 2 - end
            peer = (
                f"[Peer]\nPublicKey = {public[1 - end]}\nAllowedIPs = {_INNER.format(host=other)}/32\n"
                f"Endpoint = {_OUTER.format(host=other)}:{PORT}\n"
            )
            configure(program, interface(private[end]) + crowd([random_key() for _ in range(bystanders)]) + peer)
            come_up(program, end + 1)
            programs.append(program)
        output(inside(over.left, *f"ping -q -n -c 1 -i 0.05 -w 10 {TUNNELLED}".split()), 2 * _SECONDS)
        yield Path(over.left, over.right, tuple(programs))


def interface(private_key: str) -> str:
    """A device as a file of wg(8) has it."""
    return f"[Interface]\nPrivateKey = {private_key}\nListenPort = {PORT}\n"


def _wg(program: Process, *command: str) -> list[str]:
    """The command, where the control socket of that device is."""
    return ["nsenter", f"--mount=/proc/{program.pid}/ns/mnt", f"--net=/proc/{program.pid}/ns/net", *command]


def random_key() -> str:
    """Of either kind, for every 32 bytes are a private key and stand for a public one."""
    return base64.b64encode(os.urandom(32)).decode()


def public_key(private_key: str) -> str:
    """As `wg pubkey` has it, of which a crowd would take as many processes."""
    public = X25519PrivateKey.from_private_bytes(base64.b64decode(private_key)).public_key()
    return base64.b64encode(public.public_bytes_raw()).decode()
