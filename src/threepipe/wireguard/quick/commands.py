"""Programs that a configuration file has run: its own commands, and those it needs. Knows no devices."""

import logging
import shutil
import subprocess
from collections.abc import Iterable

from threepipe.errors import InvalidSetting

__all__ = ["call", "call_all", "execute"]

log = logging.getLogger("threepipe")


def call(commands: Iterable[str], name: str) -> None:
    """Run commands of the file by Bash, for which wg-quick(8) has them written; where there is none, by sh.

    %i is the interface `name`. Raises `InvalidSetting` where one fails, and then runs no more.
    """
    shell = shutil.which("bash") or "/bin/sh"
    for command in commands:
        execute([shell, "-c", command.replace("%i", name)])


def call_all(commands: Iterable[str], name: str) -> None:
    """The same at the end, where one that fails does not keep the others from being run."""
    for command in commands:
        try:
            call([command], name)
        except InvalidSetting as error:
            log.warning(str(error))


def execute(command: list[str], text: str = "") -> None:
    """Run a program to its end, with `text` for its input. Raises `InvalidSetting` where it fails."""
    done = subprocess.run(command, input=text, text=True)
    if done.returncode:
        raise InvalidSetting(f"{' '.join(command)}: ended with status {done.returncode}")
