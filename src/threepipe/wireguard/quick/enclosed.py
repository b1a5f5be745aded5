"""A program that sees only the tunnel of a configuration file: `threepipe wg exec`. Needs no privilege.

The adapter and the program are in namespaces of their own, and the WireGuard sockets are outside, in this process.
"""

import logging
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from threepipe import platforms
from threepipe.adapter import DEFAULT_CAPACITY, allows_offload
from threepipe.core import fast
from threepipe.errors import InvalidSetting
from threepipe.session import Session
from threepipe.settings import AdapterSettings, Network
from threepipe.wireguard.device import Device
from threepipe.wireguard.quick.config import read_config, warn_if_exposed
from threepipe.wireguard.quick.dns import is_address
from threepipe.wireguard.quick.names import resolve_patiently
from threepipe.wireguard.quick.sections import Config, PathLike
from threepipe.wireguard.quick.traffic import mtu_for, refreshed_names, traffic
from threepipe.wireguard.settings import Change

__all__ = ["run_enclosed"]

log = logging.getLogger("threepipe")


def run_enclosed(path: PathLike, words: Sequence[str], offload: bool = True) -> int:
    """Run a program that reaches only the peers of the file at `path`, and return its status, as of `subprocess`.

    The addresses, MTU, DNS, allowed IPs and peers of the file apply; its commands, table, mark and SaveConfig do not.
    Signals to this process are sent on to the program. For the main thread, before others are started.

    Raises `InvalidSetting` for a file with Routing, the errors of reading files and opening sockets, `PermissionDenied`
    if the system forbids user namespaces, and `EndpointError` if the program cannot be started.
    """
    config = read_config(path)
    warn_if_exposed(path)
    if config.routing:
        raise InvalidSetting(f"{path}: Routing needs a routing daemon, and wg exec runs none; use threepipe wg up")
    _warn_of_ignored(config, Path(path))
    change = replace(config.change(resolve_patiently), fwmark=None)
    mtu = config.mtu or mtu_for(change)
    with ExitStack() as stack:
        enclosure = platforms.enclose(
            _settings(config, change, mtu, offload),
            DEFAULT_CAPACITY,
            [entry for entry in config.dns if is_address(entry)],
            [entry for entry in config.dns if not is_address(entry)],
        )
        stack.callback(enclosure.close)
        port = platforms.open_inherited(enclosure.descriptor)
        assert port is not None, "it is an adapter's descriptor"
        inside = stack.enter_context(Session(port))
        with platforms.kept_signals() as signals:
            device = stack.enter_context(Device(mtu=mtu))
            device.configure(change)
            program = enclosure.start(words)
            over = _Over(program)
            failures = stack.enter_context(traffic(inside, device.session, over))
            stack.enter_context(refreshed_names(config.peers, device))
            status = signals.wait_for(program)
            stack.close()
    if failures:
        raise failures[0]
    return status


class _Over(threading.Event):
    """Ends the program when packets pass no more."""

    def __init__(self, program: platforms.EnclosedProgram) -> None:
        super().__init__()
        self._program = program

    def set(self) -> None:
        super().set()
        self._program.kill()


def _settings(config: Config, change: Change, mtu: int, offload: bool) -> AdapterSettings:
    own = {address.network for address in config.addresses}
    routes: dict[Network, None] = {}
    for peer in change.peers:
        routes |= dict.fromkeys(network for network in peer.allowed_ips if network not in own)
        for network in peer.removed_ips:
            routes.pop(network, None)
    return AdapterSettings(
        config.name,
        addresses=config.addresses,
        routes=tuple(routes),
        mtu=mtu,
        # The kernel splits and coalesces superpackets faster than pure Python.
        offload=offload and fast.NATIVE and allows_offload(),
    ).checked()


def _warn_of_ignored(config: Config, path: Path) -> None:
    commands = (config.pre_up, config.post_up, config.pre_down, config.post_down)
    given = {
        "commands": any(commands),
        "FwMark": bool(config.fwmark),
        "Table": config.table != "auto",
        "SaveConfig": config.save,
    }
    if ignored := [name for name, is_given in given.items() if is_given]:
        log.warning(f"{path}: {', '.join(ignored)} {'does' if len(ignored) == 1 else 'do'} not apply to wg exec")
