"""Keys of WireGuard have no place among the arguments of a program, which other users can see."""

from collections.abc import Iterable
from itertools import pairwise

from threepipe.errors import InvalidSetting
from threepipe.wireguard.fields import hide_whole_keys

__all__ = ["refuse_keys"]


def refuse_keys(arguments: Iterable[str]) -> None:
    """Raise `InvalidSetting` if an argument is a key, before an error about wrong usage shows it.

    The key after `peer` is a public one.
    """
    words = list(arguments)
    for before, argument in pairwise(["", *words]):
        if not argument or before == "peer" or hide_whole_keys(argument).replace("(hidden)", ""):
            continue
        raise InvalidSetting(
            "keys are never arguments, which other users can see; give them by files or standard input"
        )
