"""The changes that `wg set`, `setconf` and `syncconf` of wg(8) ask of a running device. Reads files of keys alone."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from threepipe.errors import EndpointError, InvalidSetting
from threepipe.settings import Network, unknown_name
from threepipe.wireguard.fields import SPACE, hide_keys, parse_sign
from threepipe.wireguard.peer_endpoint import PeerEndpoint
from threepipe.wireguard.quick.config import parse_value, warn_if_exposed
from threepipe.wireguard.quick.sections import Config
from threepipe.wireguard.settings import Change, PeerChange, Status
from threepipe.wireguard.values import KEY_SIZE, key_from_text, parse_networks

__all__ = ["parse_arguments", "to_replace", "to_synchronize"]

LookUp = Callable[[tuple[str, int]], PeerEndpoint]

_NO_KEY = bytes(KEY_SIZE)
_MAX_KEY_FILE = 1024  # Bytes; a key has 44 characters.
_USAGE = (
    "write [listen-port PORT] [fwmark MARK] [private-key FILE] [peer KEY [remove] [preshared-key FILE]"
    " [endpoint HOST:PORT] [persistent-keepalive SECONDS] [allowed-ips NETWORK,...]]..."
)


def parse_arguments(words: Sequence[str], look_up: LookUp) -> Change:
    """Return the change that the arguments of `wg set` after the interface describe.

    Raises `InvalidSetting` and, for files of keys and for names of endpoints, `EndpointError`. Neither shows a key.
    """
    device: dict[str, Any] = {}
    peers: list[dict[str, Any]] = []
    left = iter(words)
    for word in left:
        if word == "peer":
            peers.append({"public_key": _parse("peer", key_from_text, _next(left, word))})
        elif peers and word == "remove":
            peers[-1]["remove"] = True
        elif peers and word == "allowed-ips":
            peers[-1].update(_parse_allowed_ips(_next(left, word)))
        elif (parse := (_OF_PEERS if peers else _OF_DEVICES).get(word)) is not None:
            (peers[-1] if peers else device)[word.replace("-", "_")] = _parse(word, parse, _next(left, word))
        else:
            told = word if word in _OF_PEERS else hide_keys(word)  # One of ours is long enough for a key.
            known = [*(_OF_PEERS if peers else _OF_DEVICES), "peer", *(["allowed-ips", "remove"] if peers else [])]
            raise unknown_name("argument", told, known, "a peer" if peers else "wg set")
    if not device and not peers:
        raise InvalidSetting(f"nothing to set; {_USAGE}")
    for peer in peers:
        if "endpoint" in peer:
            peer["endpoint"] = look_up(peer["endpoint"])
    return Change(**device, peers=tuple(PeerChange(**peer) for peer in peers))


def _next(words: Iterator[str], word: str) -> str:
    if (value := next(words, None)) is None:
        raise InvalidSetting(f"{word} has no value; {_USAGE}")
    return value


def _parse(word: str, parse: Callable[[str], Any], text: str) -> Any:
    try:
        return parse(text)
    except ValueError as error:
        raise InvalidSetting(f"{word}: {hide_keys(str(error))}") from None


def _parse_allowed_ips(text: str) -> dict[str, Any]:
    """Return the settings for a list of networks, which replaces those that the peer has, unless any has a sign."""
    last: dict[Network, str] = {}
    items = [item.strip(SPACE) for item in text.split(",")] if text.strip(SPACE) else []
    signed = [parse_sign(item, "+-") for item in items]
    signs = [sign for sign, _ in signed]
    for network, sign in zip(parse_networks(rest for _, rest in signed), signs, strict=True):
        last.pop(network, None)
        last[network] = sign
    return {
        "replace_allowed_ips": not any(signs),
        "allowed_ips": tuple(network for network, sign in last.items() if sign != "-"),
        "removed_ips": tuple(network for network, sign in last.items() if sign == "-"),
    }


def _read_key(name: str) -> bytes:
    """Return the key in a file; all zero for an empty file, which stands for no key. The name is not shown.

    It may be a key that was given in place of a file.
    """
    try:
        path = Path(name)
        with path.open("rb") as file:  # Perhaps a pipe of the shell.
            text = file.read(_MAX_KEY_FILE).decode("ascii", "replace").strip(SPACE)
        warn_if_exposed(path)
    except OSError as error:
        raise EndpointError(error.errno, f"file of a key: {error.strerror}; give the path of a file with it") from None
    return key_from_text(text) if text else _NO_KEY


def _parser_of(key: str) -> Callable[[str], Any]:
    return lambda text: parse_value(key, text)


_OF_DEVICES: dict[str, Callable[[str], Any]] = {
    "listen-port": _parser_of("listenport"),
    "fwmark": _parser_of("fwmark"),
    "private-key": _read_key,
}
_OF_PEERS: dict[str, Callable[[str], Any]] = {
    "preshared-key": _read_key,
    "endpoint": _parser_of("endpoint"),
    "persistent-keepalive": _parser_of("persistentkeepalive"),
}


def to_replace(config: Config, look_up: LookUp) -> Change:
    """Return the change that gives a device the settings of a file, and no others. Raises `EndpointError`."""
    return replace(
        config.change(look_up),
        private_key=config.private_key or _NO_KEY,
        listen_port=config.listen_port or 0,
        fwmark=config.fwmark or 0,
    )


def to_synchronize(config: Config, status: Status, look_up: LookUp) -> Change:
    """Return the change to the settings of a file that lets sessions go on. Raises `EndpointError`.

    Where the file has no endpoint of a peer, or no listen port, the present one stays.
    """
    change = to_replace(config, look_up)
    wanted = {peer.public_key for peer in change.peers}
    gone = [PeerChange(peer.public_key, remove=True) for peer in status.peers if peer.public_key not in wanted]
    present = {peer.public_key for peer in status.peers}
    kept = []
    for peer in change.peers:
        if peer.preshared_key is None and peer.public_key in present and not peer.update_only:
            peer = replace(peer, preshared_key=_NO_KEY)
        kept.append(peer)
    same_port = config.listen_port is None or config.listen_port == status.listen_port
    return replace(
        change,
        private_key=None if change.private_key == status.private_key else change.private_key,
        listen_port=None if same_port else config.listen_port,
        fwmark=None if change.fwmark == status.fwmark else change.fwmark,
        replace_peers=False,
        peers=(*gone, *kept),
    )
