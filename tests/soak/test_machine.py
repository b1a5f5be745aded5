"""`threepipe serve` and the other units on a machine of its own, with Debian's systemd as its first process."""

import pytest

from tests.support.kernel import needs_root
from tests.support.machine import Machine

pytestmark = [pytest.mark.soak, pytest.mark.timeout(1200), needs_root]

PREPARE = """
cat > /etc/threepipe/serve.toml <<END
[[allow]]
groups = ["vpn"]
names = ["vpn%d"]
addresses = ["10.6.0.0/16"]
namespaces = ["blue"]
END
sysctl -qw net.ipv4.ping_group_range='0 2147483647'
states() { systemctl is-active threepipe-serve.socket threepipe-serve.service; }
pipe() { runuser -u $1 -- threepipe pipe tun:vpn0,address=$2 echo --run "${3:-true}" && echo "$1 has been served"; }
there() { for i in $(seq 200); do ip link show vpn0 2>&1 | grep -q $1 && return; sleep 0.1; done; false; }
systemctl enable --now threepipe-serve.socket
"""


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    folder = tmp_path_factory.mktemp("machine")
    folder.parent.chmod(0o755)
    return Machine(folder)


def test_a_caller_of_an_allowed_group_is_served_by_a_socket_that_starts_the_service(machine: Machine) -> None:
    printed = machine.run(f"""{PREPARE}
        states
        pipe ann 10.6.7.1/24 'ping -c 1 -W 20 10.6.7.8'
        states
        pipe bob 10.6.7.1/24
        pipe ann 192.168.7.1/24
        ip link show vpn0
        ip netns add blue
        pipe ann 10.6.7.1/24,netns=blue
        journalctl -u threepipe-serve -o cat
        """)
    assert "active\ninactive\n" in printed
    assert " 1 received" in printed
    assert "ann has been served\nactive\nactive\n" in printed
    assert printed.count("ann has been served") == 2
    assert "refuses user 1001: it has no rule" in printed
    assert "refuses the address 192.168.7.1/24 (allowed: 10.6.0.0/16)" in printed
    assert "bob has been served" not in printed
    assert 'Device "vpn0" does not exist.' in printed
    assert "user ann (1000), process" in printed
    assert "Traceback" not in printed


def test_an_adapter_goes_with_a_caller_that_is_killed(machine: Machine) -> None:
    printed = machine.run(f"""{PREPARE}
        runuser -u ann -- threepipe pipe tun:vpn0,address=10.6.7.1/24 echo &
        there LOWER_UP && echo there
        pkill -KILL -u ann
        there exist && echo gone
        """)
    assert "there\n" in printed
    assert "gone\n" in printed


def test_callers_are_served_after_a_kill_a_restart_and_a_stop(machine: Machine) -> None:
    printed = machine.run(f"""{PREPARE}
        for way in 'kill -s KILL' restart stop; do
            runuser -u ann -- threepipe pipe tun:vpn0,address=10.6.7.1/24 echo &
            there LOWER_UP && echo there
            systemctl $way threepipe-serve.service
            test "$way" = 'kill -s KILL' && pkill -u ann
            there exist && echo gone
            pkill -u ann
            pipe ann 10.6.7.1/24 'ping -c 1 -W 20 10.6.7.8'
            states
        done
        sed -i s/10.6/10.7/ /etc/threepipe/serve.toml
        systemctl reload threepipe-serve
        pipe ann 10.6.7.1/24
        pipe ann 10.7.7.1/24
        systemctl stop threepipe-serve.socket threepipe-serve.service
        ls /run/threepipe-serve
        """)
    assert printed.count("there\n") == printed.count("gone\n") == 3, printed
    assert printed.count(" 1 received") == 3
    assert printed.count("ann has been served\nactive\nactive\n") == 3
    assert "refuses the address 10.6.7.1/24 (allowed: 10.7.0.0/16)" in printed
    assert printed.count("ann has been served") == 4


def test_systemd_finds_no_fault_and_much_hardening(machine: Machine) -> None:
    printed = machine.run("""
        cd /etc/systemd/system
        sed -i /man:/d threepipe-*  # The pages are in /opt, and there is no man.
        systemd-analyze verify threepipe-* && echo no fault
        systemctl daemon-reload
        systemctl start threepipe-serve.socket
        systemd-analyze security --threshold=23 threepipe-serve >/dev/null && echo hardened
        """)
    assert printed.endswith("no fault\nhardened\n"), printed


def test_a_pipe_and_a_wireguard_device_come_up_with_the_machine(machine: Machine) -> None:
    machine.run("""
        printf 'LEFT=tun:tp0,address=10.6.7.1/24\\nRIGHT=echo\\n' >/etc/threepipe/one.conf
        umask 077
        cd /etc/wireguard
        printf '[Interface]\\nPrivateKey = %s\\nAddress = 10.9.0.1/24\\n' $(threepipe wg genkey) >wg0.conf
        systemctl enable threepipe-pipe@one threepipe-wg@wg0
        """)
    printed = machine.run("""
        systemctl is-active threepipe-pipe@one threepipe-wg@wg0
        ping -c 1 -W 20 10.6.7.9
        ip -br address show wg0
        systemctl disable --now threepipe-pipe@one threepipe-wg@wg0
        ip -br link
        """)
    assert printed.startswith("active\nactive\n"), printed
    assert " 1 received" in printed
    assert "10.9.0.1/24" in printed
    assert "tp0" not in printed.rpartition("10.9.0.1/24")[2]
