"""`threepipe wg exec`: programs of an ordinary user that see one adapter and nothing else."""

import errno
import http.server
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.support.kernel import STRANGER, Network, cable, links, needs_root
from tests.support.ordinary import processes, running, threepipe_as_user
from tests.support.waiting import come_true
from tests.support.wireguard_pair import new_key
from threepipe import Adapter, EndpointError
from threepipe.piping import pipe
from threepipe.settings import AdapterSettings
from threepipe.wireguard import Device, key_to_text
from threepipe.wireguard.noise import Identity
from threepipe.wireguard.settings import PeerChange

if sys.platform != "linux":
    pytest.skip(f"{sys.platform} has no namespaces", allow_module_level=True)

from threepipe.platforms.linux import enclosed, wire
from threepipe.platforms.linux.enclosure import enclose

pytestmark = [pytest.mark.kernel, needs_root]

PORT = 52000
INSIDE, OUTSIDE = "10.5.0.2", "192.0.2.2"
NAME = "intranet.example"
# The kernel refuses what the server still sends to the socket of a device that has ended.
COUNTERS = f"""
table inet watch {{
    counter tunnel {{ }}
    counter other {{ }}
    chain out {{
        type filter hook output priority 0;
        oifname "v1" meta l4proto ipv6-icmp accept
        oifname "v1" icmp type destination-unreachable ip daddr {OUTSIDE} accept
        oifname "v1" udp dport {PORT} ip daddr {OUTSIDE} counter name tunnel accept
        oifname "v1" counter name other
    }}
}}
"""


class Site(NamedTuple):
    """A client's network, the file of its device, and the DNS questions that the server behind the tunnel got."""

    network: Network
    path: Path
    questions: list[str]

    def command(self, *words: str, mounts: str = "") -> list[str]:
        return threepipe_as_user(self.network, "wg", "exec", str(self.path), "--", *words, mounts=mounts)

    def run(self, *words: str, mounts: str = "", **more: Any) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(self.command(*words, mounts=mounts), capture_output=True, text=True, timeout=50, **more)

    def packets(self) -> dict[str, int]:
        """Return how many packets left the client's network, by kind."""
        listed = json.loads(self.network.run("nft", "-j", "list", "counters"))["nftables"]
        return {each["counter"]["name"]: each["counter"]["packets"] for each in listed if "counter" in each}


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with ExitStack() as stack:
        one, two = Network(), Network()
        stack.callback(one.namespace.close)
        stack.callback(two.namespace.close)
        cable(one, two)
        (tmp_path / "rules").write_text(COUNTERS)
        one.run("nft", "-f", str(tmp_path / "rules"))
        ours, theirs = new_key(), new_key()
        stack.enter_context(server(two, theirs, Identity(ours).public))
        questions: list[str] = []
        stack.enter_context(names(two, questions))
        stack.enter_context(web(two))
        tmp_path.chmod(0o755)
        path = tmp_path / "site.conf"
        path.write_text(
            f"[Interface]\nPrivateKey = {key_to_text(ours)}\nAddress = 10.5.0.1/24, fd05::1/64\nDNS = {INSIDE}\n"
            f"[Peer]\nPublicKey = {key_to_text(Identity(theirs).public)}\nAllowedIPs = 0.0.0.0/0, ::/0\n"
            f"Endpoint = {OUTSIDE}:{PORT}\n"
        )
        os.chown(path, STRANGER, STRANGER)
        path.chmod(0o600)
        yield Site(one, path, questions)


@contextmanager
def server(network: Network, key: bytes, client: bytes) -> Iterator[None]:
    peers = [PeerChange(client, allowed_ips=["10.5.0.1/32", "fd05::1/128"])]
    with (
        network.namespace.run(lambda: Device(private_key=key, listen_port=PORT, peers=peers)) as device,
        Adapter.create("wg0", netns=network.path, addresses=[f"{INSIDE}/24", "fd05::2/64"], mtu=1420) as adapter,
        adapter.start_session() as session,
    ):
        thread = threading.Thread(target=pipe, args=(session, device.session))
        thread.start()
        yield
        session.close()
        thread.join()


@contextmanager
def names(network: Network, questions: list[str]) -> Iterator[None]:
    """Answer DNS questions with the address behind the tunnel."""
    sock = network.namespace.run(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    sock.bind(("0.0.0.0", 53))

    def answer() -> None:
        while True:
            data, client = sock.recvfrom(512)
            if not data:
                return
            labels, at = [], 12
            while data[at]:
                labels.append(data[at + 1 : at + 1 + data[at]].decode())
                at += 1 + data[at]
            questions.append(".".join(labels))
            found = data[at + 1 : at + 3] == b"\0\1"  # An A record.
            record = b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4" + socket.inet_aton(INSIDE)
            counts = b"\0\1" + (b"\0\1" if found else b"\0\0") + bytes(4)
            sock.sendto(data[:2] + b"\x81\x80" + counts + data[12 : at + 5] + record * found, client)

    thread = threading.Thread(target=answer)
    thread.start()
    with sock:
        yield
        waker = network.namespace.run(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        with waker:
            waker.sendto(b"", ("127.0.0.1", 53))
        thread.join()


class _Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(f"for {self.client_address[0]}".encode())

    def log_message(self, *_: object) -> None: ...


@contextmanager
def web(network: Network) -> Iterator[None]:
    with network.namespace.run(lambda: http.server.HTTPServer(("0.0.0.0", 80), _Page)) as serving:
        thread = threading.Thread(target=serving.serve_forever, args=(0.01,))
        thread.start()
        yield
        serving.shutdown()
        thread.join()


OTHER_SERVER = f"echo nameserver {OUTSIDE} > /mnt/resolv; mount --bind /mnt/resolv /etc/resolv.conf"
"""Shell commands by which names are asked of a server outside, which would answer too."""


def test_only_wireguard_leaves_the_machine_and_names_are_asked_inside(site: Site) -> None:
    done = site.run("curl", "-sS", "--max-time", "20", f"http://{NAME}/", mounts=OTHER_SERVER)
    assert (done.returncode, done.stdout, done.stderr) == (0, "for 10.5.0.1", "")
    assert NAME in site.questions
    packets = site.packets()
    assert packets["tunnel"] > 3
    assert packets["other"] == 0
    assert links(site.network) == {"v1"}


def test_the_program_sees_one_adapter_and_has_the_rights_of_its_user(site: Site) -> None:
    script = "id -u; id -g; ls /sys/class/net >/dev/null; ip -br link | cut -d' ' -f1; ip route; ip link delete site"
    done = site.run("sh", "-c", f"{script}; grep -h Cap[PE] /proc/self/status; ls -d /proc/[0-9]* | wc -l")
    lines = done.stdout.split("\n")
    assert lines[:4] == [str(STRANGER), str(STRANGER), "lo", "site"]
    assert [line.split()[:3] for line in lines[4:6]] == [["default", "dev", "site"], ["10.5.0.0/24", "dev", "site"]]
    assert [int(line.split()[1], 16) for line in lines[6:8]] == [0, 0]
    assert int(lines[8]) <= 5
    assert "Operation not permitted" in done.stderr


def test_sources_of_names_that_ask_processes_outside_are_left_out(site: Site) -> None:
    mounts = (
        "printf 'passwd: files\\nhosts: files mdns4_minimal [NOTFOUND=return] resolve [!UNAVAIL=return] dns\\n'"
        " > /mnt/switch; mount --bind /mnt/switch /etc/nsswitch.conf; mount -t tmpfs -o mode=755 none /run;"
        " mkdir -p /run/systemd/resolve /run/nscd; touch /run/nscd/socket; echo outside > /run/systemd/resolve/stub;"
        " mount -t tmpfs none /opt; cp -rP /etc/. /opt; rm -f /opt/resolv.conf; mount --bind /opt /etc;"
        " ln -s /run/systemd/resolve/stub /etc/resolv.conf"
    )
    done = site.run("sh", "-c", "cat /etc/nsswitch.conf /etc/resolv.conf; ls /run/nscd", mounts=mounts)
    assert "hosts: files dns\n" in done.stdout, done.stderr
    assert done.stdout.endswith(f"nameserver {INSIDE}\n")
    site.path.write_text(site.path.read_text().replace("DNS", "#"))
    done = site.run("cat", "/etc/resolv.conf", mounts=mounts)
    assert (done.stdout, done.stderr) == ("outside\n", "")


OWN_ETC = "mount -t tmpfs none /opt; cp -rP /etc/. /opt; rm -f /opt/resolv.conf; mount --bind /opt /etc"


@pytest.mark.parametrize("target", ["resolv.conf", "/nowhere/resolv.conf", "../run/systemd/resolve/stub"])
def test_a_link_to_no_file_of_servers_is_named(site: Site, target: str) -> None:
    mounts = f"mount -t tmpfs -o mode=755 none /run; {OWN_ETC}; ln -s {target} /etc/resolv.conf"
    done = site.run("true", mounts=mounts)
    path = os.path.normpath(os.path.join("/etc", target))
    assert (done.returncode, done.stderr) == (1, f"threepipe: {path} is missing; create it, be it empty\n")


def test_files_with_comments_of_any_encoding_are_read(site: Site) -> None:
    mounts = (
        r"printf '# f\374r\nhosts: files resolve dns\n' > /mnt/switch; mount --bind /mnt/switch /etc/nsswitch.conf;"
        rf" mount -t tmpfs -o mode=755 none /run; mkdir -p /run/systemd/resolve; {OWN_ETC};"
        r" printf '# f\374r\n' > /run/systemd/resolve/stub; ln -s /run/systemd/resolve/stub /etc/resolv.conf"
    )
    site.path.write_text(site.path.read_text().replace("DNS", "#"))
    done = site.run("sh", "-c", r"cat /etc/nsswitch.conf /etc/resolv.conf | tr '\374' u", mounts=mounts)
    assert (done.stdout, done.stderr) == ("# fur\nhosts: files dns\n# fur\n", "")


@pytest.mark.parametrize("send", [os.kill, os.killpg])
def test_an_interruption_at_the_start_of_the_process_inside_prints_nothing(
    site: Site, send: Callable[[int, int], None]
) -> None:
    with subprocess.Popen(site.command("true"), stderr=subprocess.PIPE, start_new_session=True) as started:
        assert come_true(lambda: any(loads_modules(each) for each in processes()))
        send(started.pid, signal.SIGINT)
        assert started.communicate(timeout=60)[1] == b""
    assert come_true(lambda: not processes())


def loads_modules(process: int) -> bool:
    """Return True if it is the process inside, and one of its first modules is loaded."""
    with suppress(OSError):  # It has just ended.
        folder = Path(f"/proc/{process}")
        return b"enclosed import" in (folder / "cmdline").read_bytes() and "_ctypes" in (folder / "maps").read_text()
    return False


@pytest.mark.parametrize(("script", "status"), [("exit 7", 7), ("kill -USR1 $$", -signal.SIGUSR1), ("kill -9 $$", -9)])
def test_the_exit_status_is_that_of_the_program(site: Site, script: str, status: int) -> None:
    assert site.run("sh", "-c", script).returncode == status


def test_a_script_has_its_terminal_again_after_a_shell_inside(site: Site) -> None:
    shell = threepipe_as_user(site.network, "wg", "exec", str(site.path), "--", "sh", "-i")
    ours, its = os.openpty()
    with open(ours, "r+b", buffering=0) as terminal:
        script = ["setsid", "--ctty", "sh", "-c", '"$@"; read line; echo "got $line"', "sh", *shell]
        with subprocess.Popen(script, stdin=its, stdout=subprocess.PIPE, stderr=its, text=True) as started:
            os.close(its)
            terminal.write(b"exit\nhello\n")
            assert started.communicate(timeout=60)[0].endswith("got hello\n")


STAY = ["sh", "-c", "trap 'echo heard' USR1; echo here; sleep 1000 & while :; do wait $!; done"]


def is_shell(pid: int) -> bool:
    return Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"sh\0")


def test_signals_reach_the_program(site: Site) -> None:
    with running(site.command(*STAY)) as process:
        process.send_signal(signal.SIGUSR1)
        assert process.stdout is not None
        assert process.stdout.readline() == "heard\n"
        process.terminate()
        assert process.wait(20) == -signal.SIGTERM
    assert come_true(lambda: processes() == [])


@pytest.mark.parametrize("which", ["ours", "program", "inside"])
def test_kill_of_either_leaves_nothing(site: Site, which: str) -> None:
    with running(site.command(*STAY)) as process:
        number = process.pid
        if which == "program":
            number = min(each for each in processes() if is_shell(each))  # The shell's child begins as a copy of it.
        elif which == "inside":
            number = max(each for each in processes() if b"enclosed" in Path(f"/proc/{each}/cmdline").read_bytes())
        os.kill(number, signal.SIGKILL)
        # The process inside may not have told yet that it has started the program, which is an error then.
        assert process.wait(20) in ((-signal.SIGKILL, 1) if which == "inside" else (-signal.SIGKILL,))
        assert come_true(lambda: processes() == [])


def test_a_program_that_is_not_there_is_named(site: Site) -> None:
    done = site.run("/nonexistent")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "threepipe: starting /nonexistent: it is not there, or not executable; install it\n"


def test_arguments_that_are_too_long_are_refused(site: Site) -> None:
    done = site.run("true", "a" * 70_000, "b" * 70_000)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "threepipe: starting true: its arguments are too long; put them into a script\n"


def test_an_enclosure_may_be_told_more_than_a_message_holds() -> None:
    enclosure = enclose(AdapterSettings("tp0"), 1 << 20, [INSIDE], [f"{number:060}" for number in range(3000)])
    assert enclosure.start(["grep", "-q", f"{2999:060}", "/etc/resolv.conf"]).wait() == 0
    os.close(enclosure.descriptor)
    enclosure.close()


def test_an_end_that_closes_without_reading_is_closed_after_its_messages() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        wire.send(ours, {"status": 0})
        wire.send(theirs, {"signal": 15})
        theirs.close()
        assert wire.receive(ours) == ({"signal": 15}, [])
        assert wire.receive(ours) == (None, [])


def test_a_failure_of_the_process_inside_is_shown(capfd: pytest.CaptureFixture[str]) -> None:
    enclosure = enclose(AdapterSettings("tp0"), 1 << 20)
    with pytest.raises(EndpointError, match="has ended"):
        enclosure.start(["true", "\0"])
    os.close(enclosure.descriptor)
    enclosure.close()
    assert "embedded null byte" in capfd.readouterr().err


def test_settings_that_do_not_apply_are_named(site: Site) -> None:
    site.path.write_text(site.path.read_text().replace("DNS", "PostUp = touch /tmp/no\nFwMark = 7\nDNS"))
    done = site.run("true")
    assert (done.returncode, done.stdout) == (0, "")
    assert re.fullmatch(r"threepipe: warning: .*site.conf: commands, FwMark do not apply to wg exec\n", done.stderr)


@pytest.mark.parametrize(
    ("switch", "value", "advice"),
    [
        ("user/max_user_namespaces", "0", "as root: sysctl user.max_user_namespaces=10000"),
        ("kernel/unprivileged_userns_clone", "0", "as root: sysctl kernel.unprivileged_userns_clone=1"),
        ("kernel/apparmor_restrict_unprivileged_userns", "1", "give this Python an AppArmor profile with userns"),
        ("none", "0", "a container or a security module may forbid them"),
    ],
)
def test_a_system_without_user_namespaces_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, switch: str, value: str, advice: str
) -> None:
    path = tmp_path / switch
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"{value}\n")
    monkeypatch.setattr(enclosed, "SETTINGS", tmp_path)
    error = enclosed.no_user_namespace(PermissionError(errno.EPERM, "Operation not permitted"))
    assert error.errno == errno.EPERM
    assert "this system keeps ordinary users from user namespaces (Operation not permitted)" in str(error)
    assert advice in str(error)


def test_a_tun_device_that_the_user_may_not_open_is_told(site: Site) -> None:
    done = site.run("true", mounts="chmod 600 /dev/net/tun")
    assert done.returncode == 1
    assert "/dev/net/tun" in done.stderr
    assert "chmod 0666" in done.stderr
