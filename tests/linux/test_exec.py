"""`threepipe exec`: the program's descriptor, its privileges, and the clean-up at its end."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import threepipe
from tests.support.kernel import STRANGER, Network, links, needs_root
from tests.support.waiting import come_true

if sys.platform != "linux":
    pytest.skip(f"{sys.platform} has no descriptors of adapters", allow_module_level=True)

from threepipe.endpoints.handover import HEADERS

pytestmark = pytest.mark.kernel

NET_ADMIN = 1 << 12
PYTHON = shutil.which("python3", path="/usr/bin:/usr/local/bin") or sys.executable
"""One that every user may run."""
ADDRESSED = "tp0,address=10.6.7.1/24"

TELL = """
import fcntl, json, os, struct, sys
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
number = int(sys.argv[1])
name, flags = struct.unpack("16sH22x", fcntl.ioctl(number, 0x800454D2, bytes(40)))
opened = [int(name) for name in os.listdir("/proc/self/fd")]
print(json.dumps({
    "environment": dict(os.environ), "pid": os.getpid(), "number": number, "name": name.strip(b"\\0").decode(),
    "ids": [os.getresuid(), os.getresgid(), os.getgroups()],
    "capabilities": {name: int(status[name], 16) for name in ("CapPrm", "CapEff", "CapInh", "CapAmb")},
    "no_new_privileges": int(status["NoNewPrivs"]),
    "vnet": bool(flags & 0x4000), "blocking": os.get_blocking(number),
}))
"""
"""A program that prints its arguments and environment, as JSON."""


def command(network: Network, *arguments: str) -> list[str]:
    return network.command(sys.executable, "-W", "error", "-m", "threepipe", "exec", *arguments)


def told(network: Network, *options: str, **more: Any) -> dict[str, Any]:
    """Run the program that prints its arguments, with a descriptor by `{fd}`."""
    # -S, as the folders of Python's other packages may be closed to the user.
    words = command(network, *options, "--", PYTHON, "-I", "-S", "-c", TELL, "{fd}")
    done = subprocess.run(words, capture_output=True, text=True, timeout=50, **more)
    assert (done.returncode, done.stderr) == (0, "")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def refusal(network: Network, *arguments: str) -> str:
    """Return what `exec` complains of, and check that it fails and leaves nothing."""
    done = subprocess.run(command(network, *arguments), capture_output=True, text=True, timeout=50)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert links(network) == set()
    return done.stderr


@contextmanager
def running(network: Network, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run `exec` with a program that prints a line when it is there."""
    with subprocess.Popen(command(network, *arguments), stdout=subprocess.PIPE, text=True) as program:
        try:
            assert program.stdout is not None
            assert program.stdout.readline() == "here\n"
            yield program
        finally:
            program.kill()


STAY = ["--", "sh", "-c", "echo here; exec sleep 1000"]


@pytest.mark.parametrize("header", HEADERS)
def test_the_number_is_told_by_each_convention_of_the_form(network: Network, header: str) -> None:
    found = told(network, "--tun", "tp%d,address=10.6.7.1/24,mtu=1400", "--header", header)
    environment = found["environment"]
    named = {name for names in HEADERS.values() for name in names if environment.get(name) == str(found["number"])}
    assert named == set(HEADERS[header])
    assert environment["LISTEN_PID"] == str(found["pid"])
    assert (found["number"], environment["LISTEN_FDS"], environment["LISTEN_FDNAMES"]) == (3, "1", "tun")
    assert environment.get("INTERNAL_IP4_MTU") == ("1400" if header == "none" else None)
    assert (found["name"], found["vnet"], found["blocking"]) == ("tp0", header == "vnet", True)
    assert links(network) == set()


def test_the_program_ignores_no_signal_that_python_ignores(network: Network) -> None:
    done = subprocess.run(command(network, "--tun", "tp0", "cat", "/proc/self/status"), capture_output=True, text=True)
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("SigIgn")]
    assert not int(line.split()[1], 16) & 1 << (signal.SIGPIPE - 1)


def test_numbers_of_a_program_around_it_are_not_passed_on(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XRAY_TUN_FD", "3")
    monkeypatch.setenv("TUNTAP_SOCKET_FD", "3")
    environment = told(network, "--tun", "tp0", "--header", "packet-information")["environment"]
    assert not {"XRAY_TUN_FD", "TUNTAP_SOCKET_FD"} & environment.keys()


def test_a_list_of_the_caller_with_a_number_that_no_descriptor_has_is_ignored(network: Network) -> None:
    words = " ".join(f"'{word}'" for word in command(network, "--tun", "tp0", "--", "env"))
    script = f"export LISTEN_FDS=99999999999999 LISTEN_PID=$$; exec {words}"
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, timeout=50)
    assert (done.returncode, done.stderr) == (0, "")
    assert "LISTEN_FDS=1\n" in done.stdout


def test_without_a_user_the_program_has_those_of_the_caller(network: Network) -> None:
    found = told(network, "--tun", "tp0")
    assert found["ids"][0] == [os.geteuid()] * 3
    assert found["no_new_privileges"] == 0
    assert found["environment"].get("HOME") == os.environ.get("HOME")


@needs_root
@pytest.mark.parametrize("keep", [False, True])
def test_another_user_has_no_privilege_but_the_one_that_is_kept(network: Network, keep: bool) -> None:
    options = ["--keep-net-admin"] if keep else []
    found = told(network, "--tun", "tp0", "--user", str(STRANGER), *options)
    assert found["ids"] == [[STRANGER] * 3, [STRANGER] * 3, []]
    assert set(found["capabilities"].values()) == {NET_ADMIN if keep else 0}
    assert found["no_new_privileges"] == 1


@needs_root
def test_a_user_by_name_has_its_home_and_groups(network: Network) -> None:
    found = told(network, "--tun", "tp0", "--user", "nobody")
    assert found["ids"][0] == [65534] * 3
    assert {name: found["environment"][name] for name in ("USER", "LOGNAME")} == {"USER": "nobody", "LOGNAME": "nobody"}
    assert found["environment"]["HOME"] != os.environ.get("HOME")


@needs_root
def test_root_as_the_user_has_no_capability(network: Network) -> None:
    found = told(network, "--tun", "tp0", "--user", "root")
    assert set(found["capabilities"].values()) == {0}


def test_a_descriptor_of_the_caller_is_not_replaced(network: Network) -> None:
    reader, writer = os.pipe()
    with open(reader, "rb"), open(writer, "wb"):
        words = " ".join(f"'{word}'" for word in command(network, "--tun", "tp0", "--", "sh", "-c"))
        shell = f"exec 3<&{reader}; exec {words} 'env; readlink /proc/self/fd/3 /proc/self/fd/{{fd}}'"
        done = subprocess.run(
            ["bash", "-c", shell], pass_fds=[reader], capture_output=True, text=True, check=True, timeout=50
        )
    assert "LISTEN_" not in done.stdout
    assert [line.partition(":")[0] for line in done.stdout.splitlines()[-2:]] == ["pipe", "/dev/net/tun"]


@pytest.mark.parametrize(("script", "status"), [("exit 7", 7), ("kill -USR1 $$", -signal.SIGUSR1)])
def test_the_exit_status_is_that_of_the_program(network: Network, script: str, status: int) -> None:
    done = subprocess.run(command(network, "--tun", "tp0", "--", "sh", "-c", script), timeout=50)
    assert done.returncode == status
    assert links(network) == set()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_signal_reaches_the_program_and_the_adapter_goes_with_it(network: Network, number: signal.Signals) -> None:
    with running(network, "--tun", "tp0", *STAY) as program:
        assert links(network) == {"tp0"}
        program.send_signal(number)
        assert program.wait(20) == -number
    assert links(network) == set()


def test_a_persistent_adapter_is_used_in_any_form_and_stays(network: Network) -> None:
    with threepipe.Adapter.create("tp0", netns=network.path, addresses=["10.6.7.1/24"], persistent=True):
        pass
    for header in HEADERS:
        assert told(network, "--tun", ADDRESSED, "--header", header)["vnet"] == (header == "vnet")
    assert links(network) == {"tp0"}
    assert (
        "exists without 10.9.9.9/32"
        in subprocess.run(
            command(network, "--tun", "tp0,address=10.9.9.9/32", "--", "true"),
            capture_output=True,
            text=True,
            timeout=50,
        ).stderr
    )


def test_the_rules_of_a_default_route_go_with_the_program(network: Network) -> None:
    def rules() -> int:
        return network.run("ip", "rule").count("proto 51")

    with running(network, "--tun", f"{ADDRESSED},default-route=0x7069", *STAY) as program:
        assert "dev tp0" in network.run("ip", "route", "get", "192.0.2.1")
        assert rules() == 2
        program.kill()
        assert come_true(lambda: not rules(), 20)
    assert links(network) == set()


WITHOUT_PIDFD = """
import os, sys
def lacking(number): raise OSError(38, "Function not implemented")
os.pidfd_open = lacking
sys.argv = ["keeper", str(os.getpid()), "1", "5", "4"]
from threepipe.endpoints.keeper import keep_routes
keep_routes()
"""


def test_where_the_end_of_a_program_is_not_told_a_default_route_is_refused(network: Network) -> None:
    said = network.run(sys.executable, "-c", WITHOUT_PIDFD)
    assert said == "this system does not tell when a program ends (pidfd_open, Linux 5.3)"
    assert "proto 51" not in network.run("ip", "rule")


@pytest.mark.parametrize("ended", [False, True])
def test_the_keeper_of_a_program_that_was_killed_at_its_start_is_silent_and_leaves_nothing(
    network: Network, ended: bool
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with subprocess.Popen(["sleep", "1000"]) as program, open(writer, "wb") as nobody:
        if ended:
            program.kill()
            program.wait()
        words = [str(program.pid), "1", "5", "4"]  # The interface is lo.
        keeping = network.command(sys.executable, "-c", KEEP, *words)
        with subprocess.Popen(keeping, stdout=nobody, stderr=subprocess.PIPE, text=True) as keeper:
            if not ended:
                assert come_true(lambda: "proto 51" in network.run("ip", "rule"), 20)
                program.kill()
                program.wait()
            assert keeper.communicate(timeout=50)[1] == ""
    assert "proto 51" not in network.run("ip", "rule")


KEEP = "from threepipe.endpoints.keeper import keep_routes; keep_routes()"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--tun", "tp0", "--", "/nonexistent"], "starting /nonexistent: it is not there"),
        (["--tun", "tp0", "--user", "nosuchuser", "--", "true"], "user 'nosuchuser' does not exist on this machine"),
        (["--tun", "tp0", "--user", "4294967295", "--", "true"], "user '4294967295' does not exist"),
        (["--tun", "tp0", "--user", "99999999999999999999", "--", "true"], "does not exist"),
        (["--tun", "tp0", "--user", "9" * 5000, "--", "true"], "does not exist on this machine"),
        (["--tun", "tp0", "--header", "tap", "--", "true"], "header 'tap': give one of none, vnet"),
        (["--tun", "tp0,offload=on", "--", "true"], "--header vnet; leave out offload"),
        (["--tun", "tp0,queues=2", "--", "true"], "leave out queues"),
        (["--tun", "tp0,netns=new", "--", "true"], "a new namespace is for threepipe pipe"),
        (["--tun", "tp0,persistent", "--header", "x", "--", "true"], "header 'x'"),
        (["--tun", "tp0,nonsense", "--", "true"], "unknown option 'nonsense' of tun"),
        (["--tun", "tp0,default-route=5", "--", "true"], "tp0 has no address to send from"),
    ],
    ids=lambda given: " ".join(given)[:60] if isinstance(given, list) else None,
)
def test_what_cannot_work_is_refused_and_leaves_nothing(network: Network, arguments: Sequence[str], text: str) -> None:
    assert text in refusal(network, *arguments)


@needs_root
def test_keeping_a_capability_that_the_program_has_anyway_is_refused(network: Network) -> None:
    assert "root's programs have CAP_NET_ADMIN" in refusal(network, "--tun", "tp0", "--keep-net-admin", "--", "true")


@needs_root
def test_a_program_that_the_user_may_not_execute_is_named(network: Network, tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o700)
    said = refusal(network, "--tun", "tp0", "--user", str(STRANGER), "--", str(program))
    assert f"starting {program}: Permission denied; let that user execute it" in said


def test_superpackets_that_the_environment_refuses_are_an_error(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THREEPIPE_NO_OFFLOAD", "1")
    assert "THREEPIPE_NO_OFFLOAD" in refusal(network, "--tun", "tp0", "--header", "vnet", "--", "true")
