"""Runs the command lines of a page as its reader would, on machines that are network namespaces.

A block of `console` has lines such as `host1# threepipe doctor`: a machine's name, the sign of a shell and a command,
which may go on after a backslash. Lines without such a start are output. `host1` and `host2` are
on one link, 192.0.2.1 and 192.0.2.2; behind `host2` is `web`, 198.51.100.80. A command that serves until Ctrl-C runs on
in the background; pings are repeated until it is ready.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.support.examples import EXAMPLES
from tests.support.kernel import Network
from tests.support.waiting import come_true

__all__ = ["Console", "environment", "machines", "shown", "steps"]

BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
STEP = re.compile(r"^(\w+)[#$] ((?:.*\\\n)*.*)$", re.MULTILINE)
SERVING = re.compile(r"threepipe (pipe|wg up(?!.*--daemon)|exec)|python \w+\.py")
LINKS = (("host1", "192.0.2.1/24", "host2", "192.0.2.2/24"), ("host2", "198.51.100.1/24", "web", "198.51.100.80/24"))


def steps(page: Path) -> list[tuple[str, str]]:
    """Return machine and command of each line of a page that has one."""
    text = "".join(BLOCK.findall(page.read_text(encoding="utf-8")))
    return [(machine, command.replace("\\\n", " ")) for machine, command in STEP.findall(text)]


def environment(folder: Path) -> dict[str, str]:
    """Return an environment with this Python as `python`, its `threepipe`, and a `ping` that is less patient."""
    programs = folder / ".programs"
    programs.mkdir()
    commands = {
        "python": sys.executable,
        "threepipe": f"{sys.executable} -m threepipe",
        "ping": f"{shutil.which('ping')} -i 0.01 -W 1",  # It is repeated, where a reader would wait.
    }
    for name, command in commands.items():
        (programs / name).write_text(f'#!/bin/sh\nexec {command} "$@"\n')
        (programs / name).chmod(0o755)
    return os.environ | {"HOME": str(folder), "PATH": f"{programs}:{os.environ['PATH']}"}


def shown(page: Path) -> list[str]:
    """Return the lines of output that a page shows."""
    text = STEP.sub("", "".join(BLOCK.findall(page.read_text(encoding="utf-8"))))
    return [line for line in text.splitlines() if line]


class Console:
    """The machines, and a folder that they share, which has the examples."""

    def __init__(self, folder: Path, networks: dict[str, Network]) -> None:
        self.folder = folder
        self._networks = networks
        self._serving: list[subprocess.Popen[str]] = []
        for example in EXAMPLES.glob("*.py"):
            (folder / example.name).symlink_to(example)
        self._environment = environment(folder)

    def run(self, machine: str, command: str) -> str:
        """Run a command to its end, or leave it in the background; return its output."""
        if SERVING.match(command):
            self._serving.append(self._start(machine, f"exec {command}"))
            return ""
        output = ""

        def succeeds() -> bool:
            nonlocal output
            process = self._start(machine, command)
            output = process.communicate(timeout=50)[0]
            return process.returncode == 0

        patience = 30 if command.startswith("ping ") else 0
        assert come_true(succeeds, patience), f"{machine}: {command}: {output}{self.kill()}"
        return output

    def interrupt(self) -> list[str]:
        """Press Ctrl-C in all programs that serve and return what they printed. Their status has to be 0 or 130."""
        for process in self._serving:
            process.send_signal(signal.SIGINT)
        outputs = []
        while self._serving:
            process = self._serving.pop()
            outputs.append(process.communicate(timeout=30)[0])
            assert process.returncode in (0, 130), f"{process.args!r}: {process.returncode}: {outputs[-1]}"
        return outputs

    def kill(self) -> str:
        """End all that still serves, and return what it printed."""
        printed = ""
        while self._serving:
            process = self._serving.pop()
            process.kill()
            printed += f"\n{process.args!r}: {process.communicate()[0]}"
        return printed

    def _start(self, machine: str, command: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self._networks[machine].command("sh", "-c", command),
            cwd=self.folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )


@contextmanager
def machines(folder: Path) -> Iterator[Console]:
    """Make the machines; nothing of them is left afterwards."""
    with ExitStack() as stack:
        networks = {name: Network() for name in ("host1", "host2", "web")}
        for network in networks.values():
            stack.callback(network.namespace.close)
        for number, (left, address, right, other) in enumerate(LINKS):
            here, there = f"eth{number}", "eth0"
            networks[left].run("ip", "link", "add", here, "type", "veth", "peer", "name", "far")
            networks[left].run("ip", "link", "set", "far", "netns", networks[right].path, "name", there)
            for machine, name, own in ((left, here, address), (right, there, other)):
                networks[machine].run("ip", "address", "add", own, "dev", name)
                networks[machine].run("ip", "link", "set", name, "up")
        networks["web"].run("ip", "route", "add", "default", "via", "198.51.100.1")
        console = Console(folder, networks)
        stack.callback(console.kill)
        yield console
