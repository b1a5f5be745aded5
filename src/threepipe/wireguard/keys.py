"""Keys of WireGuard, as genkey, genpsk and pubkey of wg(8) make them. Knows neither files nor devices."""

import hashlib
import os
from ipaddress import IPv6Address

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from threepipe.wireguard.values import KEY_SIZE, KeyLike, to_key

__all__ = ["generate_key", "generate_preshared_key", "link_local", "public_key"]

_LINK_LOCAL = bytes.fromhex("fe80000000000000")
_INTERFACE_ID_SIZE = 8


def generate_key() -> bytes:
    """Return a new private key: 32 bytes, in which the bits that X25519 sets and clears are so already, as by wg(8)."""
    key = bytearray(X25519PrivateKey.generate().private_bytes_raw())
    key[0] &= 248  # RFC 7748, section 5.
    key[31] = key[31] & 127 | 64
    return bytes(key)


def generate_preshared_key() -> bytes:
    """Return a new preshared key of 32 bytes."""
    return os.urandom(KEY_SIZE)


def public_key(private_key: KeyLike) -> bytes:
    """Return the public key, 32 bytes, of a private key of 32 bytes or in base64.

    Raises `InvalidSetting`, which does not show the key.
    """
    key = to_key(private_key, "private")
    return X25519PrivateKey.from_private_bytes(key).public_key().public_bytes_raw()


def link_local(public_key: KeyLike) -> IPv6Address:
    """Return the link-local address that a public key of 32 bytes or in base64 has in a mesh.

    It is fe80::/64 and, as interface identifier, the first 8 bytes of the BLAKE2s-256 hash of the key's 32 bytes. (The
    bits of an identifier have no meaning of their own: RFC 7136.) Raises `InvalidSetting`.
    """
    key = to_key(public_key, "public")
    return IPv6Address(_LINK_LOCAL + hashlib.blake2s(key).digest()[:_INTERFACE_ID_SIZE])
