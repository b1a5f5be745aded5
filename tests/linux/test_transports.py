"""`threepipe pipe` between two networks, over every transport, and with socat at one end."""

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
import trustme

from tests.support.kernel import Network, links, needs_root
from tests.support.transfers import MIB, transfer
from tests.support.waiting import come_true

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(120)]

OUTSIDE = ("192.0.2.1", "192.0.2.2")
INSIDE = ("10.9.0.1", "10.9.0.2")
INSIDE_6 = ("fd99::1", "fd99::2")
THREEPIPE = [sys.executable, "-m", "threepipe"]


class Site(NamedTuple):
    """Two networks joined by a veth link, and a folder."""

    networks: tuple[Network, Network]
    folder: Path

    def adapter(self, end: int, *options: str) -> str:
        settings = f"address={INSIDE[end]}/24", f"address={INSIDE_6[end]}/64", *options
        return ",".join([f"tun:t{end}", *settings])

    @contextmanager
    def program(self, end: int, *command: str) -> Iterator["subprocess.Popen[str]"]:
        """Run `command` in one of the networks; end it by Ctrl-C, which must end it cleanly."""
        with subprocess.Popen(self.networks[end].command(*command), stderr=subprocess.PIPE, text=True) as program:
            try:
                yield program
                if program.poll() is None:
                    program.send_signal(signal.SIGINT)
                _, said = program.communicate(timeout=20)
                assert "Traceback" not in said, said
            finally:
                program.kill()

    def pipe(self, end: int, left: str, right: str, *options: str) -> AbstractContextManager["subprocess.Popen[str]"]:
        return self.program(end, *THREEPIPE, "pipe", left, right, *options)

    def come_up(self, end: int) -> None:
        """Wait until the adapter has its link and addresses."""
        assert come_true(lambda: "LOWER_UP" in self.networks[end].run("ip", "link", "show", f"t{end}", check=False), 30)

    def ping(self) -> None:
        for address in (INSIDE[1], INSIDE_6[1]):
            assert " 1 received" in self.networks[0].run("ping", "-c", "1", "-w", "20", address)

    def transfer(self, size: int) -> None:
        """Send `size` bytes by TCP from one network to the other, and compare hashes."""
        transfer(*self.networks, INSIDE[1], size)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    networks = Network(), Network()
    networks[0].run("ip", "link", "add", "v0", "type", "veth", "peer", "name", "v1", "netns", networks[1].path)
    for end, network in enumerate(networks):
        network.run("ip", "address", "add", f"{OUTSIDE[end]}/24", "dev", f"v{end}")
        network.run("ip", "link", "set", f"v{end}", "up")
    yield Site(networks, tmp_path)
    for network in networks:
        network.namespace.close()


@contextmanager
def over_listener(site: Site, caller: str, listener: str, *options: str) -> Iterator[None]:
    """Run two commands; one of them listens."""
    with site.pipe(1, site.adapter(1, *options), listener):
        site.come_up(1)
        with site.pipe(0, site.adapter(0, *options), caller):
            site.come_up(0)
            yield


def udp(site: Site) -> AbstractContextManager[None]:
    place = f"{OUTSIDE[1]}:4242"
    return over_listener(site, f"udp:{place}", f"udp-listen:{place}", "mtu=1472")


def tcp(site: Site) -> AbstractContextManager[None]:
    place = f"{OUTSIDE[1]}:4242"
    return over_listener(site, f"tcp:{place}", f"tcp-listen:{place}")


def unix(site: Site) -> AbstractContextManager[None]:
    return over_listener(site, f"unix:{site.folder}/pipe", f"unix-listen:{site.folder}/pipe")


def tls(site: Site) -> AbstractContextManager[None]:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(site.folder / "ca.pem")
    options = []
    for end, place in enumerate(OUTSIDE):
        certificate = authority.issue_cert(place)
        certificate.private_key_and_cert_chain_pem.write_to_path(site.folder / f"{end}.pem")
        file = f"{site.folder}/{end}.pem"
        options.append(f"cert={file},key={file},ca={site.folder}/ca.pem")
    place = f"{OUTSIDE[1]}:4242"
    return over_listener(site, f"tls:{place},{options[0]}", f"tls-listen:{place},{options[1]}")


@contextmanager
def over_program(site: Site, *start: str) -> Iterator[None]:
    """Run one command, which starts the other by `exec`."""
    command = shlex.join([*start, *THREEPIPE, "pipe", site.adapter(1), "-"])
    with site.pipe(0, site.adapter(0), f"exec:{command}"):
        site.come_up(0)
        site.come_up(1)
        yield


def stdio(site: Site) -> AbstractContextManager[None]:
    return over_program(site, "nsenter", f"--net={site.networks[1].path}")


@contextmanager
def ssh(site: Site) -> Iterator[None]:
    """Use ssh to a server in the other network, which this test starts and which knows one key."""
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(site.folder / name)], check=True)
    (site.folder / "known").write_text(f"[{OUTSIDE[1]}]:2222 " + (site.folder / "host.pub").read_text())
    Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # sshd requires this folder, empty.
    settings = {
        "HostKey": site.folder / "host",
        "AuthorizedKeysFile": site.folder / "user.pub",
        "ListenAddress": f"{OUTSIDE[1]}:2222",
        "PidFile": "none",
        "StrictModes": "no",
        "UsePAM": "no",
        "PermitRootLogin": "prohibit-password",
    }
    server = [
        "/usr/sbin/sshd",
        "-D",
        "-e",
        "-f",
        "/dev/null",
        *[f"-o{name}={value}" for name, value in settings.items()],
    ]
    client = ["ssh", "-F", "/dev/null", "-i", str(site.folder / "user"), "-p", "2222"]
    client += [f"-oUserKnownHostsFile={site.folder}/known", "-oBatchMode=yes", f"root@{OUTSIDE[1]}"]
    with site.program(1, *server):
        assert come_true(lambda: ":2222" in site.networks[1].run("ss", "-Hltn"), 20)
        # ssh passes its arguments to a shell on the other side.
        with over_program(site, *client, "env", *[f"{name}={os.environ[name]}" for name in PURE]):
            yield


PURE = [name for name in ("THREEPIPE_PURE",) if name in os.environ]

Transport = Callable[[Site], AbstractContextManager[None]]
TRANSPORTS = [udp, tcp, unix, tls, stdio, pytest.param(ssh, marks=needs_root)]
SIZES = [pytest.param(64 * MIB, id="64-mib"), pytest.param(256 * MIB, id="256-mib", marks=pytest.mark.soak)]


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("size", SIZES)
def test_a_transport_joins_two_networks(site: Site, transport: Transport, size: int) -> None:
    with transport(site):
        site.ping()
        site.transfer(size)
    assert [links(network) for network in site.networks] == [{"v0"}, {"v1"}]
    assert not (site.folder / "pipe").exists()


def test_a_pipe_to_socat_joins_two_networks(site: Site) -> None:
    place = f"{OUTSIDE[1]}:4242"
    device = f"TUN:{INSIDE[1]}/24,tun-name=t1,iff-no-pi,iff-up"
    with site.program(1, "socat", device, f"UDP4-LISTEN:4242,bind={OUTSIDE[1]}"):
        site.come_up(1)
        site.networks[1].run("ip", "address", "add", f"{INSIDE_6[1]}/64", "dev", "t1", "nodad")
        with site.pipe(0, site.adapter(0), f"udp:{place}"):
            site.come_up(0)
            site.ping()
            site.transfer(8 * MIB)
