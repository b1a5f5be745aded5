"""The running pipes and userspace WireGuard devices of this user, with their counts and rates.

Pipes are found by their sockets in the runtime folder, and devices by those of the configuration protocol.
"""

import errno
import time
from collections.abc import Iterable
from typing import Any, NamedTuple

from threepipe.cli.output import complain
from threepipe.errors import EndpointError

__all__ = ["Program", "Rates", "look", "rates"]


class Program(NamedTuple):
    """A running pipe or device, and its totals at a time."""

    kind: str
    """`pipe` or `wireguard`."""
    name: str
    """`pipe:PID`, or the name of the device."""
    ends: tuple[str, str]
    """A pipe's addresses; a device's name and its number of peers."""
    clock: float
    """The time of the totals, in seconds; for a pipe since its start."""
    sent: int
    """Bytes of packets from the left to the right end, or from the device to its peers."""
    received: int
    fields: dict[str, Any]
    """Everything that is known, as for JSON."""


class Rates(NamedTuple):
    """Bits per second, from the left to the right end (from a device to its peers) and back."""

    sent: float
    received: float


def look(said: set[str]) -> list[Program]:
    """Return the running pipes and devices, and ignore the sockets of killed processes.

    Complain about devices that refuse to answer, unless `said` has the text; add it there.
    """
    return [*_pipes(), *_devices(said)]


def rates(before: Iterable[Program], now: Program) -> Rates | None:
    """Return the rates since `before`; None if the program did not run then."""
    for earlier in before:
        if earlier[:3] == now[:3] and (passed := now.clock - earlier.clock) > 0:
            return Rates(
                max(now.sent - earlier.sent, 0) * 8 / passed, max(now.received - earlier.received, 0) * 8 / passed
            )
    return None


def _pipes() -> Iterable[Program]:
    from threepipe.capture.client import running_pipes, status_of_pipe

    for pipe in running_pipes():
        if (status := status_of_pipe(pipe)) is not None:
            fields = {"pid": pipe.pid, "left": pipe.left, "right": pipe.right, **status.as_fields()}
            sent, received = status.right.sent_bytes, status.left.sent_bytes
            yield Program("pipe", pipe.name, (pipe.left, pipe.right), status.seconds, sent, received, fields)


def _devices(said: set[str]) -> Iterable[Program]:
    from threepipe.wireguard.uapi_socket import names, status_of

    try:
        found = names()
    except EndpointError as error:  # Only root may read the folder.
        _say_once(str(error.strerror), said)
        return
    for name in found:
        try:
            status = status_of(name)
        except EndpointError as error:
            if error.errno not in (errno.ECONNREFUSED, errno.ENOENT):  # A killed device gives these.
                _say_once(str(error.strerror), said)
            continue
        sent = sum(peer.tx_bytes for peer in status.peers)
        received = sum(peer.rx_bytes for peer in status.peers)
        count = len(status.peers)
        fields = {
            "peers": count,
            "latest_handshake": max([peer.last_handshake for peer in status.peers], default=0) or None,
            "sent_bytes": sent,
            "received_bytes": received,
        }
        ends = (name, f"{count} peer{'' if count == 1 else 's'}")
        yield Program("wireguard", name, ends, time.monotonic(), sent, received, fields)


def _say_once(text: str, said: set[str]) -> None:
    if text not in said:
        said.add(text)
        complain(text)
