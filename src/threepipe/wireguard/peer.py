"""Peer and Keypair: what a device knows of one other end, and when something is due to it.

Timers are not set and cancelled for every packet: a peer notes when things happened, and from that `due` works out
what is to be done by when. Knows no messages, and of cryptography only its results.
"""

from collections import deque
from collections.abc import Sequence

from threepipe.sealing import WINDOW_SIZE
from threepipe.wireguard.constants import REJECT_AFTER_MESSAGES, REKEY_AFTER_MESSAGES, Timing
from threepipe.wireguard.cookie import Maker
from threepipe.wireguard.noise import Handshake, Keys
from threepipe.wireguard.settings import KEY_SIZE, Endpoint

__all__ = ["NEVER", "Keypair", "Peer"]

NEVER = float("inf")


class Keypair:
    """Keys for both directions, agreed on in one handshake."""

    __slots__ = ("counter", "created", "initiator", "local_index", "receive_key", "remote_index", "send_key", "window")

    def __init__(self, keys: Keys, local_index: int, remote_index: int, now: float, *, initiator: bool) -> None:
        self.send_key, self.receive_key = bytearray(keys.send), bytearray(keys.receive)
        self.local_index, self.remote_index = local_index, remote_index
        self.created = now
        self.initiator = initiator
        """Whether the handshake was begun here: who began the last one begins the next."""
        self.counter = 0
        """Of the next message."""
        self.window = bytearray(WINDOW_SIZE)

    def is_good(self, packets: int, now: float, timing: Timing) -> bool:
        """Whether so many messages more may still be sent by it."""
        return self.counter + packets <= REJECT_AFTER_MESSAGES and now - self.created < timing.reject_after

    def is_stale(self, now: float, timing: Timing) -> bool:
        """Whether it is time for a new one, to whoever sends."""
        return self.counter > REKEY_AFTER_MESSAGES or (self.initiator and now - self.created >= timing.rekey_after)

    def wipe(self) -> None:
        for key in (self.send_key, self.receive_key):
            key[:] = bytes(len(key))


class Peer:
    """Times are those of `now`; None or `NEVER` says that nothing is pending."""

    __slots__ = (
        "attempts_since", "check_at", "current", "endpoint", "greatest_timestamp", "handshake",
        "handshake_index", "keys_since", "last_handshake", "last_minute", "maker", "next",
        "owed_more", "owed_since", "persistent_keepalive", "preshared_key", "previous",
        "public_key", "rx_bytes", "sent_initiation", "staged", "static_static", "taken_initiation",
        "traversed", "try_again", "tx_bytes", "unanswered_since",
    )  # fmt: skip

    def __init__(self, public_key: bytes) -> None:
        self.public_key = public_key
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
        self.rx_bytes = self.tx_bytes = 0
        self.last_handshake = 0.0
        """In seconds since 1970."""
        self.attempts_since: float | None = None
        self.try_again = NEVER
        self.sent_initiation = self.taken_initiation = -NEVER
        self.unanswered_since: float | None = None
        """When the first data was sent that nothing came after."""
        self.owed_since: float | None = None
        """When the first data came that nothing was sent after; `owed_more`, whether it was not the last."""
        self.owed_more = False
        self.traversed = -NEVER
        """When the last authentic message passed in any direction."""
        self.keys_since: float | None = None
        self.last_minute = False
        """Whether a handshake was begun because what is received is by a keypair near its end."""
        self.check_at = NEVER
        """When the device looks at it next."""

    @property
    def keypairs(self) -> Sequence[Keypair]:
        return [keypair for keypair in (self.current, self.previous, self.next) if keypair is not None]

    def sent(self, now: float, *, data: bool) -> None:
        """Note that an authentic message was sent."""
        self.owed_since = None
        self.traversed = now
        if data and self.unanswered_since is None:
            self.unanswered_since = now

    def received(self, now: float, *, data: bool) -> None:
        """Note that an authentic message came."""
        self.unanswered_since = None
        self.traversed = now
        if data:
            if self.owed_since is None:
                self.owed_since = now
            else:
                self.owed_more = True

    def derived(self, now: float) -> None:
        """Note that there is a new keypair."""
        self.keys_since = now

    def completed(self, unix: float) -> None:
        """Note that a handshake is complete, at `unix` seconds since 1970."""
        self.attempts_since, self.try_again = None, NEVER
        self.last_minute = False
        self.last_handshake = unix

    def keepalive_due(self, timing: Timing) -> float:
        return NEVER if self.owed_since is None else self.owed_since + timing.keepalive

    def handshake_due(self, timing: Timing) -> float:
        """When silence is too long, that the peer is there has to be found out anew."""
        if self.unanswered_since is None:
            return NEVER
        return self.unanswered_since + timing.keepalive + timing.rekey_timeout

    def persistent_due(self) -> float:
        return self.traversed + self.persistent_keepalive if self.persistent_keepalive else NEVER

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
