"""The choice of offload without a native core: the kernel splits superpackets while a program looks at packets.

Splitting takes Python longer than the kernel takes to split them and to hand over one packet at a time. An adapter
whose packets are only passed on is several times faster with superpackets.
"""

import sys

assert sys.platform == "linux"

import threading
from collections.abc import Callable
from contextlib import suppress

from threepipe.errors import AdapterError

__all__ = ["Splitting"]

_ENOUGH = 16  # Bundles in a row: a program that looks at one now and then passes most of them on.


class Splitting:
    """Follows what becomes of a session's bundles, and switches superpackets off and on. Thread-safe."""

    def __init__(self, switch: Callable[[bool], None]) -> None:
        """`switch` allows superpackets from the kernel, or not. It may raise `AdapterError`."""
        self._switch = switch
        self._lock = threading.Lock()
        self._looks = self._whole = 0
        self._by_kernel = False

    def handed_out(self) -> None:
        """Note that the program received a bundle, which is whole until `looked`."""
        self._whole += 1
        if self._whole > _ENOUGH:
            self.begin()

    def looked(self) -> None:
        """Note that the program looked at the packets of a bundle."""
        self._whole = 0
        self._looks += 1
        if self._looks >= _ENOUGH:
            self._choose(by_kernel=True)

    def begin(self) -> None:
        """Have superpackets, until the program looks at packets again."""
        self._looks = self._whole = 0
        self._choose(by_kernel=False)

    def _choose(self, *, by_kernel: bool) -> None:
        if by_kernel is not self._by_kernel:
            with self._lock, suppress(AdapterError):  # An adapter that is gone says so to the next call.
                self._by_kernel = by_kernel
                self._switch(not by_kernel)
