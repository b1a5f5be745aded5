"""`--takeover`: a new process goes on with a running device, whatever fails on the way. tests/soak has every step."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.takeover_faults import FAULTY, check_fault
from tests.support.takeover_load import counters_sent
from tests.support.takeovers import LOOK, Host, two_hosts
from tests.support.waiting import come_true
from tests.support.wires import ETH_P_ALL
from threepipe.wireguard import link_local, public_key

pytestmark = pytest.mark.kernel

WG = str(Path(sys.executable).with_name("threepipe-wg"))

DEEDS = (
    "PostUp = echo up >> /run/told\nPreDown = ping -c 1 -W 8 10.5.0.2 && echo pre >> /run/told\n"
    "PostDown = echo post >> /run/told\nSaveConfig = true"
)


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[tuple[Host, Host]]:
    with two_hosts(tmp_path) as hosts:
        yield hosts


def test_takeovers_use_no_counter_twice_and_need_no_handshake(hosts: tuple[Host, Host]) -> None:
    left, right = hosts
    wire = left.network.namespace.run(
        lambda: socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_ALL))
    )
    with wire:
        wire.bind(("v1", ETH_P_ALL))
        wire.setblocking(False)
        current = left.up()
        right.up()
        left.ping(right)
        handshake, before = left.handshake(), left.transfer()
        with subprocess.Popen(left.command("ping", "-q", "-i", "0.002", right.inside), stdout=subprocess.PIPE) as ping:
            for pure in ("1", "0"):  # Each core goes on from the other.
                new = left.up("--takeover", THREEPIPE_PURE=pure)
                assert current.wait(20) == 0
                current = new
            ping.terminate()
        left.ping(right)
        right.ping(left)
        assert left.handshake() == handshake
        assert all(now > then for now, then in zip(left.transfer(), before, strict=True))
        packets = []
        while True:
            try:
                packets.append(wire.recv(2048))
            except BlockingIOError:
                break
    counters = counters_sent(packets, "192.0.2.1")
    assert len(counters) > 20
    assert len(set(counters)) == len(counters)


def test_all_that_the_old_process_set_up_is_undone_by_the_new_one(hosts: tuple[Host, Host]) -> None:
    left, right = hosts
    left.write(right, DEEDS, allowed="0.0.0.0/0")
    right.up()
    before = left.shell(LOOK)
    old = left.up()
    up = left.shell(LOOK)
    assert before != up
    assert left.up("--takeover", "--daemon").wait(20) == 0
    assert old.wait(20) == 0
    assert left.shell(LOOK) == up
    left.ping(right)
    assert left.shell(f"wg set {left.name} listen-port 5001 peer '{left.peer_of(right)}' persistent-keepalive 7") == ""
    left.ping(right)
    assert left.threepipe("wg", "down", left.name) == (0, "")
    assert left.shell(LOOK) == before
    assert left.shell("cat /run/told").split() == ["up", "pre", "post"]
    saved = left.path.read_text()
    assert "ListenPort = 5001" in saved
    assert "PersistentKeepalive = 7" in saved
    assert "PreDown = ping" in saved


@pytest.mark.parametrize(
    ("step", "fault"),
    [("Taking.take", "kill-after"), ("Taking.begin", "kill-after"), ("Giving.forget", "kill-before")],
)
def test_a_process_killed_during_a_takeover_leaves_a_working_device(
    hosts: tuple[Host, Host], step: str, fault: str
) -> None:
    check_fault(*hosts, step, fault)


def test_a_device_whose_sockets_are_removed_during_a_takeover_ends_and_all_is_undone(
    hosts: tuple[Host, Host],
) -> None:
    left, right = hosts
    left.write(right, "PostDown = echo post >> /run/told", allowed="0.0.0.0/0")
    before = left.shell(LOOK)
    old = left.up()
    new = left.up("--takeover", python=(FAULTY, "remove-before", "Taking.confirm"))
    assert [process.wait(20) for process in (old, new)] == [0, 0]
    assert left.shell(LOOK) == before
    assert left.shell("cat /run/told") == "post\n"


def test_threepipe_wg_is_taken_over_by_itself_alone(hosts: tuple[Host, Host]) -> None:
    left, _ = hosts
    assert left.start(WG, left.name).wait(20) == 0
    left.shell(f"wg set {left.name} fwmark 5 && ip link set {left.name} mtu 1300")
    status, said = left.threepipe("wg", "up", "--takeover", str(left.path))
    assert status == 1
    assert f"{left.name} is run by threepipe-wg, and the new process is threepipe wg up; use threepipe-wg" in said
    assert left.start(WG, "--takeover", left.name).wait(20) == 0
    assert left.shell(f"wg show {left.name} fwmark") == "0x5\n"
    assert "mtu 1300" in left.shell(f"ip link show {left.name}")
    assert left.threepipe("wg", "down", left.name) == (0, "")
    assert left.shell("ls /run/wireguard") == ""


def test_a_takeover_without_a_running_device_says_so(hosts: tuple[Host, Host]) -> None:
    left, _ = hosts
    status, said = left.threepipe("wg", "up", "--takeover", str(left.path))
    assert status == 1
    assert f"is {left.name} running, by threepipe, on Linux?" in said


def test_the_service_manager_learns_the_new_process(hosts: tuple[Host, Host], tmp_path: Path) -> None:
    left, _ = hosts
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(path)
        manager.settimeout(20)
        old = left.up(NOTIFY_SOCKET=path)
        assert manager.recv(100) == f"READY=1\nSTATUS={left.name} is up".encode()
        new = left.up("--takeover")
        assert manager.recv(100) == f"MAINPID={new.pid}".encode()
        assert old.wait(20) == 0
        manager.setblocking(False)
        with pytest.raises(BlockingIOError):
            manager.recv(100)


def link_locals(host: Host) -> list[str]:
    lines = host.shell(f"ip -o -6 address show dev {host.name} scope link").splitlines()
    return [line.split()[3] for line in lines]


def route(host: Host, other: Host, verb: str = "add") -> None:
    hop = link_local(public_key(other.key))
    assert host.shell(f"ip route {verb} {other.inside} via inet6 {hop} dev {host.name}") == ""


@pytest.fixture
def mesh(hosts: tuple[Host, Host]) -> tuple[Host, Host]:
    left, right = hosts
    for host, other in ((left, right), (right, left)):
        host.write(other, "Routing = 10.5.0.0/16")
    return hosts


def test_a_device_of_a_mesh_is_taken_over_with_its_routes_and_its_address(mesh: tuple[Host, Host]) -> None:
    left, right = mesh
    before = left.shell(LOOK)
    current = left.up()
    right.up()
    route(left, right)
    route(right, left)
    left.ping(right)
    addresses, handshake = link_locals(left), left.handshake()
    assert len(addresses) == 1
    for pure in ("1", "0"):
        new = left.up("--takeover", THREEPIPE_PURE=pure)
        assert current.wait(20) == 0
        current = new
        assert link_locals(left) == addresses
        left.ping(right)
        route(left, right, "del")
        assert come_true(lambda: "100% packet loss" in left.shell(f"ping -c 1 -W 1 {right.inside}"))
        route(left, right)
        left.ping(right)
    assert left.handshake() == handshake
    assert left.threepipe("wg", "down", left.name) == (0, "")
    assert left.shell(LOOK) == before


def test_a_device_of_a_mesh_keeps_its_address_if_a_takeover_fails(mesh: tuple[Host, Host]) -> None:
    left, right = mesh
    old = left.up()
    right.up()
    route(left, right)
    route(right, left)
    left.ping(right)
    addresses = link_locals(left)
    assert left.up("--takeover", python=(FAULTY, "fail-after", "Taking.begin")).wait(20) == 1
    assert link_locals(left) == addresses
    left.ping(right)
    assert left.threepipe("wg", "down", left.name) == (0, "")
    assert old.wait(20) == 0


def test_threepipe_wg_with_routing_is_taken_over_and_follows_a_new_key(mesh: tuple[Host, Host]) -> None:
    left, right = mesh
    right.up()
    assert left.start(WG, "--routing", "10.5.0.0/16", left.name).wait(20) == 0
    said = left.shell(
        f"ip address add {left.inside}/24 dev {left.name} && ip link set {left.name} up"
        f" && {sys.executable} -m threepipe wg setconf {left.name} {left.path}"
    )
    assert said == ""
    route(left, right)
    route(right, left)
    left.ping(right)
    addresses = link_locals(left)
    assert left.start(WG, "--takeover", left.name).wait(20) == 0
    assert link_locals(left) == addresses
    left.ping(right)
    assert left.shell(f"{sys.executable} -m threepipe wg set {left.name} private-key /dev/null") == ""
    assert link_locals(left) == []
    assert left.threepipe("wg", "down", left.name) == (0, "")


@pytest.mark.parametrize("header", ["none", "vnet", "packet-information"])
def test_an_adapter_that_threepipe_wg_inherited_is_taken_over(hosts: tuple[Host, Host], header: str) -> None:
    left, right = hosts
    right.up()
    tun = f"{left.name},address={left.inside}/24,mtu=1420"
    command = (sys.executable, "-m", "threepipe", "exec", "--tun", tun, "--header", header, "--", WG, "-f", left.name)
    old = left.start(*command)
    set_up = f"wg setconf {left.name} {left.path.with_suffix('.wg')}"
    lines = left.path.read_text().splitlines(keepends=True)
    left.path.with_suffix(".wg").write_text("".join(line for line in lines if not line.startswith("Address")))
    assert come_true(lambda: left.shell(set_up) == "", 40)
    left.ping(right)
    handshake = left.handshake()
    for _ in range(2):
        new = left.start(WG, "-f", "--takeover", left.name)
        assert old.wait(20) == 0
        old = new
        left.ping(right)
    assert left.handshake() == handshake
    assert left.threepipe("wg", "down", left.name) == (0, "")
    assert new.wait(20) == 0
    assert f"{left.name}:" not in left.shell("ip link")
