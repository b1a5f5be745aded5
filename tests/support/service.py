"""A running service in a network of its own, and callers at its socket."""

import array
import json
import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.kernel import STRANGER, Network

__all__ = ["POLICY", "Service", "answer_to", "ask", "close_all", "hurl", "send", "serving"]

POLICY = f"""
[[allow]]
users = [0, {STRANGER}]
names = ["vpn%d", "tp*"]
addresses = ["10.6.0.0/16", "fd67::/64"]
routes = ["10.0.0.0/8", "fd00::/16"]
adapters = 200
queues = 4
"""


class Service:
    """A running `threepipe serve`."""

    def __init__(self, network: Network, folder: Path, process: "subprocess.Popen[str]") -> None:
        self.network = network
        self.path = folder / "socket"
        self.policy = folder / "policy.toml"
        self.process = process

    @property
    def environment(self) -> dict[str, str]:
        return os.environ | {"THREEPIPE_SERVE": str(self.path)}

    def connect(self) -> socket.socket:
        """Return a connection of this process, from a socket of the service's network."""
        caller = self.network.namespace.run(lambda: socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        caller.settimeout(30)
        caller.connect(str(self.path))
        return caller

    def create(self, caller: socket.socket, **settings: Any) -> list[int]:
        """Have an adapter created, and return its descriptors."""
        answer, numbers = ask(caller, op="create", **settings)
        assert "error" not in answer, answer
        return numbers

    def descriptors(self) -> int:
        """Return how many descriptors the service has open."""
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def memory(self) -> int:
        """Return the KiB of memory that the service has."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0])


def ask(caller: socket.socket, **request: Any) -> tuple[dict[str, Any], list[int]]:
    """Send a request and return the answer with its descriptors; an empty one if the service has hung up."""
    return send(caller, json.dumps(request).encode())


def send(caller: socket.socket, data: bytes) -> tuple[dict[str, Any], list[int]]:
    """Send a message and return the answer as `ask` does."""
    try:
        caller.send(data)
    except BrokenPipeError:
        pass  # It may have refused before, and said so.
    return answer_to(caller)


def answer_to(caller: socket.socket) -> tuple[dict[str, Any], list[int]]:
    try:
        answer, ancillary, _, _ = caller.recvmsg(1 << 17, socket.CMSG_SPACE(253 * 4))
    except ConnectionResetError:
        answer, ancillary, _, _ = caller.recvmsg(1 << 17, socket.CMSG_SPACE(253 * 4))
    numbers = array.array("i", b"".join(content for _, _, content in ancillary))
    return (json.loads(answer) if answer else {}), list(numbers)


def close_all(numbers: Sequence[int]) -> None:
    for number in numbers:
        os.close(number)


def hurl(service: Service, count: int, chance: random.Random) -> None:
    """Send that many requests of random content, most of them close to valid ones."""
    good = json.dumps({"op": "create", "name": "tp0", "addresses": ["10.6.7.1/24"], "mtu": 1400}).encode()
    for _ in range(count):
        data = bytearray(good)
        for _ in range(chance.randrange(1, 6)):
            match chance.randrange(3):
                case 0:
                    data[chance.randrange(len(data))] = chance.randrange(256)
                case 1:
                    del data[chance.randrange(len(data)) :]
                    data += b"}" * chance.randrange(2)
                case 2:
                    data[chance.randrange(len(data) + 1) : 0] = chance.randbytes(chance.randrange(9))
            if not data:
                data = bytearray(b"0")
        with service.connect() as caller:
            close_all(send(caller, bytes(data))[1])


@contextmanager
def serving(network: Network, folder: Path, policy: str = POLICY) -> Iterator[Service]:
    folder.chmod(0o755)
    (folder / "policy.toml").write_text(policy)
    options = ["--policy", str(folder / "policy.toml"), "--socket", str(folder / "socket")]
    command = network.command(sys.executable, "-W", "error", "-m", "threepipe", "serve", *options)
    with (folder / "log").open("w") as log, subprocess.Popen(command, stderr=log, text=True) as process:
        try:
            while "serving at" not in (folder / "log").read_text():
                assert process.poll() is None, (folder / "log").read_text()
            yield Service(network, folder, process)
        finally:
            killed = process.poll() is not None
            process.terminate()
            assert process.wait(20) == (-signal.SIGKILL if killed else 0), (folder / "log").read_text()
    assert killed or not (folder / "socket").exists()
