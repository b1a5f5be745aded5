"""The constants of WireGuard: first those of its paper, which both ends must share, then our own."""

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

# From the paper, sections 5.4 and 6.1.
CONSTRUCTION = b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s"
IDENTIFIER = b"WireGuard v1 zx2c4 Jason@zx2c4.com"
LABEL_MAC1 = b"mac1----"
LABEL_COOKIE = b"cookie--"
REKEY_AFTER_MESSAGES = 2**60
COOKIE_LIFETIME = 120.0
"""Seconds for which a cookie is valid, and its secret is kept."""


class Timing(NamedTuple):
    """The times of section 6.1, in seconds. Tests use shorter ones."""

    rekey_after: float = 120.0
    """REKEY_AFTER_TIME: the age of a keypair from which its initiator begins a new handshake when it sends."""
    reject_after: float = 180.0
    """REJECT_AFTER_TIME: the age of a keypair from which it neither seals nor opens."""
    rekey_attempt: float = 90.0
    """REKEY_ATTEMPT_TIME: how long an unanswered handshake is repeated."""
    rekey_timeout: float = 5.0
    """REKEY_TIMEOUT: the time between two attempts."""
    keepalive: float = 10.0
    """KEEPALIVE_TIMEOUT: the time after which received data is answered, by a keepalive if there is nothing else."""


# Our own.
JITTER = 0.334
"""Seconds by which an attempt is delayed at most, so that two ends fall out of step (as wireguard-go)."""
MIN_INITIATION_INTERVAL = 0.02
"""Seconds between two initiations of one peer that are accepted: 50 a second (as Linux and wireguard-go)."""
MAX_STAGED = 256
"""Records of one peer that wait for a handshake; beyond these, the oldest are dropped."""
UNDER_LOAD = 128
"""Initiations and responses a second above which their senders need a cookie: some 5 % of a core."""
MAX_PER_SOURCE = 20
"""Handshakes a second accepted while under load from one IPv4 address, or from one /64 of IPv6 (as Linux)."""
