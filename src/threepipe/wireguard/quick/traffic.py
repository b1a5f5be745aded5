"""The traffic of a device of a file: its packets, the MTU for them, and new addresses of its endpoints' names."""

import logging
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress

from threepipe import platforms
from threepipe.errors import AdapterGone, EndpointError, SessionClosed, ThreepipeError
from threepipe.piping import pipe
from threepipe.session import Session
from threepipe.wireguard.device import Device
from threepipe.wireguard.quick.dns import is_address
from threepipe.wireguard.quick.names import resolve
from threepipe.wireguard.quick.sections import PeerConfig
from threepipe.wireguard.settings import Change, PeerChange

__all__ = ["mtu_for", "refreshed_names", "traffic"]

_OVERHEAD = 80  # Bytes: IPv6, UDP, and the message around a packet.
_MIN_MTU = 1280
_LOOKUP_AFTER = 135.0  # Seconds since the last handshake after which a peer's name is looked up again.
_LOOKUP_INTERVAL = 15.0  # Seconds.

log = logging.getLogger("threepipe")


@contextmanager
def traffic(inside: Session, outside: Session, over: threading.Event) -> Iterator[list[ThreepipeError]]:
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


def mtu_for(change: Change) -> int:
    """Return the MTU that fits the paths to all endpoints. wg-quick takes that of the widest path."""
    paths = [platforms.path_mtu(peer.endpoint[0]) for peer in change.peers if peer.endpoint]
    return max(min(paths, default=1500) - _OVERHEAD, _MIN_MTU)


@contextmanager
def refreshed_names(peers: Iterable[PeerConfig], device: Device) -> Iterator[None]:
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
