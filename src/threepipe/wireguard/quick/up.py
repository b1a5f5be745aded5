"""What a configuration file asks for, from its adapter to its routes, for as long as it lasts: wg-quick in one process.

Knows the order of things, and leaves doing them to those who know how.
"""

import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import NamedTemporaryFile

from threepipe import platforms
from threepipe.adapter import Adapter
from threepipe.core import fast
from threepipe.errors import AdapterGone, EndpointError, ThreepipeError
from threepipe.pipe import pipe
from threepipe.session import Session
from threepipe.settings import Network
from threepipe.wireguard.device import Device
from threepipe.wireguard.quick.commands import call, call_all
from threepipe.wireguard.quick.config import Config, PeerConfig, resolve, with_status, write_config
from threepipe.wireguard.quick.dns import dns, is_address
from threepipe.wireguard.quick.names import resolve_patiently
from threepipe.wireguard.quick.nft import guarded
from threepipe.wireguard.settings import Change, PeerChange
from threepipe.wireguard.uapi_socket import UapiServer, listen, stop_listening

__all__ = ["run"]

_OVERHEAD = 80  # Bytes: IPv6, UDP, and a message beside its packet.
_MIN_MTU = 1280
_TROUBLE = 135.0  # Seconds after the last handshake from which on something is wrong, and its name is looked up again.
_LOOK = 15.0
_SIGNALS = 0.2  # Seconds; a signal that comes as a wait begins is only looked at after it.
_MAIN_TABLE = 254  # <linux/rtnetlink.h>

log = logging.getLogger("threepipe")


def run(config: Config, ready: Callable[[], None], save_to: Path | None = None) -> None:
    """Be the device that `config` describes until its adapter or the file of its socket is removed, or an exception.

    `ready` is called when all is there. Everything is undone at the end, first of all by the commands of PreDown, while
    packets still pass; those of PostDown come last. What the device has become is written to `save_to`, if the file
    says so. Raises what making an adapter and opening sockets raises, and `InvalidSetting` where a command of the
    file fails.
    """
    with ExitStack() as stack:
        listening = listen(config.name)
        stack.callback(stop_listening, listening)
        waiting = stack.enter_context(ExitStack())  # Who waits for the end hears of it when all else is done.
        call(config.pre_up, config.name)
        stack.callback(call_all, config.post_down, config.name)
        change = config.change(resolve_patiently)
        mtu = config.mtu or _mtu_for(change)
        # In pure Python the kernel is quicker at cutting superpackets, and making them.
        made = Adapter.create(config.name, addresses=config.addresses, mtu=mtu, offload=fast.NATIVE)
        adapter = stack.enter_context(made)
        inside = stack.enter_context(adapter.start_session())
        device = stack.enter_context(Device(mtu=mtu))
        stack.enter_context(_routes(config, adapter, device, change))
        stack.enter_context(dns(config.name, config.dns))
        over = threading.Event()
        failures = stack.enter_context(_traffic(inside, device.session, over))
        stack.enter_context(UapiServer(listening, device, over.set, waiting))
        stack.enter_context(_watched_names(config.peers, device))
        call(config.post_up, config.name)
        if save_to is not None and config.save:
            stack.callback(_save, config, device, save_to.resolve())
        stack.callback(call_all, config.pre_down, config.name)
        ready()
        while not over.wait(_SIGNALS):
            pass
        if failures:
            raise failures[0]


@contextmanager
def _traffic(inside: Session, outside: Session, over: threading.Event) -> Iterator[list[ThreepipeError]]:
    """Have packets pass while it lasts; where that ends by itself, `over` is set, and what was wrong is in the list."""
    failures: list[ThreepipeError] = []

    def move() -> None:
        try:
            pipe(inside, outside)
        except AdapterGone as error:
            log.info(str(error))  # An ordinary end.
        except ThreepipeError as error:
            failures.append(error)
        finally:
            over.set()

    thread = threading.Thread(target=move, name="threepipe-traffic")
    thread.start()
    try:
        yield failures
    finally:
        inside.close()
        thread.join()


def _save(config: Config, device: Device, path: Path) -> None:
    """Write what the device has become to `path`, as a whole or not at all."""
    status = device.status()
    if not any(status.private_key):
        log.warning(f"{path} stays as it was: the device has no key any more, as when its adapter was removed")
        return
    # For root alone, however the file was before: there is a key in it.
    with NamedTemporaryFile("w", dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        try:
            file.write(write_config(with_status(config, status)))
            file.flush()
            os.fsync(file.fileno())
            os.replace(file.name, path)
        except BaseException:
            os.unlink(file.name)
            raise


def _mtu_for(change: Change) -> int:
    """What fits in the datagrams on their way to the endpoints, as wg-quick reckons."""
    paths = [platforms.path_mtu(peer.endpoint[0]) for peer in change.peers if peer.endpoint]
    return max(min(paths, default=1500) - _OVERHEAD, _MIN_MTU)


@contextmanager
def _routes(config: Config, adapter: Adapter, device: Device, change: Change) -> Iterator[None]:
    """Configure the device, and have packets for allowed IPs go to it."""
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
            stack.enter_context(guarded(config.name, adapter.index, config.addresses, table))
            stack.enter_context(platforms.routed(adapter.index, default, table, table))
        else:
            device.configure(change)
            if config.table != "off":
                table = _MAIN_TABLE if config.table == "auto" else int(config.table)
                stack.enter_context(platforms.routed(adapter.index, list(networks), table, None))
        yield


@contextmanager
def _watched_names(peers: Iterable[PeerConfig], device: Device) -> Iterator[None]:
    """Look the names of endpoints up again where handshakes fail: their addresses may have changed."""
    named = {peer.public_key: peer.endpoint for peer in peers if peer.endpoint and not is_address(peer.endpoint[0])}
    if not named:
        yield
        return
    over = threading.Event()

    def watch() -> None:
        while not over.wait(_LOOK):
            for peer in device.status().peers:
                endpoint = named.get(peer.public_key)
                if endpoint is not None and peer.tx_bytes and time.time() - peer.last_handshake > _TROUBLE:
                    try:
                        found = resolve(endpoint)
                    except EndpointError as error:
                        log.warning(str(error))
                        continue
                    if found != peer.endpoint:
                        change = PeerChange(peer.public_key, update_only=True, endpoint=found)
                        device.configure(Change(peers=(change,)))

    thread = threading.Thread(target=watch, name="threepipe-names", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
