"""The fields that `wg show NAME FIELD` of wg(8) prints for scripts: lines, whose columns are separated by tabs.

One is ours: `link-locals`, the addresses that peers have where packets are routed by next hops.
"""

from collections.abc import Callable, Iterable

from threepipe.net.connect import HostPort
from threepipe.wireguard.keys import link_local, public_key
from threepipe.wireguard.peer_endpoint import with_zone_name
from threepipe.wireguard.settings import PeerStatus, Status
from threepipe.wireguard.values import key_to_text

__all__ = ["FIELDS", "SECRET", "rows"]

_NONE = "(none)"


def rows(status: Status, field: str) -> list[tuple[str, ...]]:
    """Return the lines for a field of `FIELDS`, as columns of text."""
    return list(FIELDS[field](status))


def _key(key: bytes) -> str:
    return key_to_text(key) if any(key) else _NONE


def _public(status: Status) -> str:
    return key_to_text(public_key(status.private_key)) if any(status.private_key) else _NONE


def _mark(status: Status) -> str:
    return f"{status.fwmark:#x}" if status.fwmark else "off"


def _endpoint(peer: PeerStatus) -> str:
    return str(HostPort(*with_zone_name(peer.endpoint))) if peer.endpoint else _NONE


def _networks(peer: PeerStatus, between: str) -> str:
    return between.join(map(str, peer.allowed_ips)) or _NONE


def _handshake(peer: PeerStatus) -> str:
    return str(int(peer.last_handshake))


def _keepalive(peer: PeerStatus) -> str:
    return str(peer.persistent_keepalive or "off")


def _dump(status: Status) -> Iterable[tuple[str, ...]]:
    yield _key(status.private_key), _public(status), str(status.listen_port), _mark(status)
    for peer in status.peers:
        yield (
            key_to_text(peer.public_key),
            _key(peer.preshared_key),
            _endpoint(peer),
            _networks(peer, ","),
            _handshake(peer),
            str(peer.rx_bytes),
            str(peer.tx_bytes),
            _keepalive(peer),
        )


def _of_device(text: Callable[[Status], str]) -> Callable[[Status], Iterable[tuple[str, ...]]]:
    return lambda status: [(text(status),)]


def _of_peers(*texts: Callable[[PeerStatus], str]) -> Callable[[Status], Iterable[tuple[str, ...]]]:
    return lambda status: [(key_to_text(peer.public_key), *[text(peer) for text in texts]) for peer in status.peers]


FIELDS: dict[str, Callable[[Status], Iterable[tuple[str, ...]]]] = {
    "public-key": _of_device(_public),
    "private-key": _of_device(lambda status: _key(status.private_key)),
    "listen-port": _of_device(lambda status: str(status.listen_port)),
    "fwmark": _of_device(_mark),
    "peers": _of_peers(),
    "preshared-keys": _of_peers(lambda peer: _key(peer.preshared_key)),
    "endpoints": _of_peers(_endpoint),
    "link-locals": _of_peers(lambda peer: str(link_local(peer.public_key))),
    "allowed-ips": _of_peers(lambda peer: _networks(peer, " ")),
    "latest-handshakes": _of_peers(_handshake),
    "transfer": _of_peers(lambda peer: str(peer.rx_bytes), lambda peer: str(peer.tx_bytes)),
    "persistent-keepalive": _of_peers(_keepalive),
    "dump": _dump,
}
SECRET = frozenset(("private-key", "preshared-keys", "dump"))
"""The fields that hold secrets."""
