"""The configuration protocol of WireGuard's userspace devices (wireguard.com/xplatform), as text. No sockets.

Lines of `key=value`, ended by an empty one; keys of peers are in lower-case hex. An operation that fails has a number
of errno, which are those of wireguard-go.
"""

import errno
import ipaddress
from collections.abc import Callable, Iterable
from typing import Any

from threepipe.wireguard.peer_endpoint import PeerEndpoint
from threepipe.wireguard.settings import KEY_SIZE, Change, PeerChange, PeerStatus, Status

__all__ = ["UapiError", "emit_status", "parse_change", "parse_status", "written"]

PROTOCOL_VERSION = 1
_MOST_KEEPALIVE, _MOST_MARK = 0xFFFF, 0xFFFFFFFF
_MOST_COUNT = (1 << 64) - 1
_MOST_ERRNO = 4095  # MAX_ERRNO of Linux.


class UapiError(Exception):
    """A request that cannot be: `errno` is what the other end is told."""

    def __init__(self, number: int, text: str) -> None:
        super().__init__(text)
        self.errno = number


def parse_change(lines: Iterable[str]) -> Change:
    """The change that the lines after `set=1` ask for. Raises `UapiError`."""
    change: dict[str, Any] = {}
    peers: list[dict[str, Any]] = []
    for line in lines:
        name, equals, text = line.partition("=")
        if not equals:
            raise UapiError(errno.EPROTO, f"{line!r} is not of the form key=value")
        target = peers[-1] if peers else change
        if name == "public_key":
            peers.append({"public_key": _key(text)})
        elif not peers and name in _OF_DEVICE:
            _set(change, name, text, *_OF_DEVICE[name])
        elif peers and name in _OF_PEER:
            _set(target, name, text, *_OF_PEER[name])
        else:
            raise UapiError(errno.EINVAL, f"{name!r} is not a key {'of a peer' if peers else 'of a device'}")
    return Change(**change, peers=tuple(PeerChange(**peer) for peer in peers))


def _set(target: dict[str, Any], name: str, text: str, field: str, read: Callable[[str], Any]) -> None:
    try:
        value = read(text)
    except ValueError as error:
        raise UapiError(errno.EINVAL, f"{name}: {error}") from None
    if field == "allowed_ips":
        field = "removed_ips" if text.startswith("-") else field
        value = (*target.get(field, ()), value)
    if field:
        target[field] = value


def _key(text: str) -> bytes:
    try:
        key = bytes.fromhex(text)
    except ValueError:
        key = b""
    if len(key) != KEY_SIZE or len(text) != 2 * KEY_SIZE:
        raise UapiError(errno.EINVAL, "a key is 64 digits in hex")
    return key


def _true(text: str) -> bool:
    if text != "true":
        raise ValueError("it is true, or left out")
    return True


def _number(most: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not text.isascii() or not text.isdigit() or int(text) > most:
            raise ValueError(f"{text!r} is no number of 0 to {most}")
        return int(text)

    return read


def _endpoint(text: str) -> PeerEndpoint:
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    address = ipaddress.ip_address(host)
    if not colon or (address.version == 6) != text.startswith("["):
        raise ValueError(f"{text!r} is not of the form ADDRESS:PORT or [ADDRESS]:PORT")
    return str(address), _number(0xFFFF)(port)


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    if "/" not in text:
        raise ValueError(f"{text!r} has no prefix length")
    return ipaddress.ip_network(text.removeprefix("-"), strict=False)


def _version(text: str) -> None:
    if text != str(PROTOCOL_VERSION):
        raise ValueError(f"there is version {PROTOCOL_VERSION} only")


_OF_DEVICE: dict[str, tuple[str, Callable[[str], Any]]] = {
    "private_key": ("private_key", _key),
    "listen_port": ("listen_port", _number(0xFFFF)),
    "fwmark": ("fwmark", _number(_MOST_MARK)),
    "replace_peers": ("replace_peers", _true),
}
"""Key -> field of `Change`, and how it is read."""
_OF_PEER: dict[str, tuple[str, Callable[[str], Any]]] = {
    "remove": ("remove", _true),
    "update_only": ("update_only", _true),
    "preshared_key": ("preshared_key", _key),
    "endpoint": ("endpoint", _endpoint),
    "persistent_keepalive_interval": ("persistent_keepalive", _number(_MOST_KEEPALIVE)),
    "replace_allowed_ips": ("replace_allowed_ips", _true),
    "allowed_ip": ("allowed_ips", _network),
    "protocol_version": ("", _version),
}
"""Key -> field of `PeerChange`, nothing where it says nothing, and how it is read."""


def emit_status(status: Status) -> str:
    """The answer to `get=1`, without its end."""
    lines = []
    if any(status.private_key):
        lines.append(f"private_key={status.private_key.hex()}")
    lines.append(f"listen_port={status.listen_port}")
    if status.fwmark:
        lines.append(f"fwmark={status.fwmark}")
    for peer in status.peers:
        seconds = int(peer.last_handshake)
        lines += [
            f"public_key={peer.public_key.hex()}",
            f"preshared_key={peer.preshared_key.hex()}",
            f"protocol_version={PROTOCOL_VERSION}",
        ]
        if peer.endpoint is not None:
            lines.append(f"endpoint={written(peer.endpoint)}")
        lines += [
            f"last_handshake_time_sec={seconds}",
            f"last_handshake_time_nsec={int((peer.last_handshake - seconds) * 1e9)}",
            f"tx_bytes={peer.tx_bytes}",
            f"rx_bytes={peer.rx_bytes}",
            f"persistent_keepalive_interval={peer.persistent_keepalive}",
        ]
        lines += [f"allowed_ip={network}" for network in peer.allowed_ips]
    return "".join(f"{line}\n" for line in lines)


def written(endpoint: PeerEndpoint) -> str:
    """An endpoint as wg(8) writes it."""
    host, port = endpoint
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def parse_status(text: str) -> Status:
    """What a device answered to `get=1`: of any implementation. Raises `UapiError`, with the errno it told."""
    device: dict[str, Any] = {}
    peers: list[dict[str, Any]] = []
    ended = False
    try:
        for line in text.splitlines():
            name, _, value = line.partition("=")
            ended = name == "errno" or (ended and not name)
            if name == "errno" and value != "0":
                raise UapiError(_number(_MOST_ERRNO)(value), f"the device answered errno {value}")
            if name == "public_key":
                peers.append({"public_key": _key(value), "allowed_ips": (), "last_handshake": 0})
            elif name == "last_handshake_time_nsec":
                peers[-1]["last_handshake"] += _number(10**9)(value) / 1e9
            elif name in _TOLD:
                field, read = _TOLD[name]
                target = peers[-1] if peers else device
                target[field] = (*target["allowed_ips"], read(value)) if field == "allowed_ips" else read(value)
        if not ended:
            raise UapiError(errno.EPROTO, "the device stopped in the middle of its answer")
        return Status(**device, peers=tuple(PeerStatus(**peer) for peer in peers))
    except (
        ValueError,
        LookupError,
        TypeError,
    ):  # A number that is none, or a key of peers' before any, or the reverse.
        raise UapiError(errno.EPROTO, "what the device answered is no status") from None


_TOLD: dict[str, tuple[str, Callable[[str], Any]]] = {
    **{name: _OF_DEVICE[name] for name in ("private_key", "listen_port", "fwmark")},
    **{name: _OF_PEER[name] for name in ("preshared_key", "endpoint", "persistent_keepalive_interval", "allowed_ip")},
    "last_handshake_time_sec": ("last_handshake", _number(_MOST_COUNT)),
    "rx_bytes": ("rx_bytes", _number(_MOST_COUNT)),
    "tx_bytes": ("tx_bytes", _number(_MOST_COUNT)),
}
"""Key -> field of `Status` or `PeerStatus`, and how it is read."""
