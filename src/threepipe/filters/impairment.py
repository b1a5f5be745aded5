"""The settings of a bad network, and parsing them from text. Pure data.

Names and units are those of tc-netem(8). Where the meaning differs, the setting says how and why.
"""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, Self

from threepipe.errors import InvalidSetting
from threepipe.settings import unknown_name

__all__ = ["SETTINGS", "Impairment", "Setting", "Towards", "parse_impairment"]

Towards = Literal["left", "right"]
"""The end of a pipe that packets go to."""


class Impairment(NamedTuple):
    """The changes made to each packet, in this order: loss, duplication, corruption, rate, delay.

    By default packets pass unchanged. `Scheduler` raises `InvalidSetting` for invalid values.
    """

    delay: float = 0.0
    """Seconds that a packet takes after it has left the line (see `rate`)."""
    jitter: float = 0.0
    """Seconds by which the delay varies at most, up and down, uniformly; the delay is never below 0.

    It does not reorder. A packet that would overtake waits for the one before it, as in the queues of real paths, so
    the mean delay grows with the packet rate. With netem such packets overtake, which TCP takes for loss and which
    surprised many users. Here `reorder` asks for overtaking.
    """
    loss: float = 0.0
    """Probability that a packet is lost. A lost packet takes no time on the line, and is not duplicated."""
    duplicate: float = 0.0
    """Probability that a packet comes twice. The copy takes its own time on the line, corruption and delay."""
    reorder: float = 0.0
    """Probability that a packet skips the delay and so overtakes others.

    It still waits for the line. With netem it skips that too, which exceeds the rate.
    """
    corrupt: float = 0.0
    """Probability that one random bit behind the IP header is flipped. Checksums are not updated."""
    rate: float = 0.0
    """Bits of IP packets per second on the line, which carries one packet at a time. 0: no limit."""
    burst: int = 0
    """Bytes that pass at once after the line was idle, as with the bucket of tc-tbf(8)."""
    limit: int | None = None
    """Packets that wait at most, for the line or in the delay; further packets are dropped.

    None: 1000 for the line, which is an ordinary interface's queue, and in the delay as many as fit in memory (see
    `Scheduler`). netem's limit is 1000 for both together, which is too few for a long and fast line.
    """
    seed: int = 0
    """The same seed makes the same choices for the same packets. The choices of the two directions differ."""
    towards: Towards | None = None
    """The end that impaired packets go to; None for both directions."""

    def checked(self) -> Self:
        """Return the impairment itself. Raises `InvalidSetting` if its values are invalid."""
        for name in ("delay", "jitter", "rate", "burst"):
            if not 0 <= getattr(self, name) < math.inf:
                raise InvalidSetting(f"{name} {getattr(self, name)}: give a finite number, at least 0")
        for name in ("loss", "duplicate", "reorder", "corrupt"):
            if not 0 <= getattr(self, name) <= 1:
                raise InvalidSetting(f"{name} {getattr(self, name)}: give a probability, from 0 to 1 (0% to 100%)")
        if 0 < self.rate < 1:
            raise InvalidSetting(f"rate {self.rate}: give at least 1 bit per second, or 0 for no limit")
        if self.burst and not self.rate:
            raise InvalidSetting(f"burst {self.burst} has no effect without a rate; add rate=")
        if self.reorder and not self.delay:
            raise InvalidSetting(f"reorder {self.reorder} has no effect without a delay; add delay=")
        if self.limit is not None and self.limit < 1:
            raise InvalidSetting(f"limit {self.limit}: give at least 1 packet")
        return self


class Setting(NamedTuple):
    """A setting in text form."""

    name: str
    example: str
    help: str
    parse: Callable[[str], Any]
    """Returns the value. Raises ValueError."""


_QUANTITY = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)([a-z%]*)", re.ASCII | re.IGNORECASE)


def _quantity(units: Mapping[str, float]) -> Callable[[str], float]:
    """Return a parser of a number with one of `units`. The unit is optional if `units` has the empty one."""
    names = ", ".join(unit for unit in units if unit)

    def parse(text: str) -> float:
        if not (found := _QUANTITY.fullmatch(text)):
            raise ValueError("not a number with a unit")
        number, unit = found.groups()
        if (factor := units.get(unit.lower())) is None:
            raise ValueError(f"unknown unit; expected one of {names}")
        if (value := float(number) * factor) == math.inf:
            raise ValueError("the number is too large")
        return value

    return parse


def _direction(text: str) -> str:
    if text not in ("left", "right"):
        raise ValueError("expected left or right")
    return text


_time = _quantity({"us": 1e-6, "ms": 1e-3, "s": 1})
_probability = _quantity({"%": 0.01, "": 1})
# The unit is required. kbps is not one, as tc reads 10kbps as 10,000 bytes per second, which few users mean.
_rate = _quantity({"bit": 1, "kbit": 1e3, "mbit": 1e6, "gbit": 1e9})
_size = _quantity({"b": 1, "k": 1 << 10, "kb": 1 << 10, "m": 1 << 20, "mb": 1 << 20, "": 1})


def _bytes(text: str) -> int:
    return int(_size(text))


SETTINGS = {
    setting.name: setting
    for setting in (
        Setting("delay", "20ms", "the time a packet takes to the other end (us, ms, s)", _time),
        Setting("jitter", "5ms", "the variation of the delay, without reordering", _time),
        Setting("loss", "1%", "the share of lost packets, in percent or as a fraction", _probability),
        Setting("duplicate", "0.1%", "the share of duplicated packets", _probability),
        Setting("reorder", "1%", "the share of packets that skip the delay and overtake others", _probability),
        Setting("corrupt", "0.1%", "the share of packets with one bit flipped behind the IP header", _probability),
        Setting("rate", "10mbit", "bits of IP packets per second (bit, kbit, mbit, gbit)", _rate),
        Setting("burst", "16k", "bytes that pass above the rate after a pause (b, k, m)", _bytes),
        Setting("limit", "5000", "the most packets that wait; by default 1000 for the rate, any for the delay", int),
        Setting("seed", "7", "the start of the random choices; the same number repeats them", int),
        Setting("towards", "left|right", "the end that impaired packets go to; by default both", _direction),
    )
}  # fmt: skip
"""The settings by name; the command's help is made from them."""


def parse_impairment(text: str) -> Impairment:
    """Parse `NAME=VALUE[,NAME=VALUE]...`, such as `delay=20ms,loss=1%`. Raises `InvalidSetting`."""
    values: dict[str, Any] = {}
    for part in text.split(","):
        name, _, value = part.strip().partition("=")
        if (setting := SETTINGS.get(name)) is None:
            raise unknown_name("impairment", name, SETTINGS)
        if name in values:
            raise InvalidSetting(f"impairment {name} is given twice; give it once")
        try:
            values[name] = setting.parse(value)
        except ValueError as error:
            raise InvalidSetting(
                f"impairment {name}={value}: {error}; write it like {name}={setting.example}"
            ) from None
    return Impairment(**values).checked()
