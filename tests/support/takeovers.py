"""Two devices of `threepipe wg up` in networks of their own, joined by a link, whose processes can be taken over."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TypeAlias

from tests.support.kernel import Network
from tests.support.waiting import come_true
from tests.support.wireguard_pair import new_key
from threepipe.wireguard import key_to_text, public_key

__all__ = ["LOOK", "Host", "Popen", "has_ended", "two_hosts", "works"]

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
        """Run `threepipe` to its end. Return its status and its output."""
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


@contextmanager
def two_hosts(folder: Path) -> Iterator[tuple[Host, Host]]:
    """Yield hosts 1 and 2, joined by a link; their devices do not run yet."""
    with ExitStack() as stack:
        first = Host(1, folder)
        stack.callback(first.close)
        second = Host(2, folder)
        stack.callback(second.close)
        first.network.run("ip", "link", "add", "v1", "type", "veth", "peer", "name", "v2", "netns", second.network.path)
        for host in (first, second):
            host.network.run("ip", "address", "add", f"192.0.2.{host.number}/24", "dev", f"v{host.number}")
            host.network.run("ip", "link", "set", f"v{host.number}", "up")
        first.write(second)
        second.write(first)
        yield first, second


LOOK = (
    "ip rule; ip -4 route show table all | sed 's/ linkdown//'; ip link | grep -o 'take[0-9]'; nft list ruleset;"
    " ls /run/wireguard"
)
"""Shell commands that show the rules, routes, links and files of a device."""


def works(left: Host, right: Host) -> bool:
    """Return True if packets pass both ways, perhaps after a handshake."""
    return all(
        ", 0% packet loss" in a.shell(f"ping -c 3 -i 0.2 -W 8 {b.inside}") for a, b in ((left, right), (right, left))
    )


def has_ended(process: Popen) -> bool:
    return process.poll() is not None
