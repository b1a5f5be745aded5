"""Configuration files of wg-quick(8): read, and written. Opens no sockets and looks no names up.

A file has a section [Interface] and one [Peer] for each peer. Names of sections and keys may be in any case, lists are
parted by commas, keys of lists may be repeated, and from `#` on a line is a comment.
"""

import errno
import ipaddress
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from threepipe.errors import EndpointError, InvalidSetting
from threepipe.settings import Address, Network, check_mtu, check_name, parse_addresses
from threepipe.wireguard.peer_endpoint import PeerEndpoint
from threepipe.wireguard.settings import (
    Change,
    PeerChange,
    Status,
    key_from_text,
    key_to_text,
    parse_networks,
)

__all__ = ["Config", "PeerConfig", "parse_config", "read_config", "resolve", "with_status", "write_config"]


@dataclass(frozen=True, slots=True)
class PeerConfig:
    """A section [Peer]."""

    public_key: bytes
    preshared_key: bytes | None = field(default=None, repr=False)
    allowed_ips: tuple[Network, ...] = ()
    endpoint: tuple[str, int] | None = None
    """A name or an address, and a port."""
    persistent_keepalive: int = 0


@dataclass(frozen=True, slots=True)
class Config:
    """A whole file."""

    name: str
    """Of the interface: that of the file, without its ending."""
    private_key: bytes = field(repr=False)
    listen_port: int | None = None
    fwmark: int | None = None
    addresses: tuple[Address, ...] = ()
    dns: tuple[str, ...] = ()
    """Servers, and domains to search."""
    mtu: int | None = None
    table: str = "auto"
    """Where routes go: `auto`, `off` for none, or the number of a table."""
    pre_up: tuple[str, ...] = ()
    post_up: tuple[str, ...] = ()
    pre_down: tuple[str, ...] = ()
    post_down: tuple[str, ...] = ()
    save: bool = False
    """Write what the device has become to the file when it ends."""
    peers: tuple[PeerConfig, ...] = ()

    def change(self, look_up: "Callable[[tuple[str, int]], PeerEndpoint] | None" = None) -> Change:
        """What makes a device of it; names of endpoints are looked up, by `resolve` or that. Raises `EndpointError`."""
        find = look_up or resolve
        peers = [
            PeerChange(
                peer.public_key,
                preshared_key=peer.preshared_key,
                endpoint=find(peer.endpoint) if peer.endpoint else None,
                persistent_keepalive=peer.persistent_keepalive,
                replace_allowed_ips=True,
                allowed_ips=peer.allowed_ips,
            )
            for peer in self.peers
        ]
        return Change(self.private_key, self.listen_port, self.fwmark, replace_peers=True, peers=tuple(peers))


def resolve(endpoint: tuple[str, int]) -> PeerEndpoint:
    """The address of an endpoint. Raises `EndpointError` where its name is not known, perhaps not yet."""
    host, port = endpoint
    try:
        found = socket.getaddrinfo(host, port, 0, socket.SOCK_DGRAM)
    except OSError as error:
        raise EndpointError(error.errno, f"endpoint {host}: {error.strerror}") from None
    except ValueError:  # Also of the codec for names beyond ASCII.
        raise EndpointError(errno.EINVAL, f"endpoint {host!r} is no name that can be looked up") from None
    return found[0][4][0], port  # type: ignore[return-value]


def read_config(path: Path) -> Config:
    """The file at `path`. Raises `InvalidSetting`, which names the line, and `OSError`."""
    try:
        text = path.read_text("utf-8-sig")  # Windows' editors put a mark in front.
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise InvalidSetting(f"{path}, line {line}: it is no text in UTF-8; save it as such") from None
    return parse_config(text, path.stem, str(path))


def parse_config(text: str, name: str, source: str) -> Config:
    """The configuration of the interface `name` in `text`; errors name `source` and the line."""
    check_name(name)
    interface: dict[str, Any] = {}
    peers: list[dict[str, Any]] = []
    section: dict[str, Any] | None = None
    table: dict[str, tuple[str, Callable[[str], Any]]] = {}
    for number, line in enumerate(text.splitlines(), 1):
        line = line.partition("#")[0].strip()
        if not line:
            continue
        try:
            if line.startswith("["):
                section, table = _section(line, interface, peers)
                continue
            key, equals, value = line.partition("=")
            if not equals or section is None:
                raise InvalidSetting("a line is KEY = VALUE, below [Interface] or [Peer]")
            _set(section, table, key.strip(), value.strip())
        except ValueError as error:
            raise InvalidSetting(f"{source}, line {number}: {error}") from None
    if "private_key" not in interface:
        raise InvalidSetting(f"{source}: [Interface] has no PrivateKey; make one with threepipe wg genkey")
    for peer in peers:
        if "public_key" not in peer:
            raise InvalidSetting(f"{source}: a [Peer] has no PublicKey")
    return Config(name, **interface, peers=tuple(PeerConfig(**peer) for peer in peers))


def _section(
    line: str, interface: dict[str, Any], peers: list[dict[str, Any]]
) -> tuple[dict[str, Any], "dict[str, tuple[str, Callable[[str], Any]]]"]:
    match line.lower():
        case "[interface]":
            return interface, _OF_INTERFACE
        case "[peer]":
            peers.append({})
            return peers[-1], _OF_PEER
    raise InvalidSetting(f"{line} is no section; there are [Interface] and [Peer]")


def _set(section: dict[str, Any], table: "dict[str, tuple[str, Callable[[str], Any]]]", key: str, text: str) -> None:
    if key.lower() not in table:
        raise InvalidSetting(f"{key} is no key here; there are {', '.join(_SPELLED[name] for name in table)}")
    name, read = table[key.lower()]
    try:
        value = read(text)
    except InvalidSetting:
        raise
    except ValueError as error:
        raise InvalidSetting(f"{key} = {text}: {error}") from None
    if isinstance(value, tuple) and name != "endpoint":
        value = section.get(name, ()) + value
    section[name] = value


def _split(text: str) -> tuple[str, ...]:
    return tuple(part for item in text.split(",") if (part := item.strip()))


def _number(most: int, off: bool = False) -> Callable[[str], int]:
    def read(text: str) -> int:
        if off and text.lower() == "off":
            return 0
        number = int(text, 0)
        if not 0 <= number <= most:
            raise ValueError(f"give a number of 0 to {most}")
        return number

    return read


def _mtu(text: str) -> int:
    return check_mtu(int(text), ipv6=False)


def _table(text: str) -> str:
    if text.lower() in ("auto", "off"):
        return text.lower()
    return str(_number(0xFFFFFFFF)(text))


def _dns(text: str) -> tuple[str, ...]:
    names = _split(text)
    for name in names:
        if not all(character.isalnum() or character in ".:-_%" for character in name):
            raise ValueError(f"{name!r} is neither an address nor a domain")
    return names


def _switch(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError("say true or false")
    return text.lower() == "true"


def _endpoint(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = str(ipaddress.IPv6Address(host[1:-1]))
    elif not host or not colon or ":" in host or any(character.isspace() for character in host):
        raise ValueError("write it NAME:PORT, ADDRESS:PORT or [ADDRESS]:PORT")
    return host, _number(0xFFFF)(port)


_OF_INTERFACE: dict[str, tuple[str, Callable[[str], Any]]] = {
    "privatekey": ("private_key", key_from_text),
    "listenport": ("listen_port", _number(0xFFFF)),
    "fwmark": ("fwmark", _number(0xFFFFFFFF, off=True)),
    "address": ("addresses", lambda text: parse_addresses(_split(text))),
    "dns": ("dns", _dns),
    "mtu": ("mtu", _mtu),
    "table": ("table", _table),
    "preup": ("pre_up", lambda text: (text,)),
    "postup": ("post_up", lambda text: (text,)),
    "predown": ("pre_down", lambda text: (text,)),
    "postdown": ("post_down", lambda text: (text,)),
    "saveconfig": ("save", _switch),
}
"""Key -> field of `Config`, and how it is read."""
_OF_PEER: dict[str, tuple[str, Callable[[str], Any]]] = {
    "publickey": ("public_key", key_from_text),
    "presharedkey": ("preshared_key", key_from_text),
    "allowedips": ("allowed_ips", lambda text: parse_networks(_split(text))),
    "endpoint": ("endpoint", _endpoint),
    "persistentkeepalive": ("persistent_keepalive", _number(0xFFFF, off=True)),
}
"""Key -> field of `PeerConfig`, and how it is read."""
_SPELLED = {
    name.lower(): name
    for name in (
        "PrivateKey", "ListenPort", "FwMark", "Address", "DNS", "MTU", "Table", "PreUp", "PostUp", "PreDown",
        "PostDown", "SaveConfig", "PublicKey", "PresharedKey", "AllowedIPs", "Endpoint", "PersistentKeepalive",
    )
}  # fmt: skip


def with_status(config: Config, status: Status) -> Config:
    """`config` with what the device has become of it: keys, port, mark and peers."""
    peers = tuple(
        PeerConfig(
            peer.public_key,
            peer.preshared_key if any(peer.preshared_key) else None,
            peer.allowed_ips,
            peer.endpoint,
            peer.persistent_keepalive,
        )
        for peer in status.peers
    )
    return replace(
        config,
        private_key=status.private_key,
        listen_port=status.listen_port,
        fwmark=status.fwmark or None,
        peers=peers,
    )


def write_config(config: Config) -> str:
    """The text of a file that reads as `config`."""
    lines = ["[Interface]"]
    lines += [f"Address = {address}" for address in config.addresses]
    lines += [f"DNS = {', '.join(config.dns)}"] if config.dns else []
    lines += [f"MTU = {config.mtu}"] if config.mtu is not None else []
    lines += [f"Table = {config.table}"] if config.table != "auto" else []
    lines += ["SaveConfig = true"] if config.save else []
    for key, commands in (
        ("PreUp", config.pre_up),
        ("PostUp", config.post_up),
        ("PreDown", config.pre_down),
        ("PostDown", config.post_down),
    ):
        lines += [f"{key} = {command}" for command in commands]
    lines += [f"ListenPort = {config.listen_port}"] if config.listen_port is not None else []
    lines += [f"FwMark = {config.fwmark:#x}"] if config.fwmark is not None else []
    lines.append(f"PrivateKey = {key_to_text(config.private_key)}")
    for peer in config.peers:
        lines += _peer_lines(peer)
    return "\n".join(lines) + "\n"


def _peer_lines(peer: PeerConfig) -> Iterable[str]:
    yield from ("", "[Peer]", f"PublicKey = {key_to_text(peer.public_key)}")
    if peer.preshared_key is not None:
        yield f"PresharedKey = {key_to_text(peer.preshared_key)}"
    if peer.allowed_ips:
        yield f"AllowedIPs = {', '.join(map(str, peer.allowed_ips))}"
    if peer.endpoint is not None:
        host, port = peer.endpoint
        yield f"Endpoint = [{host}]:{port}" if ":" in host else f"Endpoint = {host}:{port}"
    if peer.persistent_keepalive:
        yield f"PersistentKeepalive = {peer.persistent_keepalive}"
