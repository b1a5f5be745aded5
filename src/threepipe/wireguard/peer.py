"""Peer and Keypair: what a device knows of one other end, and when something is due to it.

Timers are not set and cancelled for every packet: a peer notes when things happened, and from that `due` works out
what is to be done by when. Knows no messages, and of cryptography only its results.
"""

from collections import deque
from collections.abc import Sequence

from threepipe.core import fast
from threepipe.wireguard.constants import REKEY_AFTER_MESSAGES, Timing
from threepipe.wireguard.cookie import Maker
from threepipe.wireguard.noise import Handshake, Keys
from threepipe.wireguard.settings import KEY_SIZE, Endpoint

__all__ = ["NEVER", "Keypair", "Peer"]

NEVER = float("inf")


class Keypair:
    """Keys for both directions, agreed on in one handshake, and how long they are good."""

    __slots__ = ("created", "initiator", "transport")

    def __init__(self, keys: Keys, local_index: int, remote_index: int, now: float, *, initiator: bool) -> None:
        self.transport = fast.Transport(keys.send, keys.receive, local_index, remote_index)
        self.created = now
        self.initiator = initiator
        """Whether the handshake was begun here: who began the last one begins the next."""

    def is_good(self, now: float, timing: Timing) -> bool:
        """Whether messages may still be sent by it, as long as there are counters."""
        return now - self.created < timing.reject_after

    def is_stale(self, now: float, timing: Timing) -> bool:
        """Whether it is time for a new one, to whoever sends."""
        return self.transport.counter > REKEY_AFTER_MESSAGES or now >= self.renew_at(timing)

    def renew_at(self, timing: Timing) -> float:
        """When it is time for a new one, whatever the number of messages."""
        return self.created + timing.rekey_after if self.initiator else NEVER

    def near_end(self, timing: Timing) -> float:
        """When it is time for a new one even to who only receives (section 6.2)."""
        if not self.initiator:
            return NEVER
        return self.created + timing.reject_after - timing.keepalive - timing.rekey_timeout


class Peer:
    """Times are those of `now`; None or `NEVER` says that nothing is pending."""

    __slots__ = (
        "attempts_since", "check_at", "current", "endpoint", "greatest_timestamp", "handshake",
        "handshake_index", "keys_since", "last_handshake", "last_minute", "maker", "next", "number",
        "persistent_keepalive", "preshared_key", "previous", "public_key", "sent_initiation", "staged",
        "static_static", "taken_initiation", "traffic", "try_again",
    )  # fmt: skip

    def __init__(self, public_key: bytes, number: int) -> None:
        self.public_key = public_key
        self.number = number
        """By which a router knows it."""
        self.traffic = fast.Traffic()
        self.preshared_key = bytes(KEY_SIZE)
        self.static_static: bytes | None = None
        """The Diffie-Hellman of both static keys; None where the peer's is none, or the device has none."""
        self.maker = Maker(public_key)
        self.endpoint: Endpoint | None = None
        self.persistent_keepalive = 0
        self.handshake: Handshake | None = None
        """One begun here and not answered yet, and its index."""
        self.handshake_index = 0
        self.greatest_timestamp = b""
        self.current: Keypair | None = None
        self.previous: Keypair | None = None
        """The one before, by which messages may still be on their way."""
        self.next: Keypair | None = None
        """One that was responded to: it becomes the current one when the initiator shows that it has it too."""
        self.staged: deque[tuple[memoryview, bool]] = deque()
        """Records that wait for a keypair, and whether they have a header."""
        self.last_handshake = 0.0
        """In seconds since 1970."""
        self.attempts_since: float | None = None
        self.try_again = NEVER
        self.sent_initiation = self.taken_initiation = -NEVER
        self.keys_since: float | None = None
        self.last_minute = False
        """Whether a handshake was begun because what is received is by a keypair near its end."""
        self.check_at = NEVER
        """When the device looks at it next."""

    @property
    def keypairs(self) -> Sequence[Keypair]:
        return [keypair for keypair in (self.current, self.previous, self.next) if keypair is not None]

    def derived(self, now: float) -> None:
        """Note that there is a new keypair."""
        self.keys_since = now

    def completed(self, unix: float) -> None:
        """Note that a handshake is complete, at `unix` seconds since 1970."""
        self.attempts_since, self.try_again = None, NEVER
        self.last_minute = False
        self.last_handshake = unix

    def keepalive_due(self, timing: Timing) -> float:
        keepalive_owed_since = self.traffic.keepalive_owed_since
        return NEVER if keepalive_owed_since is None else keepalive_owed_since + timing.keepalive

    def handshake_due(self, timing: Timing) -> float:
        """When silence is too long, that the peer is there has to be found out anew."""
        unanswered_since = self.traffic.unanswered_since
        return NEVER if unanswered_since is None else unanswered_since + timing.keepalive + timing.rekey_timeout

    def persistent_due(self) -> float:
        return self.traffic.last_traversal + self.persistent_keepalive if self.persistent_keepalive else NEVER

    def wipe_due(self, timing: Timing) -> float:
        return NEVER if self.keys_since is None else self.keys_since + 3 * timing.reject_after

    def due(self, timing: Timing) -> float:
        """When the first of all is due."""
        return min(
            self.try_again,
            self.keepalive_due(timing),
            self.handshake_due(timing),
            self.persistent_due(),
            self.wipe_due(timing),
        )
