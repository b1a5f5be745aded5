"""`threepipe serve`: the adapters that its callers get, what it refuses, and what is left when a caller goes."""

import fcntl
import json
import os
import random
import resource
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.kernel import STRANGER, Network, links, needs_root
from tests.support.ordinary import as_user, threepipe_as_user
from tests.support.service import POLICY, Service, answer_to, ask, close_all, hurl, send, serving
from tests.support.waiting import come_true

if sys.platform != "linux":
    pytest.skip(f"{sys.platform} has no service", allow_module_level=True)

from threepipe.errors import EndpointError, InvalidSetting
from threepipe.platforms.linux.service.listening import listen
from threepipe.platforms.linux.service.policy import read_policy

pytestmark = [pytest.mark.kernel, needs_root]

TUNSETPERSIST = 0x400454CB


@pytest.fixture
def service(network: Network, tmp_path: Path) -> Iterator[Service]:
    with serving(network, tmp_path) as running:
        yield running


USE = """
import threepipe
for offload, queues in ((True, 1), (True, 3), (False, 1)):
    with threepipe.Adapter.create(
        "vpn%d", addresses=["10.6.7.1/24", "fd67::1/64"], routes=["10.9.0.0/16"], mtu=1400,
        offload=offload, queues=queues,
    ) as adapter:
        assert adapter.name == "vpn0" and not adapter.link_up
        adapter.mtu = 1300
        adapter.add_address("10.6.8.1/24")
        adapter.add_route("10.8.0.0/16")
        adapter.remove_route("10.8.0.0/16")
        adapter.remove_address("10.6.8.1/24")
        assert (adapter.mtu, [*map(str, adapter.routes)]) == (1300, ["10.9.0.0/16"])
        with adapter.start_session() as session:
            assert adapter.link_up
            import socket
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.sendto(b"hello", ("10.9.1.1", 9))
            while not any(bytes(packet).endswith(b"hello") for packet in session.receive(timeout=20)):
                pass
        assert not adapter.link_up
        for call in (lambda: adapter.add_address("10.7.0.1/24"), lambda: adapter.add_route("0.0.0.0/0")):
            try:
                call()
            except threepipe.PermissionDenied as error:
                assert "the policy of threepipe serve refuses the" in str(error), error
            else:
                raise AssertionError
assert not threepipe.adapters()
"""


def test_an_adapter_is_created_and_used_without_privilege(service: Service) -> None:
    words = as_user(service.network, "-W", "error", "-c", USE)
    done = subprocess.run(words, env=service.environment, capture_output=True, text=True, timeout=50)
    assert (done.returncode, done.stderr) == (0, "")
    assert come_true(lambda: links(service.network) == set())
    log = service.path.with_name("log").read_text()
    assert f"user {STRANGER}, process" in log
    assert "has got the adapter vpn0" in log


def test_tun_and_exec_use_it_by_themselves(service: Service) -> None:
    words = threepipe_as_user(service.network, "pipe", "tun:tp0,address=10.6.7.1/24", "echo:", "--run")
    done = subprocess.run([*words, "ping -c 1 -W 20 10.6.7.8"], env=service.environment, timeout=50)
    assert done.returncode == 0
    words = threepipe_as_user(service.network, "exec", "--tun", "tp0,address=10.6.7.1/24", "--", "ip", "-br", "link")
    assert "tp0 " in subprocess.run(words, env=service.environment, capture_output=True, text=True, timeout=50).stdout
    assert come_true(lambda: links(service.network) == set())


def test_another_namespace_is_given_by_name(network: Network, tmp_path: Path) -> None:
    name = f"tpserve{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True, timeout=50)
    try:
        with serving(network, tmp_path, POLICY + 'namespaces = ["tpserve*"]\n') as service:
            code = f"""
import threepipe
with threepipe.Adapter.create("tp0", netns="{name}", addresses=["10.6.7.1/24"]) as adapter, adapter.start_session():
    info = adapter.info
    assert (info.name, info.link_up, [*map(str, info.addresses)][0]) == ("tp0", True, "10.6.7.1/24"), info
"""
            words = as_user(network, "-W", "error", "-c", code)
            done = subprocess.run(words, env=service.environment, capture_output=True, text=True, timeout=50)
            assert (done.returncode, done.stderr) == (0, "")
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=True, timeout=50)


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


def test_an_adapter_made_persistent_and_kept_open_goes_with_the_connection(service: Service) -> None:
    with service.connect() as caller:
        (number,) = service.create(caller, name="tp0")
        fcntl.ioctl(number, TUNSETPERSIST, 1)
    assert come_true(lambda: links(service.network) == set())
    os.close(number)


def test_descriptors_of_callers_are_not_taken(service: Service) -> None:
    before = service.descriptors()
    with service.connect() as caller:
        many = [os.dup(0) for _ in range(100)]
        socket.send_fds(caller, [json.dumps({"op": "create", "name": "tp0"}).encode()], many)
        close_all(many)
        answer, numbers = ask(caller, op="info")
        assert "name" in answer
        assert service.descriptors() < before + len(many)
        close_all(numbers)
    assert come_true(lambda: service.descriptors() == before)


def test_a_hundred_callers_at_once_get_an_adapter_each_and_leave_nothing(service: Service) -> None:
    before = service.descriptors()
    callers = [service.connect() for _ in range(100)]
    for caller in callers:
        caller.send(json.dumps({"op": "create", "name": "tp%d", "addresses": ["10.6.7.1/32"]}).encode())
    answers = [answer_to(caller) for caller in callers]
    assert {answer["name"] for answer, _ in answers} == {f"tp{number}" for number in range(100)}
    for _, numbers in answers:
        close_all(numbers)
    for caller in callers:
        caller.close()
    assert come_true(lambda: links(service.network) == set(), 30)
    assert come_true(lambda: service.descriptors() == before)


@contextmanager
def shortage(service: Service) -> Iterator[None]:
    """Let the service open no descriptor while the block runs."""
    pid = service.process.pid
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, before[1]))
    yield
    resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


def test_callers_are_accepted_after_a_shortage_without_any(service: Service) -> None:
    log = service.path.with_name("log")
    with shortage(service):
        caller = service.connect()
        assert come_true(lambda: "no caller can be heard: Too many open files" in log.read_text())
    with caller:
        close_all(service.create(caller, name="tp0"))


def test_a_shortage_while_an_adapter_is_created_is_told(service: Service) -> None:
    before = service.descriptors()
    with service.connect() as caller:
        assert come_true(lambda: service.descriptors() == before + 1)
        with shortage(service):
            answer, _ = ask(caller, op="create", name="tp0")
        assert answer["text"] == "Too many open files"
    assert come_true(lambda: service.descriptors() == before)


def test_random_requests_leave_nothing(service: Service) -> None:
    before = service.descriptors()
    hurl(service, 300, random.Random(5))
    assert come_true(lambda: service.descriptors() == before)
    assert links(service.network) == set()


STEPS = ("connect", "send", "answer", "session")
KILLED = """
import json, os, signal, socket, sys
step = {step!r}
caller = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
caller.connect({socket!r})
def die(at):
    if at == step:
        os.kill(os.getpid(), signal.SIGKILL)
die("connect")
if step == "session":
    import threepipe
    caller.close()
    threepipe.Adapter.create("tp0").start_session()
    die("session")
caller.send(json.dumps({{"op": "create", "name": "tp0"}}).encode())
die("send")
caller.recvmsg(65536, 1000)
die("answer")
"""


@pytest.mark.parametrize("step", STEPS)
def test_a_caller_killed_at_any_step_leaves_nothing(service: Service, step: str) -> None:
    before = service.descriptors()
    code = KILLED.format(step=step, socket=str(service.path))
    done = subprocess.run(as_user(service.network, "-c", code), env=service.environment, timeout=50)
    assert done.returncode == -signal.SIGKILL
    assert come_true(lambda: links(service.network) == set() and service.descriptors() == before)


def test_a_killed_service_leaves_adapters_to_their_programs(network: Network, tmp_path: Path) -> None:
    with serving(network, tmp_path) as service, service.connect() as caller:
        numbers = service.create(caller, name="tp0")
        service.process.kill()
        service.process.wait(20)
        assert links(network) == {"tp0"}
        close_all(numbers)
        assert links(network) == set()
        assert service.path.exists()
    with serving(network, tmp_path) as service, service.connect() as caller:  # The file of the socket is replaced.
        close_all(service.create(caller, name="tp0"))


def test_the_end_of_the_service_ends_all_adapters(network: Network, tmp_path: Path) -> None:
    with serving(network, tmp_path) as service:
        caller = service.connect()
        numbers = service.create(caller, name="tp0")
    assert links(network) == set()
    caller.close()
    close_all(numbers)


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


def test_the_socket_may_come_from_systemd(network: Network, tmp_path: Path) -> None:
    (tmp_path / "policy.toml").write_text(POLICY)
    path = tmp_path / "activated"
    with network.namespace.run(lambda: socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)) as listening:
        listening.bind(str(path))
        listening.listen()
        shell = f'exec 3<&{listening.fileno()}; LISTEN_PID=$$ LISTEN_FDS=1 exec "$@"'
        words = [sys.executable, "-W", "error", "-m", "threepipe", "serve", "--policy", str(tmp_path / "policy.toml")]
        command = network.command("bash", "-c", shell, "bash", *words)
        process = subprocess.Popen(command, pass_fds=[listening.fileno()], stderr=subprocess.PIPE, text=True)
    with process:
        service = Service(network, tmp_path, process)
        service.path = path
        with service.connect() as caller:
            close_all(service.create(caller, name="tp0"))
        process.terminate()
        assert process.wait(20) == 0


def test_a_second_service_at_the_same_place_is_refused(service: Service) -> None:
    words = [sys.executable, "-m", "threepipe", "serve", "--policy", str(service.policy), "--socket", str(service.path)]
    done = subprocess.run(service.network.command(*words), capture_output=True, text=True, timeout=50)
    assert (done.returncode, "another service runs there" in done.stderr) == (1, True)


def test_a_file_at_the_place_of_the_socket_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "notes"
    path.write_text("precious")
    with pytest.raises(EndpointError, match="another file is there, so choose another path"):
        listen(path)
    assert path.read_text() == "precious"


def test_the_file_of_a_later_service_at_the_same_place_stays(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    earlier, remove = listen(path)
    path.unlink()
    later, _ = listen(path)
    remove()
    assert path.is_socket()
    earlier.close()
    later.close()


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


UNITS = Path(__file__).parents[2] / "units"


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is missing; install systemd")
def test_systemd_finds_no_fault_in_the_units_and_much_hardening(tmp_path: Path) -> None:
    for name in ("threepipe-serve.socket", "threepipe-serve.service"):
        text = (UNITS / name).read_text().replace("=threepipe ", "=/bin/true ")  # It is not installed here.
        (tmp_path / name).write_text(text)
    names = [str(path) for path in tmp_path.iterdir()]
    checked = subprocess.run(["systemd-analyze", "verify", *names], capture_output=True, text=True, timeout=50)
    assert [line for line in checked.stderr.splitlines() if "threepipe" in line] == []
    # Tenths of the exposure that systemd computes, from 0 to 100; without hardening it is 96.
    words = ["systemd-analyze", "security", "--offline=true", "--threshold=33", str(UNITS / "threepipe-serve.service")]
    assert subprocess.run(words, capture_output=True, timeout=50).returncode == 0
