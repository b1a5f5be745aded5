"""Devices of a mesh by the commands: `threepipe wg up` with Routing in the file, and `threepipe-wg --routing`."""

import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.kernel import Network, cable, links
from tests.support.waiting import come_true
from tests.support.wireguard_pair import new_key
from threepipe.errors import InvalidSetting
from threepipe.wireguard import key_to_text, link_local, public_key

if sys.platform != "linux":
    pytest.skip(f"{sys.platform} has no namespaces", allow_module_level=True)

from threepipe.wireguard.quick.enclosed import run_enclosed

pytestmark = pytest.mark.kernel

APART = 'mount -t tmpfs none /run && exec "$@"'
ROUTING = "fd12::/16, 10.42.0.0/16"
UP = ("-W", "error", "-m", "threepipe", "wg", "up")
WG = ("-W", "error", "-c", "from threepipe.wireguard.quick.daemon import main; raise SystemExit(main())")


class Host:
    """A network, its key, and its configuration file."""

    def __init__(self, number: int, folder: Path) -> None:
        self.network = Network()
        self.number = number
        self.key = new_key()
        self.public = public_key(self.key)
        self.hop = str(link_local(self.public))
        self.addresses = f"10.42.0.{number}", f"fd12::{number}"
        self.path = folder / f"mesh{number}.conf"

    def write(self, other: "Host", interface: str = f"Routing = {ROUTING}", peer: str = "") -> None:
        self.path.write_text(
            f"[Interface]\nPrivateKey = {key_to_text(self.key)}\nListenPort = 5{self.number}000\n"
            f"Address = {self.addresses[0]}/32, {self.addresses[1]}/128\n{interface}\n"
            f"[Peer]\nPublicKey = {key_to_text(other.public)}\n"
            f"Endpoint = 192.0.2.{other.number}:5{other.number}000\n{peer}"
        )
        self.path.chmod(0o600)

    @contextmanager
    def up(self) -> Iterator[list[str]]:
        """Bring the device up for the block; yield what it printed before."""
        command = self.network.command("unshare", "--mount", "sh", "-c", APART, "sh", sys.executable, *UP)
        with subprocess.Popen([*command, str(self.path)], stderr=subprocess.PIPE, text=True) as process:
            try:
                assert process.stderr is not None
                said = [process.stderr.readline()]
                while "is up" not in said[-1]:
                    assert said[-1], said
                    said.append(process.stderr.readline())
                yield said
            finally:
                process.send_signal(signal.SIGTERM)
                assert process.wait(20) in (0, -signal.SIGTERM)

    def route(self, other: "Host", name: str) -> None:
        for address, words in zip(other.addresses, (["via", "inet6"], ["via"]), strict=True):
            self.network.run("ip", "route", "add", address, *words, other.hop, "dev", name)

    def link_locals(self, name: str) -> list[str]:
        lines = self.network.run("ip", "-o", "-6", "addr", "show", "dev", name, "scope", "link").splitlines()
        return [line.split()[3] for line in lines]


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[tuple[Host, Host]]:
    one, two = Host(1, tmp_path), Host(2, tmp_path)
    cable(one.network, two.network)
    yield one, two
    for host in (one, two):
        host.network.namespace.close()


def pings(host: Host, addresses: Sequence[str]) -> None:
    for address in addresses:
        host.network.run("ping", "-c", "1", "-w", "20", address)


def test_up_with_routing_leaves_the_routes_to_others_and_has_the_address_of_its_key(hosts: tuple[Host, Host]) -> None:
    one, two = hosts
    one.write(two, peer="AllowedIPs = fd12::/16, 10.42.0.2/32, 0.0.0.0/0, ::/0\n")
    two.write(one)
    rules = one.network.run("ip", "rule")
    with one.up() as said, two.up():
        assert "give it to lo: PostUp = ip address add 10.42.0.1/32 dev lo" in said[0]
        assert one.network.run("ip", "route", "show", "dev", "mesh1") == ""
        assert one.network.run("ip", "-6", "route", "show", "dev", "mesh1", "scope", "global").count("via") == 0
        assert one.network.run("ip", "rule") == rules
        assert [host.link_locals(f"mesh{host.number}") for host in hosts] == [[f"{host.hop}/64"] for host in hosts]
        pings(one, [f"{two.hop}%mesh1"])
        one.route(two, "mesh1")
        two.route(one, "mesh2")
        pings(one, two.addresses)
    assert links(one.network) == {"v1"}


def test_threepipe_wg_with_routing_has_the_address_of_a_key_that_it_gets_later(hosts: tuple[Host, Host]) -> None:
    one, two = hosts
    for host, other in ((one, two), (two, one)):
        host.write(other)
    python = shlex.quote(sys.executable)
    script = f"""
        mount -t tmpfs none /run
        {python} {shlex.join(WG)} --routing {shlex.quote(ROUTING)} mesh1
        {python} -m threepipe wg setconf mesh1 {one.path}
        ip -o -6 addr show dev mesh1 scope link
        {python} -m threepipe wg show mesh1 link-locals
        ping -c 1 -w 20 {two.hop}%mesh1 >&2
        rm /run/wireguard/mesh1.sock
    """
    with two.up():
        printed = one.network.run("unshare", "--mount", "sh", "-ec", script).splitlines()
    assert f" {one.hop}/64 " in printed[0]
    assert printed[1:] == [f"{key_to_text(two.public)}\t{two.hop}"]
    assert come_true(lambda: links(one.network) == {"v1"}, 20)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--routing", "on", "mesh1"], "--routing on: give the networks of the mesh"),
        (["--routing", "mesh1"], "usage: threepipe-wg"),
        (["--routing"], "usage: threepipe-wg"),
    ],
)
def test_threepipe_wg_with_wrong_networks_says_so_and_leaves_nothing(
    network: Network, words: list[str], told: str
) -> None:
    command = network.command("unshare", "--mount", "sh", "-c", APART, "sh", sys.executable, *WG, "-f", *words)
    done = subprocess.run(command, capture_output=True, text=True, timeout=50)
    assert (done.returncode, links(network)) == (1, set())
    assert told in done.stderr


def test_up_with_routing_refuses_a_table(hosts: tuple[Host, Host]) -> None:
    one, two = hosts
    one.write(two, interface=f"Routing = {ROUTING}\nTable = 77")
    command = one.network.command("unshare", "--mount", "sh", "-c", APART, "sh", sys.executable, *UP, str(one.path))
    done = subprocess.run(command, capture_output=True, text=True, timeout=50)
    assert done.returncode == 1
    assert "Table = 77 has no use beside Routing" in done.stderr


def test_exec_refuses_a_file_with_routing(hosts: tuple[Host, Host]) -> None:
    one, two = hosts
    one.write(two)
    with pytest.raises(InvalidSetting, match="Routing needs a routing daemon, and wg exec runs none"):
        run_enclosed(one.path, ["true"])
