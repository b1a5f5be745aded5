"""Programs of an ordinary user on an adapter of threepipe: OpenVPN, also to SoftEther's server, and tun2proxy."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.kernel import STRANGER, Network, needs_root
from tests.support.neighbours import OURS, THREEPIPE, answers, cabled, openvpn, openvpn_pair, running, transferred
from tests.support.waiting import come_true

if sys.platform != "linux":
    pytest.skip(f"{sys.platform} has no persistent adapters", allow_module_level=True)

pytestmark = [pytest.mark.soak, pytest.mark.kernel, needs_root]

SIZE = 64 << 20
BEHIND = "203.0.113.1"
"""An address of the server's machine, which is reached through its user-space NAT alone."""

# The server's folders have fixed names. A Unix socket of its own there would tell of a server that runs elsewhere.
SERVER = """
for folder in /run /var/lib /var/log; do mount -t tmpfs none $folder; mkdir $folder/softether; done
exec vpnserver execsvc
"""
# The server forgets a lease only after its time, so there is one address, for one connection.
SETTINGS = """\
ServerCertGet ca.pem
Hub DEFAULT
UserCreate alice /GROUP:none /REALNAME:none /NOTE:none
UserPasswordSet alice /PASSWORD:secret
DhcpSet /START:192.168.30.10 /END:192.168.30.10 /MASK:255.255.255.0 /EXPIRE:7200 /GW:192.168.30.1 /DNS:none /DNS2:none \
/DOMAIN:none /LOG:no
SecureNatEnable
"""


@pytest.mark.skipif(not shutil.which("openvpn"), reason="openvpn is missing; install it")
def test_openvpn_carries_64_mib_to_another(network: Network, tmp_path: Path) -> None:
    network.run(*THREEPIPE, "adapter", "create", "ovpn0", "--address", "10.8.0.2/24", "--owner", str(STRANGER))
    with openvpn_pair(network, tmp_path) as far:
        assert transferred(network, far, "10.8.0.1", SIZE) == SIZE


@contextmanager
def softether(network: Network, folder: Path) -> Iterator[None]:
    """Run SoftEther's server with the user alice, and write its certificate to ca.pem."""
    words = network.command("unshare", "--mount", "--pid", "--kill-child", "sh", "-c", SERVER)
    (folder / "settings").write_text(SETTINGS)
    tool = network.command("vpncmd", "localhost:5555", "/SERVER", "/IN:settings")
    with (folder / "server").open("w") as said, subprocess.Popen(words, stdout=said, stderr=said) as process:
        try:
            assert come_true(lambda: ":5555" in network.run("ss", "-ltn"), 30), (folder / "server").read_text()
            subprocess.run(tool, cwd=folder, check=True, timeout=50, stdout=said)
            yield
        finally:
            process.kill()


@pytest.mark.skipif(not shutil.which("vpnserver"), reason="SoftEther's server is missing; install softether-vpnserver")
@pytest.mark.skipif(not shutil.which("openvpn"), reason="openvpn is missing; install it")
def test_openvpn_carries_64_mib_to_a_server_of_softether(network: Network, tmp_path: Path) -> None:
    adapter = ["--address", "192.168.30.10/24", "--route", f"{BEHIND}/32", "--owner", str(STRANGER)]
    network.run(*THREEPIPE, "adapter", "create", "ovpn0", *adapter)
    tmp_path.chmod(0o755)
    (tmp_path / "password").write_text("alice\nsecret\n")
    (tmp_path / "password").chmod(0o644)
    cipher = ["--cipher", "AES-256-GCM"]
    session = ["--client", "--nobind", "--remote", "192.0.2.2", "1194", "udp4"]
    trust = ["--ca", str(tmp_path / "ca.pem"), "--auth-user-pass", str(tmp_path / "password")]
    with cabled(network) as far, softether(far, tmp_path):
        far.run("ip", "address", "add", f"{BEHIND}/32", "dev", "lo")
        (tmp_path / "ca.pem").chmod(0o644)
        with openvpn(network, tmp_path / "near", *OURS, *session, *trust, *cipher, user=STRANGER):
            assert come_true(lambda: answers(network, "192.168.30.1"), 30), (tmp_path / "near").read_text()
            assert transferred(network, far, BEHIND, SIZE) == SIZE


@pytest.mark.skipif(not shutil.which("tun2proxy-bin"), reason="tun2proxy is missing; install its crate 0.8.7")
@pytest.mark.skipif(not shutil.which("microsocks"), reason="microsocks is missing; install it")
def test_tun2proxy_carries_64_mib_from_a_program_behind_a_socks_server(network: Network, tmp_path: Path) -> None:
    adapter = ["--address", "10.6.7.1/24", "--route", f"{BEHIND}/32", "--owner", str(STRANGER)]
    network.run(*THREEPIPE, "adapter", "create", "tp0", *adapter)
    words = ["tun2proxy-bin", "--tun", "tp0", "--proxy", "socks5://192.0.2.2:1080"]
    with cabled(network) as far, running(far, tmp_path / "far", "microsocks", "-i", "192.0.2.2"):
        far.run("ip", "address", "add", f"{BEHIND}/32", "dev", "lo")
        assert come_true(lambda: ":1080" in far.run("ss", "-ltn"), 30), (tmp_path / "far").read_text()
        with running(network, tmp_path / "near", *words, user=STRANGER):
            assert come_true(lambda: "LOWER_UP" in network.run("ip", "link", "show", "tp0"), 30)
            assert transferred(network, far, BEHIND, SIZE, back=True) == SIZE
