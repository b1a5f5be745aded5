"""The constants of WireGuard: those of its paper, which both ends have to share, and apart from them our own."""

from typing import NamedTuple

from threepipe.core.transport import REJECT_AFTER_MESSAGES

__all__ = [
    "CONSTRUCTION",
    "COOKIE_LIFETIME",
    "IDENTIFIER",
    "JITTER",
    "LABEL_COOKIE",
    "LABEL_MAC1",
    "MAX_PER_SOURCE",
    "MAX_STAGED",
    "MIN_INITIATION_INTERVAL",
    "REJECT_AFTER_MESSAGES",
    "REKEY_AFTER_MESSAGES",
    "UNDER_LOAD",
    "Timing",
]

# Of the paper, sections 5.4 and 6.1.
CONSTRUCTION = b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s"
IDENTIFIER = b"WireGuard v1 zx2c4 Jason@zx2c4.com"
LABEL_MAC1 = b"mac1----"
LABEL_COOKIE = b"cookie--"
REKEY_AFTER_MESSAGES = 2**60
COOKIE_LIFETIME = 120.0
"""Seconds that a cookie is good for, and its secret is kept."""


class Timing(NamedTuple):
    """Seconds, as section 6.1 has them; a test has shorter ones."""

    rekey_after: float = 120.0
    """REKEY_AFTER_TIME: the initiator of a keypair of this age starts a new handshake when it sends."""
    reject_after: float = 180.0
    """REJECT_AFTER_TIME: nothing is sent or taken by a keypair of this age."""
    rekey_attempt: float = 90.0
    """REKEY_ATTEMPT_TIME: for so long a handshake is tried again and again."""
    rekey_timeout: float = 5.0
    """REKEY_TIMEOUT: between one try and the next."""
    keepalive: float = 10.0
    """KEEPALIVE_TIMEOUT: by when what was received is answered, if by an empty message."""


# Our own.
JITTER = 0.334
"""Seconds that a try is late at most, so that two ends do not keep step (wireguard-go has the same)."""
MIN_INITIATION_INTERVAL = 0.02
"""Seconds between two initiations of one peer that are looked at: 50 a second (as Linux and wireguard-go)."""
MAX_STAGED = 256
"""Records of a bundle that wait for a handshake, a peer; more push out the oldest."""
UNDER_LOAD = 128
"""Initiations and responses a second from which on their senders have to show a cookie: some 5 % of a core."""
MAX_PER_SOURCE = 20
"""Handshakes a second from one address, while under load (as wireguard-go)."""
