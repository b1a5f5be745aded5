"""ocproxy, a program for OpenConnect's packets, on an adapter of `exec` and at the end of a pipe."""

import shutil
import socket
import subprocess
import sys

import pytest

from tests.support.kernel import Network, needs_root
from tests.support.waiting import come_true

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(not shutil.which("ocproxy"), reason="ocproxy is not there; install it"),
]

ADAPTER = "tp0,address=10.6.7.1/24"
PROXY = "env INTERNAL_IP4_ADDRESS=10.6.7.2 INTERNAL_IP4_MTU=1400 ocproxy -L 9000:10.6.7.1:8000"
STARTS = [
    pytest.param(["exec", "--tun", ADAPTER, "--user", "nobody", "--", *PROXY.split()], marks=needs_root, id="exec"),
    pytest.param(["pipe", f"tun:{ADAPTER}", f"exec,datagrams:{PROXY}"], id="pipe"),
]


@pytest.mark.parametrize("words", STARTS)
def test_ocproxy_forwards_a_port_to_a_server_behind_the_adapter(network: Network, words: list[str]) -> None:
    with subprocess.Popen(network.command(sys.executable, "-m", "threepipe", *words)) as program:
        try:
            listening = "ss", "-lntH", "src", "127.0.0.1:9000"
            assert come_true(lambda: "127.0.0.1:9000" in network.run(*listening), 20)
            with (
                network.namespace.run(lambda: socket.create_server(("10.6.7.1", 8000))) as server,
                network.namespace.run(lambda: socket.create_connection(("127.0.0.1", 9000), 20)) as client,
            ):
                server.settimeout(20)
                accepted, (address, _) = server.accept()
                with accepted:
                    assert address == "10.6.7.2"
                    for sender, receiver in ((client, accepted), (accepted, client)):
                        receiver.settimeout(20)
                        sender.sendall(b"hello")
                        assert receiver.recv(100) == b"hello"
        finally:
            program.terminate()
