"""Impairment: what a bad network is to do to packets, and reading it from text. Pure data; delays nothing itself.

The words and units are those of tc-netem(8); where the meaning differs, the setting says so and why.
"""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, Self

from threepipe.errors import InvalidSetting

__all__ = ["SETTINGS", "Direction", "Impairment", "Setting", "parse_impairment"]

Direction = Literal["left", "right"]
"""The end of a pipe that packets are on their way to."""


class Impairment(NamedTuple):
    """What happens to each packet by itself, in this order: loss, duplication, corruption, rate, delay.

    As it is made, nothing happens to any. `Scheduler` raises `InvalidSetting` for values that cannot be.
    """

    delay: float = 0.0
    """Seconds from the end of the line (see `rate`) to the other end."""
    jitter: float = 0.0
    """Seconds by which the delay is shorter or longer at most, all values as likely; it is never below 0.

    It does not reorder: a packet that would overtake waits for the one before it, as in the queues of real paths,
    and so takes longer the denser packets come. With netem it overtakes, and TCP takes that for loss: for
    many that was a surprise. Here overtaking is asked for, with `reorder`.
    """
    loss: float = 0.0
    """Probability that a packet is lost; it occupies no line then, and is not duplicated."""
    duplicate: float = 0.0
    """Probability that it comes twice. The copy occupies the line, and is corrupted and delayed, by itself."""
    reorder: float = 0.0
    """Probability that it skips the delay and so overtakes those that do not.

    It waits for its turn on the line all the same: with netem it skips that as well, and the rate is not kept.
    """
    corrupt: float = 0.0
    """Probability that one random bit behind the IP header is turned over; no checksum is put right for it."""
    rate: float = 0.0
    """Bits of IP packets a second, one behind the other: a packet has passed when its last bit has. 0: no limit."""
    burst: int = 0
    """Bytes that pass at once after the line was idle, as from the bucket of tc-tbf(8)."""
    limit: int | None = None
    """Packets that wait at most, those on their way and those for the line; what comes then is dropped.

    None: 1000 for the line, the queue of an ordinary interface, and on their way as many as memory is for
    (see `Scheduler`). netem has 1000 for both together, which drops what a long and fast line holds.
    """
    seed: int = 0
    """The same seed makes the same things happen to the same packets; each direction has its own."""
    towards: Direction | None = None
    """The one direction it is for, where a pipe's two are not to be the same."""

    def checked(self) -> Self:
        """Itself; raises `InvalidSetting` where it cannot work."""
        for name in ("delay", "jitter", "rate", "burst"):
            if not 0 <= getattr(self, name) < math.inf:
                raise InvalidSetting(f"{name} {getattr(self, name)}: give a number that is not negative")
        for name in ("loss", "duplicate", "reorder", "corrupt"):
            if not 0 <= getattr(self, name) <= 1:
                raise InvalidSetting(f"{name} {getattr(self, name)}: give a probability, from 0 to 1 (0% to 100%)")
        if 0 < self.rate < 1:
            raise InvalidSetting(f"rate {self.rate}: give at least 1 bit a second, or none for no limit")
        if self.burst and not self.rate:
            raise InvalidSetting(f"burst {self.burst} is what may pass above a rate: give rate=, too")
        if self.reorder and not self.delay:
            raise InvalidSetting(f"reorder {self.reorder} lets packets overtake delayed ones: give delay=, too")
        if self.limit is not None and self.limit < 1:
            raise InvalidSetting(f"limit {self.limit}: give at least 1 packet")
        return self


class Setting(NamedTuple):
    """How one is written: `value` is an example, `help` what it does, `read` raises ValueError."""

    name: str
    value: str
    help: str
    read: Callable[[str], Any]


_QUANTITY = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)([a-z%]*)", re.ASCII | re.IGNORECASE)


def _quantity(units: Mapping[str, float]) -> Callable[[str], float]:
    """Reads a number with one of `units`; where the empty one is among them, it may be left out."""
    names = ", ".join(unit for unit in units if unit)

    def read(text: str) -> float:
        if not (found := _QUANTITY.fullmatch(text)):
            raise ValueError("that is no number with a unit")
        number, unit = found.groups()
        if (factor := units.get(unit.lower())) is None:
            raise ValueError(f"the unit is one of {names}")
        if (value := float(number) * factor) == math.inf:
            raise ValueError("that is too much")
        return value

    return read


def _direction(text: str) -> str:
    if text not in ("left", "right"):
        raise ValueError("say left or right")
    return text


_time = _quantity({"us": 1e-6, "ms": 1e-3, "s": 1})
_probability = _quantity({"%": 0.01, "": 1})
# A unit is asked for: tc reads 10kbps as 10,000 bytes a second, which few who write it mean.
_rate = _quantity({"bit": 1, "kbit": 1e3, "mbit": 1e6, "gbit": 1e9})
_size = _quantity({"b": 1, "k": 1 << 10, "kb": 1 << 10, "m": 1 << 20, "mb": 1 << 20, "": 1})


def _bytes(text: str) -> int:
    return int(_size(text))


SETTINGS = {
    setting.name: setting
    for setting in (
        Setting("delay", "20ms", "how long a packet takes to the other end (us, ms, s)", _time),
        Setting("jitter", "5ms", "by how much that differs from packet to packet, without reordering", _time),
        Setting("loss", "1%", "the share of packets that is lost, in percent or as a fraction", _probability),
        Setting("duplicate", "0.1%", "the share that comes twice", _probability),
        Setting("reorder", "1%", "the share that skips the delay and overtakes others", _probability),
        Setting("corrupt", "0.1%", "the share that has one bit turned over behind the IP header", _probability),
        Setting("rate", "10mbit", "bits of IP packets a second (bit, kbit, mbit, gbit)", _rate),
        Setting("burst", "16k", "bytes that pass above the rate after a pause (b, k, m)", _bytes),
        Setting("limit", "5000", "packets that wait at most; by default 1000 for the rate, and any for the delay", int),
        Setting("seed", "7", "another number makes other choices, the same one the same", int),
        Setting("towards", "left|right", "the end that packets in the one direction meant go to", _direction),
    )
}  # fmt: skip
"""By name, what may be written; help is made from it."""


def parse_impairment(text: str) -> Impairment:
    """Read `NAME=VALUE[,NAME=VALUE]...`, such as `delay=20ms,loss=1%`. Raises `InvalidSetting`."""
    values: dict[str, Any] = {}
    for part in text.split(","):
        name, _, value = part.strip().partition("=")
        if (setting := SETTINGS.get(name)) is None:
            example = ",".join(f"{name}={SETTINGS[name].value}" for name in ("delay", "loss"))
            raise InvalidSetting(f"impairment {name!r}: there are {', '.join(SETTINGS)}; write them like {example}")
        if name in values:
            raise InvalidSetting(f"impairment {name} is given twice")
        try:
            values[name] = setting.read(value)
        except ValueError as error:
            raise InvalidSetting(f"impairment {name}={value}: {error}; write it like {name}={setting.value}") from None
    return Impairment(**values).checked()
