"""`threepipe script-tun` and `from_environment`, started as OpenConnect, OpenVPN and `threepipe exec` do it."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.kernel import Network, links, needs_root
from tests.support.openconnect import connected, needs_openconnect
from tests.support.transfers import MIB, transfer
from tests.support.waiting import come_true
from threepipe.echo import echo_reply, echo_request

if sys.platform != "linux":
    pytest.skip(f"{sys.platform} has no adapters", allow_module_level=True)

pytestmark = pytest.mark.kernel

SCRIPT_TUN = [sys.executable, "-W", "error", "-m", "threepipe", "script-tun"]
OPENCONNECT = {"INTERNAL_IP4_ADDRESS": "10.77.0.137", "INTERNAL_IP4_NETMASKLEN": "24", "INTERNAL_IP4_MTU": "1334"}
OPENVPN = {"ifconfig_local": "10.77.0.137", "ifconfig_remote": "10.77.0.1", "TUNTAP_MTU": "1334"}
CONVENTIONS = {"VPNFD": OPENCONNECT, "TUNTAP_SOCKET_FD": OPENVPN}

ECHO = """
import threepipe
from threepipe.echo import echo_reply
with threepipe.from_environment() as session:
    print("here", flush=True)
    for bundle in session:
        session.send([reply for packet in bundle if (reply := echo_reply(packet))])
"""


@contextmanager
def script_tun(network: Network, variable: str, address: str) -> Iterator[tuple[socket.socket, subprocess.Popen[str]]]:
    """Start the program as that one does, and wait for its adapter vpn0."""
    ours, theirs = socket.socketpair(type=socket.SOCK_DGRAM)
    with ours, theirs:
        environment = {**os.environ, **CONVENTIONS[variable], variable: str(theirs.fileno())}
        command = network.command(*SCRIPT_TUN, address)
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        with subprocess.Popen(command, pass_fds=[theirs.fileno()], env=environment, text=True, **pipes) as program:  # type: ignore[call-overload]
            theirs.close()
            try:
                assert come_true(lambda: "LOWER_UP" in network.run("ip", "link", "show", "vpn0", check=False), 20)
                yield ours, program
            finally:
                program.kill()


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("variable", CONVENTIONS)
def test_packets_go_to_an_adapter_with_the_addresses_of_the_other_program(
    network: Network, variable: str, number: signal.Signals
) -> None:
    with script_tun(network, variable, "tun:vpn0") as (ours, program):
        shown = network.run("ip", "address", "show", "vpn0")
        length = 24 if variable == "VPNFD" else 32
        assert f"inet 10.77.0.137/{length}" in shown
        assert "mtu 1334" in shown
        assert "dev vpn0" in network.run("ip", "route", "get", "10.77.0.1")
        request = echo_request("10.77.0.1", "10.77.0.137", 1, 1)
        ours.settimeout(20)
        ours.send(request)
        while (answer := ours.recv(1 << 16))[9] != socket.IPPROTO_ICMP or answer[0] >> 4 != 4:
            pass  # The kernel sends other packets too when a link comes up.
        assert answer[20:] == (echo_reply(request) or b"")[20:]
        program.send_signal(number)
        assert (program.wait(20), *program.communicate()) == (0, "", "")
    assert links(network) == set()


def test_settings_of_the_address_come_first(network: Network) -> None:
    with script_tun(network, "VPNFD", "tun:vpn0,address=10.5.5.5/30,mtu=1400"):
        shown = network.run("ip", "address", "show", "vpn0")
        assert "inet 10.5.5.5/30" in shown
        assert "10.77" not in shown
        assert "mtu 1400" in shown


STARTER = """
import os, signal, socket, subprocess, sys
ours, theirs = socket.socketpair(type=socket.SOCK_DGRAM)
variables = {"VPNFD": str(theirs.fileno()), **({"VPNPID": str(os.getpid())} if sys.argv[1] == "told" else {})}
program = subprocess.Popen(sys.argv[2:], pass_fds=[theirs.fileno()], env=os.environ | variables)
print(program.pid, flush=True)
signal.pause()
"""


@pytest.mark.parametrize("way", ["told", "parent"])
def test_it_ends_with_a_starter_that_is_killed(network: Network, way: str) -> None:
    # A shell in between, as OpenConnect has, if the starter tells of itself.
    words = ["sh", "-c", '"$@"; exit', "sh", *SCRIPT_TUN] if way == "told" else SCRIPT_TUN
    command = network.command(sys.executable, "-c", STARTER, way, *words, "tun:vpn0,address=10.77.0.137/24")
    with subprocess.Popen(command, stdout=subprocess.PIPE) as starter:
        assert come_true(lambda: "LOWER_UP" in network.run("ip", "link", "show", "vpn0", check=False), 20)
        starter.kill()
    assert come_true(lambda: links(network) == set(), 20)


WITHOUT_PIDFD = """
import os
def lacking(number): raise OSError(38, "Function not implemented")
os.pidfd_open = lacking
from threepipe.cli import main
main()
"""


def test_where_the_end_of_the_starter_is_not_told_it_runs_all_the_same(network: Network) -> None:
    ours, theirs = socket.socketpair(type=socket.SOCK_DGRAM)
    environment = {**os.environ, "VPNFD": str(theirs.fileno())}
    command = network.command(sys.executable, "-c", WITHOUT_PIDFD, "script-tun", "echo")
    with ours, subprocess.Popen(command, pass_fds=[theirs.fileno()], env=environment) as program:
        theirs.close()
        try:
            ours.settimeout(20)
            request = echo_request("10.77.0.1", "10.77.0.137", 1, 1)
            ours.send(request)
            assert ours.recv(1 << 16) == echo_reply(request)
        finally:
            program.terminate()
        assert program.wait(20) == 0


def test_without_a_descriptor_it_says_who_is_to_start_it() -> None:
    environment = {name: text for name, text in os.environ.items() if not name.endswith("FD")}
    done = subprocess.run([*SCRIPT_TUN, "discard"], capture_output=True, text=True, env=environment, timeout=50)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "start this by openconnect --script-tun" in done.stderr


@pytest.mark.parametrize("header", ["none", "vnet", "packet-information"])
def test_a_python_program_of_exec_has_a_session_in_any_form(network: Network, header: str) -> None:
    words = ["exec", "--tun", "tp0,address=10.6.7.1/24", "--header", header, "--", sys.executable, "-c", ECHO]
    with subprocess.Popen(
        network.command(sys.executable, "-m", "threepipe", *words), stdout=subprocess.PIPE, text=True
    ) as program:
        try:
            assert program.stdout is not None
            assert program.stdout.readline() == "here\n"
            assert " 0% packet loss" in network.run("ping", "-c", "3", "-i", "0.01", "-W", "20", "10.6.7.9")
        finally:
            program.kill()
    assert links(network) == set()


@needs_root
@needs_openconnect
def test_openconnect_carries_packets_to_an_adapter(network: Network, tmp_path: Path) -> None:
    script = " ".join(SCRIPT_TUN)
    with connected(network, tmp_path, f"exec {script} tun:vpn0") as (server, client):
        assert come_true(lambda: "LOWER_UP" in network.run("ip", "link", "show", "vpn0", check=False), 30)
        assert " 0% packet loss" in network.run("ping", "-c", "3", "-i", "0.01", "-W", "20", "10.77.0.1")
        transfer(network, server, "10.77.0.1", 4 * MIB)
        client.send_signal(signal.SIGINT)
        client.wait(20)
        assert come_true(lambda: links(network) == {"v2"}, 20)
