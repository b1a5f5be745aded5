"""The cryptography of the handshake, Noise_IKpsk2 (paper, section 5.4): the order of hashing, mixing and sealing.

Pure functions of keys and messages. Knows no peers, MACs, time or retries. A message that does not open gives None for
whatever reason, so that its sender learns nothing.
"""

import hmac
from hashlib import blake2s
from typing import NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from threepipe.wireguard.constants import CONSTRUCTION, IDENTIFIER
from threepipe.wireguard.message import INITIATION, RESPONSE, TYPE_INITIATION, TYPE_RESPONSE

__all__ = [
    "Handshake",
    "Identity",
    "Keys",
    "Received",
    "initiate",
    "read_initiation",
    "read_response",
    "read_timestamp",
    "respond",
]

_NONCE = bytes(12)  # Each key of a handshake seals once.


class Identity:
    """The static key pair of a device."""

    def __init__(self, private_key: bytes) -> None:
        """`private_key` has 32 bytes; X25519 clamps them (RFC 7748)."""
        self.private = X25519PrivateKey.from_private_bytes(private_key)
        self.public = self.private.public_key().public_bytes_raw()

    def shared(self, public_key: bytes) -> bytes | None:
        """Return the Diffie-Hellman of the two static keys; None if `public_key` is invalid."""
        return _exchange(self.private, public_key)


class Handshake(NamedTuple):
    """The state of an unfinished handshake at one end. Like that of all types here, its repr shows no secrets."""

    chain: bytes
    hash: bytes
    ephemeral: X25519PrivateKey | None = None
    """The initiator's key, at the initiator."""
    remote_ephemeral: bytes = b""
    """The initiator's public key, at the responder."""

    def __repr__(self) -> str:
        return f"<Handshake at the {'responder' if self.ephemeral is None else 'initiator'}>"


class Received(NamedTuple):
    """An initiation opened as far as the static key, which names the peer."""

    sender_index: int
    static: bytes
    sealed_timestamp: bytes
    handshake: Handshake


class Keys(NamedTuple):
    """The two keys of a keypair, 32 bytes each."""

    send: bytes
    receive: bytes

    def __repr__(self) -> str:
        return "<Keys>"


def initiate(
    identity: Identity, remote: bytes, static_static: bytes, index: int, timestamp: bytes
) -> tuple[Handshake, bytes] | None:
    """Return an initiation to the static public key `remote`, without MACs. None if that key is invalid."""
    ephemeral = X25519PrivateKey.generate()
    public = ephemeral.public_key().public_bytes_raw()
    if (shared := _exchange(ephemeral, remote)) is None:
        return None
    chain, mixed = _mix_ephemeral(_start(remote), public)
    chain, key = _kdf(chain, shared, 2)
    sealed_static = _seal(key, identity.public, mixed)
    mixed = _hash(mixed, sealed_static)
    chain, key = _kdf(chain, static_static, 2)
    sealed_timestamp = _seal(key, timestamp, mixed)
    mixed = _hash(mixed, sealed_timestamp)
    message = INITIATION.pack(TYPE_INITIATION, index, public, sealed_static, sealed_timestamp)
    return Handshake(chain, mixed, ephemeral), message


def read_initiation(identity: Identity, message: memoryview) -> Received | None:
    """Open an initiation as far as its static key. `message` has MACs, which the caller has checked."""
    _, index, ephemeral, sealed_static, sealed_timestamp = INITIATION.unpack_from(message)
    chain, mixed = _mix_ephemeral(_start(identity.public), ephemeral)
    if (shared := _exchange(identity.private, ephemeral)) is None:
        return None
    chain, key = _kdf(chain, shared, 2)
    if (static := _open(key, sealed_static, mixed)) is None:
        return None
    return Received(index, static, sealed_timestamp, Handshake(chain, _hash(mixed, sealed_static), None, ephemeral))


def read_timestamp(received: Received, static_static: bytes) -> tuple[Handshake, bytes] | None:
    """Open the timestamp of an initiation, which proves that the sender has the static private key."""
    chain, key = _kdf(received.handshake.chain, static_static, 2)
    if (timestamp := _open(key, received.sealed_timestamp, received.handshake.hash)) is None:
        return None
    mixed = _hash(received.handshake.hash, received.sealed_timestamp)
    return received.handshake._replace(chain=chain, hash=mixed), timestamp


def respond(
    handshake: Handshake, remote: bytes, preshared_key: bytes, index: int, remote_index: int
) -> tuple[Keys, bytes] | None:
    """Return the new keys and a response, without MACs. None if a key of the initiator is invalid."""
    ephemeral = X25519PrivateKey.generate()
    public = ephemeral.public_key().public_bytes_raw()
    chain, mixed = _mix_ephemeral((handshake.chain, handshake.hash), public)
    for key in (handshake.remote_ephemeral, remote):
        if (shared := _exchange(ephemeral, key)) is None:
            return None
        (chain,) = _kdf(chain, shared, 1)
    chain, temporary, key = _kdf(chain, preshared_key, 3)
    mixed = _hash(mixed, temporary)
    message = RESPONSE.pack(TYPE_RESPONSE, index, remote_index, public, _seal(key, b"", mixed))
    receive, send = _kdf(chain, b"", 2)
    return Keys(send, receive), message


def read_response(identity: Identity, handshake: Handshake, preshared_key: bytes, message: memoryview) -> Keys | None:
    """Open a response to `handshake`. `message` has MACs, which the caller has checked."""
    _, _, _, ephemeral, sealed_nothing = RESPONSE.unpack_from(message)
    assert handshake.ephemeral is not None
    chain, mixed = _mix_ephemeral((handshake.chain, handshake.hash), ephemeral)
    for private in (handshake.ephemeral, identity.private):
        if (shared := _exchange(private, ephemeral)) is None:
            return None
        (chain,) = _kdf(chain, shared, 1)
    chain, temporary, key = _kdf(chain, preshared_key, 3)
    mixed = _hash(mixed, temporary)
    if _open(key, sealed_nothing, mixed) is None:
        return None
    return Keys(*_kdf(chain, b"", 2))


def _start(responder: bytes) -> tuple[bytes, bytes]:
    """Return the chaining key and hash before the initiation to the static key `responder`."""
    return _CHAIN, _hash(_HASH, responder)


def _mix_ephemeral(state: tuple[bytes, bytes], public: bytes) -> tuple[bytes, bytes]:
    chain, mixed = state
    return _kdf(chain, public, 1)[0], _hash(mixed, public)


def _hash(*parts: bytes) -> bytes:
    return blake2s(b"".join(parts)).digest()


def _kdf(key: bytes, data: bytes, count: int) -> tuple[bytes, ...]:
    """Return `count` keys by HKDF (RFC 5869) with HMAC-BLAKE2s."""
    secret = hmac.digest(key, data, blake2s)
    keys, last = [], b""
    for number in range(1, count + 1):
        last = hmac.digest(secret, last + bytes([number]), blake2s)
        keys.append(last)
    return tuple(keys)


def _exchange(private: X25519PrivateKey, public: bytes) -> bytes | None:
    """Return the X25519 of two keys; None if `public` has small order, so that anybody could compute it."""
    try:
        return private.exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError:
        return None


def _seal(key: bytes, plain: bytes, mixed: bytes) -> bytes:
    return ChaCha20Poly1305(key).encrypt(_NONCE, plain, mixed)


def _open(key: bytes, sealed: bytes, mixed: bytes) -> bytes | None:
    try:
        return ChaCha20Poly1305(key).decrypt(_NONCE, sealed, mixed)
    except InvalidTag:
        return None


_CHAIN = _hash(CONSTRUCTION)
_HASH = _hash(_CHAIN, IDENTIFIER)
