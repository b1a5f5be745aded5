"""The status of a running pipe: its counts, as a line of JSON that another program asks for."""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

__all__ = ["PipeStatus", "Traffic", "emit", "parse"]

_MAX = 1 << 64
_WRONG = "not the status of a pipe"


class Traffic(NamedTuple):
    """The totals of one direction: received at one end and sent at the other."""

    received_packets: int = 0
    received_bytes: int = 0
    sent_packets: int = 0
    sent_bytes: int = 0
    dropped: int = 0


class PipeStatus(NamedTuple):
    """The age of a pipe in seconds, and the totals of its traffic towards each end."""

    seconds: float
    right: Traffic
    left: Traffic

    def as_fields(self) -> dict[str, Any]:
        """Return the status as JSON has it, here and in the events of a pipe."""
        towards = {"towards_right": self.right._asdict(), "towards_left": self.left._asdict()}
        return {"seconds": round(self.seconds, 3), **towards}


def emit(status: PipeStatus) -> bytes:
    """Return the line for a status."""
    return json.dumps(status.as_fields()).encode() + b"\n"


def parse(line: bytes) -> PipeStatus:
    """Return the status in a line, from any program. Raises `ValueError`."""
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError):
        raise ValueError(_WRONG) from None
    if not isinstance(fields, Mapping):
        raise ValueError(_WRONG)
    seconds = fields.get("seconds")
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 <= seconds < _MAX:
        raise ValueError(_WRONG)
    return PipeStatus(float(seconds), _traffic(fields.get("towards_right")), _traffic(fields.get("towards_left")))


def _traffic(fields: object) -> Traffic:
    values = [fields.get(name) for name in Traffic._fields] if isinstance(fields, Mapping) else []
    numbers = [value for value in values if type(value) is int and 0 <= value < _MAX]
    if len(numbers) != len(Traffic._fields):
        raise ValueError(_WRONG)
    return Traffic(*numbers)
