"""Running of programs: the commands of a configuration file, and the tools that its settings need."""

import logging
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import TypeAlias

from threepipe.errors import InvalidSetting
from threepipe.wireguard.fields import hide_whole_keys
from threepipe.wireguard.settings import check_device_name

__all__ = ["Hold", "call", "call_all", "execute", "hold_nothing"]

log = logging.getLogger("threepipe")

Hold: TypeAlias = Callable[[], AbstractContextManager[tuple[int, ...]]]
"""Gives descriptors, which a program inherits, for a block that lasts until the program has ended."""
_TOOL_SECONDS = 60.0
_SECONDS_TO_END = 10.0


def hold_nothing() -> AbstractContextManager[tuple[int, ...]]:
    """Give no descriptors."""
    return nullcontext(())


def call(
    commands: Iterable[str],
    name: str,
    hold: Hold = hold_nothing,
    waiting: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> None:
    """Run commands of a file by Bash, as wg-quick(8) does, or by sh if there is no Bash.

    `%i` in a command stands for the interface `name`, which must not mean anything to a shell. `waiting` surrounds the
    wait for a command: it may raise, which ends the command. Raises `InvalidSetting` if a command fails; the others do
    not run then.
    """
    check_device_name(name)
    shell = shutil.which("bash") or "/bin/sh"
    for command in commands:
        line = command.replace("%i", name)
        with hold() as held, subprocess.Popen([shell, "-c", line], stdin=subprocess.DEVNULL, pass_fds=held) as process:
            try:
                with waiting():
                    process.wait()
            except BaseException:
                _end(process)
                raise
        if process.returncode:
            raise InvalidSetting(f"{shell} -c {hide_whole_keys(line)}: ended with status {process.returncode}")


def call_all(commands: Iterable[str], name: str, hold: Hold = hold_nothing) -> None:
    """Run all commands of a file, even if some fail. Raises `InvalidSetting`, which names all that failed."""
    failed = []
    for command in commands:
        try:
            call([command], name, hold)
        except InvalidSetting as error:
            failed.append(str(error))
    if failed:
        raise InvalidSetting("; ".join(failed))


def execute(command: list[str], text: str = "", hold: Hold = hold_nothing) -> None:
    """Run a program with `text` as its input, in a session of its own, so that Ctrl-C leaves it alone.

    What it prints on standard error is logged. Raises `InvalidSetting` with that text if it fails or takes longer than
    a minute.
    """
    # Files and not pipes, which a program that it leaves in the background would keep open.
    with hold() as held, tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as said:
        given.write(text.encode())
        given.seek(0)
        with subprocess.Popen(command, stdin=given, stderr=said, pass_fds=held, start_new_session=True) as process:
            try:
                status = str(process.wait(_TOOL_SECONDS))
            except subprocess.TimeoutExpired:
                process.kill()
                status = f"none within {_TOOL_SECONDS:.0f} s"
        said.seek(0)
        words = said.read().decode(errors="replace").strip()
    if status != "0":
        raise InvalidSetting(f"{' '.join(command)}: ended with status {status}" + f": {words}" * bool(words))
    if words:
        log.warning(f"{command[0]}: {words}")


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(_SECONDS_TO_END)
    except subprocess.TimeoutExpired:
        process.kill()
