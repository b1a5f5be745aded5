"""Finding: one thing that `threepipe doctor` found out about this machine. Pure data."""

from dataclasses import dataclass

__all__ = ["Finding"]


@dataclass(frozen=True, slots=True)
class Finding:
    """`name`: what was looked at; `ok`: whether it is there; `detail`: what was seen, in a sentence."""

    name: str
    ok: bool
    detail: str
    advice: str = ""
    """What to do about a lack, or to get more than there is."""
    essential: bool = False
    """Whether adapters cannot be made without it."""
