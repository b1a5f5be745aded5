"""threepipe-wg in the kernel as the implementation that wg and wg-quick use."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.kernel import Network, links
from tests.support.waiting import come_true
from tests.support.wireguard_pair import new_key
from tests.support.wireguard_up import BEHIND, BIN, FAR, SET_APART, Host, cabled_hosts, put_far
from threepipe.wireguard import key_to_text

pytestmark = pytest.mark.kernel

WITHOUT_NFT = """
    mkdir /run/bin
    for folder in ${PATH//:/ }; do ln -sf $folder/* /run/bin/; done
    rm /run/bin/nft
    PATH=/run/bin
"""
"""Bash commands, after `SET_APART`, that hide nft, so that only iptables can filter packets."""


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[tuple[Host, Host]]:
    with cabled_hosts(tmp_path) as hosts:
        yield hosts


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
def test_wg_quick_with_a_default_route_sends_traffic_through_threepipe_wg(hosts: tuple[Host, Host], tool: str) -> None:
    if not (shutil.which(tool) and shutil.which("iptables")):
        pytest.skip(f"wg-quick needs {tool} for a default route; install iptables and nftables")
    one, two = hosts
    put_far(one, two)
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
