"""threepipe wg and wg-quick in the kernel: settings of a file apply while the device is up, and are undone after."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TypeAlias

import pytest

from tests.support.kernel import Network, cable, links
from tests.support.pinging import answered
from tests.support.waiting import come_true
from tests.support.wireguard_pair import new_key
from threepipe.core import fast
from threepipe.wireguard import key_to_text, read_config
from threepipe.wireguard.noise import Identity

pytestmark = pytest.mark.kernel

BIN = Path(sys.executable).parent
SET_APART = 'mount -t tmpfs none /run && exec "$@"'
"""Shell commands that give a process a folder of its own for control sockets."""
SIGNALS_ELSEWHERE = """
import signal, threading
threading.Thread(target=threading.Event().wait, daemon=True).start()
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
from threepipe.cli import main
main()
"""
"""The command with a second thread that gets all signals; Python handles them in the main thread."""


Popen: TypeAlias = "subprocess.Popen[str]"
FAR, BEHIND = "198.51.100.2", "10.77.0.1"
WITHOUT_NFT = """
    mkdir /run/bin
    for folder in ${PATH//:/ }; do ln -sf $folder/* /run/bin/; done
    rm /run/bin/nft
    PATH=/run/bin
"""
"""Bash commands, after `SET_APART`, that hide nft, so that only iptables can filter packets."""


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


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[tuple[Host, Host]]:
    one, two = Host(1, tmp_path), Host(2, tmp_path)
    cable(one.network, two.network)
    yield one, two
    for host in (one, two):
        host.network.namespace.close()


@pytest.fixture
def far_hosts(hosts: tuple[Host, Host]) -> tuple[Host, Host]:
    """Put the second host at `FAR`, behind the default route of the first, which has strict reverse path filtering."""
    one, two = hosts
    two.network.run("ip", "address", "add", f"{FAR}/32", "dev", "lo")
    two.network.run("ip", "address", "add", f"{BEHIND}/32", "dev", "lo")
    two.network.run("ip", "route", "replace", "192.0.2.0/24", "dev", "v2", "src", FAR)  # Its answers have that source.
    one.network.run("ip", "route", "add", "default", "via", "192.0.2.2")
    one.network.run("sysctl", "-q", "net.ipv4.conf.all.rp_filter=1")
    return one, two


def test_a_default_route_goes_through_the_tunnel_and_is_undone(hosts: tuple[Host, Host], tmp_path: Path) -> None:
    one, two = hosts
    told = tmp_path / "told"
    hooks = "\n".join(f"{key} = echo {key} %i >> {told}" for key in ("PreUp", "PostUp", "PreDown", "PostDown"))
    one.write(two, hooks, allowed="0.0.0.0/0, ::/0")
    two.write(one)
    two.network.run("ip", "address", "add", "10.77.0.1/32", "dev", "lo")
    before = one.rules()
    with two.up(), one.up():
        for address in ("10.5.0.2", "fd05::2", "10.77.0.1"):
            one.network.run("ping", "-c", "2", "-i", "0.2", "-w", "20", address)
        assert "lookup main suppress_prefixlength 0" in one.rules()
        assert "not from all fwmark 0xca6c lookup 51820" in one.rules()
        assert "dev up1" in one.network.run("ip", "route", "get", "198.51.100.1")
        # Marked packets take the old routes, which lead nowhere in this network.
        assert one.network.run("ip", "route", "get", "198.51.100.1", "mark", "51820", check=False) == ""
        assert "dev v1" in one.network.run("ip", "route", "get", "192.0.2.2")
        assert "mtu 1420" in one.network.run("ip", "link", "show", "up1")
        assert told.read_text() == "PreUp up1\nPostUp up1\n"
    assert told.read_text() == "PreUp up1\nPostUp up1\nPreDown up1\nPostDown up1\n"
    assert one.rules() == before
    assert links(one.network) == {"v1"}
    assert one.network.run("ip", "route", "show", "table", "all", "dev", "v1").count("up1") == 0


def test_a_default_route_keeps_outside_packets_for_the_tunnel_out(far_hosts: tuple[Host, Host]) -> None:
    one, two = far_hosts
    one.write(two, allowed="0.0.0.0/0, ::/0", outside=FAR)
    two.write(one)
    before = one.state(), one.network.run("nft", "list", "ruleset")

    def ping(host: Host, address: str) -> str:
        source = ["-I", "192.0.2.2"] if host is two else []
        return host.network.run("ping", "-c", "2", "-i", "0.2", "-w", "3", *source, address, check=False)

    with one.up():
        with two.up():
            # Reverse path filtering is strict here.
            one.network.run("ping", "-c", "2", "-i", "0.2", "-w", "20", "10.5.0.2")
        two.network.run("ip", "route", "add", "10.5.0.1/32", "via", "192.0.2.1")
        assert answered(ping(two, "192.0.2.1"))[1] >= 2
        assert answered(ping(two, "10.5.0.1"))[1] == 0
        assert answered(ping(one, "10.5.0.1"))[1] >= 2
        one.network.run("nft", "delete", "table", "inet", "threepipe-up1")
        assert answered(ping(two, "10.5.0.1"))[1] >= 2
    assert (one.state(), one.network.run("nft", "list", "ruleset")) == before


@pytest.mark.parametrize("before", ["0", "1"])
def test_src_valid_mark_is_restored_by_the_last_device(hosts: tuple[Host, Host], tmp_path: Path, before: str) -> None:
    one, two = hosts
    third = Host(3, tmp_path, one.network)
    for host in (one, third):
        host.write(two, allowed="0.0.0.0/0")
    name = "net.ipv4.conf.all.src_valid_mark"
    one.network.run("sysctl", "-q", f"{name}={before}")
    with ExitStack() as last:
        with one.up():
            last.enter_context(third.up())
        assert one.network.run("sysctl", "-n", name) == "1\n"
    assert one.network.run("sysctl", "-n", name) == f"{before}\n"


def test_an_endpoint_name_that_resolves_later_is_used(hosts: tuple[Host, Host], tmp_path: Path) -> None:
    one, two = hosts
    one.write(two, outside="there.example.org")
    two.write(one)
    names, servers = tmp_path / "hosts", tmp_path / "resolv.conf"
    names.touch()
    servers.write_text("nameserver 127.0.0.1\n")  # No server listens there.
    apart = f"mount --bind {names} /etc/hosts && mount --bind {servers} /etc/resolv.conf && {SET_APART}"

    def become_known(said: str) -> None:
        assert "there.example.org" in said
        assert "trying again" in said
        names.write_text("192.0.2.2 there.example.org\n")

    with two.up(), one.up(apart, become_known):
        assert " 0% packet loss" in one.network.run("ping", "-c", "1", "-W", "20", "10.5.0.2")


@pytest.mark.parametrize("pure", ["0", "1"], ids=["native", "pure"])
def test_a_link_local_endpoint_keeps_its_zone(
    hosts: tuple[Host, Host], monkeypatch: pytest.MonkeyPatch, pure: str
) -> None:
    monkeypatch.setenv("THREEPIPE_PURE", pure)
    for host in hosts:
        link = f"v{host.number}"
        host.network.run("ip", "address", "add", f"fe80::{host.number}/64", "dev", link, "nodad")
        host.network.run("ip", "address", "delete", f"192.0.2.{host.number}/24", "dev", link)
        host.network.run("ip", "link", "set", link, "mtu", "1400")
    one, two = hosts
    one.write(two, "SaveConfig = true", outside="[fe80::2%v1]")
    two.write(one, outside="[fe80::1%v2]")
    for _ in range(2):  # The second time with the saved file.
        with two.up(), one.up():
            assert "mtu 1320" in one.network.run("ip", "link", "show", "up1")
            for address in ("10.5.0.2", "fd05::2"):
                assert " 0% packet loss" in one.network.run("ping", "-c", "1", "-W", "20", address)
        assert "Endpoint = [fe80::2%v1]:52000\n" in one.path.read_text()


def test_the_mtu_fits_the_narrowest_path_to_an_endpoint(hosts: tuple[Host, Host]) -> None:
    one, two = hosts
    third = key_to_text(Identity(new_key()).public)
    one.write(two, peer=f"[Peer]\nPublicKey = {third}\nAllowedIPs = 10.5.0.3/32\nEndpoint = {FAR}:53000\n")
    one.network.run("ip", "route", "add", FAR, "via", "192.0.2.2", "mtu", "1400")
    with one.up():
        assert "mtu 1320" in one.network.run("ip", "link", "show", "up1")


def test_a_table_may_have_a_name_that_ip_knows(hosts: tuple[Host, Host]) -> None:
    one, two = hosts
    names = 'echo "0x4d2 tpvpn # Ours." > /etc/iproute2/rt_tables.d/threepipe.conf'
    apart = (
        f"mkdir -p /etc/iproute2/rt_tables.d && mount -t tmpfs none /etc/iproute2/rt_tables.d && {names}; {SET_APART}"
    )
    for table, number in (("tpvpn", "1234"), ("main", "main"), ("010", "8")):
        one.write(two, f"Table = {table}")
        with one.up(apart):
            assert "10.5.0.2 dev up1" in one.network.run("ip", "route", "show", "table", number)


def test_routes_are_those_of_the_networks_that_the_signs_leave(hosts: tuple[Host, Host]) -> None:
    one, two = hosts
    one.write(two, allowed="+10.6.0.0/16, 10.7.0.0/16, -10.6.0.0/16, 0.0.0.0/0, -0.0.0.0/0")
    with one.up():
        routes = one.network.run("ip", "route", "show", "table", "all")
        assert "10.7.0.0/16 dev up1" in routes
        assert "10.6.0.0" not in routes
        assert "default" not in routes


def test_a_private_key_may_be_set_by_post_up(hosts: tuple[Host, Host], tmp_path: Path) -> None:
    one, two = hosts
    (tmp_path / "key").write_text(key_to_text(one.key))
    one.write(two, f"SaveConfig = true\nPostUp = wg set %i private-key {tmp_path}/key")
    two.write(one)
    one.path.write_text(one.path.read_text().replace(f"PrivateKey = {key_to_text(one.key)}\n", ""))
    with two.up(), one.up():
        assert " 0% packet loss" in one.network.run("ping", "-c", "1", "-W", "20", "10.5.0.2")
    assert read_config(one.path).private_key == one.key


def test_a_device_that_has_no_private_key_once_it_is_up_says_so(hosts: tuple[Host, Host]) -> None:
    one, _ = hosts
    one.path.write_text("[Interface]\nSaveConfig = true\n")
    said: list[str] = []
    with one.up(meanwhile=said.append):
        assert "warning: up1 has no private key, so it reaches no peer; add PrivateKey" in said[0]
    assert one.path.read_text() == "[Interface]\nSaveConfig = true\n"


def test_a_file_that_other_users_can_open_gets_a_warning(hosts: tuple[Host, Host]) -> None:
    one, two = hosts
    one.write(two)
    one.path.chmod(0o644)
    one.path.parent.chmod(0o755)
    said: list[str] = []
    with one.up(meanwhile=said.append):
        assert f"warning: {one.path} has keys, and other users can open it; run: chmod 600" in said[0]


@pytest.mark.parametrize(
    ("options", "refusal", "kept"), [((), "", True), (("--no-offload",), "", False), ((), "1", False)]
)
def test_superpackets_can_be_turned_off(
    hosts: tuple[Host, Host], monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], refusal: str, kept: bool
) -> None:
    monkeypatch.setenv("THREEPIPE_NO_OFFLOAD", refusal)
    monkeypatch.setenv("PATH", f"{BIN}:{os.environ['PATH']}")
    one, two = hosts
    one.write(two)
    two.write(one)
    vnet_header = f" vnet_hdr {'on' if kept and fast.NATIVE else 'off'} "
    with two.up(), one.up(options=options):
        assert vnet_header in one.network.run("ip", "-d", "link", "show", "up1")
        assert " 0% packet loss" in one.network.run("ping", "-c", "1", "-W", "20", "10.5.0.2")
    named = shlex.join(["threepipe-wg", *options, "wgd"])
    script = f"{SET_APART.partition(' && ')[0]}; {named}; ip -d link show wgd; rm /run/wireguard/wgd.sock"
    assert vnet_header in one.network.run("unshare", "--mount", "sh", "-ec", script)


def test_a_killed_device_can_be_brought_up_again(hosts: tuple[Host, Host]) -> None:
    one, two = hosts
    one.write(two)
    two.write(one)
    with two.up():
        with one.up() as process:
            process.kill()
            process.wait(20)
        assert come_true(lambda: links(one.network) == {"v1"})
        with one.up():
            assert " 0% packet loss" in one.network.run("ping", "-c", "1", "-W", "20", "10.5.0.2")


def test_a_faulty_file_fails_with_its_line_and_leaves_nothing(hosts: tuple[Host, Host]) -> None:
    one, two = hosts
    for interface, said in (
        ("MTU = many", f"{one.path}, line 5: MTU = many"),
        (
            "Table = tpnone",
            f"{one.path}: Table = tpnone: there is no routing table tpnone; give its number, or name it in",
        ),
        ("PostUp = exit 3", f"{shutil.which('bash')} -c exit 3: ended with status 3"),
    ):
        one.write(two, interface)
        program = one.network.command(
            "unshare", "--mount", "sh", "-c", SET_APART, "sh", sys.executable, "-m", "threepipe"
        )
        done = subprocess.run([*program, "wg", "up", str(one.path)], capture_output=True, text=True, timeout=50)
        assert done.returncode == 1
        assert done.stderr.startswith(f"threepipe: {said}"), done.stderr
        assert links(one.network) == {"v1"}


@pytest.mark.parametrize("how", ["signal", "socket"])
def test_save_config_writes_the_file_after_pre_down(hosts: tuple[Host, Host], tmp_path: Path, how: str) -> None:
    one, two = hosts
    told = tmp_path / "told"
    one.write(two, f"SaveConfig = true\nPreDown = ping -c 1 -W 20 10.5.0.2 > {told}", "PersistentKeepalive = 25\n")
    two.write(one)
    with two.up(), one.up() as process:
        assert " 0% packet loss" in one.network.run("ping", "-c", "1", "-W", "20", "10.5.0.2")
        if how == "socket":
            enter = ["nsenter", f"--target={process.pid}", "--mount"]
            subprocess.run([*enter, "rm", "/run/wireguard/up1.sock"], check=True, timeout=50)
            assert process.wait(20) == 0
        else:
            process.send_signal(signal.SIGTERM)
            process.wait(20)
    assert " 0% packet loss" in told.read_text()
    saved = read_config(one.path)
    assert (saved.private_key, saved.listen_port, saved.save) == (one.key, 51000, True)
    (peer,) = saved.peers
    assert (key_to_text(peer.public_key), peer.endpoint) == (two.public, ("192.0.2.2", 52000))
    assert (len(peer.allowed_ips), peer.persistent_keepalive) == (2, 25)
    assert one.path.stat().st_mode & 0o777 == 0o600
    assert set(one.path.parent.iterdir()) == {one.path, two.path, told}


def test_save_config_keeps_the_file_if_the_adapter_was_removed(hosts: tuple[Host, Host]) -> None:
    one, two = hosts
    one.write(two, "SaveConfig = true")
    before = one.path.read_text()
    with one.up() as process:
        one.network.run("ip", "link", "delete", "up1")
        assert process.wait(20) == 0
        assert process.stderr is not None
        assert "was not saved" in process.stderr.read()
    assert one.path.read_text() == before


def test_a_signal_that_interrupts_no_wait_ends_the_device(hosts: tuple[Host, Host], tmp_path: Path) -> None:
    """Such a signal comes just before a wait begins; here another thread gets it."""
    one, two = hosts
    one.write(two, f"PreDown = touch {tmp_path}/down")
    with one.up(python=["-c", SIGNALS_ELSEWHERE]) as process:
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    assert (tmp_path / "down").exists()


def test_a_second_signal_does_not_interrupt_the_shutdown(hosts: tuple[Host, Host], tmp_path: Path) -> None:
    one, two = hosts
    begun, asked = tmp_path / "begun", tmp_path / "asked"
    wait = f"touch {begun}; while ! [ -e {asked} ]; do sleep 0.05; done; touch {tmp_path}/done"
    one.write(two, f"PreDown = {wait}", allowed="0.0.0.0/0, ::/0")
    before = one.rules()
    with one.up() as process:
        process.send_signal(signal.SIGTERM)
        assert come_true(begun.exists)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            process.send_signal(number)
        asked.touch()
        assert process.wait(20) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""
    assert (tmp_path / "done").exists()
    assert one.rules() == before


def test_a_background_device_can_be_shown_and_taken_down(hosts: tuple[Host, Host], tmp_path: Path) -> None:
    one, two = hosts
    hooks = f"PreDown = echo %i >> {tmp_path}/told\nPostDown = sleep 0.5; echo gone >> {tmp_path}/told"
    one.write(two, hooks, allowed="0.0.0.0/0, ::/0")
    two.write(one)
    before = one.state()
    script = (
        f"{SET_APART.partition(' && ')[0]}; threepipe wg up {one.path} --daemon; threepipe wg show up1 --json;"
        f" ! threepipe wg up {one.path} --daemon; ping -c 1 -W 20 10.5.0.2 >&2; threepipe wg down {one.path};"
        f" ls /run/wireguard; ! threepipe wg down up1"
    )
    with two.up():
        done = subprocess.run(
            one.network.command("unshare", "--mount", "sh", "-ec", script),
            env=os.environ | {"PATH": f"{BIN}:{os.environ['PATH']}"},
            capture_output=True,
            text=True,
            timeout=50,
        )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["up1"]["public_key"] == one.public  # The folder is empty as well.
    assert "a device of that name is running" in done.stderr
    assert " 0% packet loss" in done.stderr
    assert "there is no device up1" in done.stderr
    assert "up1 is up; Ctrl-C" not in done.stderr
    # Everything is undone when `down` returns.
    assert (tmp_path / "told").read_text() == "up1\ngone\n"
    assert one.state() == before


@pytest.mark.parametrize("how", ["signal", "socket", "link"])
def test_threepipe_wg_is_managed_by_wg_and_leaves_nothing_behind(network: Network, how: str) -> None:
    ends = {
        "signal": "kill $!",
        "socket": "rm /run/wireguard/wgd.sock",
        "link": "ip link delete wgd",
    }
    key, peer = (key_to_text(new_key()) for _ in range(2))
    settings = f"[Interface]\nPrivateKey = {key}\nListenPort = 5\nFwMark = 0x10\n[Peer]\nPublicKey = {peer}\n"
    script = (
        f"{SET_APART.partition(' && ')[0]}; threepipe-wg -f wgd & n=0;"
        " until wg show wgd 2>/dev/null; do sleep 0.1; n=$((n+1)); [ $n -lt 200 ]; done;"
        f" printf '{settings}AllowedIPs = 10.0.0.0/8\n' | wg setconf wgd /dev/stdin;"
        f" wg set wgd peer {peer} preshared-key /etc/hostname 2>/dev/null && exit 9;"
        f" wg set wgd peer {peer} persistent-keepalive 7 allowed-ips fd00::/8 endpoint [fe80::1%lo]:9 >&2;"
        f" wg showconf wgd; printf '{settings}' | wg syncconf wgd /dev/stdin; wg show wgd allowed-ips;"
        f" {ends[how]}; wait $!; ls /run/wireguard"
    )
    done = subprocess.run(
        network.command("unshare", "--mount", "sh", "-ec", script),
        env=os.environ | {"PATH": f"{BIN}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert done.returncode == 0, done.stderr
    for line in ("ListenPort = 5", "FwMark = 0x10", f"PrivateKey = {key}", "PersistentKeepalive = 7"):
        assert line in done.stdout
    assert "AllowedIPs = fd00::/8\nEndpoint = [fe80::1%lo]:9\n" in done.stdout
    assert done.stdout.endswith(f"{peer}\t(none)\n")
    assert links(network) == set()


@pytest.mark.skipif(not shutil.which("wg-quick"), reason="wg-quick is missing; install wireguard-tools")
def test_wg_quick_uses_threepipe_wg_as_its_implementation(hosts: tuple[Host, Host]) -> None:
    one, two = hosts
    one.write(two)
    two.write(one)
    script = (
        f"{SET_APART.partition(' && ')[0]} && export PATH={BIN}:$PATH WG_QUICK_USERSPACE_IMPLEMENTATION=threepipe-wg"
        f" && wg-quick up {one.path} && wg show up1 latest-handshakes && ping -c 2 -i 0.2 -w 20 10.5.0.2"
        f" && wg syncconf up1 /dev/null && wg show up1 peers && wg-quick down {one.path}"
    )
    with two.up():
        done = subprocess.run(
            one.network.command("unshare", "--mount", "sh", "-ec", script), capture_output=True, text=True, timeout=50
        )
        assert done.returncode == 0, done.stderr
        assert come_true(lambda: links(one.network) == {"v1"})


@pytest.mark.skipif(not shutil.which("wg-quick"), reason="wg-quick is missing; install wireguard-tools")
def test_wg_quick_save_finds_only_addresses_of_the_file_on_threepipe_wg(hosts: tuple[Host, Host]) -> None:
    one, two = hosts
    one.write(two)
    script = (
        f"{SET_APART.partition(' && ')[0]} && export PATH={BIN}:$PATH WG_QUICK_USERSPACE_IMPLEMENTATION=threepipe-wg"
        f" && wg-quick up {one.path} && wg-quick save {one.path} && wg-quick down {one.path}"
    )
    done = subprocess.run(
        one.network.command("unshare", "--mount", "sh", "-ec", script), capture_output=True, text=True, timeout=50
    )
    assert done.returncode == 0, done.stderr
    saved = [line for line in one.path.read_text().splitlines() if line.startswith("Address")]
    assert sorted(saved) == ["Address = 10.5.0.1/24", "Address = fd05::1/64"]


@pytest.mark.skipif(not shutil.which("wg-quick"), reason="wg-quick is missing; install wireguard-tools")
@pytest.mark.parametrize("tool", ["nft", "iptables"])
def test_wg_quick_with_a_default_route_sends_traffic_through_threepipe_wg(
    far_hosts: tuple[Host, Host], tool: str
) -> None:
    if not (shutil.which(tool) and shutil.which("iptables")):
        pytest.skip(f"wg-quick needs {tool} for a default route; install iptables and nftables")
    one, two = far_hosts
    one.write(two, allowed="0.0.0.0/0, ::/0", outside=FAR)
    two.write(one)
    script = f"""
        {SET_APART.partition(" && ")[0]}
        export PATH={BIN}:$PATH WG_QUICK_USERSPACE_IMPLEMENTATION=threepipe-wg
        {WITHOUT_NFT if tool == "iptables" else ""}
        wg-quick up {one.path}
        for address in {BEHIND} 10.5.0.2 fd05::2 {FAR}; do ping -c 2 -i 0.2 -w 20 -q $address >&2; done
        ip route get {FAR} mark 51820
        ip route get {FAR}
        iptables-save; nft list ruleset || true
        echo ==
        wg-quick down {one.path}
        while [ -e /run/wireguard/up1.sock ]; do sleep 0.05; done
        iptables-save; nft list ruleset || true
    """
    before = one.state()
    with two.up():
        done = subprocess.run(
            one.network.command("unshare", "--mount", "bash", "-ec", script), capture_output=True, text=True, timeout=50
        )
    assert done.returncode == 0, done.stdout + done.stderr
    there, gone = done.stdout.split("==\n")
    assert f"{FAR} via 192.0.2.2 dev v1" in there
    assert f"{FAR} dev up1 table 51820" in there
    assert ("wg-quick(8) rule for up1" if tool == "iptables" else "table ip wg-quick-up1") in there
    assert "wg-quick" not in gone
    assert one.state() == before
