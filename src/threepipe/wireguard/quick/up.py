"""A device from a configuration file, with its adapter, routes, DNS and commands: wg-quick(8) in one process.

This file decides the order of the steps; each step is done elsewhere.
"""

import errno
import logging
import socket
import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from threepipe import platforms
from threepipe.adapter import Adapter
from threepipe.core import fast
from threepipe.errors import EndpointError, InvalidSetting, NameTaken, ThreepipeError
from threepipe.net.connect import HostPort
from threepipe.net.service import announced
from threepipe.platforms.files import write_atomically
from threepipe.session import Session
from threepipe.settings import Network
from threepipe.wireguard.device import Device
from threepipe.wireguard.kernel_routes import KernelRoutes
from threepipe.wireguard.next_hops import NextHopRouting
from threepipe.wireguard.quick.commands import call
from threepipe.wireguard.quick.config import parse_config, read_config, warn_if_exposed, with_status, write_config
from threepipe.wireguard.quick.dns import set_dns
from threepipe.wireguard.quick.ending import Ending
from threepipe.wireguard.quick.journal import Journal
from threepipe.wireguard.quick.metrics import serve, serve_after_takeover
from threepipe.wireguard.quick.names import resolve_patiently
from threepipe.wireguard.quick.nft import protect_addresses
from threepipe.wireguard.quick.sections import Config, PathLike
from threepipe.wireguard.quick.traffic import mtu_for, refreshed_names, traffic
from threepipe.wireguard.quick.undo import ACTIONS, adopt_journal, open_journal, recover
from threepipe.wireguard.settings import Change
from threepipe.wireguard.takeover import Running, Taking, handing_over
from threepipe.wireguard.uapi_server import UapiServer
from threepipe.wireguard.uapi_socket import FOLDER, Listening, listen, name_file, stop_listening

__all__ = ["KIND", "run", "take_over"]

KIND = "threepipe wg up"
"""The name of this command for a takeover."""

_SIGNAL_INTERVAL = 0.2  # Seconds. A signal that arrives just before a wait is handled only after it.
_MAIN_TABLE = 254  # RT_TABLE_MAIN of <linux/rtnetlink.h>.

log = logging.getLogger("threepipe")
events = logging.getLogger("threepipe.wireguard")


def run(path: PathLike, ready: Callable[[], None], offload: bool = True, metrics: HostPort | None = None) -> None:
    """Run the device of the file at `path` until its adapter or the file of its socket is removed, or a signal arrives.

    Calls `ready` when everything is set up. Without `offload`, no superpackets pass at the adapter. `metrics` is the
    address at which Prometheus gets them. At the end
    everything is undone: first the commands of PreDown run, while packets still pass, and last those of PostDown. With
    SaveConfig the state of the device is written to the file. Before anything, it undoes the deeds of a killed process
    of the same device. If another process takes the device over, it returns, and nothing is undone.

    Raises `Ended` if a signal arrives before `ready` was called, the errors of reading files, creating adapters and
    opening sockets, and `InvalidSetting` if a command of the file fails. After an ordinary end raises `EndpointError`
    if something was not undone or not saved.
    """
    path = Path(path)
    config = read_config(path)
    warn_if_exposed(path)
    with Ending() as ending, open_journal(config.name) as journal:
        for failure in recover(journal, config.name):
            log.warning(failure)
        if journal.unfinished:
            text = f"{', '.join(journal.unfinished)} of {config.name} cannot be undone; remove the cause, and try again"
            raise EndpointError(None, text)
        config = read_config(path)  # Recovery may have saved it anew.
        path = path.resolve()
        _run(
            journal,
            ending,
            config,
            lambda stack: _Setup(config, path, journal, ending, stack, metrics).run(ready, offload),
        )


def take_over(name: str, ready: Callable[[], None], metrics: HostPort | None = None) -> None:
    """Go on with the device `name` of another process, which ends then, as `run` does; call `ready` then.

    The settings are those of the other process, and its deeds are undone at the end. No packet is lost. Raises
    `EndpointError`, and the other process goes on, if that fails; then as `run` does.
    """
    with Ending() as ending, Taking(name, KIND) as taking:
        taking.ask()
        with adopt_journal(name, taking.descriptors) as journal:
            config = parse_config(taking.settings, name, f"the settings of {name}")
            path = Path(taking.facts["path"])
            _run(
                journal,
                ending,
                config,
                lambda stack: _Setup(config, path, journal, ending, stack, metrics).go_on(taking, ready),
            )


def _run(journal: Journal, ending: Ending, config: Config, work: Callable[[ExitStack], None]) -> None:
    """Do the work, undo it, and log each part that could not be undone."""
    try:
        with ExitStack() as stack:
            work(stack)
    except BaseException:
        for failure in journal.failures:
            log.warning(failure)
        raise
    if ending.number is None and not journal.given:
        journal.leave_failures()  # Somebody asked for the end by the socket, perhaps `wg down`.
    if journal.failures:
        again = f"; to try again: threepipe wg down {config.name}" if journal.unfinished else ""
        raise EndpointError(None, f"{config.name} has ended, but {'; '.join(journal.failures)}{again}")


class _Parts(NamedTuple):
    """The parts of a device that is up."""

    adapter: Adapter
    inside: Session
    device: Device
    server: UapiServer
    saving: ExitStack
    """Called at the end, before the server stops."""
    over: threading.Event
    failures: list[ThreepipeError]


class _Setup:
    """The steps of setting up a device, each undone when `stack` ends."""

    def __init__(
        self, config: Config, path: Path, journal: Journal, ending: Ending, stack: ExitStack, metrics: HostPort | None
    ) -> None:
        self._config, self._path, self._journal, self._ending, self._stack = config, path, journal, ending, stack
        self._metrics_address, self._metrics = metrics, ExitStack()
        self._interface = config.name
        self._follow: Callable[[], object] = lambda: None
        """Has routes follow changes of the network and of the endpoints."""
        if config.routing and config.table not in ("auto", "off"):
            text = (
                f"{path}: Table = {config.table} has no use beside Routing, as other programs set the routes; remove it"
            )
            raise InvalidSetting(text)
        self._table = _MAIN_TABLE
        if config.table not in ("auto", "off"):
            try:
                self._table = platforms.table_number(config.table)
            except InvalidSetting as error:
                raise InvalidSetting(f"{path}: Table = {config.table}: {error}") from None

    def run(self, ready: Callable[[], None], offload: bool) -> None:
        config, enter = self._config, self._stack.enter_context
        if config.name in (name for _, name in socket.if_nameindex()):
            raise NameTaken(errno.EEXIST, f"there is an interface {config.name} already; remove it, or rename the file")
        listening = listen(config.name)
        self._stack.callback(stop_listening, listening)
        waiting = enter(ExitStack())  # Clients that wait for the end learn of it after all cleanup below.
        # The kernel splits and coalesces superpackets faster than pure Python.
        offload = offload and fast.NATIVE
        if (template := platforms.adapter_name(config.name)) != config.name:  # The commands need the system's name.
            adapter = enter(Adapter.create(template, addresses=config.addresses, offload=offload))
            self._interface = adapter.name
            enter(name_file(FOLDER / f"{config.name}.name", adapter.name))
        if config.pre_up:
            self._call_at_end("post_down", config.post_down)
            self._call(config.pre_up)
        with self._ending.interrupting():
            change = config.change(resolve_patiently)
        mtu = config.mtu or mtu_for(change)
        if template == config.name:
            adapter = enter(Adapter.create(config.name, addresses=config.addresses, mtu=mtu, offload=offload))
        else:
            adapter.mtu = mtu
        if not config.pre_up:
            self._call_at_end("post_down", config.post_down)
        routing = NextHopRouting(config.routing, enter(KernelRoutes(adapter))) if config.routing else None
        inside = enter(adapter.start_session())
        device = enter(Device(mtu=mtu, on_event=lambda event: events.debug("%s", event), routing=routing))
        self._metrics = enter(serve(device, self._interface, self._metrics_address))
        self._set_routes(adapter, device, change)
        self._ending.check()
        set_dns(self._interface, adapter.index, config.dns, self._undo_by, self._journal.hold)
        over = threading.Event()
        failures = enter(traffic(inside, device.session, over))
        server = enter(UapiServer(listening, device, over.set, waiting))
        enter(refreshed_names(config.peers, device))
        saving = enter(ExitStack())
        self._call_at_end("pre_down", config.pre_down)
        self._call(config.post_up)
        self._ending.check()
        if not any(device.status().private_key):
            advice = "add PrivateKey to the file, or to PostUp: wg set %i private-key FILE"
            log.warning(f"{config.name} has no private key, so it reaches no peer; {advice}")
        self._wait_for_end(_Parts(adapter, inside, device, server, saving, over, failures), ready)

    def go_on(self, taking: Taking, ready: Callable[[], None]) -> None:
        """Go on with the device of another process, and undo its deeds at the end."""
        config, journal, enter = self._config, self._journal, self._stack.enter_context
        for listening in (taking.management, taking.takeover):
            self._stack.callback(stop_listening, listening)
        waiting = enter(ExitStack())
        enter(journal.adopted_until_end(("post_down",)))
        adapter = enter(taking.adapter)
        routing = NextHopRouting(config.routing, enter(KernelRoutes(adapter))) if config.routing else None
        inside = enter(adapter.start_session())
        over = threading.Event()
        self._ending.check()
        device = enter(taking.take(inside, lambda event: events.debug("%s", event), routing))
        self._stack.callback(taking.leave)
        enter(journal.adopted_until_end(ACTIONS.keys() - {"pre_down", "post_down"}))
        failures = enter(traffic(inside, device.session, over))
        self._stack.callback(taking.leave)  # Else the traffic would wait for the device.
        taking.begin()
        taking.confirm(inside)
        journal.given = False
        server = enter(UapiServer(taking.management, device, over.set, waiting, taking.clients))
        self._metrics = enter(serve_after_takeover(device, adapter.name, self._metrics_address, over))
        enter(refreshed_names(config.peers, device))
        saving = enter(ExitStack())
        enter(journal.adopted_until_end(("pre_down",)))
        self._wait_for_end(_Parts(adapter, inside, device, server, saving, over, failures), ready, taking.takeover)

    def _wait_for_end(self, parts: "_Parts", ready: Callable[[], None], listening: Listening | None = None) -> None:
        """Be ready, until somebody or something ends the device, or another process takes it over."""
        config, enter = self._config, self._stack.enter_context
        announcement = enter(announced(f"{config.name} is up"))

        def given(pid: int) -> None:
            self._journal.given = True
            self._metrics.close()  # The other process waits for the address.
            parts.saving.pop_all()
            announcement.give_away(pid)
            parts.over.set()

        running = Running(
            config.name,
            KIND,
            parts.adapter,
            parts.inside,
            parts.device,
            parts.server,
            given,
            write_config(_without_keys(config)),
            self._journal.descriptors,
            {"path": str(self._path)},
        )
        if config.save:
            parts.saving.callback(self._save, parts.device)
        enter(handing_over(running, listening))
        ready()
        while not parts.over.wait(_SIGNAL_INTERVAL) and self._ending.number is None:
            self._follow()
        if parts.failures:
            raise parts.failures[0]

    def _undo_by(self, kind: str, **arguments: object) -> None:
        """Write down how to undo the next deed, and undo it at the end."""
        self._stack.enter_context(self._journal.until_end(kind, **arguments))

    def _call(self, commands: tuple[str, ...]) -> None:
        call(commands, self._interface, self._journal.hold, self._ending.interrupting)

    def _call_at_end(self, kind: str, commands: tuple[str, ...]) -> None:
        if commands:
            self._undo_by(kind, name=self._interface, commands=commands)

    def _set_routes(self, adapter: Adapter, device: Device, change: Change) -> None:
        """Configure the device, and route its allowed IPs to the adapter, unless it routes by next hops."""
        config = self._config
        device.configure(change)
        if config.routing:
            self._warn_of_next_hops()
            return
        own = {address.network for address in config.addresses}
        networks: dict[Network, None] = dict.fromkeys(
            network for peer in device.status().peers for network in peer.allowed_ips if network not in own
        )
        default = [network for network in networks if not network.prefixlen]
        if config.table == "auto" and default and not platforms.ROUTES_BY_MARK:
            others = [network for network in networks if network.prefixlen]
            halves = [half for network in default for half in network.subnets()]
            platforms.add_routes(adapter.index, [*halves, *others], _MAIN_TABLE)
            self._pass_by(adapter, device, {network.version for network in default})
        elif config.table == "auto" and default:
            table = config.fwmark or platforms.free_table()
            device.configure(Change(fwmark=table))
            others = [network for network in networks if network.prefixlen]
            platforms.add_routes(adapter.index, others, _MAIN_TABLE)
            protect_addresses(config.name, adapter.index, config.addresses, table, self._undo_by, self._journal.hold)
            platforms.add_routes(adapter.index, default, table)
            versions = {network.version for network in default}
            platforms.divert(versions, table, table, lambda rules: self._undo_by("rules", rules=rules))
        elif config.table != "off":
            platforms.add_routes(adapter.index, networks, self._table)

    def _pass_by(self, adapter: Adapter, device: Device, versions: set[int]) -> None:
        """Have the device's own packets pass by the tunnel that all packets of `versions` would go through."""
        undoing = self._stack.enter_context(ExitStack())  # Now, so that packets pass until everything later is undone.

        def before(addresses: list[str]) -> None:
            undoing.enter_context(self._journal.until_end("bypass", addresses=addresses))

        ways = self._stack.enter_context(platforms.bypass(adapter.index, versions, before))
        self._follow = lambda: ways.update(peer.endpoint[0] for peer in device.status().peers if peer.endpoint)
        self._follow()

    def _warn_of_next_hops(self) -> None:
        if own := [str(address) for address in self._config.addresses if address.version == 4]:
            log.warning(
                f"{self._config.name} has {', '.join(own)}, and no packet finds a peer whose routing daemon announces"
                f" such an address as its next hop; give it to lo: PostUp = ip address add {own[0]} dev lo"
            )

    def _save(self, device: Device) -> None:
        """Write the state of the device to its file. Until that succeeds, the journal has it."""
        status = device.status()
        if not any(status.private_key):
            lost = "the device has no key, or has lost it, as it does when its adapter is removed"
            log.warning(f"{self._path} was not saved: {lost}")
            return
        text = write_config(with_status(self._config, status))
        try:
            with self._journal.until_end("save", path=str(self._path), text=text):
                pass
        except OSError:  # There is no room for it in the journal.
            write_atomically(self._path, text.encode(), 0o600)


def _without_keys(config: Config) -> Config:
    """Return the settings without keys, which are those of the device."""
    peers = tuple(replace(peer, preshared_key=None) for peer in config.peers)
    return replace(config, private_key=None, peers=peers)
