"""Two hosts with a device of `threepipe wg up` each, joined by a cable; the second may be behind a router."""

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

from tests.support.kernel import Network, cable, links
from tests.support.wireguard_pair import new_key
from threepipe.wireguard import key_to_text
from threepipe.wireguard.noise import Identity

__all__ = ["BEHIND", "BIN", "FAR", "SET_APART", "Host", "cabled_hosts", "put_far"]

BIN = Path(sys.executable).parent
SET_APART = 'mount -t tmpfs none /run && exec "$@"'
"""Shell commands that give a process a folder of its own for control sockets."""
FAR, BEHIND = "198.51.100.2", "10.77.0.1"

Popen: TypeAlias = "subprocess.Popen[str]"


class Host:
    """A network, its key, and its configuration file."""

    def __init__(self, number: int, folder: Path, network: Network | None = None) -> None:
        self.network = network or Network()
        self.number = number
        self.key = new_key()
        self.public = key_to_text(Identity(self.key).public)
        self.path = folder / f"up{number}.conf"

    def write(self, other: "Host", interface: str = "", peer: str = "", allowed: str = "", outside: str = "") -> None:
        self.path.write_text(
            f"[Interface]\nPrivateKey = {key_to_text(self.key)}\nListenPort = 5{self.number}000\n"
            f"Address = 10.5.0.{self.number}/24, fd05::{self.number}/64\n{interface}\n"
            f"[Peer]\nPublicKey = {other.public}\n"
            f"AllowedIPs = {allowed or f'10.5.0.{other.number}/32, fd05::{other.number}/128'}\n"
            f"Endpoint = {outside or f'192.0.2.{other.number}'}:5{other.number}000\n{peer}"
        )

    @contextmanager
    def up(
        self,
        apart: str = SET_APART,
        meanwhile: Callable[[str], None] | None = None,
        python: Sequence[str] = ("-m", "threepipe"),
        options: Sequence[str] = (),
    ) -> Iterator[Popen]:
        """Bring the device up for the block; call `meanwhile` with the first line printed before."""
        command = self.network.command("unshare", "--mount", "sh", "-c", apart, "sh")
        program = [*command, sys.executable, "-W", "error", *python, "wg", "up", *options, str(self.path)]
        with subprocess.Popen(program, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
            try:
                assert process.stderr is not None
                if meanwhile:
                    meanwhile(process.stderr.readline())
                said = process.stderr.readline()
                assert said == f"up{self.number} is up; Ctrl-C takes it down\n", said + process.stderr.read()
                yield process
            finally:
                process.send_signal(signal.SIGTERM)
                assert process.wait(20) in (0, -signal.SIGKILL)

    def state(self) -> set[str]:
        """Return all that a program could leave: rules, links, and routes except those that appear with a link."""
        routes = "".join(self.network.run("ip", f"-{version}", "route", "show", "table", "all") for version in (4, 6))
        lines = {line for line in routes.splitlines() if "fe80::" not in line and "ff00::" not in line}
        return lines | links(self.network) | set(self.rules().splitlines())

    def rules(self) -> str:
        return "".join(self.network.run("ip", f"-{version}", "rule") for version in (4, 6))


@contextmanager
def cabled_hosts(folder: Path) -> Iterator[tuple[Host, Host]]:
    """Yield hosts 1 and 2, joined by a cable; their devices do not run yet."""
    one, two = Host(1, folder), Host(2, folder)
    try:
        cable(one.network, two.network)
        yield one, two
    finally:
        for host in (one, two):
            host.network.namespace.close()


def put_far(one: Host, two: Host) -> None:
    """Put the second host at `FAR`, behind the default route of the first, which has strict reverse path filtering."""
    two.network.run("ip", "address", "add", f"{FAR}/32", "dev", "lo")
    two.network.run("ip", "address", "add", f"{BEHIND}/32", "dev", "lo")
    two.network.run("ip", "route", "replace", "192.0.2.0/24", "dev", "v2", "src", FAR)  # Its answers have that source.
    one.network.run("ip", "route", "add", "default", "via", "192.0.2.2")
    one.network.run("sysctl", "-q", "net.ipv4.conf.all.rp_filter=1")
