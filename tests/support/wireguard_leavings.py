"""A place for `threepipe wg up` and `down`: namespaces of its own, a stand-in for resolvconf, and a snapshot of them.

Commands in one place share /run, unlike those of `unshare --mount` for each.
"""

import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias

from tests.support.kernel import Network
from tests.support.waiting import come_true
from tests.support.wireguard_pair import new_key
from threepipe.wireguard import key_to_text

NAME = "kill0"
RESOLVCONF = """#!/bin/sh
records=/run/records
mkdir -p $records
case $1 in
    -a) cat > $records/$2.new; mv $records/$2.new $records/$2;;
    -d) rm -f $records/$2;;
esac
cat $records/* /dev/null > /run/resolv.conf.new 2>&1
mv /run/resolv.conf.new /run/resolv.conf
"""
LOOK = """
ip address; ip -4 route show table all; ip -6 route show table all; ip -4 rule; ip -6 rule
nft list ruleset
sysctl -a --pattern '^net\\.ipv4\\.conf\\.(all|default)\\.|^net\\.ipv6\\.conf\\.(all|default)\\.' 2>/dev/null
ss -Hanx; ss -Hanu; ss -Hant
find /run -mindepth 1 | sort
grep -r . /run/records /run/resolv.conf
"""
"""Shell commands that show addresses, routes, rules, the packet filter, sysctls, sockets, files and DNS records."""

Popen: TypeAlias = "subprocess.Popen[str]"


class Place:
    """A network and a /run, which last until `close`."""

    def __init__(self, folder: Path) -> None:
        self.network = Network()
        self.network.run("ip", "link", "add", "outside", "type", "veth", "peer", "name", "far")
        for end in ("outside", "far"):
            self.network.run("ip", "link", "set", end, "up", "addrgenmode", "none")
        assert come_true(self._settled)
        self.network.run("ip", "address", "add", "192.0.2.1/24", "dev", "outside")
        self.network.run("ip", "route", "add", "default", "via", "192.0.2.2")
        self.tools = folder / "tools"
        self.tools.mkdir()
        self.add_tool("resolvconf", RESOLVCONF)
        self.path = folder / f"{NAME}.conf"
        apart = "mount -t tmpfs none /run && mkdir /run/wireguard && resolvconf -d none && echo ready && exec cat"
        self._holder = subprocess.Popen(
            self.network.command("unshare", "--mount", "sh", "-ec", apart),
            env=self.environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == "ready\n"

    def _settled(self) -> bool:
        """Return True once the kernel has noticed both carriers, which it does a moment after the links are up."""
        routes = self.network.run("ip", "-6", "route", "show", "table", "all")
        known = all(f"ff00::/8 dev {end}" in routes for end in ("outside", "far"))
        return known and self.network.run("ip", "link").count("state UP") == 2

    def close(self) -> None:
        for pid in self.processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._holder.kill()
        self._holder.communicate()
        self.network.namespace.close()

    def add_tool(self, name: str, text: str) -> None:
        path = self.tools / name
        path.write_text(text)
        path.chmod(0o755)

    def environment(self) -> dict[str, str]:
        return os.environ | {"PATH": f"{self.tools}:{os.environ['PATH']}"}

    def write(self, interface: str = "", allowed: str = "0.0.0.0/0, ::/0", path: Path | None = None) -> None:
        """Write the configuration file; by default there are a default route, and with it rules, and DNS."""
        (path or self.path).write_text(
            f"[Interface]\nPrivateKey = {key_to_text(new_key())}\nAddress = 10.5.0.1/24, fd05::1/64\n{interface}\n"
            f"[Peer]\nPublicKey = {key_to_text(new_key())}\nAllowedIPs = {allowed}\nEndpoint = 192.0.2.9:5\n"
        )

    def command(self, *command: str) -> list[str]:
        pid = self._holder.pid
        return ["nsenter", f"--net=/proc/{pid}/ns/net", f"--mount=/proc/{pid}/ns/mnt", *command]

    def start(self, *arguments: str) -> Popen:
        """Start `threepipe wg` with these arguments, as the leader of a process group."""
        # Without "-W error": the Python that imports warnings for it swallows a SIGINT meanwhile, and goes on.
        program = self.command(sys.executable, "-m", "threepipe", "wg", *arguments)
        return subprocess.Popen(
            program,
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            process_group=0,
        )

    def run(self, *arguments: str) -> tuple[int, str]:
        """Run `threepipe wg` to its end; return its status and its standard error."""
        process = self.start(*arguments)
        _, said = process.communicate(timeout=50)
        return process.returncode, said

    def shell(self, script: str) -> str:
        done = subprocess.run(self.command("sh", "-c", script), capture_output=True, text=True, timeout=50)
        return done.stdout

    def processes(self) -> list[int]:
        """Return the ids of the processes in the network, except the one that keeps it."""
        own = os.stat(f"/proc/{self._holder.pid}/ns/net")
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal() and int(entry.name) != self._holder.pid:
                with suppress(OSError):
                    if os.path.samestat(os.stat(entry / "ns" / "net"), own):
                        found.append(int(entry.name))
        return found

    def state(self) -> list[str]:
        return self.shell(LOOK).splitlines()

    def difference(self, before: list[str]) -> set[str]:
        """Return the lines by which the state differs from `before`, or processes that do not end."""
        if not come_true(lambda: not self.processes()):
            return {f"process {pid}" for pid in self.processes()}
        return set(before) ^ set(self.state())


def up_and_signalled(
    place: Place, number: signal.Signals, *options: str, seconds: float, group: bool
) -> tuple[int, str]:
    """Bring the device up, send a signal at a random moment within `seconds`, and return the status and the messages.

    The signal goes to the process alone, or to its group as from a terminal. SIGKILL goes to all processes of
    threepipe, but not to the programs that they run.
    """
    process = place.start("up", *options, str(place.path))
    with suppress(subprocess.TimeoutExpired):
        process.wait(random.uniform(0, seconds))
    if number == signal.SIGKILL:
        for pid in place.processes():
            with suppress(OSError):
                if "\0wg\0up\0" in Path(f"/proc/{pid}/cmdline").read_text():
                    os.kill(pid, number)
    elif process.poll() is None:
        (os.killpg if group else os.kill)(process.pid, number)
    _, said = process.communicate(timeout=50)
    return process.returncode, said


def measure(place: Place) -> float:
    """Return how many seconds it takes to bring the device up, and take it down again."""
    begun = time.monotonic()
    status, said = place.run("up", "--daemon", str(place.path))
    assert status == 0, said
    taken = time.monotonic() - begun
    assert place.run("down", NAME)[0] == 0
    return taken


def check_kills(place: Place, rounds: int) -> None:
    """Kill the device `rounds` times; check that `down`, or `up` and `down`, leave nothing behind."""
    place.write("DNS = 10.0.0.53, example.org")
    before = place.state()
    seconds = 1.3 * measure(place)
    assert not (left := place.difference(before)), left
    for number in range(rounds):
        options = ("--daemon",) * (number % 2)
        up_and_signalled(place, signal.SIGKILL, *options, seconds=seconds, group=False)
        if number // 2 % 2:
            status, said = place.run("up", "--daemon", str(place.path))
            assert status == 0, said
            assert place.run("down", NAME) == (0, "")
        else:
            status, said = place.run("down", NAME)
            assert status == 0 or "no device is named" in said, said
        assert not (left := place.difference(before)), f"round {number}: {left}"


def check_signals(place: Place, number: signal.Signals, rounds: int) -> None:
    """Send a signal to the device `rounds` times; check that it leaves nothing behind and tells that in its status."""
    place.write("DNS = 10.0.0.53, example.org")
    before = place.state()
    seconds = 1.3 * measure(place)
    assert not (left := place.difference(before)), left
    for each in range(rounds):
        status, said = up_and_signalled(place, number, seconds=seconds, group=bool(each % 2))
        # While Python starts, its own handler is there, or none.
        expected = {0} if f"{NAME} is up" in said else {128 + number, -number}
        assert status in expected or (status and "KeyboardInterrupt" in said), f"round {each}: {status} {said}"
        assert not (left := place.difference(before)), f"round {each}: {left}"
