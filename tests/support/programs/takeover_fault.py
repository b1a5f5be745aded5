"""`threepipe` with a fault at one step of a takeover, as at either process: it is killed, the step fails, or somebody
removes the sockets of the device.

Arguments: the fault, the step as a class and a method of the module `takeover` that the command uses, and those of the
command, which is `wg` or `pipe`.
"""

import errno
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from threepipe.cli import main
from threepipe.endpoints import takeover as takeover_of_pipes
from threepipe.wireguard import takeover as takeover_of_devices


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def fail() -> None:
    raise OSError(errno.EIO, "the step failed")


def remove_sockets() -> None:
    for path in Path("/run/wireguard").iterdir():
        if path.is_socket():
            path.unlink()


def faulty(step: Callable[..., Any], fault: str) -> Callable[..., Any]:
    before, after = {
        "kill-before": (die, None),
        "kill-after": (None, die),
        "fail-before": (fail, None),
        "fail-after": (None, fail),
        "remove-before": (remove_sockets, None),
    }[fault]

    def replacement(*arguments: Any, **named: Any) -> Any:
        if before is not None:
            before()
        result = step(*arguments, **named)
        if after is not None:
            after()
        return result

    return replacement


fault, step, *sys.argv[1:] = sys.argv[1:]
kind, _, method = step.partition(".")
owner = getattr({"wg": takeover_of_devices, "pipe": takeover_of_pipes}[sys.argv[1]], kind)
setattr(owner, method, faulty(getattr(owner, method), fault))
main()
