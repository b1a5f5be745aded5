"""OpenConnect and its server, with 64 MiB to an adapter in another namespace, to a Python program and to ocproxy."""

import hashlib
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.kernel import Network, links, needs_root
from tests.support.openconnect import INSIDE, connected, needs_openconnect
from tests.support.ordinary import PYTHON, as_user
from tests.support.service import serving
from tests.support.transfers import MIB, transfer
from tests.support.waiting import come_true

pytestmark = [pytest.mark.soak, pytest.mark.kernel, needs_root]

SIZE = 64 * MIB
THREEPIPE = f"{sys.executable} -W error -m threepipe"
BECOME = "import os, sys; os.execvp(sys.argv[1], sys.argv[1:])"

BRIDGE = """
import os, sys, threading
import threepipe

address, mtu = os.environ["INTERNAL_IP4_ADDRESS"], int(os.environ["INTERNAL_IP4_MTU"])

def carry(source, target):
    for bundle in source:
        target.send(bundle, timeout=5)

with (
    threepipe.from_environment() as outside,
    threepipe.Adapter.create("vpn0", addresses=[f"{address}/24"], mtu=mtu, netns=sys.argv[1]) as adapter,
    adapter.start_session() as inside,
):
    threading.Thread(target=carry, args=(inside, outside), daemon=True).start()
    carry(outside, inside)
"""
POLICY = """
[[allow]]
users = [61234]
names = ["vpn0"]
addresses = ["10.77.0.0/24", "fd77::/64"]
"""
needs_ocproxy = pytest.mark.skipif(not shutil.which("ocproxy"), reason="ocproxy is not there; install it")


@pytest.fixture
def elsewhere() -> Iterator[Network]:
    network = Network()
    yield network
    network.namespace.close()


def carries(inside: Network, server: Network, log: Path) -> None:
    """Check that packets go both ways between the adapter vpn0 and the server."""
    assert come_true(lambda: "LOWER_UP" in inside.run("ip", "link", "show", "vpn0", check=False), 30), log.read_text()
    (address,) = [word for word in inside.run("ip", "-4", "-o", "address", "show", "vpn0").split() if "10.77." in word]
    assert " 0% packet loss" in inside.run("ping", "-c", "3", "-i", "0.01", "-W", "20", INSIDE)
    transfer(inside, server, INSIDE, SIZE)
    transfer(server, inside, address.partition("/")[0], SIZE)


def end(client: "subprocess.Popen[str]", inside: Network, *left: str) -> None:
    """End OpenConnect, and check that only the links `left` are there then."""
    client.send_signal(signal.SIGINT)
    client.wait(20)
    assert come_true(lambda: links(inside) == set(left), 20)


@needs_openconnect
def test_64_mib_pass_both_ways_to_an_adapter_in_another_namespace(
    network: Network, elsewhere: Network, tmp_path: Path
) -> None:
    script = f"exec {THREEPIPE} script-tun tun:vpn0,netns={elsewhere.path}"
    with connected(network, tmp_path, script) as (server, client):
        carries(elsewhere, server, tmp_path / "client")
        end(client, elsewhere)


@needs_openconnect
def test_64_mib_pass_both_ways_through_a_python_program(network: Network, elsewhere: Network, tmp_path: Path) -> None:
    (tmp_path / "bridge.py").write_text(BRIDGE)
    script = f"exec {sys.executable} -W error {tmp_path}/bridge.py {elsewhere.path}"
    with connected(network, tmp_path, script) as (server, client):
        carries(elsewhere, server, tmp_path / "client")
        end(client, elsewhere)


@needs_openconnect
def test_64_mib_pass_both_ways_to_an_adapter_of_an_ordinary_user_from_the_service(
    network: Network, tmp_path: Path
) -> None:
    script = f"exec {PYTHON} -W error -m threepipe script-tun tun:vpn0"
    with serving(network, tmp_path, POLICY) as service:
        before = ["env", f"THREEPIPE_SERVE={service.path}", *as_user(network, "-c", BECOME)]
        with connected(network, tmp_path, script, before) as (server, client):
            carries(network, server, tmp_path / "client")
            end(client, network, "v2")


def pass_port(server: Network, address: str, client: Network) -> None:
    """Send `SIZE` bytes each way through the local port 9000 to the port 8000 of the server, and compare hashes."""
    listening = server.namespace.run(lambda: socket.create_server((address, 8000)))
    with listening, client.namespace.run(lambda: socket.create_connection(("127.0.0.1", 9000), 20)) as near:
        listening.settimeout(30)
        far, _ = listening.accept()
        with far:
            for sender, receiver in ((near, far), (far, near)):
                data, received, count = random.Random(SIZE).randbytes(SIZE), hashlib.sha256(), 0
                receiver.settimeout(60)
                thread = threading.Thread(target=sender.sendall, args=(data,))
                thread.start()
                while count < SIZE and (part := receiver.recv(MIB)):
                    received.update(part)
                    count += len(part)
                thread.join()
                assert (count, received.digest()) == (SIZE, hashlib.sha256(data).digest())


def listens(network: Network) -> bool:
    return "127.0.0.1:9000" in network.run("ss", "-lntH", "src", "127.0.0.1:9000")


@needs_ocproxy
def test_64_mib_pass_both_ways_through_ocproxy_on_an_adapter_of_exec(network: Network) -> None:
    proxy = ["ocproxy", "-L", "9000:10.6.7.1:8000"]
    words = ["exec", "--tun", "tp0,address=10.6.7.1/24", "--user", "nobody", "--", *proxy]
    command = network.command("env", "INTERNAL_IP4_ADDRESS=10.6.7.2", *THREEPIPE.split(), *words)
    with subprocess.Popen(command) as program:
        try:
            assert come_true(lambda: listens(network), 20)
            pass_port(network, "10.6.7.1", network)
        finally:
            program.terminate()


@needs_ocproxy
@needs_openconnect
def test_64_mib_pass_both_ways_through_ocproxy_without_any_root(network: Network, tmp_path: Path) -> None:
    script = f"exec {PYTHON} -W error -m threepipe script-tun 'exec,datagrams:ocproxy -L 9000:{INSIDE}:8000'"
    tmp_path.chmod(0o755)
    with connected(network, tmp_path, script, as_user(network, "-c", BECOME)) as (server, _):
        assert come_true(lambda: listens(network), 30), (tmp_path / "client").read_text()
        pass_port(server, INSIDE, network)
