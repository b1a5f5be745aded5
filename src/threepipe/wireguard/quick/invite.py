"""`wg invite`: the files of both ends for a new peer of a server. Never overwrites a file."""

import errno
import ipaddress
import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from threepipe import platforms
from threepipe.errors import EndpointError, InvalidSetting
from threepipe.platforms.files import write_new
from threepipe.settings import Address, Network
from threepipe.wireguard.fields import hide_keys, parse_endpoint
from threepipe.wireguard.keys import generate_key, generate_preshared_key, public_key
from threepipe.wireguard.quick.config import parse_value, read_config, warn_if_exposed, write_config, write_peer
from threepipe.wireguard.quick.sections import Config, PeerConfig
from threepipe.wireguard.settings import PeerChange, check_device_name
from threepipe.wireguard.values import parse_networks

__all__ = ["Invitation", "invite"]

_PORT = 51820
_KEEPALIVE = 25  # Seconds, as in wg(8) for peers behind a NAT or firewall.
_EVERYTHING = ("0.0.0.0/0", "::/0")


class Invitation(NamedTuple):
    """A new peer, whose files are made."""

    server: Config
    """The server without the new peer."""
    client: Config
    text: str
    """The client's file."""
    change: PeerChange
    """The peer, for a server that is running."""
    new_server: bool

    def __repr__(self) -> str:
        return f"<Invitation of {self.client.name}>"


def invite(
    server_path: Path, client_path: Path, endpoint: str, *, everything: bool = False, dns: Sequence[str] = ()
) -> Invitation:
    """Add a peer to the file of a server, which is made if it is not there, and make the peer's own file.

    `endpoint` is where the peer reaches the server, HOST or HOST:PORT. The peer gets the next free address of each of
    the server's networks, and sends packets for these through the tunnel, or with `everything` all packets. Raises
    `InvalidSetting` and `EndpointError`, and leaves both files as they were then.
    """
    check_device_name(client_path.stem)
    with _opened(server_path) as file:
        server = _new_server(server_path.stem) if file is None else read_config(server_path)
        peer, client = _join(server, client_path.stem, _host_and_port(endpoint, server), everything, _servers(dns))
        section = f"\n# {client.name}\n{write_peer(peer)}"
        text = write_config(client)
        if file is None:
            write_new({server_path: (write_config(server) + section).encode(), client_path: text.encode()})
        else:
            warn_if_exposed(server_path)
            write_new({client_path: text.encode()})
            try:
                _append(file, section.encode())
            except BaseException:
                client_path.unlink()
                raise
    change = PeerChange(
        peer.public_key, preshared_key=peer.preshared_key, replace_allowed_ips=True, allowed_ips=peer.allowed_ips
    )
    return Invitation(server, client, text, change, file is None)


@contextmanager
def _opened(path: Path) -> Iterator[int | None]:
    """Open the server's file, and let nobody else invite meanwhile; None if there is no file."""
    try:
        file = os.open(path, os.O_RDWR | os.O_APPEND | getattr(os, "O_BINARY", 0))
    except FileNotFoundError:
        yield None
        return
    except OSError as error:
        raise EndpointError(error.errno, f"{path}: {error.strerror}; run this as a user who may change it") from None
    try:
        if not platforms.try_lock(file):
            raise EndpointError(errno.EBUSY, f"{path}: another threepipe wg invite is changing it; try again")
        yield file
    finally:
        os.close(file)


def _append(file: int, section: bytes) -> None:
    """Append to the file in whole, or leave it as it is."""
    size = os.fstat(file).st_size
    os.lseek(file, max(size - 1, 0), os.SEEK_SET)
    before = b"" if os.read(file, 1) in (b"\n", b"") else b"\n"
    try:
        if os.write(file, before + section) != len(before + section):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(file)
    except BaseException as error:
        os.ftruncate(file, size)
        if isinstance(error, OSError):
            raise EndpointError(error.errno, f"adding the peer: {error.strerror}; the files are as before") from None
        raise


def _new_server(name: str) -> Config:
    """Return a server with a key and with private networks that hardly any other site has."""
    third, second = secrets.token_bytes(2)
    ula = ipaddress.IPv6Address(b"\xfd" + secrets.token_bytes(5) + bytes(9) + b"\x01")  # RFC 4193, section 3.
    addresses = (ipaddress.ip_interface(f"10.{second}.{third}.1/24"), ipaddress.ip_interface(f"{ula}/64"))
    return Config(check_device_name(name), generate_key(), _PORT, addresses=addresses)


def _host_and_port(endpoint: str, server: Config) -> tuple[str, int]:
    if endpoint.count(":") != 1 and "]:" not in endpoint:
        if server.listen_port is None:
            raise InvalidSetting(f"{server.name} has no ListenPort; add one to its file, or write --endpoint HOST:PORT")
        host = endpoint.removeprefix("[").removesuffix("]")
        endpoint = f"{f'[{host}]' if ':' in host else host}:{server.listen_port}"
    try:
        found = parse_endpoint(endpoint)
        found[0].encode("idna")  # As getaddrinfo does; raises ValueError.
        if "#" in found[0] or not found[1]:  # The first begins a comment in files.
            raise ValueError
        return found
    except ValueError:
        raise InvalidSetting(f"endpoint {hide_keys(endpoint)!r}: write it as HOST or HOST:PORT") from None


def _servers(dns: Sequence[str]) -> tuple[str, ...]:
    try:
        return tuple(parse_value("dns", " ".join(dns)))
    except ValueError as error:
        raise InvalidSetting(f"DNS: {error}") from None


def _join(
    server: Config, name: str, endpoint: tuple[str, int], everything: bool, dns: tuple[str, ...]
) -> tuple[PeerConfig, Config]:
    """Return the new peer as its server has it, and the peer's own configuration."""
    if server.private_key is None:
        raise InvalidSetting(f"the file of {server.name} has no PrivateKey, so its peers cannot be told the public one")
    free = [_free_address(address, server) for address in server.addresses if _has_room(address)]
    if not free:
        raise InvalidSetting(f"no Address of {server.name} has room for peers; give it one like 10.6.7.1/24")
    key, preshared = generate_key(), generate_preshared_key()
    alone = parse_networks([str(address.ip) for address in free])
    there = parse_networks(_EVERYTHING) if everything else tuple(address.network for address in free)
    peer = PeerConfig(public_key(key), preshared_key=preshared, allowed_ips=alone)
    back = PeerConfig(
        public_key(server.private_key),
        preshared_key=preshared,
        allowed_ips=there,
        endpoint=endpoint,
        persistent_keepalive=_KEEPALIVE,
    )
    return peer, Config(name, key, addresses=tuple(free), dns=dns, mtu=server.mtu, peers=(back,))


def _has_room(address: Address) -> bool:
    return address.network.prefixlen < address.network.max_prefixlen


def _free_address(address: Address, server: Config) -> Address:
    """Return the first address of the network that neither the server nor a peer has."""
    network = address.network
    taken = [allowed for peer in server.peers for allowed in peer.allowed_ips if _is_part(allowed, network)]
    hosts = {allowed.network_address for allowed in taken if allowed.prefixlen == network.max_prefixlen}
    hosts |= {own.ip for own in server.addresses}
    wide = [allowed for allowed in taken if allowed.prefixlen < network.max_prefixlen]
    for host in network.hosts():
        if host not in hosts and not any(host in allowed for allowed in wide):
            return ipaddress.ip_interface((host, network.prefixlen))
    raise InvalidSetting(f"every address of {network} has a peer; remove one, or give {server.name} a larger network")


def _is_part(allowed: Network, network: Network) -> bool:
    """Return True if the allowed IPs are a part of the network. All of it means others behind that peer."""
    return allowed.version == network.version and network.prefixlen < allowed.prefixlen and allowed.overlaps(network)
