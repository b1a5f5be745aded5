"""threepipe wg up in the kernel: settings of a file apply while the device is up, and are undone after."""

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.kernel import links
from tests.support.pinging import answered
from tests.support.wireguard_pair import new_key
from tests.support.wireguard_up import BIN, FAR, SET_APART, Host, cabled_hosts, put_far
from threepipe.core import fast
from threepipe.wireguard import key_to_text, read_config
from threepipe.wireguard.noise import Identity

pytestmark = pytest.mark.kernel


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[tuple[Host, Host]]:
    with cabled_hosts(tmp_path) as hosts:
        yield hosts


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


def test_a_default_route_keeps_outside_packets_for_the_tunnel_out(hosts: tuple[Host, Host]) -> None:
    one, two = hosts
    put_far(one, two)
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
