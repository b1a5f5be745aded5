"""Completion: the answers that the shells' scripts ask for, and the real shells at a terminal."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path

import pytest

from tests.support.commands import Done, run, run_here
from tests.support.kernel import Network
from threepipe import Adapter
from threepipe.endpoints.kinds import KINDS
from threepipe.filters.impairment import SETTINGS

FILE_NAMES = 3


Answer = Callable[[str], Done]


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Answer:
    def ask(line: str) -> Done:
        monkeypatch.setenv("_THREEPIPE_COMPLETE", line)
        return run_here(monkeypatch, capfd)

    return ask


def words(done: Done) -> list[str]:
    """Return the completions of the last word of a line."""
    assert (done.status, done.complaint) == (0, "")
    return [each.partition("\t")[0] for each in done.printed.splitlines()]


@pytest.mark.parametrize(
    ("line", "completed"),
    [
        ("threepipe ada", ["adapter"]),
        ("threepipe adapter ", ["create", "delete", "reset", "list", "show"]),
        ("threepipe pipe --im", ["--impair"]),
        ("threepipe pipe unix-l", ["unix-listen:"]),
        ("threepipe pipe ech", ["echo"]),
        ("threepipe pipe echo disc", ["discard"]),
        ("threepipe pipe 'tun:a b,addr", ["tun:a b,address="]),
        ("threepipe pipe tun:tp0,mtu=1400,m", ["tun:tp0,mtu=1400,metric="]),
        ("threepipe pipe tun:tp0,address=fd00::1/64,add", ["tun:tp0,address=fd00::1/64,address="]),
        ("threepipe pipe tcp-listen:1,reuse=", ["tcp-listen:1,reuse=on", "tcp-listen:1,reuse=off"]),
        ("threepipe pipe pcap:a,lo", ["pcap:a,loop"]),
        ("threepipe pipe echo pcap:a,lo", []),
        ("threepipe pipe exec,for", ["exec,forever"]),
        ("threepipe pipe tun:tp0,nothing=", []),
        ("threepipe pipe udp:", []),
        ("threepipe pipe --impair loss=1%,tow", ["loss=1%,towards="]),
        ("threepipe pipe --impair towards=", ["towards=left", "towards=right"]),
        ("threepipe exec --tun tp0,ow", ["tp0,owner="]),
        ("threepipe wg show wg0 tra", ["transfer"]),
        ("threepipe completion f", ["fish"]),
        ("threepipe doctor ", []),
        ("threepipe adapter show --netns /no/such ", []),
        ("threepipe pipe 'unclosed", []),
    ],
)
def test_a_line_is_completed(answer: Answer, line: str, completed: list[str]) -> None:
    assert words(answer(line)) == completed


def test_all_kinds_and_settings_are_offered_with_their_help(answer: Answer) -> None:
    kinds = answer("threepipe pipe ").printed
    assert [line.partition("\t")[0].rstrip(":") for line in kinds.splitlines()] == list(KINDS)
    assert f"udp:\t{KINDS['udp'].help}\n" in kinds
    assert words(answer("threepipe pipe --impair ")) == [f"{name}=" for name in SETTINGS]


@pytest.mark.parametrize(
    "line",
    [
        "threepipe pipe pcap:/tm",
        "threepipe pipe tls:host:1,cert=",
        "threepipe pipe 'exec:ss",
        "threepipe pipe --capture ",
        "threepipe wg up /etc/wire",
        "threepipe wg exec office -- /bin/l",
        "threepipe driver install --from ",
    ],
)
def test_where_a_file_belongs_the_shell_is_told_so(answer: Answer, line: str) -> None:
    assert answer(line) == Done(FILE_NAMES, "", "")


@pytest.mark.kernel
def test_adapters_are_completed_from_their_namespace(answer: Answer, network: Network) -> None:
    with Adapter.create("tp0", netns=network.path), Adapter.create("x\x1b[1m", netns=network.path):
        shown = words(answer(f"threepipe adapter show --netns {network.path} "))
        assert shown == ["tp0"], "without the name that would control a terminal"
        assert words(answer(f"threepipe capture --netns {network.path} ")) == ["tp0"]
        inside = run(prefix=tuple(network.command()), _THREEPIPE_COMPLETE="threepipe pipe tun:t")
        assert words(inside) == ["tun:tp0"]


def test_configs_in_this_folder_are_completed(answer: Answer, tmp_path: Path) -> None:
    (tmp_path / "own.conf").touch()
    with chdir(tmp_path):
        assert words(answer("threepipe wg up ow")) == ["own.conf"]
        assert words(answer("threepipe wg exec ow")) == ["own.conf"]
        assert words(answer("threepipe pipe wg:ow")) == ["wg:own.conf"]
        assert answer("threepipe wg up no-such").status == FILE_NAMES


SHELLS = {
    "bash": ["bash", "--norc", "--noprofile", "-i"],
    "zsh": ["zsh", "-f", "-i"],
    "fish": ["fish", "--no-config", "-i"],
}
STARTS = {
    "bash": "bind 'set bell-style none'; source {script}",
    "zsh": "unsetopt beep; autoload -Uz compinit; compinit -u -D; source {script}",
    "fish": "source {script}",
}


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest, tmp_path: Path) -> list[str]:
    """A shell, and the first line for it, in a folder with a program `threepipe` that shows its arguments."""
    name: str = request.param
    if sys.platform == "win32" or shutil.which(name) is None:
        pytest.skip(f"{name} is not there; install it")
    script = tmp_path / "script"
    script.write_text(run("completion", name).printed)
    program = tmp_path / "bin" / "threepipe"
    program.parent.mkdir()
    program.write_text(
        f'#!/bin/sh\n[ -z "${{_THREEPIPE_COMPLETE+x}}" ] || exec {sys.executable} -m threepipe\n'
        f'printf "<%s>" "$@" >> {tmp_path}/given; echo >> {tmp_path}/given\n'
    )
    program.chmod(0o755)
    return [*SHELLS[name], STARTS[name].format(script=script)]


def typed(shell: list[str], folder: Path, *lines: str) -> list[str]:
    """Type the lines at a terminal, and return the arguments with which the program was called."""
    import fcntl
    import pty
    import struct
    import termios

    *command, first = shell
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("4H", 50, 200, 0, 0))
    environment = os.environ | {"HOME": str(folder), "TERM": "dumb", "PATH": f"{folder}/bin:{os.environ['PATH']}"}
    command = ["setsid", "--ctty", "--wait", *command]  # fish needs a controlling terminal.
    with subprocess.Popen(command, stdin=its, stdout=its, stderr=its, env=environment, cwd=folder) as process:
        os.close(its)
        os.write(ours, "".join(f"{line}\r" for line in (first, *lines, "exit")).encode())
        try:
            while os.read(ours, 65536):
                pass
        except OSError:
            pass  # EIO: the shell has exited.
        assert process.wait(20) is not None
    os.close(ours)
    return (folder / "given").read_text().splitlines()


def test_a_shell_completes_at_a_terminal(shell: list[str], tmp_path: Path) -> None:
    (tmp_path / "file-of-packets.pcap").touch()
    given = typed(
        shell,
        tmp_path,
        "threepipe ada\tdel\t",
        "threepipe pipe tun:tp0,pers\t",
        "threepipe pipe pcap:file-of\t",
        "threepipe pipe --impair towards=r\t",
        "threepipe pipe tun:tp0,mtu=1400,offload=of\tech\t",
    )
    assert given == [
        "<adapter><delete>",
        "<pipe><tun:tp0,persistent>",
        "<pipe><pcap:file-of-packets.pcap>",
        "<pipe><--impair><towards=right>",
        "<pipe><tun:tp0,mtu=1400,offload=off><echo>",
    ]
