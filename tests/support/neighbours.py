"""Other programs of an ordinary user on an adapter, as docs/handing-over.md says, and transfers through them."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from tests.support.kernel import STRANGER, Network, cable
from tests.support.waiting import come_true

THREEPIPE = [sys.executable, "-W", "error", "-m", "threepipe"]
OURS = ["--dev", "ovpn0", "--ifconfig-noexec", "--route-noexec"]
"""The options for a persistent adapter of ours."""


@contextmanager
def cabled(near: Network) -> Iterator[Network]:
    """Yield another network at the end of a cable: 192.0.2.1 is near, 192.0.2.2 far."""
    far = Network()
    try:
        cable(near, far)
        yield far
    finally:
        far.namespace.close()


@contextmanager
def openvpn(network: Network, log: Path, *options: str, user: int | None = None) -> Iterator[None]:
    """Run OpenVPN with a TUN adapter, as `user` if one is given."""
    with running(network, log, "openvpn", "--dev-type", "tun", "--allow-compression", "no", *options, user=user):
        yield


@contextmanager
def running(network: Network, log: Path, *words: str, user: int | None = None) -> Iterator[None]:
    """Run a program, as `user` if one is given."""
    ids = [] if user is None else ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"]
    with log.open("w") as said:
        process = subprocess.Popen(network.command(*ids, *words), stdout=said, stderr=said)
        try:
            yield
        finally:
            process.terminate()
            process.wait(20)


@contextmanager
def openvpn_pair(network: Network, folder: Path) -> Iterator[Network]:
    """Join two OpenVPNs: an ordinary user's on the adapter ovpn0 of `network`, and 10.8.0.1 in the network yielded."""
    key = folder / "key"
    subprocess.run(["openvpn", "--genkey", "secret", str(key)], check=True, timeout=50)
    folder.chmod(0o755)
    key.chmod(0o644)
    common = ["--secret", str(key), "--proto", "udp4", "--cipher", "AES-256-CBC"]
    theirs = ["--dev", "tun0", "--ifconfig", "10.8.0.1", "10.8.0.2", "--local", "192.0.2.2"]
    ours = [*OURS, "--remote", "192.0.2.2"]
    with (
        cabled(network) as far,
        openvpn(far, folder / "far", *common, *theirs),
        openvpn(network, folder / "near", *common, *ours, user=STRANGER),
    ):
        assert come_true(lambda: "tun0" in far.run("ip", "link"), 20), (folder / "far").read_text()
        assert come_true(lambda: answers(network, "10.8.0.1"), 30), (folder / "near").read_text()
        yield far


def answers(network: Network, address: str) -> bool:
    """Return True if a ping is answered within a second."""
    return " 0% packet loss" in network.run("ping", "-c", "1", "-W", "1", address, check=False)


def transferred(network: Network, far: Network, address: str, size: int, *, back: bool = False) -> int:
    """Send `size` bytes by TCP to an address of `far`, or `back` from there, and return how many arrived."""
    listening = far.namespace.run(lambda: socket.create_server((address, 5000)))
    connecting = network.namespace.run(lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM))
    for each in (listening, connecting):
        each.settimeout(40)
    with ThreadPoolExecutor(1) as executor, listening:
        connected = executor.submit(connecting.connect, (address, 5000))
        accepted, _ = listening.accept()
        accepted.settimeout(40)
        connected.result()
        source, target = (accepted, connecting) if back else (connecting, accepted)
        executor.submit(_send, source, size)
        with target:
            count = 0
            while count < size and (data := target.recv(1 << 20)):
                count += len(data)
    return count


def _send(source: socket.socket, size: int) -> None:
    with source:
        source.sendall(bytes(size))
