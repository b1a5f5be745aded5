"""`threepipe wg up` that is killed, gets a signal, or fails: `up` and `down` undo everything that it left."""

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.kernel import links
from tests.support.waiting import come_true
from tests.support.wireguard_leavings import NAME, Place
from tests.support.wireguard_pair import new_key
from threepipe.wireguard import key_to_text

pytestmark = pytest.mark.kernel

DNS = "DNS = 10.0.0.53, example.org"
SLOW = """#!/bin/sh
[ -e {folder}/begun ] || {{ touch {folder}/begun; while ! [ -e {folder}/go ]; do sleep 0.02; done; }}
exec {real} "$@"
"""
"""A program that waits for a file the first time, and then becomes the real one."""


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    made.close()


def kill(place: Place) -> None:
    """Kill the processes of threepipe."""
    for pid in place.processes():
        with suppress(OSError):
            os.kill(pid, signal.SIGKILL)
    assert come_true(lambda: not place.processes())


def hooks(told: Path) -> str:
    return "\n".join(f"{key} = echo {key} %i >> {told}" for key in ("PreUp", "PostUp", "PreDown", "PostDown"))


def up(place: Place) -> str:
    status, said = place.run("up", "--daemon", str(place.path))
    assert status == 0, said
    return said


def test_down_undoes_what_a_killed_device_left_and_says_so(place: Place, tmp_path: Path) -> None:
    told = tmp_path / "told"
    place.write(f"{DNS}\n{hooks(told)}")
    before = place.state()
    up(place)
    kill(place)
    assert "nameserver 10.0.0.53" in place.shell("cat /run/resolv.conf")
    assert place.shell("ip rule").count(" proto 51") == 2
    status, said = place.run("down", str(place.path))
    assert status == 0, said
    assert f"{NAME} did not end in order; undone now: PreDown, DNS, routing rules, packet filter, PostDown" in said
    assert place.difference(before) == set()
    assert told.read_text().split("\n")[-3:] == [f"PreDown {NAME}", f"PostDown {NAME}", ""]
    status, said = place.run("down", NAME)
    assert (status, "no device is named" in said) == (1, True)


def test_up_undoes_what_a_killed_device_left_and_says_so(place: Place) -> None:
    place.write(DNS)
    before = place.state()
    for _ in range(2):
        up(place)
        kill(place)
    said = up(place)
    assert f"{NAME} did not end in order; undone now: DNS, routing rules, packet filter" in said
    for version in ("4", "6"):
        assert place.shell(f"ip -{version} rule").count(" proto 5") == 2
    assert place.run("down", NAME) == (0, "")
    assert place.difference(before) == set()


def test_src_valid_mark_stays_while_one_of_two_devices_lives(place: Place) -> None:
    other = place.path.with_name("kill1.conf")
    place.write()
    place.write(path=other, interface="ListenPort = 7\nFwMark = 9")
    before = place.state()
    mark = "sysctl -n net.ipv4.conf.all.src_valid_mark"
    up(place)
    kill(place)
    assert place.run("up", "--daemon", str(other))[0] == 0
    assert place.run("down", NAME)[0] == 0
    assert place.shell(mark) == "1\n"
    assert place.run("down", "kill1") == (0, "")
    assert place.shell(mark) == "0\n"
    assert place.difference(before) == set()


@pytest.mark.parametrize("tool", ["nft", "resolvconf"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_a_tool_runs_leaves_nothing(
    place: Place, tmp_path: Path, tool: str, number: signal.Signals
) -> None:
    place.write(DNS)
    before = place.state()
    real = place.tools / "real"
    if tool == "resolvconf":
        (place.tools / tool).rename(real)
    else:
        real.symlink_to(subprocess.check_output(["sh", "-c", f"command -v {tool}"], text=True).strip())
    place.add_tool(tool, SLOW.format(folder=tmp_path, real=real))
    process = place.start("up", str(place.path))
    assert come_true((tmp_path / "begun").exists, 30)
    os.killpg(process.pid, number)  # As a terminal does.
    (tmp_path / "go").touch()
    _, said = process.communicate(timeout=50)
    assert process.returncode == 128 + number, said
    assert said == f"threepipe: {NAME} was ended by a signal before it was up\n"
    assert place.difference(before) == set()


@pytest.mark.parametrize("options", [(), ("--daemon",)])
@pytest.mark.parametrize("hook", ["PreUp", "PostUp"])
def test_a_signal_while_a_command_runs_ends_it_and_undoes_the_rest(
    place: Place, tmp_path: Path, hook: str, options: tuple[str, ...]
) -> None:
    told = tmp_path / "told"
    wait = f"{hook} = touch {tmp_path}/begun; exec sleep 100"
    place.write(f"{DNS}\n{hooks(told)}\n{wait}")
    before = place.state()
    process = place.start("up", *options, str(place.path))
    assert come_true((tmp_path / "begun").exists, 30)
    process.terminate()
    assert process.wait(20) == 128 + signal.SIGTERM
    process.communicate()
    assert place.difference(before) == set()
    assert told.read_text().endswith(f"PostDown {NAME}\n")
    assert ("PreDown" in told.read_text()) == (hook == "PostUp")


def test_a_device_ends_if_the_command_that_starts_it_is_killed(place: Place, tmp_path: Path) -> None:
    wait = f"PostUp = touch {tmp_path}/begun; while ! [ -e {tmp_path}/go ]; do sleep 0.02; done"
    place.write(f"{DNS}\n{wait}")
    before = place.state()
    process = place.start("up", "--daemon", str(place.path))
    assert come_true((tmp_path / "begun").exists, 30)
    process.kill()
    process.wait()
    (tmp_path / "go").touch()
    assert "the command that was starting kill0 has been killed" in process.communicate()[1]
    assert place.difference(before) == set()


def test_an_interface_that_exists_is_seen_before_any_command_runs(place: Place, tmp_path: Path) -> None:
    told = tmp_path / "told"
    place.write(hooks(told))
    place.network.run("ip", "link", "add", NAME, "type", "veth", "peer", "name", "end")
    before = place.state()
    status, said = place.run("up", str(place.path))
    assert (status, f"there is an interface {NAME} already" in said) == (1, True)
    assert not told.exists()
    assert place.difference(before) == set()


@pytest.mark.parametrize(
    ("settings", "called"),
    [
        ("PreUp = exit 3", ["PreUp", "PostDown"]),
        ("PostUp = exit 3", ["PreUp", "PostUp", "PreDown", "PostDown"]),
        ("MTU = 576", ["PreUp", "PostDown"]),  # Refused for the addresses, when the adapter is created.
    ],
)
def test_a_failure_runs_the_commands_that_undo_those_before(
    place: Place, tmp_path: Path, settings: str, called: list[str]
) -> None:
    told = tmp_path / "told"
    place.write(f"{hooks(told)}\n{settings}")
    before = place.state()
    assert place.run("up", str(place.path))[0] == 1
    assert told.read_text().split() == [word for key in called for word in (key, NAME)]
    assert place.difference(before) == set()


def test_post_down_does_not_run_if_nothing_was_made(place: Place, tmp_path: Path) -> None:
    place.write(f"MTU = 576\nPostDown = touch {tmp_path}/told")
    assert place.run("up", str(place.path))[0] == 1
    assert not (tmp_path / "told").exists()


def test_a_failing_command_at_the_end_is_reported_by_down_once(place: Place) -> None:
    place.write(f"{DNS}\nPostDown = echo gone; exit 7")
    before = place.state()
    up(place)
    status, said = place.run("down", NAME)
    assert (status, "PostDown: " in said, "ended with status 7" in said) == (1, True, True)
    assert place.difference(before) == set()
    assert "no device is named" in place.run("down", NAME)[1]


def test_save_config_on_a_full_disk_loses_no_peer(place: Place) -> None:
    place.shell("mkdir /run/disk && mount -t tmpfs -o size=64k none /run/disk")
    place.write("SaveConfig = true")
    before = place.path.read_text()
    path = f"/run/disk/{NAME}.conf"
    place.shell(f"cp {place.path} {path}")
    assert place.run("up", "--daemon", path)[0] == 0
    new = key_to_text(new_key())
    place.shell(f"wg set {NAME} peer {new} allowed-ips 10.9.0.0/16; cat /dev/zero > /run/disk/full")
    status, said = place.run("down", NAME)
    assert (status, "SaveConfig: " in said, "No space left" in said) == (1, True, True)
    assert place.shell(f"cat {path}") == before
    status, said = place.run("up", "--daemon", path)
    assert (status, f"SaveConfig of {NAME} cannot be undone" in said) == (1, True)
    place.shell("rm /run/disk/full")
    status, said = place.run("down", NAME)
    assert status == 0, said
    assert new in place.shell(f"cat {path}")
    assert place.shell("ls -A /run/wireguard") == ""


def test_a_background_device_tells_its_failures_to_the_system_log(place: Place, tmp_path: Path) -> None:
    place.write("PostDown = exit 7")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as log:
        log.bind(str(tmp_path / "log"))
        log.settimeout(20)
        apart = f"""
            mkdir {tmp_path}/dev; mount --rbind /dev {tmp_path}/dev; mount -t tmpfs none /dev
            for each in {tmp_path}/dev/*; do [ -e /dev/${{each##*/}} ] || ln -s $each /dev/; done
            rm -f /dev/log; ln -s {tmp_path}/log /dev/log
        """
        place.shell(apart)
        assert up(place) == ""
        for pid in place.processes():
            os.kill(pid, signal.SIGTERM)
        said = log.recv(4096).decode()
    assert "threepipe[" in said
    assert f"{NAME}: ERROR: {NAME} has ended, but PostDown: " in said
    assert "ended with status 7" in said
    assert come_true(lambda: not links(place.network) & {NAME})


def test_without_a_system_log_a_background_device_says_that_messages_are_lost(place: Place) -> None:
    if Path("/dev/log").exists():
        pytest.skip("there is a system log")
    place.write()
    assert "there is no /dev/log, so later messages are lost" in up(place)
