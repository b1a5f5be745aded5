"""threepipe-wg NAME: a device as a process of its own, which starts as wireguard-go does, for wg-quick and other tools.

It creates the adapter and the socket by which wg(8) manages the device, then returns while the device continues in the
background; with -f or WG_PROCESS_FOREGROUND=1 it stays in the foreground. It ends on SIGTERM, SIGINT and SIGHUP, and
when the adapter or the socket's file is removed. A persistent adapter of that name is used as it is, and stays. With
--no-offload no superpackets pass. With --routing and the networks of a mesh, such as fd12:3456:789a::/48,10.42.0.0/16,
packets go to the peers that are the next hops of their routes. With --metrics and [HOST:]PORT it serves metrics to
Prometheus there; a port alone is at 127.0.0.1. With --takeover it goes on with the device in place of the process that
runs it. The name utun on macOS, and tun on NetBSD and OpenBSD, has the system choose a number; the
name is then written to the file that WG_TUN_NAME_FILE names. That, WG_TUN_FD, WG_UAPI_FD and LOG_LEVEL mean the same
as for wireguard-go.
"""

import logging
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from logging.handlers import SysLogHandler
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from threepipe.core import fast
from threepipe.errors import (
    AdapterError,
    AdapterGone,
    AdapterNotFound,
    EndpointError,
    InvalidSetting,
    NameTaken,
    ThreepipeError,
    hide_given_keys,
    text_of,
)
from threepipe.net.connect import HostPort, parse_host_port
from threepipe.net.service import announced
from threepipe.net.signals import handle_signals
from threepipe.wireguard.quick.ending import SIGNALS, Ended, Ending

if TYPE_CHECKING:
    from threepipe.adapter import Adapter
    from threepipe.session import Session
    from threepipe.settings import Network
    from threepipe.wireguard.device import Device
    from threepipe.wireguard.tunnel import Event
    from threepipe.wireguard.uapi_server import UapiServer
    from threepipe.wireguard.uapi_socket import Listening

__all__ = ["in_background", "main", "serve", "take_over"]

_USAGE = (
    "usage: threepipe-wg [-f|--foreground] [--no-offload] [--routing NETWORK,...] [--metrics [HOST:]PORT] [--takeover]"
    " NAME"
)
_OPTIONS = {"-f": "foreground", "--foreground": "foreground", "--no-offload": "plain", "--takeover": "takeover"}
_VALUES = ("--routing", "--metrics")
"""The options that have a value."""
_KIND = "threepipe-wg"
_LEVELS = {"verbose": logging.DEBUG, "debug": logging.DEBUG, "error": logging.ERROR, "silent": logging.CRITICAL + 1}
_SIGNAL_INTERVAL = 0.2  # Seconds. A signal that arrives just before a wait is handled only after it.
_DEFAULT_MTU = 1420  # As in other implementations: 1500 less 80 for IPv6, UDP and the message.

_SYSTEM_LOGS = ("/dev/log", "/var/run/log", "/var/run/syslog")
"""The sockets of the system's log: on Linux and OpenBSD, on FreeBSD and NetBSD, and on macOS."""

_log = logging.getLogger("threepipe.wireguard")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    chosen = {"foreground"} if os.environ.get("WG_PROCESS_FOREGROUND") == "1" else set()
    values: dict[str, str] = {}
    while given and given[0] in (*_OPTIONS, *_VALUES):
        if (option := given.pop(0)) in _OPTIONS:
            chosen.add(_OPTIONS[option])
        elif given:
            values[option] = given.pop(0)
    networks, metrics = (values.get(option) for option in _VALUES)
    if len(given) != 1 or given[0].startswith("-"):
        print(_USAGE, file=sys.stderr)  # noqa: T201
        return 1
    name = given[0]
    logging.basicConfig(
        level=_LEVELS.get(os.environ.get("LOG_LEVEL", "error"), logging.ERROR),
        format=f"%(levelname)s: ({name}) %(asctime)s %(message)s",
    )

    def work(ready: Callable[[], None]) -> None:
        served = None if metrics is None else parse_host_port(metrics, listening=True)
        if "takeover" in chosen:
            take_over(name, ready, served)
        else:
            serve(name, ready, "plain" not in chosen, networks, served)

    if "foreground" in chosen:
        try:
            work(lambda: None)
        except Ended as ended:
            return ended.status
        except (ThreepipeError, OSError) as error:
            _complain(error)
            return 1
        return 0
    return in_background(work, name)


def in_background(work: Callable[[Callable[[], None]], None], name: str) -> int:
    """Run `work` in a process of its own. Return 0 when it calls `ready`, or its exit status if it ends before.

    Call this before any thread is started. Signals that arrive meanwhile are for that process. Until it is ready it
    uses standard error, later the system's log: warnings and errors are there, with the `name` of the device. With
    LOG_LEVEL set, standard error stays open and everything goes there.
    """
    if sys.platform == "win32":
        raise InvalidSetting("Windows has no background processes; leave the command running, or make it a service")
    reader, writer = os.pipe()
    # A signal that arrives before its handler is set would end only one of the two processes.
    numbers = {getattr(signal, each) for each in SIGNALS}
    signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    if child := os.fork():
        os.close(writer)
        with handle_signals(SIGNALS, lambda number: _forward(number, child)), os.fdopen(reader, "rb") as pipe:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)
            if pipe.read():
                return 0
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            return 128 - code if code < 0 else code or 1
    os.close(reader)
    os.setsid()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)
    _run_and_exit(work, name, writer)


def _forward(number: int, child: int) -> None:
    with suppress(ProcessLookupError):  # It has ended just now.
        os.kill(child, number)


def _run_and_exit(work: Callable[[Callable[[], None]], None], name: str, writer: int) -> NoReturn:
    """Run `work` in the forked process, tell the other one through `writer` when it is ready, and exit."""
    is_ready = False

    def ready() -> None:
        nonlocal is_ready
        if not os.environ.get("LOG_LEVEL"):
            _log_to_system(name)
        try:
            os.write(writer, b"ready")
        except BrokenPipeError as error:
            text = f"the command that was starting {name} has been killed, so the device ends as well"
            raise EndpointError(error.errno, text) from None
        os.close(writer)
        is_ready = True
        with open(os.devnull, "r+b") as null:
            for descriptor in range(2 if os.environ.get("LOG_LEVEL") else 3):
                os.dup2(null.fileno(), descriptor)

    status = 1
    try:
        work(ready)
        status = 0
    except (ThreepipeError, OSError) as error:
        _log.error(text_of(error)) if is_ready else _complain(error)
    except KeyboardInterrupt as ended:
        status = ended.status if isinstance(ended, Ended) else 128 + signal.SIGINT
    except Exception as error:
        # A defect; os._exit would lose it.
        text = "".join(traceback.format_exception(error))
        _log.critical(text) if is_ready else sys.stderr.write(text)
    finally:
        logging.shutdown()
        sys.stderr.flush()
        os._exit(status)


def _complain(error: Exception) -> None:
    print(f"{os.path.basename(sys.argv[0])}: {hide_given_keys(text_of(error))}", file=sys.stderr)  # noqa: T201


def _log_to_system(name: str) -> None:
    """Send warnings and errors to the system's log, by the socket of syslogd or of systemd's journal."""
    path = next(filter(os.path.exists, _SYSTEM_LOGS), None)
    if path is None:
        path = _SYSTEM_LOGS[0]
        _log.warning(f"there is no {path}, so later messages are lost; LOG_LEVEL=error keeps standard error open")
    handler = SysLogHandler(path, SysLogHandler.LOG_DAEMON)  # It connects, or tries again, for each message.
    handler.ident = f"threepipe[{os.getpid()}]: "
    handler.setFormatter(logging.Formatter(f"{name}: %(levelname)s: %(message)s"))
    handler.setLevel(logging.WARNING)
    logging.getLogger("threepipe").addHandler(handler)


def serve(
    name: str,
    ready: Callable[[], None],
    offload: bool = True,
    networks: str | None = None,
    metrics: HostPort | None = None,
) -> None:
    """Run the device `name` until it is to end; call `ready` when it can be managed.

    Without `offload`, no superpackets pass at the adapter. With `networks`, those of a mesh, packets are routed by next
    hops. `metrics` is the address at which Prometheus gets them.

    Raises `Ended` if a signal arrives before, and what opening it raises.
    """
    from threepipe import platforms
    from threepipe.platforms.files import write_atomically
    from threepipe.wireguard.device import Device
    from threepipe.wireguard.kernel_routes import KernelRoutes
    from threepipe.wireguard.next_hops import NextHopRouting
    from threepipe.wireguard.quick import metrics as served
    from threepipe.wireguard.settings import check_device_name
    from threepipe.wireguard.uapi_server import UapiServer
    from threepipe.wireguard.uapi_socket import inherit, listen

    check_device_name(name)
    template = platforms.adapter_name(name)
    is_chosen = template == f"{name}%d"
    with Ending() as ending, ExitStack() as waiting, ExitStack() as stack:
        routing = None
        if descriptor := os.environ.get("WG_TUN_FD"):
            if networks is not None:
                raise InvalidSetting("--routing needs an adapter of threepipe-wg's own; leave WG_TUN_FD unset")
            adapter = stack.enter_context(_inherited(descriptor))
        else:
            adapter = stack.enter_context(_adapter(template if is_chosen else name, offload and fast.NATIVE))
            name = adapter.name
            if is_chosen and (path := os.environ.get("WG_TUN_NAME_FILE")):
                write_atomically(Path(path), f"{name}\n".encode(), 0o400)
            if networks is not None:
                routing = NextHopRouting(_parse_routing(networks), stack.enter_context(KernelRoutes(adapter)))
        inside = stack.enter_context(adapter.start_session())
        on_event = _MtuFollower(None if descriptor else adapter)
        mtu = _DEFAULT_MTU if descriptor else adapter.mtu
        device = stack.enter_context(Device(mtu=mtu, on_event=on_event, routing=routing))
        on_event.device = device
        serving = stack.enter_context(served.serve(device, name, metrics))
        inherited = os.environ.get("WG_UAPI_FD")
        listening = inherit(inherited) if inherited else listen(name)
        server = stack.enter_context(UapiServer(listening, device, device.close, waiting))
        ending.check()
        facts = {"routing": networks, "inherited": bool(descriptor)}
        with _announced_and_shared(name, adapter, inside, device, server, serving, facts):
            ready()
            _log.debug("device %s is ready", name)
            _pump(inside, device, ending)


def take_over(name: str, ready: Callable[[], None], metrics: HostPort | None = None) -> None:
    """Go on with the device `name` in place of its process, which ends then; call `ready` then. Raises as `serve` does.

    If that fails, the other process goes on.
    """
    from threepipe.wireguard.kernel_routes import KernelRoutes
    from threepipe.wireguard.next_hops import NextHopRouting
    from threepipe.wireguard.quick import metrics as served
    from threepipe.wireguard.quick.traffic import traffic
    from threepipe.wireguard.takeover import Taking
    from threepipe.wireguard.uapi_server import UapiServer

    over = threading.Event()
    with Ending() as ending, Taking(name, _KIND) as taking, ExitStack() as waiting, ExitStack() as stack:
        taking.ask()
        adapter = stack.enter_context(taking.adapter)
        networks = taking.facts["routing"]
        routing = None
        if networks is not None:
            routing = NextHopRouting(_parse_routing(networks), stack.enter_context(KernelRoutes(adapter)))
        inside = stack.enter_context(adapter.start_session())
        on_event = _MtuFollower(None if taking.facts["inherited"] else adapter)
        ending.check()
        device = on_event.device = stack.enter_context(taking.take(inside, on_event, routing))
        stack.callback(taking.leave)
        failures = stack.enter_context(traffic(inside, device.session, over))
        stack.callback(taking.leave)  # Else the traffic would wait for the device.
        taking.begin()
        taking.confirm(inside)
        server = UapiServer(taking.management, device, device.close, waiting, taking.clients)
        stack.enter_context(server)
        serving = stack.enter_context(served.serve_after_takeover(device, name, metrics, over))
        with _announced_and_shared(name, adapter, inside, device, server, serving, taking.facts, taking.takeover):
            ready()
            while not over.wait(_SIGNAL_INTERVAL) and ending.number is None:
                pass
        for failure in failures:
            _log.debug("%s", failure)


class _MtuFollower:
    """Logs events, and follows the adapter's MTU: wg-quick sets it late, but before there is a packet to send."""

    def __init__(self, adapter: "Adapter | None") -> None:
        self._adapter = adapter
        self.device: Device | None = None

    def __call__(self, event: "Event") -> None:
        _log.debug("%s", event)
        if self._adapter is not None and self.device is not None and event.name == "handshake":
            with suppress(AdapterGone):  # This ends the pipe too, and is reported there.
                self.device.mtu = self._adapter.info.mtu


@contextmanager
def _announced_and_shared(
    name: str,
    adapter: "Adapter",
    inside: "Session",
    device: "Device",
    server: "UapiServer",
    serving: ExitStack,
    facts: dict[str, Any],
    listening: "Listening | None" = None,
) -> Iterator[None]:
    """Say that the device is up, and let other processes take it over, while the block runs."""
    from threepipe.wireguard.takeover import Running, handing_over

    with announced(f"{name} is up") as announcement, ExitStack() as stack:

        def given(pid: int) -> None:
            serving.close()  # The other process waits for the address of the metrics.
            announcement.give_away(pid)

        running = Running(name, _KIND, adapter, inside, device, server, given, facts=facts)
        stack.enter_context(handing_over(running, listening))
        yield


def _pump(inside: "Session", device: "Device", ending: Ending) -> None:
    from threepipe.piping import pipe

    try:
        with ending.interrupting():
            pipe(inside, device.session)
    except Ended:
        pass  # The usual way to end it.
    except ThreepipeError as error:
        _log.debug("%s", error)  # The adapter was removed, which is an ordinary end.


def _parse_routing(text: str) -> "tuple[Network, ...]":
    from threepipe.wireguard.quick.config import parse_value

    try:
        return tuple(parse_value("routing", text))
    except ValueError as error:
        raise InvalidSetting(f"--routing {text}: {error}") from None


def _adapter(name: str, offload: bool) -> "Adapter":
    """Create the adapter, or open the persistent one of that name, which keeps its MTU. Raises `AdapterError`.

    As with devices of the kernel, a new one has no link-local address: `wg-quick save` would add one at each restart.
    """
    from threepipe import platforms
    from threepipe.adapter import Adapter

    try:
        adapter = Adapter.create(name, mtu=_DEFAULT_MTU, offload=offload)
    except NameTaken as taken:
        try:
            return Adapter.open(name, offload=offload)
        except AdapterNotFound:  # It is another kind of interface.
            raise taken from None
    try:
        platforms.make_no_link_local(adapter.index, adapter.name)
    except AdapterError as error:  # The kernel has no IPv6, or is gVisor's.
        _log.debug("%s", error)
    return adapter


def _inherited(descriptor: str) -> "Adapter":
    """Return the adapter whose descriptor the parent process left open. Raises `InvalidSetting`."""
    from threepipe import platforms
    from threepipe.adapter import Adapter

    device = platforms.inherit(int(descriptor)) if descriptor.isdecimal() else None
    if device is None:
        raise InvalidSetting(f"WG_TUN_FD={descriptor} is not a descriptor of an open TUN device; leave it unset")
    os.set_inheritable(int(descriptor), False)
    return Adapter(device)
