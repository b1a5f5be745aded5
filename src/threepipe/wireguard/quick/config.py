"""Configuration files of wg-quick(8), read and written. Opens no sockets.

A file has a section [Interface], and a section [Peer] for each peer. The names of sections and keys are
case-insensitive, the items of a list are separated by commas, those of wg-quick's own lists also by white space, the
key of a list may be repeated, and a comment begins with `#`. As for wg(8), a line ends with a line feed and with
nothing else, so that all see the same end of a comment.
"""

import errno
import logging
import os
import socket
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from threepipe import platforms
from threepipe.errors import EndpointError, InvalidSetting
from threepipe.net.connect import HostPort
from threepipe.settings import MAX_MTU, Network, check_mtu, parse_addresses, unknown_name
from threepipe.wireguard.fields import (
    MAX_KEEPALIVE,
    MAX_MARK,
    MAX_PORT,
    SPACE,
    Field,
    Fields,
    hide_keys,
    number,
    parse_endpoint,
    parse_sign,
)
from threepipe.wireguard.peer_endpoint import with_zone_name
from threepipe.wireguard.quick.sections import Config, PathLike, PeerConfig
from threepipe.wireguard.settings import Status, check_device_name
from threepipe.wireguard.values import key_from_text, key_to_text, parse_networks, to_kind

__all__ = [
    "FOLDERS",
    "config_path",
    "parse_config",
    "parse_value",
    "read_config",
    "warn_if_exposed",
    "with_status",
    "write_config",
]

log = logging.getLogger("threepipe")

FOLDERS = tuple(map(Path, platforms.CONFIG_FOLDERS))
"""The folders of files that are given by a name alone."""
_ADVICE = {
    errno.ENOENT: "; check the path",
    errno.EISDIR: "; give a file in it, NAME.conf",
    errno.EACCES: "; run this as root, or as a user who may read it",
}
_MAX_TABLE = 0xFFFFFFFF
_DIGITS = "0123456789"
_BETWEEN = "," + SPACE
"""The separators of addresses and servers for wg-quick(8). For wg(8), which reads allowed IPs, only commas separate."""


def config_path(config: str, *folders: Path) -> Path:
    """Return the path of a file NAME.conf, or NAME for one in the first of `folders` that has it, by default `FOLDERS`.

    Raises `InvalidSetting` for an invalid NAME, and for a path that does not end in .conf, as wg-quick(8) does.
    """
    path = Path(config)
    if not config.endswith(".conf") and "/" not in config:
        paths = [folder / f"{config}.conf" for folder in folders or FOLDERS]
        path = next(filter(os.path.exists, paths), paths[0])
    check_device_name(path.stem)
    if path.suffix != ".conf":
        raise InvalidSetting(f"{hide_keys(config)}: the file of a device is NAME.conf; add .conf")
    return path


def read_config(path: PathLike, name: str | None = None) -> Config:
    """Read the file at `path`, for the interface `name`; by default the file's name without its suffix.

    Raises `InvalidSetting`, which names the line, and `EndpointError`.
    """
    path = _path(path)
    try:
        text = path.read_bytes().decode("utf-8-sig")  # Editors on Windows write a byte order mark.
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise InvalidSetting(f"{path}, line {line}: not UTF-8 text; save the file as UTF-8") from None
    except OSError as error:
        advice = _ADVICE.get(error.errno or 0, "")
        if error.errno == errno.ENOENT and path.parent in FOLDERS:
            folders = " and ".join(map(str, FOLDERS))
            advice = f"; a name alone is looked for in {folders}, so write ./{path.name} for a file in this folder"
        raise EndpointError(error.errno, f"{path}: {error.strerror or error}{advice}") from None
    except ValueError:
        raise InvalidSetting(f"path {str(path)!r}: there is a NUL character; remove it") from None
    return parse_config(text, path.stem if name is None else name, str(path))


def _path(path: PathLike) -> Path:
    return Path(to_kind(path, (str, os.PathLike), "path", "give that of a file as a str or Path"))


def warn_if_exposed(path: PathLike) -> None:
    """Log a warning if every user can open the file at `path`, as wg-quick(8) does. Raises `OSError`."""
    if platforms.is_exposed(_path(path)):
        log.warning(f"{path} has keys, and other users can open it; run: chmod 600 {path}")


def parse_config(text: str, name: str, source: str) -> Config:
    """Parse the configuration of the interface `name`. Raises `InvalidSetting`, which names `source` and the line."""
    check_device_name(name)
    interface: dict[str, Any] = {}
    peers: list[dict[str, Any]] = []
    section: dict[str, Any] | None = None
    fields: Fields = {}
    for line_number, line in enumerate(text.split("\n"), 1):
        line = line.partition("#")[0].strip(SPACE)
        if not line:
            continue
        try:
            if "\0" in line:
                raise InvalidSetting("there is a NUL character; remove it")
            if line.startswith("["):
                section, fields = _section(line, interface, peers)
                continue
            key, equals, value = line.partition("=")
            if not equals or section is None:
                raise InvalidSetting("expected KEY = VALUE below [Interface] or [Peer]")
            _set(section, fields, key.strip(SPACE), value.strip(SPACE))
        except ValueError as error:
            raise InvalidSetting(f"{source}, line {line_number}: {hide_keys(str(error))}") from None
    for peer in peers:
        if "public_key" not in peer:
            raise InvalidSetting(f"{source}: a [Peer] has no PublicKey")
    return Config(name, **interface, peers=tuple(PeerConfig(**peer) for peer in peers))


def _section(line: str, interface: dict[str, Any], peers: list[dict[str, Any]]) -> tuple[dict[str, Any], Fields]:
    """Return the settings and the fields of the section that `line` begins."""
    match _without_space(line).lower():
        case "[interface]":
            return interface, _INTERFACE_FIELDS
        case "[peer]":
            peers.append({})
            return peers[-1], _PEER_FIELDS
    raise unknown_name("section", line, ["[Interface]", "[Peer]"])


def _set(section: dict[str, Any], fields: Fields, key: str, text: str) -> None:
    name = _without_space(key).lower()
    if name not in fields:
        if name in _SPELLING:
            other = "[Peer]" if fields is _INTERFACE_FIELDS else "[Interface]"
            raise InvalidSetting(f"{_SPELLING[name]} is a key of {other}; move it there")
        raise unknown_name("key", key, [_SPELLING[name] for name in fields])
    setting, parse = fields[name]
    if name not in _OF_WG_QUICK:
        text = _without_space(text)
    try:
        value = parse(text)
    except InvalidSetting:
        raise
    except ValueError as error:
        raise InvalidSetting(f"{key} = {text}: {error}") from None
    if setting == "allowed_ips":
        _edit_allowed_ips(section, value)
        return
    if isinstance(value, tuple) and setting != "endpoint":
        value = section.get(setting, ()) + value
    section[setting] = value


def parse_value(key: str, text: str) -> Any:
    """Return the value of a key, in lower case, of a file. Raises `ValueError`, perhaps with the text in its own."""
    return ({**_INTERFACE_FIELDS, **_PEER_FIELDS})[key].parse(text)


def _edit_allowed_ips(section: dict[str, Any], edits: list[tuple[str, Network]]) -> None:
    """Carry out a line of AllowedIPs, as wg(8) does."""
    added, removed = (dict.fromkeys(section.get(setting, ())) for setting in ("allowed_ips", "removed_ips"))
    for sign, network in edits:
        if sign == "-":
            removed[network] = None  # If it was added before, it was taken from another peer.
        else:
            added[network] = None
            removed.pop(network, None)
    section["allowed_ips"], section["removed_ips"] = tuple(added), tuple(removed)
    section["replace_allowed_ips"] = not any(sign for sign, _ in edits)


def _without_space(text: str) -> str:
    """Return `text` without white space, as wg(8) reads lines."""
    return text.translate(dict.fromkeys(map(ord, SPACE)))


def _split(text: str, between: str = ",") -> tuple[str, ...]:
    """Return the items of a list, which any of the characters in `between` separate."""
    for separator in between[1:]:
        text = text.replace(separator, between[0])
    return tuple(part for item in text.split(between[0]) if (part := item.strip(SPACE)))


def _or_off(parse: Callable[[str], int]) -> Callable[[str], int]:
    """Return a parser of what `parse` takes, and of `off`, which is 0."""
    return lambda text: 0 if text.lower() == "off" else parse(text)


def _parse_port(text: str) -> int:
    """Parse a port: its number, or the name of its service."""
    try:
        return number(MAX_PORT)(text)
    except ValueError as error:
        with suppress(OSError, ValueError):
            return socket.getservbyname(text, "udp")
        raise error


def _parse_endpoint(text: str) -> tuple[str, int]:
    """Parse an endpoint as wg(8) does: an IPv6 address may lack brackets, as the port comes after the last colon."""
    host, _, port = text.rpartition(":")
    if ":" in host and not host.startswith("["):
        host = f"[{host}]"
    return parse_endpoint(f"{host}:{_parse_port(port)}" if host else text)


def _parse_allowed_ips(text: str) -> list[tuple[str, Network]]:
    signed = [parse_sign(item, "+-") for item in _split(text)]
    return list(zip((sign for sign, _ in signed), parse_networks(rest for _, rest in signed), strict=True))


def _parse_mtu(text: str) -> int | None:
    return check_mtu(number(MAX_MTU, hexadecimal=True, octal=True)(text), ipv6=False) if text else None


def _parse_table(text: str) -> str:
    if text.lower() in ("", "auto", "off"):
        return text.lower() or "auto"
    if any(character in SPACE for character in text):
        raise ValueError("give one table, by its number or name, auto or off")
    return str(number(_MAX_TABLE, hexadecimal=True, octal=True)(text)) if text[0] in _DIGITS else text


def _parse_dns(text: str) -> tuple[str, ...]:
    names = _split(text, _BETWEEN)
    for name in names:
        if not all(character.isalnum() or character in ".:-_%" for character in name):
            raise ValueError(f"{name!r} is neither an address nor a domain")
    return names


def _parse_switch(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError("give true or false")
    return text.lower() == "true"


def _parse_routing(text: str) -> tuple[Network, ...]:
    try:
        networks = parse_networks(_split(text, _BETWEEN))
    except InvalidSetting:
        networks = ()
    if not networks:
        raise ValueError("give the networks of the mesh, such as fd12:3456:789a::/48, 10.42.0.0/16")
    return networks


def _parse_command(text: str) -> tuple[str, ...]:
    return (text,)


_INTERFACE_FIELDS: Fields = {
    "privatekey": Field("private_key", key_from_text),
    "listenport": Field("listen_port", _parse_port),
    "fwmark": Field("fwmark", _or_off(number(MAX_MARK, hexadecimal=True))),
    "address": Field("addresses", lambda text: parse_addresses(_split(text, _BETWEEN))),
    "dns": Field("dns", _parse_dns),
    "mtu": Field("mtu", _parse_mtu),
    "table": Field("table", _parse_table),
    "preup": Field("pre_up", _parse_command),
    "postup": Field("post_up", _parse_command),
    "predown": Field("pre_down", _parse_command),
    "postdown": Field("post_down", _parse_command),
    "saveconfig": Field("save", _parse_switch),
    "routing": Field("routing", _parse_routing),
}
"""The fields of `Config`, with keys in lower case."""
_OF_WG_QUICK = frozenset(_INTERFACE_FIELDS) - {"privatekey", "listenport", "fwmark"}
"""The keys that wg-quick(8) reads, and wg(8) does not; and ours, `Routing`, which neither knows."""
_PEER_FIELDS: Fields = {
    "publickey": Field("public_key", key_from_text),
    "presharedkey": Field("preshared_key", key_from_text),
    "allowedips": Field("allowed_ips", _parse_allowed_ips),
    "endpoint": Field("endpoint", _parse_endpoint),
    "persistentkeepalive": Field("persistent_keepalive", _or_off(number(MAX_KEEPALIVE))),
}
"""The fields of `PeerConfig`, with keys in lower case."""
_SPELLING = {
    name.lower(): name
    for name in (
        "PrivateKey", "ListenPort", "FwMark", "Address", "DNS", "MTU", "Table", "PreUp", "PostUp", "PreDown",
        "PostDown", "SaveConfig", "Routing", "PublicKey", "PresharedKey", "AllowedIPs", "Endpoint",
        "PersistentKeepalive",
    )
}  # fmt: skip


def with_status(config: Config, status: Status) -> Config:
    """Return `config` with the keys, port, mark and peers that the device has."""
    peers = tuple(
        PeerConfig(
            peer.public_key,
            peer.preshared_key if any(peer.preshared_key) else None,
            peer.allowed_ips,
            with_zone_name(peer.endpoint) if peer.endpoint else None,
            peer.persistent_keepalive,
        )
        for peer in status.peers
    )
    return replace(
        config,
        private_key=status.private_key if any(status.private_key) else None,
        listen_port=status.listen_port,
        fwmark=status.fwmark or None,
        peers=peers,
    )


def write_config(config: Config) -> str:
    """Return the text of a configuration file."""
    lines = ["[Interface]"]
    lines += [f"Address = {address}" for address in config.addresses]
    lines += [f"DNS = {', '.join(config.dns)}"] if config.dns else []
    lines += [f"MTU = {config.mtu}"] if config.mtu is not None else []
    lines += [f"Table = {config.table}"] if config.table != "auto" else []
    lines += ["SaveConfig = true"] if config.save else []
    lines += [f"Routing = {', '.join(map(str, config.routing))}"] if config.routing else []
    for key, commands in (
        ("PreUp", config.pre_up),
        ("PostUp", config.post_up),
        ("PreDown", config.pre_down),
        ("PostDown", config.post_down),
    ):
        lines += [f"{key} = {command}" for command in commands]
    lines += [f"ListenPort = {config.listen_port}"] if config.listen_port is not None else []
    lines += [f"FwMark = {config.fwmark:#x}"] if config.fwmark is not None else []
    lines += [f"PrivateKey = {key_to_text(config.private_key)}"] if config.private_key is not None else []
    return "\n".join(lines) + "\n" + "".join(f"\n{write_peer(peer)}" for peer in config.peers)


def write_peer(peer: PeerConfig) -> str:
    """Return the text of the section of a peer."""
    return "\n".join(_peer_lines(peer)) + "\n"


def _peer_lines(peer: PeerConfig) -> Iterable[str]:
    yield from ("[Peer]", f"PublicKey = {key_to_text(peer.public_key)}")
    if peer.preshared_key is not None:
        yield f"PresharedKey = {key_to_text(peer.preshared_key)}"
    if peer.removed_ips or not peer.replace_allowed_ips:
        networks = [f"+{network}" for network in peer.allowed_ips] + [f"-{network}" for network in peer.removed_ips]
        yield f"AllowedIPs = {', '.join(networks)}"
    # The last line decides whether the networks of an earlier section stay.
    kept = [str(network) for network in peer.allowed_ips if network not in peer.removed_ips]
    if kept and peer.replace_allowed_ips:
        yield f"AllowedIPs = {', '.join(kept)}"
    if peer.endpoint is not None:
        yield f"Endpoint = {HostPort(*peer.endpoint)}"
    if peer.persistent_keepalive:
        yield f"PersistentKeepalive = {peer.persistent_keepalive}"
