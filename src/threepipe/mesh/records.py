"""Certificates and records, which the authority of a network and its nodes sign. Pure data; knows no bus and no device.

The authority signs a node's certificate: its name, its two public keys, and the prefixes that it may announce. The node
signs its records with the second key: its endpoints, its prefixes, and the time when they expire. The text of either is
a line of JSON and a line with its Ed25519 signature in base64. A record begins with the text of the certificate. Times
are milliseconds since 1970.
"""

import json
import re
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import wraps
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Any, ParamSpec, Self, TypeVar

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from threepipe.errors import InvalidSetting, ThreepipeError
from threepipe.settings import Network
from threepipe.wireguard.keys import link_local
from threepipe.wireguard.peer_endpoint import PeerEndpoint
from threepipe.wireguard.values import key_from_text, key_to_text, to_endpoint

__all__ = [
    "MAX_RECORD",
    "Certificate",
    "Record",
    "Refused",
    "Request",
    "check_endpoint",
    "check_node_name",
    "node_address",
    "public_part",
]

Given = ParamSpec("Given")
Parsed = TypeVar("Parsed")

MAX_RECORD = 8192
"""The maximum of a record's bytes."""
MAX_ENDPOINTS = 16
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")  # A label of a host name, and a key of NATS.
_CERTIFICATE, _RECORD = b"threepipe mesh certificate\n", b"threepipe mesh record\n"
"""The beginnings of signed texts, so that no signature is valid for a text of another kind."""


class Refused(ThreepipeError):
    """A certificate or record is not accepted, and changes nothing. `kind` is the reason in one word."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


def _refusing(parse: Callable[Given, Parsed]) -> Callable[Given, Parsed]:
    """Have a function that parses a text raise `Refused` for any error in it."""

    @wraps(parse)
    def refusing(*args: Given.args, **kwargs: Given.kwargs) -> Parsed:
        try:
            return parse(*args, **kwargs)
        except (ValueError, KeyError, TypeError, RecursionError):
            raise Refused("malformed", "it is not a record of this version of threepipe") from None

    return refusing


def check_node_name(name: str) -> str:
    """Return `name`; raise `InvalidSetting` if no node can have it."""
    if not _NAME.fullmatch(name):
        raise InvalidSetting(f"{name!r} cannot be the name of a node: give 1 to 63 of a-z, 0-9 and -, as in gw-1")
    return name


def check_endpoint(host: Any, port: Any) -> PeerEndpoint:
    """Return an endpoint that a record may have. Raises `ValueError` or `TypeError` if no host can be reached there."""
    found = to_endpoint((host, port))
    address = ip_address(found[0])
    local = address.is_multicast or address.is_unspecified or address.is_link_local
    if local or "%" in found[0] or not found[1]:
        raise ValueError(f"no other host reaches {found[0]}, port {found[1]}; give an address that others can use")
    return found


def public_part(seed: bytes) -> bytes:
    """Return the Ed25519 public key, 32 bytes, of a private key of 32 bytes."""
    return Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()


def node_address(networks: Iterable[Network], key: bytes) -> IPv6Address:
    """Return the address of the node with that WireGuard key, in the first IPv6 network. Raises `InvalidSetting`.

    The address is in the first /64 of the network, and ends with the last 8 bytes of the key's link-local address. In a
    network smaller than a /64, it ends with as many of their last bits as fit.
    """
    for network in networks:
        if network.version == 6:
            identifier = int(link_local(key)) & (1 << min(64, 128 - network.prefixlen)) - 1
            return IPv6Address(int(network.network_address) | identifier)
    raise InvalidSetting("no network is an IPv6 one, in which nodes have their addresses; give one by --prefix")


@dataclass(frozen=True, slots=True)
class Request:
    """A node's request to the authority for a certificate: its name, and its public keys of 32 bytes."""

    name: str
    key: bytes
    """The public key of WireGuard."""
    signer: bytes
    """The Ed25519 public key of its records."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse the three words of a request's `str`. Raises `InvalidSetting`."""
        words = text.split()
        if len(words) != 3:
            raise InvalidSetting("a request has a name and two keys; give the line that threepipe mesh request prints")
        return cls(check_node_name(words[0]), key_from_text(words[1]), key_from_text(words[2]))

    def __str__(self) -> str:
        return f"{self.name} {key_to_text(self.key)} {key_to_text(self.signer)}"


@dataclass(frozen=True, slots=True)
class Certificate:
    """The authority's statement about a node."""

    name: str
    key: bytes
    signer: bytes
    prefixes: tuple[Network, ...]
    """The networks that the node may announce, besides its own address."""
    issued: int
    expires: int
    text: str

    @classmethod
    def issue(cls, seed: bytes, request: Request, prefixes: Iterable[Network], issued: int, expires: int) -> Self:
        """Sign a request with the authority's private key of 32 bytes."""
        fields = {
            "name": check_node_name(request.name),
            "key": key_to_text(request.key),
            "signer": key_to_text(request.signer),
            "prefixes": [str(network) for network in prefixes],
            "issued": issued,
            "expires": expires,
        }
        return cls.parse(_signed(_CERTIFICATE, fields, seed), public_part(seed))

    @classmethod
    @_refusing
    def parse(cls, text: str, authority: bytes) -> Self:
        """Return the certificate if the authority with that public key has signed it. Raises `Refused`."""
        fields = _verified(_CERTIFICATE, text, authority, "the authority")
        return cls(
            check_node_name(fields["name"]),
            key_from_text(fields["key"]),
            key_from_text(fields["signer"]),
            tuple(ip_network(each) for each in fields["prefixes"]),
            _time(fields["issued"]),
            _time(fields["expires"]),
            text,
        )


@dataclass(frozen=True, slots=True)
class Record:
    """A node's statement about itself."""

    certificate: Certificate
    sequence: int
    """The time when it was signed; it grows with each record of a node."""
    expires: int
    endpoints: tuple[PeerEndpoint, ...]
    """The endpoints of the node, the best first."""
    prefixes: tuple[Network, ...]
    left: bool
    """True if the node has left."""
    text: str

    @classmethod
    def sign(
        cls,
        certificate: Certificate,
        seed: bytes,
        sequence: int,
        expires: int,
        endpoints: Sequence[PeerEndpoint] = (),
        prefixes: Sequence[Network] = (),
        left: bool = False,
    ) -> Self:
        """Sign a record with the node's private key of 32 bytes."""
        endpoints, prefixes = tuple(endpoints[:MAX_ENDPOINTS]), tuple(prefixes)
        fields: dict[str, Any] = {"sequence": sequence, "expires": expires}
        fields["endpoints"] = [list(endpoint) for endpoint in endpoints]
        fields["prefixes"] = [str(network) for network in prefixes]
        if left:
            fields["left"] = True
        text = f"{certificate.text}\n{_signed(_RECORD, fields, seed)}"
        return cls(certificate, sequence, expires, endpoints, prefixes, left, text)

    @classmethod
    @_refusing
    def parse(cls, data: bytes, authority: bytes, known: Certificate | None = None) -> Self:
        """Return the record if its node has signed it, and the authority the node's certificate.

        `known` is a certificate that was verified before. Raises `Refused`.
        """
        text = data.decode()
        lines = text.split("\n")
        if len(data) > MAX_RECORD or len(lines) != 4:
            raise ValueError("it has four lines")
        words = "\n".join(lines[:2])
        certificate = known if known and known.text == words else Certificate.parse(words, authority)
        fields = _verified(_RECORD, "\n".join(lines[2:]), certificate.signer, certificate.name)
        return cls(
            certificate,
            _time(fields["sequence"]),
            _time(fields["expires"]),
            tuple(check_endpoint(*each) for each in fields["endpoints"][:MAX_ENDPOINTS]),
            tuple(ip_network(each) for each in fields["prefixes"]),
            fields.get("left", False) is True,
            text,
        )

    @property
    def lifetime(self) -> int:
        """The milliseconds for which the record is valid."""
        return self.expires - self.sequence


def _signed(kind: bytes, fields: dict[str, Any], seed: bytes) -> str:
    text = json.dumps(fields, separators=(",", ":"))
    signature = Ed25519PrivateKey.from_private_bytes(seed).sign(kind + text.encode())
    return f"{text}\n{b64encode(signature).decode()}"


def _verified(kind: bytes, text: str, key: bytes, whose: str) -> Any:
    """Return the JSON of a text if the owner of the public key has signed it."""
    body, _, signature = text.partition("\n")
    found = b64decode(signature, validate=True)
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(found, kind + body.encode())
    except InvalidSignature:
        raise Refused("forged", f"{whose} has not signed this") from None
    return json.loads(body)


def _time(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 1 << 53:
        raise ValueError("no time")
    return value
