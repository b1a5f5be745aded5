"""A process that routes everything to an interface until a program ends, as rules stay when their interface goes.

`pipe` removes its rules itself; a program that took the place of threepipe cannot.
"""

import errno
import os
import select
import signal
import subprocess
import sys
from collections.abc import Collection
from contextlib import suppress

from threepipe import platforms
from threepipe.endpoints.adapter_openers import route_everything
from threepipe.errors import EndpointError

__all__ = ["keep_routes", "start_keeper"]

_PROGRAM = "from threepipe.endpoints.keeper import keep_routes as keep; keep()"
_READY = "ready"


def start_keeper(index: int, versions: Collection[int], mark: int) -> None:
    """Route all packets without `mark`, of these IP versions, to the interface until this process ends.

    It may become another program by exec. Raises `EndpointError` if the routes are refused.
    """
    numbers = map(str, [os.getpid(), index, mark, *sorted(versions)])
    keeper = subprocess.Popen(
        [sys.executable, "-P", "-c", _PROGRAM, *numbers],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert keeper.stdout is not None
    with keeper.stdout as answers:
        text = answers.read().decode()
    if text == _READY:
        keeper.returncode = 0  # It outlives this object on purpose, and Python would warn.
        return
    keeper.wait()
    raise EndpointError(errno.EINVAL, f"default-route: {text or 'the process that undoes it could not be started'}")


def keep_routes() -> None:
    """Run that process, whose arguments are the numbers of process, interface, mark and IP versions."""
    process, index, mark, *versions = map(int, sys.argv[1:])
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        signal.signal(getattr(signal, name), signal.SIG_IGN)  # It ends by itself, after the program.
    try:
        if (program := platforms.process_file(process)) is None:
            raise OSError(errno.ENOSYS, "this system does not tell when a program ends (pidfd_open, Linux 5.3)")
        undo = route_everything(index, versions, mark)
    except OSError as error:
        _tell(str(error.strerror))
        return
    with undo:
        _tell(_READY)
        with open(os.devnull, "w") as null:
            os.dup2(null.fileno(), 1)
        select.select([program], [], [])


def _tell(text: str) -> None:
    """Answer the process that started this one, unless it was killed meanwhile."""
    with suppress(BrokenPipeError):
        os.write(1, text.encode())
