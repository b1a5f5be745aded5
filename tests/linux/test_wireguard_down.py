"""threepipe wg up and down in the kernel: the end of a device by signals, by its socket, by a kill; the saved file."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.kernel import links
from tests.support.waiting import come_true
from tests.support.wireguard_up import BIN, SET_APART, Host, cabled_hosts
from threepipe.wireguard import key_to_text, read_config

pytestmark = pytest.mark.kernel

SIGNALS_ELSEWHERE = """
import signal, threading
threading.Thread(target=threading.Event().wait, daemon=True).start()
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
from threepipe.cli import main
main()
"""
"""The command with a second thread that gets all signals; Python handles them in the main thread."""


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[tuple[Host, Host]]:
    with cabled_hosts(tmp_path) as hosts:
        yield hosts


def test_a_killed_device_can_be_brought_up_again(hosts: tuple[Host, Host]) -> None:
    one, two = hosts
    one.write(two)
    two.write(one)
    with two.up():
        with one.up() as process:
            process.kill()
            process.wait(20)
        assert come_true(lambda: links(one.network) == {"v1"})
        with one.up():
            assert " 0% packet loss" in one.network.run("ping", "-c", "1", "-W", "20", "10.5.0.2")


@pytest.mark.parametrize("how", ["signal", "socket"])
def test_save_config_writes_the_file_after_pre_down(hosts: tuple[Host, Host], tmp_path: Path, how: str) -> None:
    one, two = hosts
    told = tmp_path / "told"
    one.write(two, f"SaveConfig = true\nPreDown = ping -c 1 -W 20 10.5.0.2 > {told}", "PersistentKeepalive = 25\n")
    two.write(one)
    with two.up(), one.up() as process:
        assert " 0% packet loss" in one.network.run("ping", "-c", "1", "-W", "20", "10.5.0.2")
        if how == "socket":
            enter = ["nsenter", f"--target={process.pid}", "--mount"]
            subprocess.run([*enter, "rm", "/run/wireguard/up1.sock"], check=True, timeout=50)
            assert process.wait(20) == 0
        else:
            process.send_signal(signal.SIGTERM)
            process.wait(20)
    assert " 0% packet loss" in told.read_text()
    saved = read_config(one.path)
    assert (saved.private_key, saved.listen_port, saved.save) == (one.key, 51000, True)
    (peer,) = saved.peers
    assert (key_to_text(peer.public_key), peer.endpoint) == (two.public, ("192.0.2.2", 52000))
    assert (len(peer.allowed_ips), peer.persistent_keepalive) == (2, 25)
    assert one.path.stat().st_mode & 0o777 == 0o600
    assert set(one.path.parent.iterdir()) == {one.path, two.path, told}


def test_save_config_keeps_the_file_if_the_adapter_was_removed(hosts: tuple[Host, Host]) -> None:
    one, two = hosts
    one.write(two, "SaveConfig = true")
    before = one.path.read_text()
    with one.up() as process:
        one.network.run("ip", "link", "delete", "up1")
        assert process.wait(20) == 0
        assert process.stderr is not None
        assert "was not saved" in process.stderr.read()
    assert one.path.read_text() == before


def test_a_signal_that_interrupts_no_wait_ends_the_device(hosts: tuple[Host, Host], tmp_path: Path) -> None:
    """Such a signal comes just before a wait begins; here another thread gets it."""
    one, two = hosts
    one.write(two, f"PreDown = touch {tmp_path}/down")
    with one.up(python=["-c", SIGNALS_ELSEWHERE]) as process:
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    assert (tmp_path / "down").exists()


def test_a_second_signal_does_not_interrupt_the_shutdown(hosts: tuple[Host, Host], tmp_path: Path) -> None:
    one, two = hosts
    begun, asked = tmp_path / "begun", tmp_path / "asked"
    wait = f"touch {begun}; while ! [ -e {asked} ]; do sleep 0.05; done; touch {tmp_path}/done"
    one.write(two, f"PreDown = {wait}", allowed="0.0.0.0/0, ::/0")
    before = one.rules()
    with one.up() as process:
        process.send_signal(signal.SIGTERM)
        assert come_true(begun.exists)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            process.send_signal(number)
        asked.touch()
        assert process.wait(20) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""
    assert (tmp_path / "done").exists()
    assert one.rules() == before


def test_a_background_device_can_be_shown_and_taken_down(hosts: tuple[Host, Host], tmp_path: Path) -> None:
    one, two = hosts
    hooks = f"PreDown = echo %i >> {tmp_path}/told\nPostDown = sleep 0.5; echo gone >> {tmp_path}/told"
    one.write(two, hooks, allowed="0.0.0.0/0, ::/0")
    two.write(one)
    before = one.state()
    script = (
        f"{SET_APART.partition(' && ')[0]}; threepipe wg up {one.path} --daemon; threepipe wg show up1 --json;"
        f" ! threepipe wg up {one.path} --daemon; ping -c 1 -W 20 10.5.0.2 >&2; threepipe wg down {one.path};"
        f" ls /run/wireguard; ! threepipe wg down up1"
    )
    with two.up():
        done = subprocess.run(
            one.network.command("unshare", "--mount", "sh", "-ec", script),
            env=os.environ | {"PATH": f"{BIN}:{os.environ['PATH']}"},
            capture_output=True,
            text=True,
            timeout=50,
        )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["up1"]["public_key"] == one.public  # The folder is empty as well.
    assert "a device of that name is running" in done.stderr
    assert " 0% packet loss" in done.stderr
    assert "no device is named up1" in done.stderr
    assert "up1 is up; Ctrl-C" not in done.stderr
    # Everything is undone when `down` returns.
    assert (tmp_path / "told").read_text() == "up1\ngone\n"
    assert one.state() == before
