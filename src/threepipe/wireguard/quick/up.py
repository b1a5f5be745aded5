"""A device from a configuration file, with its adapter, routes, DNS and commands: wg-quick(8) in one process.

This file decides the order of the steps; each step is done elsewhere.
"""

import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from threepipe import platforms
from threepipe.adapter import Adapter
from threepipe.core import fast
from threepipe.errors import AdapterGone, EndpointError, SessionClosed, ThreepipeError
from threepipe.piping import pipe
from threepipe.platforms.files import write_atomically
from threepipe.session import Session
from threepipe.settings import Network
from threepipe.wireguard.device import Device
from threepipe.wireguard.quick.commands import call, call_all
from threepipe.wireguard.quick.config import Config, PeerConfig, with_status, write_config
from threepipe.wireguard.quick.dns import dns, is_address
from threepipe.wireguard.quick.names import resolve, resolve_patiently
from threepipe.wireguard.quick.nft import protect_addresses
from threepipe.wireguard.settings import Change, PeerChange
from threepipe.wireguard.uapi_socket import UapiServer, listen, stop_listening

__all__ = ["run"]

_OVERHEAD = 80  # Bytes: IPv6, UDP, and the message around a packet.
_MIN_MTU = 1280
_LOOKUP_AFTER = 135.0  # Seconds since the last handshake after which a peer's name is looked up again.
_LOOKUP_INTERVAL = 15.0  # Seconds.
_SIGNAL_INTERVAL = 0.2  # Seconds. A signal that arrives just before a wait is handled only after it.
_MAIN_TABLE = 254  # RT_TABLE_MAIN of <linux/rtnetlink.h>.

log = logging.getLogger("threepipe")


def run(config: Config, ready: Callable[[], None], save_to: Path | None = None) -> None:
    """Run the device of `config` until its adapter or the file of its socket is removed, or an exception is raised.

    Calls `ready` when everything is set up. At the end everything is undone: first the commands of PreDown run, while
    packets still pass, and last those of PostDown. With SaveConfig the state of the device is written to `save_to`.
    Raises the errors of creating adapters and opening sockets, and `InvalidSetting` if a command of the file fails.
    """
    with ExitStack() as stack:
        listening = listen(config.name)
        stack.callback(stop_listening, listening)
        waiting = stack.enter_context(ExitStack())  # Clients that wait for the end learn of it after all cleanup below.
        call(config.pre_up, config.name)
        stack.callback(call_all, config.post_down, config.name)
        change = config.change(resolve_patiently)
        mtu = config.mtu or _mtu_for(change)
        # The kernel splits and coalesces superpackets faster than pure Python.
        created = Adapter.create(config.name, addresses=config.addresses, mtu=mtu, offload=fast.NATIVE)
        adapter = stack.enter_context(created)
        inside = stack.enter_context(adapter.start_session())
        device = stack.enter_context(Device(mtu=mtu))
        stack.enter_context(_routes(config, adapter, device, change))
        stack.enter_context(dns(config.name, config.dns))
        over = threading.Event()
        failures = stack.enter_context(_traffic(inside, device.session, over))
        stack.enter_context(UapiServer(listening, device, over.set, waiting))
        stack.enter_context(_refreshed_names(config.peers, device))
        call(config.post_up, config.name)
        if save_to is not None and config.save:
            stack.callback(_save, config, device, save_to.resolve())
        stack.callback(call_all, config.pre_down, config.name)
        ready()
        while not over.wait(_SIGNAL_INTERVAL):
            pass
        if failures:
            raise failures[0]


@contextmanager
def _traffic(inside: Session, outside: Session, over: threading.Event) -> Iterator[list[ThreepipeError]]:
    """Forward packets while the block runs; if that ends earlier, set `over` and add a failure to the yielded list."""
    failures: list[ThreepipeError] = []

    def forward() -> None:
        try:
            pipe(inside, outside)
        except AdapterGone as error:
            log.info(str(error))  # The adapter was removed, which is an ordinary end.
        except ThreepipeError as error:
            failures.append(error)
        finally:
            over.set()

    thread = threading.Thread(target=forward, name="threepipe-traffic")
    thread.start()
    try:
        yield failures
    finally:
        inside.close()
        thread.join()


def _save(config: Config, device: Device, path: Path) -> None:
    """Write the state of the device to `path`, for root only, as it has keys."""
    status = device.status()
    if not any(status.private_key):
        log.warning(f"{path} was not saved: the device has lost its key, as it does when its adapter is removed")
        return
    write_atomically(path, write_config(with_status(config, status)).encode(), 0o600)


def _mtu_for(change: Change) -> int:
    """Return the MTU that fits the paths to all endpoints, computed as by wg-quick."""
    paths = [platforms.path_mtu(peer.endpoint[0]) for peer in change.peers if peer.endpoint]
    return max(min(paths, default=1500) - _OVERHEAD, _MIN_MTU)


@contextmanager
def _routes(config: Config, adapter: Adapter, device: Device, change: Change) -> Iterator[None]:
    """Configure the device, and route its allowed IPs to the adapter while the block runs."""
    with ExitStack() as stack:
        own = {address.network for address in config.addresses}
        networks: dict[Network, None] = dict.fromkeys(
            network for peer in config.peers for network in peer.allowed_ips if network not in own
        )
        default = [network for network in networks if not network.prefixlen]
        if config.table == "auto" and default:
            table = config.fwmark or platforms.free_table()
            device.configure(replace(change, fwmark=table))
            others = [network for network in networks if network.prefixlen]
            stack.enter_context(platforms.routed(adapter.index, others, _MAIN_TABLE, None))
            stack.enter_context(protect_addresses(config.name, adapter.index, config.addresses, table))
            stack.enter_context(platforms.routed(adapter.index, default, table, table))
        else:
            device.configure(change)
            if config.table != "off":
                table = _MAIN_TABLE if config.table == "auto" else int(config.table)
                stack.enter_context(platforms.routed(adapter.index, list(networks), table, None))
        yield


@contextmanager
def _refreshed_names(peers: Iterable[PeerConfig], device: Device) -> Iterator[None]:
    """Look up endpoints again while the block runs, if handshakes fail, as their addresses may have changed."""
    named = {peer.public_key: peer.endpoint for peer in peers if peer.endpoint and not is_address(peer.endpoint[0])}
    if not named:
        yield
        return
    over = threading.Event()

    def watch() -> None:
        while not over.wait(_LOOKUP_INTERVAL):
            for peer in device.status().peers:
                endpoint = named.get(peer.public_key)
                if endpoint is not None and peer.tx_bytes and peer.handshake_age > _LOOKUP_AFTER:
                    try:
                        found = resolve(endpoint)
                    except EndpointError as error:
                        log.warning(str(error))
                        continue
                    if found != peer.endpoint:
                        change = PeerChange(peer.public_key, update_only=True, endpoint=found)
                        with suppress(SessionClosed):  # The adapter was removed just now.
                            device.configure(Change(peers=(change,)))

    thread = threading.Thread(target=watch, name="threepipe-names", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
