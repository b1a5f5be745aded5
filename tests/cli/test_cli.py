"""The command line as a whole: help, exit statuses, output streams, and loaded modules."""

import inspect
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import typer

import threepipe
from tests.support.commands import Done, run, run_here
from tests.support.kernel import Network
from threepipe import cli

ADAPTER = ["create", "delete", "list", "show"]
COMMANDS = [
    [],
    ["adapter"],
    ["capture"],
    ["completion"],
    ["doctor"],
    ["exec"],
    ["pipe"],
    ["ps"],
    ["script-tun"],
    ["top"],
    *[["adapter", name] for name in ADAPTER],
]


def run_program(*lines: str) -> Done:
    """Run a program that calls the command line from Python."""
    command = [sys.executable, "-W", "error", "-c", "\n".join(["import sys", "from threepipe import cli", *lines])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50)
    return Done(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    return partial(run_here, monkeypatch, capfd)


def test_version_prints_the_version() -> None:
    assert run("--version") == Done(0, f"threepipe {threepipe.__version__}\n", "")


def texts(command: Any) -> Iterator[str]:
    """Yield the help texts of a command, and of those below a group."""
    yield inspect.cleandoc(getattr(command.callback, "__doc__", None) or "")
    for inner in getattr(command, "commands", {}).values():
        yield from texts(inner)


def test_help_texts_are_broken_into_lines_of_at_most_78_columns() -> None:
    # A terminal breaks longer lines once more. The first paragraph is joined and broken by typer.
    lines = [line for text in texts(typer.main.get_command(cli.app)) for line in text.partition("\n\n")[2].splitlines()]
    assert len(lines) > 100
    assert [line for line in lines if len(line) > 78] == []


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_prints_its_help(here: Callable[..., Done], command: list[str]) -> None:
    done = here(*command, "--help")
    assert (done.status, done.complaint) == (0, "")
    assert here(*command, "-h") == done
    words = " ".join(["threepipe", *command])
    lines = [line.strip() for line in done.plain.splitlines()]
    assert any(line.startswith(f"Usage: {words} ") for line in lines)
    assert command == ["adapter"] or any(line.startswith((words, f"sudo {words}")) for line in lines), "an example"


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_at_80_columns_keeps_the_lines_of_examples(
    here: Callable[..., Done], monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    shown = here(*command, "--help").plain
    lines = [line.strip() for line in shown.splitlines()]
    assert max(map(len, lines)) <= 80
    found = typer.main.get_command(cli.app)
    for name in command:
        found = found.commands[name]  # type: ignore[attr-defined]
    examples = [line.strip() for line in (found.help or "").splitlines() if line.startswith("  ")]
    assert [line for line in examples if line not in lines] == []
    assert not re.search(r"<(str|int|bool|path|file)>|Usage: .*\{|x>=", shown), "no names of types"


@pytest.mark.parametrize("command", [[], ["adapter"]], ids=" ".join)
def test_a_group_without_a_command_prints_its_help(here: Callable[..., Done], command: list[str]) -> None:
    done = here(*command)
    assert "Usage: threepipe" in done.plain


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["--nonsense"],
        ["--version=1"],
        ["adapter", "nonsense"],
        ["adapter", "--nonsense"],
        ["doctor", "nonsense"],
        ["doctor", "--nonsense"],
        ["doctor", "--json=yes"],
    ],
    ids=" ".join,
)
def test_wrong_usage_exits_with_2(here: Callable[..., Done], arguments: list[str]) -> None:
    done = here(*arguments)
    assert (done.status, done.printed) == (2, "")
    assert "nonsense" in done.plain or "does not take" in done.plain


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["adapter", "create", "--help"]], ids=" ".join)
def test_start_loads_no_heavy_module(arguments: list[str]) -> None:
    done = run_program(
        f"sys.argv[1:] = {arguments}",
        "try: cli.main()",
        "finally: print('LOADED', *sys.modules)",
    )
    loaded = done.printed.partition("LOADED")[2].split()
    assert "typer" in loaded
    assert not {"pyroute2", "asyncio", "cryptography", "threepipe.platforms"} & set(loaded)


def test_start_loads_no_command_but_the_one_that_is_called() -> None:
    done = run_program(
        "sys.argv[1:] = ['--version']",
        "try: cli.main()",
        "finally: print('LOADED', *sys.modules)",
    )
    loaded = done.printed.partition("LOADED")[2].split()
    ours = {name for name in loaded if name.startswith("threepipe.cli.")}
    assert ours == {"threepipe.cli.commands", "threepipe.cli.output"}
    assert "threepipe.endpoints" not in loaded


@pytest.mark.parametrize(
    ("raised", "status", "line"),
    [
        ("threepipe.InvalidSetting('MTU 5')", 1, "threepipe: MTU 5\n"),
        ("threepipe.AdapterGone(19, 'make it again')", 1, "threepipe: make it again\n"),
        ("threepipe.InvalidSetting('one\\ntwo\\x1b[31m\\udcff')", 1, "threepipe: one\\ntwo\\x1b[31m\\udcff\n"),
        ("OSError(28, 'No space left')", 1, "threepipe: No space left\n"),
        ("OSError(28, 'No space left', 'a/file')", 1, "threepipe: a/file: No space left\n"),
        ("OSError('of no number')", 1, "threepipe: of no number\n"),
        ("KeyboardInterrupt()", 130, ""),
    ],
)
def test_an_error_is_printed_in_one_line(raised: str, status: int, line: str) -> None:
    done = run_program(
        "import threepipe",
        "sys.argv[1:] = ['fail']",
        "@cli.app.command()",
        f"def fail(): raise {raised}",
        "cli.main()",
    )
    assert done == Done(status, "", line)


def test_ctrl_c_exits_with_130_without_a_traceback() -> None:
    done = run_program(
        "import signal",
        "sys.argv[1:] = ['fail']",
        "@cli.app.command()",
        "def fail(): signal.raise_signal(signal.SIGINT)",
        "cli.main()",
    )
    assert done == Done(130, "", "")


def test_ctrl_c_during_start_exits_without_a_traceback() -> None:
    done = run_program(
        "import signal",
        "sys.argv[1:] = ['--version']",
        "cli.show_warnings = lambda: signal.raise_signal(signal.SIGINT)",
        "cli.main()",
    )
    assert done == Done(130, "", "")


def test_warnings_of_the_library_are_shown_once() -> None:
    done = run_program(
        "import logging",
        "cli.show_warnings()",
        "cli.show_warnings()",
        "logging.getLogger('threepipe').info('not this')",
        "logging.getLogger('threepipe').warning('IPv6 is %s', 'off')",
    )
    assert done == Done(0, "", "threepipe: warning: IPv6 is off\n")


@pytest.mark.kernel
def test_output_to_a_full_disk_exits_with_1(network: Network) -> None:
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "threepipe", "adapter", "list", "--netns", network.path]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=50)
    assert (done.returncode, done.stderr) == (1, "threepipe: No space left on device\n")


@pytest.mark.kernel
def test_output_to_a_closed_pipe_exits_with_1_silently(network: Network) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "threepipe", "adapter", "list", "--netns", network.path]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=50)
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, "")


def on_a_terminal(*arguments: str, **environment: str) -> str:
    """Return the output of the command on a terminal of 80 columns."""
    if sys.platform == "win32":
        pytest.skip("terminals are made in another way here")
    import fcntl
    import pty
    import struct
    import termios

    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("4H", 24, 80, 0, 0))
    command = [sys.executable, "-m", "threepipe", *arguments]
    # Colour settings of the environment are removed: the type of the terminal counts.
    inherited = {name: text for name, text in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR", "COLUMNS")}
    with subprocess.Popen(command, stdout=its, stderr=its, env=inherited | {"TERM": "xterm"} | environment) as process:
        os.close(its)
        printed = b""
        try:
            while more := os.read(ours, 65536):
                printed += more
        except OSError:
            pass  # EIO: the last process with the terminal open has exited.
    os.close(ours)
    assert process.returncode == 0
    return printed.decode()


@pytest.mark.kernel
def test_output_has_colours_only_on_a_terminal_that_wants_them() -> None:
    green = "\x1b[32myes"
    assert green in on_a_terminal("doctor")
    assert green not in on_a_terminal("doctor", NO_COLOR="1")
    assert "\x1b[" not in on_a_terminal("doctor", TERM="dumb")
    assert "\x1b[" not in run("doctor", TERM="xterm").printed


@pytest.mark.kernel
def test_a_table_fits_the_terminal_and_truncates_nothing(network: Network) -> None:
    adapter = threepipe.Adapter.create("tp0", netns=network.path, addresses=[f"fd00::{n:x}/64" for n in range(1, 31)])
    with adapter:
        printed = on_a_terminal("adapter", "list", "--netns", network.path, NO_COLOR="1", TERM="dumb")
        assert max(len(line) for line in printed.splitlines()) <= 80
        assert all(f"fd00::{n:x}/64" in printed for n in range(1, 31))
        # Without a terminal, each adapter is one line, for programs such as grep.
        heading, row = run("adapter", "list", "--netns", network.path).printed.splitlines()
        assert heading.split()[0] == "name"
        assert all(f"fd00::{n:x}/64" in row for n in range(1, 31))


@pytest.mark.kernel
def test_json_is_ascii_and_names_are_not_markup(network: Network) -> None:
    for name in ("[red]x", "ü"):
        with threepipe.Adapter.create(name, netns=network.path):
            printed = run("adapter", "list", "--json", "--netns", network.path).printed
            assert printed.isascii()
            assert [info["name"] for info in json.loads(printed)] == [name]
            assert name in run("adapter", "list", "--netns", network.path, PYTHONIOENCODING="utf-8").printed
