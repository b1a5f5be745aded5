"""Frame: what a capture file has of one packet on a link; and what else a file tells. Pure data."""

from dataclasses import dataclass
from typing import NamedTuple

from threepipe.backend import UNKNOWN

__all__ = ["MOST", "Frame", "Told"]

MOST = 1 << 20
"""Bytes of the longest frame that is read; there is room in it for any IP packet, its headers and comments."""


class Frame(NamedTuple):
    time_ns: int
    link: int
    data: memoryview
    whole: bool
    """Whether it is all there: who captured may have kept the beginning only."""
    direction: int = UNKNOWN


@dataclass(slots=True)
class Told:
    """What a file says about itself, filled in while it is read."""

    dropped: int = 0
    """Packets that were not captured since there was no room, as the last statistics say."""
