"""Peer and Keypair: the state that a device has of one peer, and the times at which the peer needs something.

No timer is set or cancelled for each packet. A peer notes the times of what happened, and its `..._due` methods compute
from these when each action is due. Knows no messages, and no cryptography but its results.
"""

from collections import deque
from collections.abc import Sequence
from typing import Self

from threepipe.core import fast
from threepipe.core.transport import Transport
from threepipe.wireguard.constants import REKEY_AFTER_MESSAGES, Timing
from threepipe.wireguard.cookie import CookieGenerator
from threepipe.wireguard.noise import Handshake, Keys
from threepipe.wireguard.peer_endpoint import PeerEndpoint
from threepipe.wireguard.values import KEY_SIZE

__all__ = ["NEVER", "Keypair", "Peer"]

NEVER = float("inf")


class Keypair:
    """The keys for both directions that one handshake agreed on, and their age."""

    __slots__ = ("created", "initiator", "transport")

    def __init__(self, keys: Keys, local_index: int, remote_index: int, now: float, *, initiator: bool) -> None:
        self.transport = fast.Transport(keys.send, keys.receive, local_index, remote_index)
        self.created = now
        self.initiator = initiator
        """True if this device initiated the handshake; only the initiator renews a keypair."""

    @classmethod
    def resumed(cls, transport: Transport, created: float, *, initiator: bool) -> Self:
        """Return a keypair that another process began to use."""
        keypair = cls.__new__(cls)
        keypair.transport, keypair.created, keypair.initiator = transport, created, initiator
        return keypair

    def expires_at(self, timing: Timing) -> float:
        """Return the time from which nothing is sent or accepted with this keypair."""
        return self.created + timing.reject_after

    def renew_on_send_at(self, timing: Timing) -> float:
        """Return the time from which sending begins a new handshake."""
        return self.created + timing.rekey_after if self.initiator else NEVER

    def renew_on_receive_at(self, timing: Timing) -> float:
        """Return the time from which receiving begins a new handshake too (section 6.2)."""
        if not self.initiator:
            return NEVER
        return self.created + timing.reject_after - timing.keepalive - timing.rekey_timeout

    def needs_renewal(self, now: float, timing: Timing) -> bool:
        """Return True if sending with this keypair begins a new handshake, for its age or number of messages."""
        return self.transport.counter > REKEY_AFTER_MESSAGES or now >= self.renew_on_send_at(timing)


class Peer:
    """The state of one peer. Times are those of `now`; None, `NEVER` or `-NEVER` if something is not pending."""

    __slots__ = (
        "attempts_since", "check_at", "cookie_generator", "current", "endpoint", "greatest_timestamp", "handshake",
        "handshake_at", "handshake_index", "initiation_received", "initiation_sent", "keys_since", "last_timestamp",
        "local", "next", "number", "persistent_keepalive", "preshared_key", "previous", "public_key", "refusal_told",
        "retry_at", "sent_last_minute_handshake", "staged", "static_static", "traffic",
    )  # fmt: skip

    def __init__(self, public_key: bytes, number: int) -> None:
        self.public_key = public_key
        self.number = number
        """The number by which the native router knows this peer."""
        self.traffic = fast.Traffic()
        self.preshared_key = bytes(KEY_SIZE)
        self.static_static: bytes | None = None
        """The Diffie-Hellman of both static keys; None if the peer's is invalid, or this device has none."""
        self.cookie_generator = CookieGenerator(public_key)
        self.endpoint: PeerEndpoint | None = None
        self.local: bytes | None = None
        """The local address that the peer last sent to, and is answered from; None to let the system choose."""
        self.persistent_keepalive = 0
        self.handshake: Handshake | None = None
        """An own handshake without an answer yet, which has the index `handshake_index`."""
        self.handshake_index = 0
        self.last_timestamp = b""
        """That of the last initiation sent to the peer."""
        self.greatest_timestamp = b""
        """That of the last initiation accepted from the peer; older ones are refused."""
        self.refusal_told = False
        """True once an older initiation was reported, until the next one is accepted."""
        self.current: Keypair | None = None
        self.previous: Keypair | None = None
        """The keypair before the current one; messages sealed with it may still arrive."""
        self.next: Keypair | None = None
        """The responder's new keypair, which becomes the current one when the initiator first uses it."""
        self.staged: deque[tuple[memoryview, bool]] = deque()
        """Records that wait for a keypair, each with True if it has a virtio header."""
        self.handshake_at: float | None = None
        """The time of the last complete handshake; None if there was none."""
        self.attempts_since: float | None = None
        self.retry_at = NEVER
        self.initiation_sent = self.initiation_received = -NEVER
        self.keys_since: float | None = None
        """The time of the newest keypair."""
        self.sent_last_minute_handshake = False
        """True if receiving with a keypair near its end has begun a handshake, as it does once a keypair."""
        self.check_at = NEVER
        """The time of the next scheduled check of this peer."""

    @property
    def keypairs(self) -> Sequence[Keypair]:
        """All keypairs."""
        return [keypair for keypair in (self.current, self.previous, self.next) if keypair is not None]

    def complete_handshake(self, now: float) -> None:
        """Note that a handshake is complete."""
        self.attempts_since, self.retry_at = None, NEVER
        self.sent_last_minute_handshake = False
        self.handshake_at = now

    def keepalive_due(self, timing: Timing) -> float:
        """Return the time by which received data is answered with a keepalive, if nothing else is sent."""
        keepalive_owed_since = self.traffic.keepalive_owed_since
        return NEVER if keepalive_owed_since is None else keepalive_owed_since + timing.keepalive

    def new_handshake_due(self, timing: Timing) -> float:
        """Return the time at which unanswered data leads to a new handshake."""
        unanswered_since = self.traffic.unanswered_since
        return NEVER if unanswered_since is None else unanswered_since + timing.keepalive + timing.rekey_timeout

    def persistent_keepalive_due(self) -> float:
        """Return the time of the next persistent keepalive."""
        return self.traffic.last_traversal + self.persistent_keepalive if self.persistent_keepalive else NEVER

    def wipe_due(self, timing: Timing) -> float:
        """Return the time at which all keys are wiped, as no new ones followed (section 6.3)."""
        return NEVER if self.keys_since is None else self.keys_since + 3 * timing.reject_after

    def due(self, timing: Timing) -> float:
        """Return the earliest of all these times."""
        return min(
            self.retry_at,
            self.keepalive_due(timing),
            self.new_handshake_due(timing),
            self.persistent_keepalive_due(),
            self.wipe_due(timing),
        )
