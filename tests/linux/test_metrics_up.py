"""Metrics of `threepipe wg up` and `threepipe-wg` at the address of `--metrics`, also over a takeover."""

import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.takeovers import LOOK, Host, two_hosts

pytestmark = pytest.mark.kernel

PORT = 9586
WG = ("-W", "error", "-c", "from threepipe.wireguard.quick.daemon import main; raise SystemExit(main())")


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[tuple[Host, Host]]:
    with two_hosts(tmp_path) as hosts:
        yield hosts


def scrape(host: Host) -> str:
    """Return the answer to a request, from its first line on."""
    with host.network.namespace.run(lambda: socket.create_connection(("127.0.0.1", PORT), 20)) as connection:
        connection.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        with connection.makefile("rb") as answer:
            return answer.read().decode()


def test_up_serves_metrics_until_it_ends_and_a_new_process_goes_on(hosts: tuple[Host, Host]) -> None:
    left, right = hosts
    old = left.up("--metrics", str(PORT))
    right.up()
    left.ping(right)
    assert f'wireguard_sessions{{interface="{left.name}"}} 1.0\n' in scrape(left)
    new = left.up("--takeover", "--metrics", f"127.0.0.1:{PORT}")
    assert old.wait(20) == 0
    answer = scrape(left)
    assert answer.startswith("HTTP/1.0 200 OK")
    assert f'wireguard_sessions{{interface="{left.name}"}} 1.0\n' in answer
    assert f'allowed_ips="{right.inside}/32",interface="{left.name}",public_key="{left.peer_of(right)}"' in answer
    new.terminate()
    assert new.wait(20) == 0
    with pytest.raises(ConnectionRefusedError):
        scrape(left)


def test_up_at_an_address_in_use_fails_and_leaves_nothing(hosts: tuple[Host, Host]) -> None:
    left, _ = hosts
    before = left.shell(LOOK)
    with left.network.namespace.run(lambda: socket.create_server(("127.0.0.1", PORT))):
        status, said = left.threepipe("wg", "up", "--daemon", "--metrics", str(PORT), str(left.path))
    assert status == 1
    assert f"listening at 127.0.0.1:{PORT}: Address already in use" in said
    assert left.shell(LOOK) == before


def test_a_takeover_goes_on_without_metrics_where_another_program_has_the_address(hosts: tuple[Host, Host]) -> None:
    left, right = hosts
    old = left.up()
    right.up()
    new = left.up("--takeover", "--metrics", "192.0.2.9:1")
    assert old.wait(20) == 0
    left.ping(right)
    assert new.poll() is None
    assert f"the metrics of {left.name} are not served: listening at 192.0.2.9:1" in "".join(left.said)


def test_threepipe_wg_serves_metrics_in_the_background(hosts: tuple[Host, Host]) -> None:
    left, _ = hosts
    assert left.start(sys.executable, *WG, "--metrics", str(PORT), left.name).wait(20) == 0
    assert f'wireguard_peers{{interface="{left.name}"}} 0.0\n' in scrape(left)
    assert left.start(sys.executable, *WG, "--takeover", "--metrics", str(PORT), left.name).wait(20) == 0
    assert f'wireguard_peers{{interface="{left.name}"}} 0.0\n' in scrape(left)
    assert left.threepipe("wg", "down", left.name) == (0, "")
    with pytest.raises(ConnectionRefusedError):
        scrape(left)


@pytest.mark.parametrize(
    ("words", "told"),
    [(["--metrics", "here", "take1"], "'here' is not [HOST:]PORT"), (["--metrics", "take1"], "usage: threepipe-wg")],
)
def test_threepipe_wg_refuses_a_wrong_address(hosts: tuple[Host, Host], words: list[str], told: str) -> None:
    left, _ = hosts
    process = left.start(sys.executable, *WG, "-f", *words)
    assert told in process.communicate(timeout=20)[1]
    assert process.returncode == 1
