"""Running of programs: the commands of a configuration file, and the tools that its settings need."""

import logging
import shutil
import subprocess
from collections.abc import Iterable

from threepipe.errors import InvalidSetting

__all__ = ["call", "call_all", "execute"]

log = logging.getLogger("threepipe")


def call(commands: Iterable[str], name: str) -> None:
    """Run commands of a file by Bash, as wg-quick(8) does, or by sh if there is no Bash.

    `%i` in a command stands for the interface `name`. Raises `InvalidSetting` if one fails; the others do not run then.
    """
    shell = shutil.which("bash") or "/bin/sh"
    for command in commands:
        execute([shell, "-c", command.replace("%i", name)])


def call_all(commands: Iterable[str], name: str) -> None:
    """Run all commands of a file, even if one fails, which is logged."""
    for command in commands:
        try:
            call([command], name)
        except InvalidSetting as error:
            log.warning(str(error))


def execute(command: list[str], text: str = "") -> None:
    """Run a program with `text` as its input. Raises `InvalidSetting` if it fails."""
    done = subprocess.run(command, input=text, text=True)
    if done.returncode:
        raise InvalidSetting(f"{' '.join(command)}: ended with status {done.returncode}")
