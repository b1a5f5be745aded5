"""OpenConnect, which leaves its packets to a program, and its server ocserv."""

import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
import trustme

from tests.support.kernel import Network, cable
from tests.support.waiting import come_true

__all__ = ["INSIDE", "connected", "needs_openconnect"]

needs_openconnect = pytest.mark.skipif(
    not shutil.which("openconnect") or not shutil.which("ocserv"),
    reason="one of openconnect and ocserv is not there; install both",
)

INSIDE = "10.77.0.1"
"""The server's address in the tunnel."""

SERVER = """
auth = "plain[passwd={folder}/users]"
tcp-port = 4433
udp-port = 4433
socket-file = {folder}/control
server-cert = {folder}/certificate.pem
server-key = {folder}/key.pem
run-as-user = root
run-as-group = root
isolate-workers = false
max-clients = 4
device = vpns
ipv4-network = 10.77.0.0
ipv4-netmask = 255.255.255.0
ipv6-network = fd77::/64
"""


@contextmanager
def ocserv(network: Network, folder: Path) -> Iterator[None]:
    """Run a server at 192.0.2.1, with a user ann."""
    authority = trustme.CA()
    certificate = authority.issue_cert("192.0.2.1")
    certificate.private_key_pem.write_to_path(str(folder / "key.pem"))
    certificate.cert_chain_pems[0].write_to_path(str(folder / "certificate.pem"))
    authority.cert_pem.write_to_path(str(folder / "authority.pem"))
    (folder / "settings").write_text(SERVER.format(folder=folder))
    subprocess.run(["ocpasswd", "-c", folder / "users", "ann"], input="secret\nsecret\n", text=True, check=True)
    command = network.command("ocserv", "-f", "-c", str(folder / "settings"))
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            assert come_true(lambda: ":4433" in network.run("ss", "-lntH"), 20)
            yield
        finally:
            server.terminate()


@contextmanager
def connected(
    network: Network, folder: Path, script: str, before: Sequence[str] = ()
) -> Iterator[tuple[Network, "subprocess.Popen[str]"]]:
    """Start OpenConnect in `network`; it leaves its packets to the line `script` of sh.

    `before` are the words before its command, which start it there in another way. Yield the network of its server,
    and OpenConnect, whose output goes to the file `client` in `folder`.
    """
    server = Network()
    try:
        cable(server, network)
        (folder / "script").write_text(f"#!/bin/sh\n{script}\n")
        (folder / "script").chmod(0o755)
        words = ["--cafile", str(folder / "authority.pem"), "--passwd-on-stdin", "--user", "ann"]
        words += ["--script-tun", "--script", str(folder / "script"), "192.0.2.1:4433"]
        command = [*(before or network.command()), "openconnect", *words]
        with (
            ocserv(server, folder),
            (folder / "client").open("w") as log,
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=log, text=True) as client,
        ):
            try:
                assert client.stdin is not None
                client.stdin.write("secret\n")
                client.stdin.flush()
                yield server, client
            finally:
                client.kill()
    finally:
        server.namespace.close()
