"""threepipe-wg NAME: a device of its own process, as wireguard-go is started, for wg-quick and other tools.

It makes the adapter and the socket by which wg(8) manages it, and returns when both are there, while the device goes
on in the background; in the foreground with -f or WG_PROCESS_FOREGROUND=1. It ends on SIGTERM and SIGINT, and when
the adapter or the socket's file is removed. WG_TUN_FD, WG_UAPI_FD and LOG_LEVEL are as in wireguard-go.
"""

import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from types import FrameType

from threepipe.core import fast
from threepipe.errors import AdapterGone, InvalidSetting, ThreepipeError

__all__ = ["end_on_signals", "in_background", "main", "serve"]

_USAGE = "usage: threepipe-wg [-f|--foreground] NAME"
_LEVELS = {"verbose": logging.DEBUG, "debug": logging.DEBUG, "error": logging.ERROR, "silent": logging.CRITICAL + 1}
_MTU = 1420  # As WireGuard's devices have it where nobody says: 1500 less 80 for IPv6, UDP and the message.

_log = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; its exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    foreground = os.environ.get("WG_PROCESS_FOREGROUND") == "1"
    while given and given[0] in ("-f", "--foreground"):
        foreground = True
        del given[0]
    if len(given) != 1 or given[0].startswith("-"):
        print(_USAGE, file=sys.stderr)  # noqa: T201
        return 1
    logging.basicConfig(
        level=_LEVELS.get(os.environ.get("LOG_LEVEL", "error"), logging.ERROR),
        format=f"%(levelname)s: ({given[0]}) %(asctime)s %(message)s",
    )
    name = given[0]
    if foreground:
        return _told(serve, name, lambda: None)
    return in_background(lambda ready: serve(name, ready))


def in_background(work: Callable[[Callable[[], None]], None]) -> int:
    """Do `work` in a process of its own, and return when it says that it is ready, or its exit status before.

    Called before there are any threads. What `work` raises on purpose is told on standard error.
    """
    if sys.platform == "win32":
        raise InvalidSetting("there is no background on this system; leave the command running, or make it a service")
    heard, told = os.pipe()
    if child := os.fork():
        os.close(told)
        with os.fdopen(heard, "rb") as pipe:
            if pipe.read():
                return 0
        _, status = os.waitpid(child, 0)
        return os.waitstatus_to_exitcode(status) or 1
    os.close(heard)
    os.setsid()

    def ready() -> None:
        os.write(told, b"ready")
        os.close(told)
        with open(os.devnull, "r+b") as null:
            for descriptor in range(2 if os.environ.get("LOG_LEVEL") else 3):
                os.dup2(null.fileno(), descriptor)

    status = 1
    try:
        status = _told(work, ready)
    except KeyboardInterrupt:
        pass  # It was ended before it was ready.
    except Exception:
        traceback.print_exc()  # Ours to mend, and not to be lost with the process.
    finally:
        logging.shutdown()
        sys.stderr.flush()
        os._exit(status)


def _told(work: Callable[..., None], *arguments: object) -> int:
    """Do `work`, and tell what it raises on purpose: the exit status."""
    try:
        work(*arguments)
    except (ThreepipeError, OSError) as error:
        print(f"{os.path.basename(sys.argv[0])}: {error}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


def end_on_signals() -> None:
    """Have whatever asks a program to end raise KeyboardInterrupt, also where a shell lets it ignore that.

    Once: what is being undone then is not to be broken off by a second one. Programs that it runs meanwhile do end.
    """
    asked = False

    def end(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if not asked:
            asked = True
            raise KeyboardInterrupt

    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if (number := getattr(signal, name, None)) is not None:  # The last one is not everywhere.
            signal.signal(number, end)


def serve(name: str, ready: Callable[[], None]) -> None:
    """Be the device `name` until it is to end; `ready` is called when it can be managed. Raises what opening raises."""
    from threepipe.adapter import Adapter
    from threepipe.endpoints import open_endpoint
    from threepipe.pipe import pipe
    from threepipe.wireguard.device import Device
    from threepipe.wireguard.tunnel import Event
    from threepipe.wireguard.uapi_socket import UapiServer, inherit, listen

    adapter: Adapter | None = None

    def note(event: Event) -> None:
        _log.debug("%s", event)
        if adapter is not None and event.name == "handshake":
            # It is set by others, after this began: wg-quick knows it by then, and there is nothing to be sent yet.
            with suppress(AdapterGone):  # Which ends the pipe, too, and is told there.
                device.mtu = adapter.info.mtu

    with ExitStack() as waiting, ExitStack() as stack:
        if number := os.environ.get("WG_TUN_FD"):
            inside = stack.enter_context(open_endpoint(f"fd:{number}"))
        else:
            adapter = stack.enter_context(Adapter.create(name, mtu=_MTU, offload=fast.NATIVE))
            inside = stack.enter_context(adapter.start_session())
        device = stack.enter_context(Device(mtu=_MTU, on_event=note))
        inherited = os.environ.get("WG_UAPI_FD")
        listening = inherit(inherited) if inherited else listen(name)
        stack.enter_context(UapiServer(listening, device, device.close, waiting))

        end_on_signals()
        ready()
        _log.debug("device %s is ready", name)
        try:
            pipe(inside, device.session)
        except KeyboardInterrupt:
            pass
        except ThreepipeError as error:
            _log.debug("%s", error)  # The adapter was removed, which is an ordinary end.
