"""The policy of `threepipe serve`: its file, and the requests and callers that the service refuses."""

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.kernel import STRANGER, Network, links, needs_root
from tests.support.ordinary import as_user, threepipe_as_user
from tests.support.service import POLICY, Service, ask, close_all, send, serving
from tests.support.waiting import come_true

if sys.platform != "linux":
    pytest.skip(f"{sys.platform} has no service", allow_module_level=True)

from threepipe.errors import EndpointError, InvalidSetting
from threepipe.platforms.linux.service.policy import read_policy

pytestmark = [pytest.mark.kernel, needs_root]


def test_a_refusal_is_told_with_what_the_policy_allows(service: Service) -> None:
    words = threepipe_as_user(service.network, "pipe", "tun:eth7,address=10.6.7.1/24", "echo:")
    done = subprocess.run(words, env=service.environment, capture_output=True, text=True, timeout=50)
    assert done.returncode == 1
    assert "refuses the name 'eth7' (allowed: vpn%d, tp*); ask who runs it" in done.stderr


REFUSED: dict[str, dict[str, Any]] = {
    "the name 'eth0'": {"name": "eth0"},
    "the name 'vpn'": {"name": "vpn"},
    "the name 'vpn1x'": {"name": "vpn1x"},
    "the name 'xtp0'": {"name": "xtp0"},
    "the name 'Tp0'": {"name": "Tp0"},
    "adapter name 'tp/0'": {"name": "tp/0"},
    "name is not a text": {"name": 5},
    "the request has no name": {},
    "name has characters": {"name": "tp\ud800"},
    "the address 10.7.0.1/24": {"addresses": ["10.7.0.1/24"]},
    "the address 10.6.0.1/15": {"addresses": ["10.6.0.1/15"]},
    "the address 10.6.0.1/8": {"addresses": ["10.6.0.1/8"]},
    "the address fd68::1/64": {"addresses": ["fd68::1/64"]},
    "the address fd67::1/48": {"addresses": ["fd67::1/48"]},
    "the address ::ffff:a06:1/128": {"addresses": ["::ffff:10.6.0.1/128"]},
    "the address 192.0.2.1/32": {"addresses": ["10.6.0.1/24", "192.0.2.1"]},
    "cannot be assigned": {"addresses": ["127.0.0.1/8"]},
    "address 'x'": {"addresses": ["x"]},
    "addresses is not a list": {"addresses": "10.6.0.1/24"},
    "addresses is not a text": {"addresses": [["10.6.0.1/24"]]},
    "addresses is not a list of at most 256": {"addresses": ["10.6.0.1"] * 257},
    "the route 0.0.0.0/0": {"routes": ["0.0.0.0/0"]},
    "the route 11.0.0.0/8": {"routes": ["11.0.0.0/8"]},
    "the route ::/0": {"routes": ["::/0"]},
    "the route fc00::/7": {"routes": ["fc00::/7"]},
    "the route 10.0.0.0/7": {"routes": ["10.0.0.0/8", "10.0.0.0/7"]},
    "route '10.0.0.1/8'": {"routes": ["10.0.0.1/8"]},
    "the namespace 'blue'": {"netns": "blue"},
    "the namespace '1'": {"netns": "1"},
    "the namespace '/proc/1/ns/net'": {"netns": "/proc/1/ns/net"},
    "the namespace '..'": {"netns": ".."},
    "netns is not a text": {"netns": 1},
    "netns has characters": {"netns": "\ud800"},
    "5 queues (allowed: 4)": {"queues": 5},
    "queues is not a number": {"queues": 256},
    "queues is not a number from": {"queues": True},
    "MTU 67": {"mtu": 67},
    "mtu is not a number": {"mtu": 1e3},
    "MTU 65536": {"mtu": 65536},
    "metric 0": {"metric": 0},
    "offload is neither": {"offload": 1},
    "'persistent', which create does not take": {"persistent": True},
    "'owner', which create does not take": {"owner": 0},
}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    network = Network()
    with serving(network, tmp_path_factory.mktemp("service")) as running:
        yield running
    network.namespace.close()


@pytest.mark.parametrize("said", REFUSED)
def test_what_the_policy_does_not_allow_is_refused(shared: Service, said: str) -> None:
    given = REFUSED[said]
    with shared.connect() as caller:
        answer, numbers = ask(
            caller, op="create", **({"name": "tp0"} if given and "name" not in given else {}), **given
        )
        assert said in answer["text"]
        assert not numbers
        assert ask(caller, op="info") == ({}, [])  # It has hung up.
    assert links(shared.network) == set()


@pytest.mark.parametrize(
    "data",
    [b"{", b'{"op": "create", "name": "tp', b"[]", b"5", b"\xff", b"{}", b'{"op": 5}', b'{"op": "x"}', b"[" * 60000,
     b'{"op": "info"}', b'{"op": "mtu", "mtu": 1300}', b" " * 70000, b'{"op": "create", "mtu": ' + b"9" * 60000 + b"}"],
    ids=lambda data: data[:24].decode(errors="replace").strip() or "long",
)  # fmt: skip
def test_half_and_false_requests_end_the_connection(shared: Service, data: bytes) -> None:
    with shared.connect() as caller:
        answer, _ = send(caller, data)
        assert answer["error"] == "InvalidSetting"
        assert ask(caller, op="info") == ({}, [])


def test_a_second_adapter_of_a_connection_is_refused_and_the_first_stays(service: Service) -> None:
    with service.connect() as caller:
        numbers = service.create(caller, name="tp0")
        assert "one adapter" in ask(caller, op="create", name="tp1")[0]["text"]
        assert ask(caller, op="mtu", mtu=1300) == ({}, [])
        assert ask(caller, op="add_route", item="10.1.0.0/16") == ({}, [])
        assert "the route 0.0.0.0/0" in ask(caller, op="add_route", item="0.0.0.0/0")[0]["text"]
        assert links(service.network) == {"tp0"}
        close_all(numbers)
    assert come_true(lambda: links(service.network) == set())


def test_addresses_and_routes_beyond_a_limit_are_refused(service: Service) -> None:
    with service.connect() as caller:
        close_all(service.create(caller, name="tp0"))
        answers = [ask(caller, op="add_route", item="0.0.0.0/0")[0]["text"] for _ in range(1025)]
        assert "the route 0.0.0.0/0" in answers[1023]
        assert "more than 1024 further addresses and routes" in answers[1024]


def test_a_user_without_a_rule_is_refused(service: Service) -> None:
    words = as_user(service.network, "-c", "import threepipe; threepipe.Adapter.create('tp0')", user=61235)
    done = subprocess.run(words, env=service.environment, capture_output=True, text=True, timeout=50)
    assert "the policy of threepipe serve refuses user 61235" in done.stderr


def test_a_member_of_a_group_of_the_policy_gets_an_adapter(network: Network, tmp_path: Path) -> None:
    with serving(network, tmp_path, POLICY.replace(f"users = [0, {STRANGER}]", "groups = [61240]")) as service:
        words = as_user(network, "-c", "import threepipe; threepipe.Adapter.create('tp0').close()")
        env = service.environment
        assert subprocess.run(words, env=env, capture_output=True, timeout=50).returncode == 1
        words[words.index("--clear-groups")] = "--groups=61239,61240"
        assert subprocess.run(words, env=env, capture_output=True, timeout=50).returncode == 0


def test_a_user_has_no_more_adapters_than_the_policy_says(network: Network, tmp_path: Path) -> None:
    with serving(network, tmp_path, POLICY.replace("adapters = 200", "adapters = 2")) as service:
        callers = [service.connect() for _ in range(3)]
        for caller in callers[:2]:
            close_all(service.create(caller, name="tp%d"))
        assert "another adapter (allowed: 2 at once)" in ask(callers[2], op="create", name="tp%d")[0]["text"]
        for caller in callers:
            caller.close()
        assert come_true(lambda: links(network) == set())


def test_a_caller_of_another_network_is_refused(service: Service) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as caller:
        caller.connect(str(service.path))
        assert "another network namespace" in ask(caller, op="create", name="tp0")[0]["text"]


def test_a_changed_policy_is_read_on_sighup(service: Service) -> None:
    log = service.path.with_name("log")
    service.policy.write_text("[[allow]]\nusers = 5\n")
    service.process.send_signal(signal.SIGHUP)
    assert come_true(lambda: "the policy stays as it was" in log.read_text())
    service.policy.write_text(POLICY.replace("tp*", "other*"))
    service.process.send_signal(signal.SIGHUP)

    def refuses() -> bool:
        with service.connect() as caller:
            answer, numbers = ask(caller, op="create", name="tp0")
            close_all(numbers)
            return "error" in answer

    assert come_true(refuses)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("allow = 5", "allow is not a list of sections"),
        ("[[allows]]", "unknown section 'allows'; did you mean allow"),
        ("[[allow]]\nusers = [0]", "section 1 of allow: it has no names of adapters"),
        ('[[allow]]\nnames = ["a"]', "section 1 of allow: it names no users and no groups"),
        ('[[allow]]\nuser = [0]\nnames = ["a"]', "unknown key 'user'; did you mean users"),
        ('[[allow]]\nusers = [0]\nnames = "a"', "names is not a list"),
        ('[[allow]]\nusers = ["nosuchuser"]\nnames = ["a"]', "'nosuchuser' does not exist"),
        ('[[allow]]\ngroups = [-1]\nnames = ["a"]', "ids range from 0"),
        ('[[allow]]\nusers = [true]\nnames = ["a"]', "users is not a list"),
        ('[[allow]]\nusers = [0]\nnames = ["a"]\nroutes = ["x"]', "routes: route 'x'"),
        ('[[allow]]\nusers = [0]\nnames = ["a"]\nadapters = 0', "adapters is not a number"),
        ("[[allow", "correct the file, which is TOML"),
    ],
)
def test_a_policy_with_a_mistake_names_it(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "policy.toml"
    path.write_text(text)
    with pytest.raises(InvalidSetting, match=said):
        read_policy(path)


def test_a_missing_policy_is_named(tmp_path: Path) -> None:
    with pytest.raises(EndpointError, match=r"nothing.toml: No such file.*write a policy there"):
        read_policy(tmp_path / "nothing.toml")
