"""`threepipe serve`: the adapters that its callers get, its place, and what is left when a caller goes."""

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

import pytest

from tests.support.kernel import STRANGER, Network, links, needs_root
from tests.support.ordinary import as_user, threepipe_as_user
from tests.support.service import POLICY, Service, answer_to, ask, close_all, hurl, serving
from tests.support.waiting import come_true

if sys.platform != "linux":
    pytest.skip(f"{sys.platform} has no service", allow_module_level=True)

from threepipe.errors import EndpointError
from threepipe.platforms.linux.service.listening import listen

pytestmark = [pytest.mark.kernel, needs_root]

TUNSETPERSIST = 0x400454CB


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
with threepipe.open_endpoint("tun:tp0,address=10.6.7.1/24,netns={name}"):
    pass
"""
            words = as_user(network, "-W", "error", "-c", code)
            done = subprocess.run(words, env=service.environment, capture_output=True, text=True, timeout=50)
            assert (done.returncode, done.stderr) == (0, "")
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=True, timeout=50)


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
    words = ["systemd-analyze", "security", "--offline=true", "--threshold=24", str(UNITS / "threepipe-serve.service")]
    assert subprocess.run(words, capture_output=True, timeout=50).returncode == 0
