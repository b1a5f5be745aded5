"""Running the service until a signal ends it."""

import sys

assert sys.platform == "linux"

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from threepipe.net.signals import handle_signals
from threepipe.platforms.linux.service.listening import inherit, listen, socket_path
from threepipe.platforms.linux.service.server import Server

__all__ = ["serve"]


def serve(policy: Path, path: Path | None, listed: int | None, ready: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT; SIGHUP has the file `policy` read again. For the main thread.

    Listens at the descriptor `listed` that systemd gave, or else at `path`, by default the place where programs look.
    Calls `ready` with the place. Raises `InvalidSetting` and `EndpointError`.
    """
    with ExitStack() as stack:
        if listed is not None:
            listening, place = inherit(listed), f"descriptor {listed}"
        else:
            wanted = path or socket_path() or Path()
            listening, remove = listen(wanted)
            stack.callback(remove)
            place = str(wanted)
        stack.callback(listening.close)
        server = Server(listening, policy)
        stack.enter_context(handle_signals(("SIGTERM", "SIGINT"), lambda _: server.stop()))
        stack.enter_context(handle_signals(("SIGHUP",), lambda _: server.reload()))
        ready(place)
        server.run()
