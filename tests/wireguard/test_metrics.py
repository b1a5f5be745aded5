"""Metrics of a device for Prometheus: their names, labels and values, and the server's life."""

import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from http.client import HTTPConnection
from urllib.error import URLError
from urllib.request import Request, urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.device_pair import BACK, SECONDS, THERE, Pair, received
from tests.support.waiting import come_true
from tests.support.wireguard_pair import new_key
from threepipe.errors import EndpointError, InvalidSetting, SessionClosed
from threepipe.net.connect import HostPort
from threepipe.wireguard import Change, Device, PeerChange, key_to_text
from threepipe.wireguard.metrics import serve_metrics

OPENMETRICS = "application/openmetrics-text;version=1.0.0"


def scrape(address: HostPort, **headers: str) -> tuple[str, str]:
    """Return the type and the text of the metrics."""
    with urlopen(Request(f"http://{address}/metrics", headers=headers), timeout=SECONDS) as answer:
        return answer.headers["Content-Type"], answer.read().decode()


def samples(address: HostPort) -> dict[str, dict[tuple[str, ...], float]]:
    """Return values by the name of the metric, and the values of its labels in alphabetical order of their names."""
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(scrape(address)[1]):
        for sample in family.samples:
            labels = tuple(value for _, value in sorted(sample.labels.items()))
            found.setdefault(sample.name, {})[labels] = sample.value
    return found


@pytest.fixture
def device() -> Iterator[Device]:
    with Device(private_key=new_key()) as device:
        yield device


def test_the_metrics_of_peers_are_those_of_the_exporter(pair: Pair) -> None:
    server = serve_metrics(pair.left, "wg0", "0")
    peer = ("10.0.0.2/32,fd00::2/128", "wg0", key_to_text(pair.public[1]))
    assert samples(server.address)["wireguard_latest_handshake_seconds"] == {peer: 0}
    assert samples(server.address)["wireguard_sessions"] == {("wg0",): 0}
    before = time.time()
    answered = threading.Thread(target=received, args=(pair.left, 1))
    answered.start()
    pair.left.session.send_packet(THERE)
    received(pair.right, 1)
    pair.right.session.send_packet(BACK)
    answered.join()
    status = pair.left.status().peers[0]
    found = samples(server.address)
    assert found["wireguard_sent_bytes_total"] == {peer: status.tx_bytes}
    assert found["wireguard_received_bytes_total"] == {peer: status.rx_bytes}
    assert before - 2 < found["wireguard_latest_handshake_seconds"][peer] < time.time() + 2
    assert found["wireguard_peers"] == {("wg0",): 1}
    assert found["wireguard_sent_packets_total"] == {("wg0",): 1}
    assert found["wireguard_received_packets_total"] == {("wg0",): 1}
    assert found["wireguard_sessions"] == {("wg0",): 1}


def test_dropped_packets_are_counted_by_reason(device: Device) -> None:
    server = serve_metrics(device, "wg0", "0")
    assert "wireguard_rejected_total" not in samples(server.address)
    device.session.send_packet(THERE)
    assert samples(server.address)["wireguard_rejected_total"] == {("wg0", "no peer for the destination"): 1}


def test_names_of_types_and_the_format_are_those_that_prometheus_expects(device: Device) -> None:
    server = serve_metrics(device, 'a"b\\c\nd', "0")
    kind, text = scrape(server.address)
    assert kind == "text/plain; version=0.0.4; charset=utf-8"
    assert "# TYPE wireguard_sent_bytes_total counter\n" in text
    assert "# TYPE wireguard_latest_handshake_seconds gauge\n" in text
    assert 'wireguard_peers{interface="a\\"b\\\\c\\nd"} 0.0\n' in text
    kind, text = scrape(server.address, Accept=OPENMETRICS)
    assert kind.startswith("application/openmetrics-text")
    assert text.endswith("# EOF\n")


def test_a_port_alone_is_at_the_loopback_address(device: Device) -> None:
    with serve_metrics(device, "wg0", "0") as server:
        assert server.address.host == "127.0.0.1"
    with serve_metrics(device, "wg0", "[::1]:0") as server:
        assert server.address.host == "::1"
        assert samples(server.address)["wireguard_peers"] == {("wg0",): 0}


def test_a_server_that_is_closed_gives_its_address_to_the_next(device: Device) -> None:
    with serve_metrics(device, "wg0", "0") as server:
        address = server.address
        with pytest.raises(EndpointError, match=r"in use|uses it"):
            serve_metrics(device, "wg0", address)
    server.close()
    with serve_metrics(device, "wg1", str(address)) as another:
        assert samples(another.address)["wireguard_peers"] == {("wg1",): 0}


def test_the_server_ends_with_its_device() -> None:
    device = Device(private_key=new_key())
    server = serve_metrics(device, "wg0", "0")
    device.close()
    with pytest.raises(URLError):
        scrape(server.address)


def test_a_device_that_is_closed_has_no_server() -> None:
    device = Device(private_key=new_key())
    device.close()
    with pytest.raises(SessionClosed):
        serve_metrics(device, "wg0", "0")


@pytest.mark.parametrize("address", ["", "127.0.0.1:http", "::1:9586", "70000"])
def test_what_is_no_address_is_refused(device: Device, address: str) -> None:
    with pytest.raises(InvalidSetting):
        serve_metrics(device, "wg0", address)


def test_an_address_of_another_machine_is_refused(device: Device) -> None:
    with pytest.raises(EndpointError):
        serve_metrics(device, "wg0", "192.0.2.1:0")


def test_without_the_library_the_error_says_what_to_install(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(InvalidSetting, match=r'pip install "threepipe\[metrics\]"'):
        serve_metrics(device, "wg0", "0")


def test_silent_clients_keep_nobody_waiting_and_those_beyond_a_limit_are_refused(device: Device) -> None:
    server = serve_metrics(device, "wg0", "0")
    others = threading.enumerate()
    with ExitStack() as stack:
        silent = [stack.enter_context(socket.create_connection(server.address)) for _ in range(15)]
        assert samples(server.address)["wireguard_peers"] == {("wg0",): 0}

        def refused() -> bool:
            """Connect one more client, which stays unless it is refused."""
            silent.append(stack.enter_context(socket.create_connection(server.address)))
            silent[-1].settimeout(0.1)
            try:
                return silent[-1].recv(1) == b""
            except ConnectionResetError:
                return True
            except TimeoutError:
                return False

        assert come_true(refused, SECONDS)

    def served() -> bool:
        try:
            return bool(samples(server.address))
        except (URLError, ConnectionError):
            return False

    assert come_true(served, SECONDS)
    for thread in set(threading.enumerate()).difference(others):
        thread.join(SECONDS)  # Each closes the socket of a client that has left.


def test_a_method_other_than_get_is_refused(device: Device) -> None:
    server = serve_metrics(device, "wg0", "0")
    connection = HTTPConnection(*server.address, timeout=SECONDS)
    connection.request("POST", "/metrics", b"x")
    assert connection.getresponse().status == 405
    connection.close()


def test_peers_that_come_and_go_are_followed(device: Device) -> None:
    server = serve_metrics(device, "wg0", "0")
    device.configure(Change(peers=[PeerChange(bytes([number]) * 32) for number in (1, 2)]))
    assert len(samples(server.address)["wireguard_sent_bytes_total"]) == 2
    device.configure(Change(peers=[PeerChange(bytes([1]) * 32, remove=True)]))
    assert list(samples(server.address)["wireguard_sent_bytes_total"]) == [("", "wg0", key_to_text(bytes([2]) * 32))]
