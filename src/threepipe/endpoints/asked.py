"""Asked: what an opener is told about the address it is to open. Pure data."""

from typing import Literal, NamedTuple

from threepipe.endpoints.complaints import Complaints

__all__ = ["Asked", "Side"]

Side = Literal["left", "right"]


class Asked(NamedTuple):
    """`place` is what stands behind the kind's colon; the options are the opener's arguments."""

    place: str
    side: Side
    """Where it stands in a pipe: only files of packets differ by it."""
    complaints: Complaints
