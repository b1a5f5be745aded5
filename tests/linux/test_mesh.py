"""A node of a mesh with a real adapter, and a bus in memory: its setup, its answers, and its end without leavings."""

import subprocess
import sys
import tempfile
import threading
from dataclasses import replace
from ipaddress import IPv6Address
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from tests.support.kernel import Network, call_elsewhere
from tests.support.mesh_bus import AUTHORITY, NETWORKS, YEAR, FakeBus, Hub, Signer
from tests.support.waiting import come_true
from threepipe.errors import EndpointError, InvalidSetting, NameTaken
from threepipe.mesh import Agent, Certificate, Joining, Store, join
from threepipe.mesh.agent import now
from threepipe.mesh.control import ask, interfaces
from threepipe.mesh.records import Record, public_part
from threepipe.net.connect import HostPort
from threepipe.wireguard import key_to_text, link_local

if sys.platform != "linux":
    pytest.skip(f"{sys.platform} has no namespaces", allow_module_level=True)

pytestmark = pytest.mark.kernel

RUN = "mount -t tmpfs none /run"


def joining(folder: Path, hub: Hub) -> Joining:
    store = Store(folder)
    request = store.keys().request("gw")
    made = Certificate.issue(AUTHORITY, request, (), now(), now() + YEAR)
    store.put_certificate(f"{made.text}\n{key_to_text(public_part(AUTHORITY))}\n")
    return Joining(
        store, FakeBus(hub), NETWORKS, port=0, endpoints=[("198.51.100.1", 7)], metrics=HostPort("127.0.0.1", 9586)
    )


def stay(requests: list[str]) -> list[Any]:
    """Join in this process, and send these requests. Return the answers, and the leavings afterwards."""
    hub = Hub()
    other = Signer("other", ["fd12:0:0:7::/64", "10.42.7.0/24"])
    hub.put("other", other.record(endpoints=[("127.0.0.1", 9)]).text.encode())
    answers: list[Any] = [str(link_local(other.request.key))]

    def work() -> None:
        assert come_true(lambda: ask("mesh0", "status")["nodes"] and "gw" in hub.records, 20)
        for request in requests:
            try:
                answers.append(ask("mesh0", request))
            except EndpointError as error:
                answers.append(error.strerror)
            if request == "status":
                answers.append(urlopen("http://127.0.0.1:9586/metrics").read().decode())
                answers.append(shell("ip -6 route; ip -4 route; ip -6 address show dev mesh0"))

    threads: list[threading.Thread] = []

    def ready(agent: Agent) -> None:
        threads.append(threading.Thread(target=work))
        threads[0].start()

    with tempfile.TemporaryDirectory() as folder:
        join(joining(Path(folder), hub), ready)
        threads[0].join()
    own = Record.parse(hub.records["gw"], public_part(AUTHORITY))
    return [*answers, own.left, list(interfaces()), shell("ip link; ls /run/wireguard 2>/dev/null || true")]


def shell(command: str) -> str:
    return subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True).stdout


def test_a_node_is_set_up_answers_and_leaves_nothing_behind(network: Network) -> None:
    hop, status, metrics, setup, wrong, left, own_left, found, after = call_elsewhere(
        network, stay, ["status", "frob", "leave"], mounts=RUN
    )
    (node,) = status["nodes"]
    assert (status["interface"], status["name"], status["member"], status["bus"]) == ("mesh0", "gw", True, True)
    assert (node["name"], node["next_hop"], node["round_trip"]) == ("other", "other", None)
    assert status["endpoints"][0] == "198.51.100.1:7"
    assert 'wireguard_peers{interface="mesh0"} 1.0' in metrics
    assert f"{IPv6Address(node['address'])} via {hop} dev mesh0" in setup
    assert f"fd12:0:0:7::/64 via {hop} dev mesh0" in setup
    assert f"10.42.7.0/24 via inet6 {hop} dev mesh0" in setup
    assert f"{status['address']}/128" in setup
    assert "fd12::/48 dev mesh0" in setup  # Nothing for the mesh leaves by another interface.
    assert wrong == "mesh0: unknown request 'frob'"
    assert left == {"warning": None}
    assert own_left
    assert found == []
    assert "mesh0" not in after


def test_an_agent_that_does_not_run_cannot_be_asked(network: Network) -> None:
    advice = "no agent runs for mesh0; start one with: threepipe mesh join"
    assert call_elsewhere(network, ask_nobody, mounts=RUN) == advice


def ask_nobody() -> str:
    try:
        ask("mesh0", "status")
    except EndpointError as error:
        return str(error.strerror).partition("; ")[2]
    return ""


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"name": "other"}, "the certificate is of gw, not of other"),
        ({"expiry": 1}, "give 2 to 86400 seconds"),
        ({"networks": NETWORKS[1:]}, "give one by --prefix"),
    ],
    ids=["name", "expiry", "networks"],
)
def test_settings_that_cannot_work_are_refused_before_anything_is_made(
    tmp_path: Path, options: dict[str, Any], text: str
) -> None:
    made = joining(tmp_path, Hub())
    with pytest.raises(InvalidSetting, match=text):
        join(replace(made, **options), lambda agent: None)


def test_an_interface_that_is_there_is_left_alone_with_advice(tmp_path: Path) -> None:
    made = replace(joining(tmp_path, Hub()), interface="lo")
    with pytest.raises(NameTaken, match="end its agent by threepipe mesh leave"):
        join(made, lambda agent: None)


def test_a_certificate_for_other_keys_is_refused(tmp_path: Path) -> None:
    made = joining(tmp_path, Hub())
    made.store.put_certificate(Signer("gw").text())
    with pytest.raises(InvalidSetting, match="is not for the keys"):
        made.check()
