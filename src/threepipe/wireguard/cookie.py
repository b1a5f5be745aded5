"""Cookies: the MACs of handshake messages, and the proof that a sender receives at its address (section 5.4.4).

A device has one `CookieChecker`, for messages that it receives, and for each peer a `CookieGenerator`, for those sent.
`Load` decides when to ask for cookies. No clock: `now` is in seconds, of any clock that does not jump.
"""

import hmac
import os
import struct
from hashlib import blake2s

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from threepipe.wireguard.constants import COOKIE_LIFETIME, LABEL_COOKIE, LABEL_MAC1, MAX_PER_SOURCE, UNDER_LOAD
from threepipe.wireguard.message import COOKIE_REPLY, MACS_SIZE, TYPE_COOKIE_REPLY

__all__ = ["CookieChecker", "CookieGenerator", "Load"]

_MAC = 16
_LATENCY = 5.0  # Seconds. A cookie is not used that shortly before it expires, as a message takes time to arrive.
_MAX_SOURCES = 4096
_WORDS = struct.Struct("<16I")


class CookieChecker:
    """Checks the MACs of received messages, and answers with cookies."""

    def __init__(self, public_key: bytes) -> None:
        """`public_key` is the device's own."""
        self._mac1_key = blake2s(LABEL_MAC1 + public_key).digest()
        self._cookie_key = blake2s(LABEL_COOKIE + public_key).digest()
        self._secret = b""
        self._secret_until = 0.0

    @property
    def secret(self) -> tuple[bytes, float]:
        """The secret of cookies and the time until which it is used; may be set to that of another checker."""
        return self._secret, self._secret_until

    @secret.setter
    def secret(self, secret: tuple[bytes, float]) -> None:
        self._secret, self._secret_until = secret

    def has_mac1(self, message: memoryview) -> bool:
        """Return True if mac1 is valid, so the sender knows our public key. Checked first."""
        return hmac.compare_digest(_mac(self._mac1_key, message[:-MACS_SIZE]), message[-MACS_SIZE:-_MAC])

    def has_mac2(self, message: memoryview, source: bytes, now: float) -> bool:
        """Return True if mac2 is valid, so the sender received a cookie at `source`, an address and port as bytes."""
        if now >= self._secret_until:
            return False
        return hmac.compare_digest(_mac(self._cookie(source), message[:-_MAC]), message[-_MAC:])

    def reply(self, message: memoryview, index: int, source: bytes, now: float) -> bytes:
        """Return a cookie reply to `message`, which `source` sent with the sender's index `index`."""
        if now >= self._secret_until:
            self._secret, self._secret_until = os.urandom(32), now + COOKIE_LIFETIME
        nonce = os.urandom(24)
        mac1 = message[-MACS_SIZE:-_MAC]
        return COOKIE_REPLY.pack(
            TYPE_COOKIE_REPLY, index, nonce, _seal_extended(self._cookie_key, nonce, self._cookie(source), mac1)
        )

    def _cookie(self, source: bytes) -> bytes:
        return _mac(self._secret, source)


class CookieGenerator:
    """Adds the MACs to handshake messages for one peer."""

    def __init__(self, remote: bytes) -> None:
        """`remote` is the peer's static public key."""
        self._mac1_key = blake2s(LABEL_MAC1 + remote).digest()
        self._cookie_key = blake2s(LABEL_COOKIE + remote).digest()
        self._last_mac1 = b""
        self._cookie = b""
        self._cookie_until = 0.0

    @property
    def state(self) -> tuple[bytes, bytes, float]:
        """The mac1 that a cookie may answer, the cookie, and its end; may be set to those of another generator."""
        return self._last_mac1, self._cookie, self._cookie_until

    @state.setter
    def state(self, state: tuple[bytes, bytes, float]) -> None:
        self._last_mac1, self._cookie, self._cookie_until = state

    def add_macs(self, message: bytes, now: float) -> bytes:
        """Return `message` with mac1, and with mac2 while there is a valid cookie."""
        self._last_mac1 = _mac(self._mac1_key, message)
        message += self._last_mac1
        return message + (_mac(self._cookie, message) if now < self._cookie_until else bytes(_MAC))

    def receive(self, message: memoryview, now: float) -> bool:
        """Keep the cookie of a reply to the last message. Return False if it is not one, or a second one."""
        _, _, nonce, sealed = COOKIE_REPLY.unpack(message)
        if not self._last_mac1:
            return False
        key = _hchacha20(self._cookie_key, nonce[:16])
        try:
            cookie = ChaCha20Poly1305(key).decrypt(bytes(4) + nonce[16:], sealed, self._last_mac1)
        except InvalidTag:
            return False
        self._cookie, self._cookie_until, self._last_mac1 = cookie, now + COOKIE_LIFETIME - _LATENCY, b""
        return True


class Load:
    """Counts the handshake messages of a second, and their sources."""

    def __init__(self) -> None:
        self._second = 0
        self._count = 0
        self._count_before = 0
        self._sources: dict[bytes, int] = {}

    def is_high(self, now: float) -> bool:
        """Count one message. Return True if there are too many in this second, or were in the one before."""
        self._start_second(now)
        self._count += 1
        return max(self._count, self._count_before) > UNDER_LOAD

    def is_too_high_from(self, source: bytes) -> bool:
        """Count one message with a valid cookie from `source`. Return True if these are too many in this second."""
        count = self._sources.get(source, 0)
        if count >= MAX_PER_SOURCE or (not count and len(self._sources) >= _MAX_SOURCES):
            return True
        self._sources[source] = count + 1
        return False

    def _start_second(self, now: float) -> None:
        second = int(now)
        if second != self._second:
            self._count_before = self._count if second == self._second + 1 else 0
            self._second, self._count = second, 0
            self._sources.clear()


def _mac(key: bytes, data: bytes | memoryview) -> bytes:
    return blake2s(data, digest_size=_MAC, key=key).digest()


def _seal_extended(key: bytes, nonce: bytes, plain: bytes, additional: memoryview) -> bytes:
    """Seal `plain` with XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha), which has a nonce of 24 bytes."""
    return ChaCha20Poly1305(_hchacha20(key, nonce[:16])).encrypt(bytes(4) + nonce[16:], plain, additional)


def _hchacha20(key: bytes, nonce: bytes) -> bytes:
    """Return the subkey for a nonce of 16 bytes (draft-irtf-cfrg-xchacha, section 2.2).

    HChaCha20 is ChaCha20's block function without the final addition of the input state. So this computes a block, and
    subtracts the input from the eight words that make the subkey: constants and nonce.
    """
    block = Cipher(algorithms.ChaCha20(key, nonce), mode=None).encryptor().update(bytes(64))
    words = _WORDS.unpack(block)
    constants = struct.unpack("<4I", b"expand 32-byte k")
    first = [(word - constant) & 0xFFFFFFFF for word, constant in zip(words[:4], constants, strict=True)]
    last = [(word - part) & 0xFFFFFFFF for word, part in zip(words[12:], struct.unpack("<4I", nonce), strict=True)]
    return struct.pack("<8I", *first, *last)
