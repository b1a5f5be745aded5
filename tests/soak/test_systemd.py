"""The units under a real systemd, which is booted in namespaces of its own: make soak."""

import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.kernel import needs_root
from tests.support.waiting import come_true

pytestmark = [pytest.mark.soak, pytest.mark.kernel, needs_root]

ROOT = Path(__file__).parents[2]
UNITS = ROOT / "units"
BOOT = ROOT / "tests" / "support" / "systemd_boot.sh"
THREEPIPE = [sys.executable, "-W", "error", "-m", "threepipe"]
SECONDS = 20


@contextmanager
def own_cgroup() -> Iterator[Path]:
    """A cgroup for the systemd of a test, which is removed with everything in it."""
    mounted = [
        line.split()[1] for line in Path("/proc/mounts").read_text().splitlines() if line.split()[2] == "cgroup2"
    ]
    if not mounted or not os.access(mounted[0], os.W_OK):
        pytest.skip("no systemd can be run here: there is no cgroup2 to write to")
    folder = Path(tempfile.mkdtemp(prefix="threepipe-test-", dir=mounted[0]))
    try:
        yield folder
    finally:
        assert come_true(lambda: "populated 0" in (folder / "cgroup.events").read_text(), SECONDS)
        for each, _, _ in os.walk(folder, topdown=False):
            os.rmdir(each)


def booted(tmp_path: Path, script: str) -> str:
    """Run the shell script under a systemd that knows our units, and return what it printed."""
    (tmp_path / "try.sh").write_text(f"{script}\necho END\n")
    (tmp_path / "output").touch()
    program = f"env PYTHONPATH={ROOT / 'src'} {shlex.join(THREEPIPE)}"
    with own_cgroup() as cgroup:
        boot = ["sh", str(BOOT), str(UNITS), str(tmp_path), program]
        enter = f"echo $$ > {cgroup}/cgroup.procs && exec unshare -mpuinC --fork --kill-child " + shlex.join(boot)
        with subprocess.Popen(["sh", "-c", enter], stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
            follow = ["tail", "-n", "+1", "-F", f"--pid={process.pid}", str(tmp_path / "output")]
            with subprocess.Popen(follow, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as output:
                assert output.stdout is not None
                printed = ""
                for line in output.stdout:
                    if line == "END\n":
                        break
                    printed += line
                output.kill()
            process.kill()
            told, _ = process.communicate()
    assert printed, told
    return printed


def test_systemd_runs_a_pipe(tmp_path: Path) -> None:
    printed = booted(
        tmp_path,
        """
        printf 'LEFT=tun:tp0,address=10.6.7.1/24\nRIGHT=echo\nOPTIONS=--mtu-clamp 1400 --capture some.pcapng\n' \
            > /etc/threepipe/one.conf
        systemctl start threepipe-pipe@one
        systemctl show threepipe-pipe@one -P ActiveState -P StatusText
        ping -c 1 -w 10 10.6.7.9 | grep received
        ls /var/lib/threepipe
        systemctl stop threepipe-pipe@one
        systemctl show threepipe-pipe@one -p Result -p ExecMainStatus
        ip link show tp0
        """,
    )
    assert "active\n" in printed
    assert "tun:tp0,address=10.6.7.1/24 > echo\n" in printed
    assert " 1 received" in printed
    assert "some.pcapng\n" in printed
    assert "Result=success\nExecMainStatus=0\n" in printed
    assert printed.endswith('Device "tp0" does not exist.\n')


def test_systemd_hands_a_pipe_its_sockets(tmp_path: Path) -> None:
    printed = booted(
        tmp_path,
        """
        printf 'LEFT=fd:3\nRIGHT=echo\n' > /etc/threepipe/one.conf
        printf '[Unit]\nDefaultDependencies=no\n[Socket]\nListenStream=127.0.0.1:4242\n' \
            > /etc/systemd/system/threepipe-pipe@one.socket
        systemctl daemon-reload
        systemctl start threepipe-pipe@one.socket
        threepipe pipe tcp:127.0.0.1:4242 tun:tp0,address=10.6.7.1/24 --run 'ping -c 1 -w 10 10.6.7.9' | grep received
        systemctl stop threepipe-pipe@one.socket threepipe-pipe@one
        """,
    )
    assert " 1 received" in printed


def test_systemd_runs_a_wireguard_device(tmp_path: Path) -> None:
    printed = booted(
        tmp_path,
        """
        cd /etc/wireguard
        umask 077
        printf '[Interface]\nPrivateKey = %s\nAddress = 10.9.0.1/24\nSaveConfig = true\n' "$(threepipe wg genkey)" \
            > wg0.conf
        echo 'PostUp = sysctl -w net.ipv4.ip_forward=1' >> wg0.conf
        systemctl start threepipe-wg@wg0
        systemctl show threepipe-wg@wg0 -P StatusText -P ActiveState
        sysctl net.ipv4.ip_forward
        systemctl reload threepipe-wg@wg0 && echo reloaded
        systemctl stop threepipe-wg@wg0
        systemctl show threepipe-wg@wg0 -p Result -p ExecMainStatus
        grep -c ListenPort wg0.conf
        ip link show wg0
        """,
    )
    assert printed.startswith("wg0 is up\nactive\nnet.ipv4.ip_forward = 1\nreloaded\n")
    assert "Result=success\nExecMainStatus=0\n1\n" in printed
    assert printed.endswith('Device "wg0" does not exist.\n')
