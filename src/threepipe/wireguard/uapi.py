"""The configuration protocol of WireGuard's userspace devices (wireguard.com/xplatform), as text. Uses no sockets.

A request or answer is lines of `key=value` and an empty line. The keys of peers are in lower-case hex. An answer ends
with an errno, 0 for success. wireguard-go reports failures as negative numbers, for which wg(8) prints the right text;
others report positive ones.
"""

import errno
import ipaddress
import os
from collections.abc import Iterable
from typing import Any

from threepipe.net.connect import HostPort
from threepipe.settings import Network
from threepipe.wireguard.fields import (
    MAX_KEEPALIVE,
    MAX_MARK,
    MAX_PORT,
    Field,
    Fields,
    hide_keys,
    number,
    parse_endpoint,
    parse_sign,
)
from threepipe.wireguard.peer_endpoint import PeerEndpoint
from threepipe.wireguard.settings import Change, PeerChange, PeerStatus, Status
from threepipe.wireguard.values import KEY_SIZE

__all__ = ["UapiError", "emit_change", "emit_status", "parse_change", "parse_status"]

PROTOCOL_VERSION = 1
_MAX_COUNT = (1 << 64) - 1
_MAX_ERRNO = 4095  # MAX_ERRNO of Linux.
_NANOSECONDS = 10**9


class UapiError(Exception):
    """An invalid request or answer, or a failure that a device reported, with the `errno`, a positive number.

    The text has no keys of WireGuard.
    """

    def __init__(self, number: int, text: str) -> None:
        super().__init__(hide_keys(text))
        self.errno = number


def parse_change(lines: Iterable[str]) -> Change:
    """Parse the lines after `set=1`. Raises `UapiError`.

    Allowed IPs are added and removed in the order of the lines. So a peer that loses some after others were added has
    several changes.
    """
    change: dict[str, Any] = {}
    peers: list[dict[str, Any]] = []
    first = 0  # The index in `peers` of the first change of the present peer.
    for line in lines:
        key, equals, text = line.partition("=")
        if not equals:
            raise UapiError(errno.EPROTO, f"{line!r} is not of the form key=value")
        if key == "public_key":
            first = len(peers)
            peers.append({"public_key": _parse_key(text)})
            continue
        if peers and "allowed_ips" in peers[-1] and (key in _IN_ORDER or text.startswith("-")):
            peers.append({"public_key": peers[-1]["public_key"], "update_only": True})
        target, fields = (peers[-1], _PEER_FIELDS) if peers else (change, _DEVICE_FIELDS)
        if key not in fields:
            raise UapiError(errno.EINVAL, f"unknown key {key!r} of a {'peer' if peers else 'device'}")
        if key == "update_only":
            target = peers[first]  # So that this one does not add the peer.
        _set(target, key, text, fields[key])
    return Change(**change, peers=tuple(PeerChange(**peer) for peer in peers))


def _set(target: dict[str, Any], key: str, text: str, field: Field) -> None:
    try:
        value = field.parse(text)
    except ValueError as error:
        raise UapiError(errno.EINVAL, f"{key}: {error}") from None
    setting = field.setting
    if setting == "allowed_ips":
        sign, network = value
        setting = "removed_ips" if sign else setting
        value = (*target.get(setting, ()), network)
    if setting:
        target[setting] = value


def _parse_key(text: str) -> bytes:
    try:
        key = bytes.fromhex(text)
    except ValueError:
        key = b""
    if len(key) != KEY_SIZE or len(text) != 2 * KEY_SIZE:
        raise UapiError(errno.EINVAL, "invalid WireGuard key: expected 64 hex digits")
    return key


def _parse_true(text: str) -> bool:
    if text != "true":
        raise ValueError("write true, or leave the key out")
    return True


def _parse_address(text: str) -> PeerEndpoint:
    host, port = parse_endpoint(text)
    return str(ipaddress.ip_address(host)), port


def _parse_network(text: str) -> Network:
    address, _, length = text.partition("/")
    if "%" in address:
        raise ValueError(f"{text!r} has a zone")
    return ipaddress.ip_network((address, number(ipaddress.IPV6LENGTH)(length)), strict=False)


def _parse_signed(text: str) -> tuple[str, Network]:
    sign, rest = parse_sign(text, "-")
    return sign, _parse_network(rest)


def _parse_version(text: str) -> None:
    if text != str(PROTOCOL_VERSION):
        raise ValueError(f"only version {PROTOCOL_VERSION} is known")


_IN_ORDER = ("remove", "replace_allowed_ips")
"""Keys that undo the allowed IPs of earlier lines, which a `PeerChange` does first."""
_DEVICE_FIELDS: Fields = {
    "private_key": Field("private_key", _parse_key),
    "listen_port": Field("listen_port", number(MAX_PORT)),
    "fwmark": Field("fwmark", number(MAX_MARK)),
    "replace_peers": Field("replace_peers", _parse_true),
}
"""The fields of `Change`."""
_PEER_FIELDS: Fields = {
    "remove": Field("remove", _parse_true),
    "update_only": Field("update_only", _parse_true),
    "preshared_key": Field("preshared_key", _parse_key),
    "endpoint": Field("endpoint", _parse_address),
    "persistent_keepalive_interval": Field("persistent_keepalive", number(MAX_KEEPALIVE)),
    "replace_allowed_ips": Field("replace_allowed_ips", _parse_true),
    "allowed_ip": Field("allowed_ips", _parse_signed),
    "protocol_version": Field("", _parse_version),
}
"""The fields of `PeerChange`; the version is not a setting of it."""


def emit_change(change: Change) -> str:
    """Return the lines after `set=1` that ask a device of any implementation for `change`."""
    lines = [f"private_key={change.private_key.hex()}"] if change.private_key is not None else []
    lines += [f"listen_port={change.listen_port}"] if change.listen_port is not None else []
    lines += [f"fwmark={change.fwmark}"] if change.fwmark is not None else []
    lines += ["replace_peers=true"] if change.replace_peers else []
    for peer in change.peers:
        lines += _peer_lines(peer)
    return "".join(f"{line}\n" for line in lines)


def _peer_lines(peer: PeerChange) -> Iterable[str]:
    yield f"public_key={peer.public_key.hex()}"
    if peer.remove:
        yield "remove=true"
        return
    if peer.update_only:
        yield "update_only=true"
    if peer.preshared_key is not None:
        yield f"preshared_key={peer.preshared_key.hex()}"
    if peer.endpoint is not None:
        yield f"endpoint={HostPort(*peer.endpoint)}"
    if peer.persistent_keepalive is not None:
        yield f"persistent_keepalive_interval={peer.persistent_keepalive}"
    if peer.replace_allowed_ips:
        yield "replace_allowed_ips=true"
    yield from (f"allowed_ip=-{network}" for network in peer.removed_ips)
    yield from (f"allowed_ip={network}" for network in peer.allowed_ips)


def emit_status(status: Status) -> str:
    """Return the answer to `get=1`, without the errno that ends it."""
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
            lines.append(f"endpoint={HostPort(*peer.endpoint)}")
        lines += [
            f"last_handshake_time_sec={seconds}",
            f"last_handshake_time_nsec={int((peer.last_handshake - seconds) * _NANOSECONDS)}",
            f"tx_bytes={peer.tx_bytes}",
            f"rx_bytes={peer.rx_bytes}",
            f"persistent_keepalive_interval={peer.persistent_keepalive}",
        ]
        lines += [f"allowed_ip={network}" for network in peer.allowed_ips]
    return "".join(f"{line}\n" for line in lines)


def parse_status(text: str) -> Status:
    """Parse the answer of a device of any implementation to `get=1`. Raises `UapiError`, also for a reported errno."""
    device: dict[str, Any] = {}
    peers: list[dict[str, Any]] = []
    complete = False
    try:
        for line in text.split("\n"):
            key, _, value = line.partition("=")
            complete = key == "errno" or (complete and not key)
            if key == "errno" and (failure := number(_MAX_ERRNO)(value.removeprefix("-"))):
                raise UapiError(failure, f"the device answered errno {failure} ({os.strerror(failure)})")
            if key == "public_key":
                peers.append({"public_key": _parse_key(value), "allowed_ips": (), "last_handshake": 0})
            elif key == "last_handshake_time_nsec":
                peers[-1]["last_handshake"] += number(_NANOSECONDS)(value) / _NANOSECONDS
            elif key in _STATUS_FIELDS:
                setting, parse = _STATUS_FIELDS[key]
                target = peers[-1] if peers else device
                target[setting] = (*target[setting], parse(value)) if setting == "allowed_ips" else parse(value)
        if not complete:
            raise UapiError(errno.EPROTO, "the device's answer is incomplete")
        return Status(**device, peers=tuple(PeerStatus(**peer) for peer in peers))
    except (ValueError, LookupError, TypeError):  # An invalid value; or a key of peers before any peer, or the reverse.
        raise UapiError(errno.EPROTO, "the device's answer is invalid") from None


_STATUS_FIELDS: Fields = {
    **{key: _DEVICE_FIELDS[key] for key in ("private_key", "listen_port", "fwmark")},
    **{key: _PEER_FIELDS[key] for key in ("preshared_key", "endpoint", "persistent_keepalive_interval")},
    "allowed_ip": Field("allowed_ips", _parse_network),
    "last_handshake_time_sec": Field("last_handshake", number(_MAX_COUNT)),
    "rx_bytes": Field("rx_bytes", number(_MAX_COUNT)),
    "tx_bytes": Field("tx_bytes", number(_MAX_COUNT)),
}
"""The fields of `Status` and `PeerStatus`."""
