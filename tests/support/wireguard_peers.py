"""Two WireGuard devices for tests, each a program in a network of its own, managed by `wg`.

Another program is a row of `PROGRAMS`: it must start as wireguard-go does, and be managed by wg(8). This module
must not know how a program works.
"""

import base64
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.kernel import Network
from tests.support.waiting import come_true
from threepipe.wireguard import Timing

__all__ = ["INSIDE", "OUTSIDE", "PROGRAMS", "End", "Outside", "Program", "Site", "hasty", "sites", "worsened"]

_BUILT = Path(__file__).parents[2] / "benchmarks" / "build" / "bin"
"""The folder where `make soak` and the benchmarks put the programs that they build."""


@dataclass(frozen=True, slots=True)
class Program:
    """A way to start a device; the interface's name is the last argument."""

    command: tuple[str, ...]
    package: str
    """The package that must be installed for it."""
    ends: bool = True
    """True if it reliably ends when told to."""
    tells_time: bool = True
    """True if it reports the time of a handshake to `wg`; boringtun reports the age."""
    asks_all: bool = True
    """True if it demands cookies from all peers during a flood; gotatun does so from the flooding address only."""

    def missing(self) -> str:
        """Return why it cannot be started, or an empty text."""
        return "" if shutil.which(self.command[0]) else f"{self.command[0]} is not there; install {self.package}"


# These two change to the user who logged in, and exit if there is none, unless told otherwise.
_STAY_ROOT = ("-f", "--disable-drop-privileges")
# Else it keeps answering to the first address of a peer that has moved.
_FOLLOW = ("--disable-connected-udp",)
PROGRAMS = {
    "threepipe": Program((str(Path(sys.executable).with_name("threepipe-wg")), "-f"), "threepipe"),
    "wireguard-go": Program(("wireguard-go", "-f"), "wireguard-go"),
    "wireguard-go-newest": Program((str(_BUILT / "wireguard"), "-f"), "it by make soak"),
    "boringtun": Program(
        (str(_BUILT / "boringtun-cli"), *_STAY_ROOT, *_FOLLOW), "it by make soak", ends=False, tells_time=False
    ),
    "gotatun": Program((str(_BUILT / "gotatun"), *_STAY_ROOT), "it by make soak", asks_all=False),
}


def hasty(timing: Timing, events: Path, *environment: str) -> Program:
    """Return threepipe with other ages of keys; it writes the names of its events to a file, one per line."""
    path = Path(__file__).with_name("programs") / "wireguard_device.py"
    command = ("env", *environment, sys.executable, "-W", "error", str(path), json.dumps(timing._asdict()), str(events))
    return Program(command, "threepipe")


INSIDE = {4: ("10.9.0.1", "10.9.0.2"), 6: ("fd99::1", "fd99::2")}
"""The addresses in the tunnel, by version."""

# Each device has a folder of its own for the control socket: two may have one name, and no file stays behind.
_START = 'mount -t tmpfs none /run && echo apart && exec "$@"'
_UNTIL_TOLD = "sh -c 'echo there; read told'"
_NAME = "tunnelled"
_PORT = 51820
_MTU = 1420


@dataclass(frozen=True, slots=True)
class Outside:
    """The addresses of the link between the networks, of one version."""

    prefix: str
    size: int

    def address(self, host: int) -> str:
        return f"{self.prefix}{host}"

    def endpoint(self, host: int) -> str:
        return f"[{self.address(host)}]:{_PORT}" if ":" in self.prefix else f"{self.address(host)}:{_PORT}"


OUTSIDE = {4: Outside("192.0.2.", 24), 6: Outside("fd98::", 64)}


def _key() -> str:
    return base64.b64encode(os.urandom(32)).decode()


@dataclass
class End:
    """A network, and the device in it while it runs."""

    number: int
    program: Program
    network: Network = field(default_factory=Network)
    private_key: str = field(default_factory=_key, repr=False)
    _process: "subprocess.Popen[str] | None" = None

    @property
    def pid(self) -> int:
        """Return the process id of the program while it runs."""
        assert self._process
        return self._process.pid

    @property
    def public_key(self) -> str:
        return self._run("wg", "pubkey", words=self.private_key).strip()

    def start(self) -> None:
        """Start the program, wait until it can be managed, and set everything except peers.

        Other implementations get a second attempt: Debian's wireguard-go hung at one of thousands of starts.
        """
        if not self._launch():
            assert self.program.package != "threepipe", self.stop()
            self._kill()
            assert self._launch(), self.stop()
        self.wg("set", _NAME, "listen-port", str(_PORT), "private-key", "/dev/stdin", words=self.private_key)
        addresses = (f"{INSIDE[4][self.number]}/24", f"{INSIDE[6][self.number]}/64")
        for address in addresses:
            self.network.run("ip", "address", "replace", address, "dev", _NAME, *(["nodad"] if ":" in address else []))
        self.network.run("ip", "link", "set", _NAME, "mtu", str(_MTU), "up")

    def keep_adapter(self) -> None:
        """Make the adapter before the program starts, so that addresses and connections survive its restarts."""
        self.network.run("ip", "tuntap", "add", _NAME, "mode", "tun")

    def _launch(self) -> bool:
        """Start the program, and return True once it can be managed."""
        command = self.network.command("unshare", "--mount", "sh", "-c", _START, "sh", *self.program.command, _NAME)
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert self._process.stdout
        assert self._process.stdout.readline() == "apart\n"
        return come_true(lambda: self.wg("show", _NAME, check=False) != "", 30)

    def _kill(self) -> None:
        assert self._process
        process, self._process = self._process, None
        with process:
            process.kill()
            process.communicate()

    def set_mtu(self, mtu: int) -> None:
        self.network.run("ip", "link", "set", _NAME, "mtu", str(mtu))

    def stop(self) -> str:
        """End the program by a signal, and return its output."""
        assert self._process
        process, self._process = self._process, None
        process.send_signal(signal.SIGTERM)
        with process:
            try:
                printed, complaint = process.communicate(timeout=20 if self.program.ends else 1)
            except subprocess.TimeoutExpired:
                process.kill()
                printed, complaint = process.communicate()
        assert not self.program.ends or process.returncode in (0, -signal.SIGTERM), complaint
        assert "Traceback" not in complaint, complaint
        return printed + complaint

    def close(self) -> None:
        """End the program if it runs, and remove the network."""
        try:
            if self._process:
                self.stop()
        finally:
            self.network.namespace.close()

    def wg(self, *arguments: str, words: str = "", check: bool = True) -> str:
        """Run wg(8) with the control socket of this device."""
        assert self._process
        place = f"--mount=/proc/{self._process.pid}/ns/mnt"
        return self._run(*self.network.command("nsenter", place, "wg", *arguments), words=words, check=check)

    def set_peer(self, other: "End", *settings: str, preshared_key: str = "") -> None:
        """Set the other as the only peer, with more arguments of `wg set`. Once only: boringtun changes no peer."""
        inside = f"{INSIDE[4][other.number]}/32,{INSIDE[6][other.number]}/128"
        secret = ["preshared-key", "/dev/stdin"] if preshared_key else []
        peer = ["peer", other.public_key, *secret, "allowed-ips", inside, *settings]
        self.wg("set", _NAME, *peer, words=preshared_key)

    def remove_peer(self, other: "End") -> None:
        self.wg("set", _NAME, "peer", other.public_key, "remove")

    def shown(self, what: str) -> list[str]:
        """Return the fields that `wg show` has of the only peer, without its key."""
        return self.wg("show", _NAME, what).split()[1:]

    def ping(self, version: int, other: "End") -> None:
        """Ping the other end until it answers."""
        address = INSIDE[version][other.number]
        said = self.network.run("ping", "-c", "1", "-i", "0.2", "-w", "40", address, check=False)
        assert " received" in said, "there is no ping"
        assert " 0 received" not in said, said

    @staticmethod
    def _run(*command: str, words: str = "", check: bool = True) -> str:
        done = subprocess.run(command, input=words, capture_output=True, text=True, timeout=50)
        assert not check or done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}"
        return done.stdout


@dataclass(frozen=True, slots=True)
class Site:
    """Two ends, joined by a veth link with addresses of both versions; host 1 and host 2."""

    ends: tuple[End, End]

    def move(self, number: int, host: int, version: int) -> None:
        """Replace the address of that end on the link."""
        outside, network = OUTSIDE[version], self.ends[number].network
        network.run("ip", f"-{version}", "address", "flush", "dev", f"v{number}", "scope", "global")
        _add_address(network, number, outside, host)

    def add_address(self, number: int, host: int, version: int) -> None:
        """Add an address of that end on the link."""
        _add_address(self.ends[number].network, number, OUTSIDE[version], host)

    def remove_address(self, number: int, host: int, version: int) -> None:
        outside = OUTSIDE[version]
        address = f"{outside.address(host)}/{outside.size}"
        self.ends[number].network.run("ip", "address", "delete", address, "dev", f"v{number}")


def _add_address(network: Network, number: int, outside: Outside, host: int) -> None:
    address = f"{outside.address(host)}/{outside.size}"
    network.run("ip", "address", "add", address, "dev", f"v{number}", *(["nodad"] if ":" in address else []))


@contextmanager
def sites(*names: str | Program) -> Iterator[Site]:
    """Return a site of two programs of `PROGRAMS`, not yet started."""
    with _apart(names) as (first, second):
        far = ["peer", "name", "v1", "netns", second.network.path]
        first.network.run("ip", "link", "add", "v0", "type", "veth", *far)
        for end in (first, second):
            for outside in OUTSIDE.values():
                _add_address(end.network, end.number, outside, end.number + 1)
            end.network.run("ip", "link", "set", f"v{end.number}", "up")
        yield Site((first, second))


@contextmanager
def worsened(*programs: str | Program, impairments: Sequence[str]) -> Iterator[Site]:
    """Return a site whose network is impaired by `threepipe pipe --impair`."""
    with _apart(programs) as (first, second):
        links = []
        for end in (first, second):
            addresses = [f",address={o.address(end.number + 1)}/{o.size}" for o in OUTSIDE.values()]
            links.append(f"tun:v{end.number},netns={end.network.path}{''.join(addresses)}")
        told = [word for impairment in impairments for word in ("--impair", impairment)]
        command = [sys.executable, "-m", "threepipe", "pipe", *links, *told, "--run", _UNTIL_TOLD]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as pipe:
            try:
                assert pipe.stdout
                assert pipe.stdout.readline() == "there\n"
                yield Site((first, second))
            finally:
                assert pipe.stdin
                pipe.stdin.close()


@contextmanager
def _apart(programs: Sequence[str | Program]) -> Iterator[tuple[End, End]]:
    """Return two ends in networks that are not joined."""
    with ExitStack() as stack:
        ends = []
        for number, program in enumerate(programs):
            ends.append(End(number, PROGRAMS[program] if isinstance(program, str) else program))
            stack.callback(ends[-1].close)
        first, second = ends
        yield first, second
